/* SPDX-License-Identifier: MIT */
/*
 * A file region's contents in memory, for as long as a device may reach them: kernels refuse to pin
 * the pages of a file that can be written.
 *
 * While staged, all access goes to the memory, which is the truth; flushing writes back the blocks
 * of 4 KiB that changed.  Nobody sees a device's writes.  The session that let the device write
 * says which ranges changed (weft_region_changed()), or that it does not know them: then every
 * block is compared with the file's.
 *
 * Threads: any.  Invariants: `state` and `map` change only under `access` for writing; a block
 * whose bit is set differs from the file, or may; a bit is cleared before its block is written, so
 * that a change meanwhile sets it again.
 */
#include "fabric/region/region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/machine/available.h"
#include "fabric/region/region-private.h"
#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"

enum {
	BLOCK = 4096,
	WORD_BLOCKS = 64,
	WORD_BYTES = BLOCK * WORD_BLOCKS,
	WAIT_NS = 250 * 1000 * 1000
};

int region_stage_init(struct weft_region *region)
{
	struct region_stage *stage = calloc(1, sizeof(*stage));
	pthread_rwlockattr_t rwattr;

	if (!stage)
		return -ENOMEM;
	/* Readers that never pause must not keep out the thread that moves the contents. */
	pthread_rwlockattr_init(&rwattr);
	pthread_rwlockattr_setkind_np(&rwattr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&stage->access, &rwattr);
	pthread_rwlockattr_destroy(&rwattr);
	pthread_mutex_init(&stage->lock, NULL);
	weft_cond_init(&stage->moved);
	region->stage = stage;
	return 0;
}

static void drop_memory(uint8_t *map, uint64_t bytes, _Atomic uint64_t *changed)
{
	if (map)
		munmap(map, bytes);
	free((void *)changed);
}

void region_stage_fini(struct weft_region *region)
{
	struct region_stage *stage = region->stage;

	if (!stage)
		return;
	drop_memory(stage->map, region->size_bytes, stage->changed);
	free(stage->sent);
	free(stage->late);
	pthread_cond_destroy(&stage->moved);
	pthread_mutex_destroy(&stage->lock);
	pthread_rwlock_destroy(&stage->access);
	free(stage);
	region->stage = NULL;
}

uint8_t *region_enter(struct weft_region *region)
{
	pthread_rwlock_rdlock(&region->stage->access);
	return region->stage->state == STAGE_LOADED ? region->stage->map : NULL;
}

void region_leave(struct weft_region *region)
{
	pthread_rwlock_unlock(&region->stage->access);
}

void region_note_change(struct weft_region *region, uint64_t off, uint64_t len)
{
	struct region_stage *stage = region->stage;

	if (stage->state == STAGE_NONE || len == 0)
		return;
	uint64_t unit = weft_max(BLOCK, region->store_block_bytes);
	uint64_t first = off / unit * (unit / BLOCK),
		 last = weft_min((off + len - 1) / unit * unit + unit, region->size_bytes) - 1;

	last /= BLOCK;

	while (first <= last) {
		uint64_t word = first / WORD_BLOCKS,
			 end = weft_min(last, word * WORD_BLOCKS + WORD_BLOCKS - 1);
		uint64_t bits = UINT64_MAX << first % WORD_BLOCKS &
			UINT64_MAX >> (WORD_BLOCKS - 1 - end % WORD_BLOCKS);

		atomic_fetch_or(&stage->changed[word], bits);
		first = end + 1;
	}
}

static uint64_t nr_words(const struct weft_region *region)
{
	return (region->size_bytes + WORD_BYTES - 1) / WORD_BYTES;
}

/*
 * Clears the bits of changed blocks and calls fn for each run of them; where fn fails the bits are
 * set again.
 */
static int take_changes(struct weft_region *region,
	int (*fn)(struct weft_region *region, uint64_t off, uint64_t len))
{
	struct region_stage *stage = region->stage;

	for (uint64_t word = 0; word < nr_words(region); word++) {
		if (atomic_load_explicit(&stage->changed[word], memory_order_relaxed) == 0)
			continue;
		uint64_t bits = atomic_exchange(&stage->changed[word], 0);

		while (bits) {
			unsigned first = (unsigned)__builtin_ctzll(bits);
			uint64_t rest = ~(bits >> first);
			unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : WORD_BLOCKS;
			uint64_t run = (n < WORD_BLOCKS ? (UINT64_C(1) << n) - 1 : UINT64_MAX)
				<< first;
			uint64_t off = word * WORD_BYTES + first * (uint64_t)BLOCK;
			int r = fn(region, off,
				weft_min(n * (uint64_t)BLOCK, region->size_bytes - off));

			if (r < 0) {
				atomic_fetch_or(&stage->changed[word], bits);
				return r;
			}
			bits &= ~run;
		}
	}
	return 0;
}

/* A run of blocks, all of one word. */
static void note_sent(struct region_stage *stage, uint64_t off, uint64_t len, bool unanswered)
{
	uint64_t first = off / BLOCK % WORD_BLOCKS, last = (off + len - 1) / BLOCK % WORD_BLOCKS;
	uint64_t bits = UINT64_MAX << first & UINT64_MAX >> (WORD_BLOCKS - 1 - last);

	stage->sent[off / WORD_BYTES] |= bits;
	stage->any_sent = true;
	if (unanswered)
		stage->late[off / WORD_BYTES] |= bits;
	stage->any_late |= unanswered;
}

static int block_out(struct weft_region *region, uint64_t off, uint64_t len)
{
	int r = region_file_check(region);

	if (r < 0)
		return r;
	r = region_file_pwrite(region, region->stage->map + off, off, len);
	if (region->store_ops)
		note_sent(region->stage, off, len, r == -ETIMEDOUT || r == -ENOTCONN);
	return r;
}

/*
 * A flush that failed may have dropped what was sent, although the store answers with it still and
 * calls its next flush good: comparing would not find it.  A write that was not answered may be
 * carried out after any flush: each one undoes that.
 */
static void send_again(struct weft_region *region)
{
	struct region_stage *stage = region->stage;

	if (!stage->any_sent)
		return;
	for (uint64_t word = 0; word < nr_words(region); word++)
		if (stage->sent[word])
			atomic_fetch_or(&stage->changed[word], stage->sent[word]);
}

static int block_in(struct weft_region *region, uint64_t off, uint64_t len)
{
	return region_file_pread(region, region->stage->map + off, off, len);
}

/* Sets the bits of the blocks that are not what the file holds. */
static int compare(struct weft_region *region)
{
	struct region_stage *stage = region->stage;
	uint8_t *buf = malloc(WORD_BYTES);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t off = 0; off < region->size_bytes && r == 0; off += WORD_BYTES) {
		uint64_t len = weft_min(WORD_BYTES, region->size_bytes - off);

		r = region_file_pread(region, buf, off, len);
		for (uint64_t i = 0; i < len && r == 0; i += BLOCK) {
			uint64_t n = weft_min(BLOCK, len - i);

			if (memcmp(buf + i, stage->map + off + i, n) != 0)
				region_note_change(region, off + i, n);
		}
	}
	free(buf);
	return r;
}

static void forget_sent(struct weft_region *region)
{
	struct region_stage *stage = region->stage;

	if (stage->any_sent)
		memcpy(stage->sent, stage->late, nr_words(region) * sizeof(*stage->sent));
	stage->any_sent = stage->any_late;
}

int region_write_back(struct weft_region *region)
{
	struct region_stage *stage = region->stage;
	int r = 0;

	if (stage->state != STAGE_LOADED || region->read_only)
		return 0;
	send_again(region);
	if (atomic_exchange(&stage->changed_somewhere, false)) {
		r = compare(region);
		if (r < 0)
			atomic_store(&stage->changed_somewhere, true);
	}
	return r < 0 ? r : take_changes(region, block_out);
}

int region_flush_file(struct weft_region *region)
{
	int r;

	/*
	 * Under the lock: a flush that finds nothing dirty must not overtake the one that is
	 * writing.
	 */
	pthread_mutex_lock(&region->flush_lock);
	r = atomic_load(&region->lost);
	if (r == 0)
		r = region_write_back(region);
	if (r == 0)
		r = region_make_durable(region);
	if (r == 0)
		forget_sent(region);
	pthread_mutex_unlock(&region->flush_lock);
	return r;
}

int weft_region_flush(struct weft_region *region)
{
	if (region->backing == WEFT_BACKING_MEMORY)
		return 0;
	region_enter(region);
	int r = region_flush_file(region);
	region_leave(region);
	return r;
}

void weft_region_changed(struct weft_region *region, uint64_t off, uint64_t len)
{
	if (region->backing == WEFT_BACKING_FILE)
		region_note_change(region, off, len);
}

void weft_region_changed_somewhere(struct weft_region *region)
{
	if (region->backing == WEFT_BACKING_FILE)
		atomic_store(&region->stage->changed_somewhere, true);
}

uint8_t *weft_region_memory(struct weft_region *region)
{
	return region->backing == WEFT_BACKING_MEMORY ? region->map : region->stage->map;
}

/* Moving in. */

struct load {
	struct weft_region *region;
	uint8_t *map;
	weft_stage_fn *wait;
	void *ctx;
	_Atomic int cancelled; /* 0, or what wait() said */
};

static int load_slice(void *ctx, uint64_t off, uint64_t len)
{
	struct load *load = ctx;
	int r = atomic_load(&load->cancelled);

	return r < 0 ? r : region_file_pread(load->region, load->map + off, off, len);
}

static void load_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct load *load = ctx;

	if (load->wait && atomic_load(&load->cancelled) == 0)
		atomic_store(&load->cancelled, load->wait(load->ctx, done, total));
}

static int check_memory(const struct weft_region *region, struct weft_error *err)
{
	struct weft_available available;
	char want[32], have[32];
	int r = weft_available("", 0, -1, &available);

	if (r < 0)
		return weft_error_set(err, -r,
			"region '%s': cannot tell how much memory is available: %s", region->name,
			strerror(-r));
	if (available.bytes >= region->size_bytes)
		return 0;
	return weft_error_set(err, ENOMEM,
		"region '%s': %s is lent%s from memory, but of %s only %s can be had (%s)%s",
		region->name, region->store_ops ? "a backend" : "a file",
		region->store_ops ? "" : " over RDMA",
		weft_format_size(region->size_bytes, want, sizeof(want)),
		weft_format_size(available.bytes, have, sizeof(have)), available.limit,
		region->store_ops ? "" : "; use TCP (`--transport tcp`)");
}

/* This call has set `moving`. */
static int move_in(struct weft_region *region, weft_stage_fn *wait, void *ctx,
	struct weft_error *err)
{
	struct region_stage *stage = region->stage;
	struct load load = {.region = region, .wait = wait, .ctx = ctx};
	_Atomic uint64_t *changed = NULL;
	int r = check_memory(region, err);

	if (r < 0)
		return r;
	int fd = region_memfd("weft-file", region->size_bytes, 0);
	r = fd < 0 ? fd : region_map(fd, region->size_bytes, &load.map);
	weft_close_fd(fd);
	if (r == 0) {
		changed = calloc(nr_words(region), sizeof(*changed));
		r = changed ? 0 : -ENOMEM;
	}
	/* It is staged once. */
	if (r == 0 && region->store_ops) {
		stage->sent = calloc(nr_words(region), sizeof(*stage->sent));
		stage->late = calloc(nr_words(region), sizeof(*stage->late));
		r = stage->sent && stage->late ? 0 : -ENOMEM;
	}
	if (r < 0)
		goto fail;
	pthread_rwlock_wrlock(&stage->access);
	stage->map = load.map;
	stage->changed = changed;
	atomic_store(&stage->changed_somewhere, false);
	stage->state = STAGE_LOADING; /* from now on changes of the file are noted */
	pthread_rwlock_unlock(&stage->access);
	load_progress(&load, 0, region->size_bytes); /* the waiting session may have gone already */
	r = region_parallel(region->size_bytes, load_slice, &load, load_progress, &load);
	pthread_rwlock_wrlock(&stage->access);
	if (r == 0)
		r = take_changes(region, block_in);
	stage->state = r == 0 ? STAGE_LOADED : STAGE_NONE;
	if (r < 0) {
		stage->map = NULL;
		stage->changed = NULL;
	}
	pthread_rwlock_unlock(&stage->access);
	if (r == 0)
		return 0;
fail:
	drop_memory(load.map, region->size_bytes, changed);
	return weft_error_set(err, -r, "region '%s': cannot load its %s: %s", region->name,
		region->store_ops ? "backend into memory" : "file into memory for RDMA",
		strerror(-r));
}

/* Waits until nobody moves the contents.  stage->lock is held.  0, or what wait() said. */
static int wait_until_still(struct weft_region *region, weft_stage_fn *wait, void *ctx)
{
	struct region_stage *stage = region->stage;
	int r = 0;

	while (stage->moving && r == 0) {
		if (weft_cond_wait_until(&stage->moved, &stage->lock, weft_now_ns() + WAIT_NS) ||
			!wait)
			continue;
		pthread_mutex_unlock(&stage->lock);
		r = wait(ctx, 0, region->size_bytes);
		pthread_mutex_lock(&stage->lock);
	}
	return r;
}

static void end_move(struct region_stage *stage)
{
	stage->moving = false;
	pthread_cond_broadcast(&stage->moved);
}

int weft_region_stage(struct weft_region *region, bool writable, weft_stage_fn *wait, void *ctx,
	struct weft_error *err)
{
	struct region_stage *stage = region->stage;

	if (region->backing == WEFT_BACKING_MEMORY)
		return 0;
	/* Sets the mark to "open", which a device's writes would not do. */
	int r = writable ? region_file_check_write(region) : region_file_check(region);
	if (r < 0)
		return weft_error_set(err, -r, "region '%s': its file is lost, shorter, or removed",
			region->name);
	pthread_mutex_lock(&stage->lock);
	r = wait_until_still(region, wait, ctx);
	if (r < 0) {
		weft_error_set(err, -r, "region '%s': %s", region->name, strerror(-r));
	} else if (stage->state != STAGE_LOADED) {
		stage->moving = true;
		pthread_mutex_unlock(&stage->lock);
		weft_debug("region '%s': loading its file into memory", region->name);
		r = move_in(region, wait, ctx, err);
		pthread_mutex_lock(&stage->lock);
		end_move(stage);
	}
	if (r == 0)
		stage->nr_users++;
	pthread_mutex_unlock(&stage->lock);
	return r;
}

int weft_region_unstage(struct weft_region *region)
{
	struct region_stage *stage = region->stage;
	_Atomic uint64_t *changed = NULL;
	uint8_t *map = NULL;

	if (region->backing == WEFT_BACKING_MEMORY)
		return 0;
	pthread_mutex_lock(&stage->lock);
	stage->nr_users--;
	wait_until_still(region, NULL, NULL);
	if (stage->nr_users > 0 || stage->state != STAGE_LOADED) {
		pthread_mutex_unlock(&stage->lock);
		return 0;
	}
	stage->moving = true;
	pthread_mutex_unlock(&stage->lock);
	weft_debug("region '%s': writing back what memory has of its file", region->name);
	/* Writes most of it back while others go on. */
	int r = weft_region_flush(region);
	if (r == 0) {
		pthread_rwlock_wrlock(&stage->access);
		r = region_flush_file(region);
		if (r == 0) {
			map = stage->map;
			changed = stage->changed;
			stage->map = NULL;
			stage->changed = NULL;
			stage->state = STAGE_NONE;
		}
		pthread_rwlock_unlock(&stage->access);
	}
	pthread_mutex_lock(&stage->lock);
	end_move(stage);
	pthread_mutex_unlock(&stage->lock);
	drop_memory(map, region->size_bytes, changed);
	return r;
}
