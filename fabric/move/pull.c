/* SPDX-License-Identifier: MIT */
#include "fabric/move/pull-private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum {
	BITS = 64,
	FLUSH_BYTES = 64 << 20,
};

static bool has(const uint64_t *bits, uint64_t i)
{
	return bits[i / BITS] >> i % BITS & 1;
}

static void set(uint64_t *bits, uint64_t i)
{
	bits[i / BITS] |= UINT64_C(1) << i % BITS;
}

static void clear(uint64_t *bits, uint64_t i)
{
	bits[i / BITS] &= ~(UINT64_C(1) << i % BITS);
}

/* Pages of buffers that are never used cost nothing. */
static int make_buffers(struct pull *pull)
{
	if (!pull_is_file(pull))
		return 0;
	pull->buffers = aligned_alloc(4096, PULL_DEPTH * PULL_BUF_BYTES);
	pull->scratch = malloc(WEFT_HASH_BLOCK_MAX);
	for (unsigned i = 0; pull->buffers && i < PULL_DEPTH; i++)
		pull->slots[i].buf = pull->buffers + (size_t)i * PULL_BUF_BYTES;
	return pull->buffers && pull->scratch ? 0 : -ENOMEM;
}

int pull_init(struct pull *pull, struct weft_region *region, int cancel_fd, struct weft_error *err)
{
	*pull = (struct pull){.region = region, .cancel_fd = cancel_fd};
	pull->nr_chunks = weft_region_nr_chunks(region);
	pull->nr_words = (pull->nr_chunks + BITS - 1) / BITS;
	pull->dirty = calloc(pull->nr_words, sizeof(*pull->dirty));
	pull->bad = calloc(pull->nr_words, sizeof(*pull->bad));
	pull->strikes = calloc(pull->nr_chunks, 1);
	uint8_t *hashes = aligned_alloc(4096, weft_whole_pages(PULL_DEPTH * PULL_HASHES_BYTES));
	pull->slots[0].hashes = hashes;
	if (!pull->dirty || !pull->bad || !pull->strikes || !hashes || make_buffers(pull) < 0)
		return weft_error_set(err, ENOMEM, "no memory");
	for (unsigned i = 0; i < PULL_DEPTH; i++)
		pull->slots[i].hashes = hashes + i * PULL_HASHES_BYTES;
	for (uint64_t i = 0; i < pull->nr_chunks; i++)
		set(pull->dirty, i);
	pull->hashing.block_bytes = WEFT_CHUNK_BYTES;
	weft_random(pull->hashing.key, sizeof(pull->hashing.key));
	return weft_hasher_set(&pull->hasher, pull->hashing.key);
}

void pull_fini(struct pull *pull)
{
	pull_disconnect(pull);
	free(pull->dirty);
	free(pull->bad);
	free(pull->strikes);
	free(pull->slots[0].hashes);
	free(pull->buffers);
	free(pull->scratch);
	explicit_bzero(&pull->hasher, sizeof(pull->hasher));
}

uint64_t pull_nr_dirty(const struct pull *pull)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pull->nr_words; i++)
		n += (uint64_t)__builtin_popcountll(pull->dirty[i]);
	return n;
}

uint64_t pull_dirty_bytes(const struct pull *pull)
{
	return weft_min(pull_nr_dirty(pull) * WEFT_CHUNK_BYTES, pull->region->size_bytes);
}

/* ---- a round ---- */

struct round {
	struct pull *pull;
	bool only_compares;
	uint64_t *todo; /* dirty, or all that are left to compare */
	uint64_t at, reading_bytes; /* what is in flight of READs alone */
	uint64_t nr_done;           /* operations that have come back */
	unsigned nr_busy;
	int error; /* of the file */
	/* The next to leave, and when that may be; nr 0: not known yet. */
	uint64_t next_first, next_ns;
	unsigned next_nr;
};

static uint64_t len_of(const struct pull *pull, uint64_t first, unsigned nr)
{
	uint64_t off = first * WEFT_CHUNK_BYTES;

	return weft_min((uint64_t)nr * WEFT_CHUNK_BYTES, pull->region->size_bytes - off);
}

/*
 * Chunks of one READ.  The giver hears from each of several that share a slow line while it waits
 * for its turn.
 */
static unsigned most_chunks(const struct round *round)
{
	const uint64_t bandwidth = round->pull->bandwidth;

	if (round->only_compares || bandwidth == 0)
		return PULL_CHUNKS;
	return (unsigned)weft_max(weft_min(bandwidth / 8 / WEFT_CHUNK_BYTES, PULL_CHUNKS), 1);
}

/* The next run of chunks to do, which is in `next`; false: there are none. */
static bool next_run(struct round *round)
{
	const struct pull *pull = round->pull;
	const unsigned most = most_chunks(round);
	uint64_t i = round->at;
	unsigned nr = 0;

	if (round->next_nr > 0)
		return true;

	while (i < pull->nr_chunks && !has(round->todo, i))
		i += round->todo[i / BITS] >> i % BITS == 0 ? BITS - i % BITS : 1;
	if (i >= pull->nr_chunks)
		return false;
	round->next_first = i;
	for (; nr < most && i < pull->nr_chunks && has(round->todo, i); nr++, i++)
		clear(round->todo, i);
	round->next_nr = nr;
	round->at = i;
	round->next_ns = round->only_compares
		? 0
		: pace_turn_ns(pull->pace, pull->bandwidth, nr * WEFT_CHUNK_BYTES);
	return true;
}

/* Nothing of it is in flight: it is the next again. */
static void take_out(struct round *round, struct pull_slot *slot)
{
	if (!round->only_compares)
		round->reading_bytes -= slot->read.len;
	round->next_nr = slot->nr;
	round->nr_busy--;
	slot->nr_pending = 0;
}

/* 0; -EAGAIN: later; or -errno of the connection. */
static int post(struct round *round, struct pull_slot *slot)
{
	struct pull *pull = round->pull;
	const uint64_t first = round->next_first;
	const unsigned nr = round->next_nr;
	const uint64_t off = first * WEFT_CHUNK_BYTES, len = len_of(pull, first, nr);
	struct tp_op *ops[2], *hash = &slot->hash;
	unsigned n = 0, posted = 0;

	slot->read = (struct tp_op){.kind = TP_READ,
		.off = off,
		.len = len,
		.buf = pull_is_file(pull) ? slot->buf : pull->region->map + off,
		.mem = pull->mem,
		.user = slot};
	*hash = (struct tp_op){.kind = TP_HASH,
		.off = off,
		.len = len,
		.buf = slot->hashes,
		.mem = pull->hash_mem,
		.hashing = &pull->hashing,
		.user = slot};
	slot->first = first;
	slot->nr = nr;
	slot->status = 0;
	round->next_nr = 0;
	if (!round->only_compares) {
		ops[n++] = &slot->read;
		round->reading_bytes += len;
	}
	ops[n++] = hash;
	slot->nr_pending = n;
	round->nr_busy++;
	while (posted < n) {
		int r = tp_post(pull->conn, ops + posted, n - posted);

		if (r == -EAGAIN && posted == 0) {
			take_out(round, slot);
			return -EAGAIN;
		}
		if (r < 0) {
			/* A HASH takes no room that its READ has not had. */
			slot->status = r == -EAGAIN ? -EIO : r;
			slot->nr_pending -= n - posted;
			break;
		}
		posted += (unsigned)r;
	}
	return slot->status;
}

static void finish_slot(struct round *round, struct pull_slot *slot)
{
	struct pull *pull = round->pull;
	uint8_t hashes[PULL_HASHES_BYTES];
	const uint64_t off = slot->first * WEFT_CHUNK_BYTES,
		       len = len_of(pull, slot->first, slot->nr);

	round->nr_busy--;
	if (slot->status < 0) {
		for (unsigned i = 0; i < slot->nr; i++)
			set(pull->dirty, slot->first + i);
		return;
	}
	int r = weft_region_hash(pull->region, &pull->hasher, WEFT_CHUNK_BYTES, off, len,
		pull->scratch, hashes);
	if (r < 0)
		round->error = r;
	for (unsigned i = 0; i < slot->nr; i++)
		if (memcmp(hashes + i * WEFT_HASH_BYTES, slot->hashes + i * WEFT_HASH_BYTES,
			    WEFT_HASH_BYTES) != 0)
			set(round->only_compares ? pull->dirty : pull->bad, slot->first + i);
		else
			pull->strikes[slot->first + i] = 0;
	if (!round->only_compares)
		atomic_fetch_add(&pull->copied_bytes, len);
	atomic_fetch_add(&pull->checked_bytes, len);
}

/* Each is two operations. */
static struct pull_slot *free_slot(struct pull *pull)
{
	const unsigned nr = (unsigned)weft_min(pull->conn->info.depth / 2, PULL_DEPTH);

	for (unsigned i = 0; i < nr; i++)
		if (pull->slots[i].nr_pending == 0)
			return &pull->slots[i];
	return NULL;
}

/* Posts what may leave now.  0, or -errno; *ret_wait_ms: until more may. */
static int fill(struct round *round, int *ret_wait_ms)
{
	struct pull *pull = round->pull;
	struct pull_slot *slot;

	*ret_wait_ms = PULL_SILENT_MS;
	/*
	 * Hashes come behind the bytes that were sent before them.  READs do not wait for those, or
	 * the line would be empty once for each 8 MiB.
	 */
	while (round->reading_bytes < PULL_BYTES && (slot = free_slot(pull)) != NULL) {
		if (!next_run(round))
			return 0;
		const uint64_t now_ns = round->next_ns > 0 ? weft_now_ns() : 0;

		if (round->next_ns > now_ns) {
			*ret_wait_ms = (int)weft_min((round->next_ns - now_ns) / 1000000 + 1,
				PULL_SILENT_MS);
			return 0;
		}
		int r = post(round, slot);
		if (r == -EAGAIN)
			return 0;
		if (r < 0 && slot->nr_pending == 0)
			finish_slot(round, slot);
		if (r < 0)
			return r;
	}
	return 0;
}

/* All of it is there, and is compared once it is in the file. */
static void write_out(struct round *round, struct pull_slot *slot)
{
	struct pull *pull = round->pull;
	int r = weft_region_write(pull->region, slot->buf, slot->read.off, slot->read.len);

	/*
	 * The disk keeps up: a flush of all would be a silence for which the giver ends the move.
	 */
	weft_region_begin_flush(pull->region, slot->read.off, slot->read.len);
	pull->unflushed_bytes += slot->read.len;
	if (r == 0 && pull->unflushed_bytes >= FLUSH_BYTES) {
		r = weft_region_flush(pull->region);
		pull->unflushed_bytes = 0;
	}
	if (r < 0)
		round->error = slot->status = r;
}

static void take_done(struct round *round)
{
	struct tp_op *done[2 * PULL_DEPTH];
	int n;

	while ((n = tp_progress(round->pull->conn, done, WEFT_ARRAY_LEN(done))) > 0)
		for (int i = 0; i < n; i++) {
			struct pull_slot *slot = done[i]->user;

			round->nr_done++;
			if (done[i] == &slot->read)
				round->reading_bytes -= slot->read.len;
			if (done[i]->status < 0)
				slot->status = done[i]->status;
			else if (done[i] == &slot->read && pull_is_file(round->pull))
				write_out(round, slot);
			if (--slot->nr_pending == 0)
				finish_slot(round, slot);
		}
}

/* All that is in flight comes back; what was not done is dirty again. */
static void give_up(struct round *round)
{
	struct pull *pull = round->pull;

	tp_shutdown(pull->conn);
	while (round->nr_busy > 0)
		take_done(round);
	for (unsigned i = 0; i < round->next_nr; i++)
		set(pull->dirty, round->next_first + i);
	for (uint64_t i = round->at; i < pull->nr_chunks; i++)
		if (has(round->todo, i))
			set(pull->dirty, i);
}

static int run(struct round *round, struct weft_error *err)
{
	struct pull *pull = round->pull;
	uint64_t seen_ns = weft_now_ns();
	int wait_ms, r = 0;

	for (;;) {
		const uint64_t nr_done = round->nr_done;

		r = fill(round, &wait_ms);
		take_done(round);
		if (r == 0 && tp_state(pull->conn) != TP_READY) {
			*err = pull->conn->why;
			r = pull->conn->error;
		} else if (r < 0) {
			weft_error_set(err, -r, "cannot read the region: %s", strerror(-r));
		} else if (round->error < 0) {
			r = weft_error_set(err, -round->error, "cannot write its file here: %s",
				strerror(-round->error));
		}
		if (r < 0)
			break;
		if (round->nr_done > nr_done || round->nr_busy == 0)
			seen_ns = weft_now_ns();
		if (round->nr_busy == 0 && !next_run(round))
			return 0;
		r = pull_wait(pull, (int)weft_min((uint64_t)wait_ms, 100));
		if (r == -ECANCELED) {
			weft_error_set(err, ECANCELED, "aborted");
			break;
		}
		if (round->nr_busy > 0 &&
			weft_now_ns() - seen_ns > PULL_SILENT_MS * UINT64_C(1000000)) {
			r = weft_error_set(err, ETIMEDOUT, "no answer for %d s",
				PULL_SILENT_MS / 1000);
			break;
		}
	}
	if (r != -ECANCELED && pull->driver != tp_base_driver())
		pull->base_only = true;
	give_up(round);
	return r;
}

/* Takes over todo, which is NULL without memory. */
static int run_all(struct pull *pull, bool only_compares, uint64_t *todo, struct weft_error *err)
{
	struct round round = {.pull = pull, .only_compares = only_compares, .todo = todo};

	if (!todo)
		return weft_error_set(err, ENOMEM, "no memory");
	memset(pull->dirty, 0, pull->nr_words * sizeof(*todo));
	memset(pull->bad, 0, pull->nr_words * sizeof(*todo));
	int r = run(&round, err);
	free(todo);
	return r;
}

int pull_round(struct pull *pull, struct weft_error *err)
{
	uint64_t *todo = calloc(pull->nr_words, sizeof(*todo));

	if (todo)
		memcpy(todo, pull->dirty, pull->nr_words * sizeof(*todo));
	return run_all(pull, false, todo, err);
}

int pull_compare(struct pull *pull, struct weft_error *err)
{
	uint64_t *todo = calloc(pull->nr_words, sizeof(*todo));

	for (uint64_t i = 0; todo && i < pull->nr_chunks; i++)
		set(todo, i);
	return run_all(pull, true, todo, err);
}

int pull_judge(struct pull *pull, const uint64_t *changed, struct weft_error *err)
{
	for (uint64_t i = 0; i < pull->nr_words; i++)
		pull->dirty[i] |= changed[i] | pull->bad[i];
	for (uint64_t i = 0; i < pull->nr_chunks; i++) {
		if (pull->bad[i / BITS] == 0) {
			i += BITS - 1 - i % BITS;
			continue;
		}
		if (!has(pull->bad, i) || has(changed, i))
			continue;
		if (++pull->strikes[i] == PULL_STRIKES)
			return weft_error_set(err, EIO,
				"%" PRIu64 " bytes from %" PRIu64
				" came with another hash than they have at the donor, %d times",
				len_of(pull, i, 1), i * WEFT_CHUNK_BYTES, PULL_STRIKES);
	}
	return 0;
}
