/* SPDX-License-Identifier: MIT */
/*
 * A cache on disk: see file.h.
 *
 * An entry has the block's number plus one in its upper 36 bits, so that it is never 0, and 28 bits
 * of XXH3 below.
 */
#include "nbd-bridge/cache/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/blocks.h"
#include "nbd-bridge/cache/config.h"
#include "nbd-bridge/cache/mapped.h"

enum {
	VERSION = 1,
	HEADER_BYTES = 8192,
	SUM_BITS = 28,
	PAGE_ENTRIES = CACHE_BLOCK / sizeof(uint64_t)
};

#define BLOCKS_MAX (UINT64_C(1) << (64 - SUM_BITS))

static const char magic[8] = "WEFTCACH";

_Static_assert(sizeof(((struct cache_file_identity *)0)->boot) > WEFT_BOOT_ID_BYTES,
	"a boot's name has room for the end of its line");

struct header {
	char magic[8];
	uint32_t version, reserved;
	struct cache_file_identity identity;
	uint64_t sum; /* of the fields above */
	/*
	 * These are valid until the machine is restarted.  Each is changed by itself while the file
	 * is in use, and the checksum does not cover it.
	 */
	_Atomic uint64_t generations[CACHE_FILE_DONORS], epochs[CACHE_FILE_DONORS];
	_Atomic uint64_t granted[CACHE_FILE_DONORS]; /* 0 in files of older versions … */
	/* … the highest granted generation under which something was written */
	_Atomic uint64_t wrote[CACHE_FILE_DONORS];
};

_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header has its place");

struct cache_file {
	int fd;
	char *path;
	bool read_only, made, memory;
	struct header known;   /* a copy of its header */
	struct header *header; /* the file's own; NULL: it was never used */
	_Atomic bool mapped, lost;
	size_t len;
	_Atomic uint64_t *table;
	uint8_t *data;
	unsigned slot_blocks;
	uint64_t nr_blocks;  /* of the region */
	unsigned last_bytes; /* of its last block */
};

static size_t table_bytes(const struct cache_file_identity *id)
{
	size_t len = (size_t)id->nr_slots * (id->chunk_bytes / CACHE_BLOCK) * sizeof(uint64_t);

	return (len + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK;
}

static size_t file_bytes(const struct cache_file_identity *id)
{
	return HEADER_BYTES + table_bytes(id) + (size_t)id->nr_slots * id->chunk_bytes;
}

static uint64_t header_sum(const struct header *header)
{
	return XXH3_64bits(header, offsetof(struct header, sum));
}

/* Nothing in the file is believed before this check. */
static bool is_sound(const struct header *header, uint64_t file_len)
{
	const struct cache_file_identity *id = &header->identity;

	return memcmp(header->magic, magic, sizeof(magic)) == 0 && header->version == VERSION &&
		header->sum == header_sum(header) && id->nr_donors >= 1 &&
		id->nr_donors <= CACHE_FILE_DONORS && id->size_bytes > 0 &&
		id->size_bytes / CACHE_BLOCK < BLOCKS_MAX - 1 &&
		id->chunk_bytes >= BRIDGE_CHUNK_MIN && id->chunk_bytes <= BRIDGE_CHUNK_MAX &&
		(id->chunk_bytes & (id->chunk_bytes - 1)) == 0 && id->nr_slots > 0 &&
		memchr(id->uri, '\0', sizeof(id->uri)) &&
		memchr(id->boot, '\0', sizeof(id->boot)) && file_bytes(id) == file_len;
}

static void unmap(struct cache_file *file)
{
	atomic_store(&file->mapped, false);
	if (file->header)
		munmap(file->header, file->len);
	file->header = NULL;
}

/* file->known is the header. */
static int map(struct cache_file *file, size_t len)
{
	const struct cache_file_identity *id = &file->known.identity;

	mapped_init();
	void *p = mmap(NULL, len, PROT_READ | (file->read_only ? 0 : PROT_WRITE), MAP_SHARED,
		file->fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	madvise(p, len, MADV_DONTDUMP);
	file->header = p;
	file->len = len;
	file->table = (_Atomic uint64_t *)((uint8_t *)p + HEADER_BYTES);
	file->data = (uint8_t *)p + HEADER_BYTES + table_bytes(id);
	file->slot_blocks = id->chunk_bytes / CACHE_BLOCK;
	file->nr_blocks = (id->size_bytes + CACHE_BLOCK - 1) / CACHE_BLOCK;
	file->last_bytes = (unsigned)(id->size_bytes - (file->nr_blocks - 1) * CACHE_BLOCK);
	atomic_store(&file->mapped, true);
	return 0;
}

static int load(struct cache_file *file, struct weft_error *err)
{
	struct stat st;
	ssize_t n;

	if (fstat(file->fd, &st) < 0)
		return weft_error_set(err, errno, "cannot use %s as a cache file: %s", file->path,
			strerror(errno));
	if (st.st_size == 0)
		return 0;
	n = pread(file->fd, &file->known, sizeof(file->known), 0);
	if (n < 0)
		return weft_error_set(err, errno,
			"cannot use %s as a cache file: its first bytes cannot be read: %s",
			file->path, strerror(errno));
	if (n != sizeof(file->known) || !is_sound(&file->known, (uint64_t)st.st_size))
		return weft_error_set(err, EINVAL,
			"cannot use %s as a cache file: it is something else, or damaged, and is "
			"left as it is; "
			"name another file",
			file->path);
	int r = map(file, (size_t)st.st_size);
	if (r < 0)
		return weft_error_set(err, -r, "cannot map %s: %s", file->path, strerror(-r));
	return 0;
}

/* Looks before it opens: a link may lead anywhere, and opening a device may have effects. */
static int open_there(const char *path, bool read_only, struct weft_error *err)
{
	WEFT_CLEANUP_CLOSE int probe = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char again[64];
	struct stat st;

	if (probe < 0 || fstat(probe, &st) < 0)
		return weft_error_set(err, errno, "cannot open %s: %s", path, strerror(errno));
	if (S_ISLNK(st.st_mode))
		return weft_error_set(err, ELOOP,
			"cannot use %s as a cache file: it is a symbolic link; name the file "
			"itself",
			path);
	if (!S_ISREG(st.st_mode))
		return weft_error_set(err, EINVAL,
			"cannot use %s as a cache file: it is no regular file; name another", path);
	snprintf(again, sizeof(again), "/proc/self/fd/%d", probe);
	int fd = open(again, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	return fd >= 0 ? fd
		       : weft_error_set(err, errno, "cannot open %s: %s", path, strerror(errno));
}

static int open_or_make(const char *path, bool make, bool *ret_made, struct weft_error *err)
{
	int r = open_there(path, !make, err);

	if (r != -ENOENT || !make)
		return r;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	*ret_made = fd >= 0;
	return fd >= 0 ? fd
		       : weft_error_set(err, errno, "cannot make %s: %s", path, strerror(errno));
}

int cache_file_open(const char *path, bool make, struct cache_file **ret, struct weft_error *err)
{
	struct cache_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file || !(file->path = strdup(path))) {
		free(file);
		return weft_error_set(err, ENOMEM, "cannot open %s: out of memory", path);
	}
	file->read_only = !make;
	file->fd = r = open_or_make(path, make, &file->made, err);
	if (r >= 0 && flock(file->fd, LOCK_EX | LOCK_NB) < 0)
		r = weft_error_set(err, EBUSY,
			"%s is the cache of another attachment, or being rescued; "
			"weft status shows the attachment, and weft rescue NAME FILE saves what it "
			"holds",
			path);
	if (r >= 0)
		r = load(file, err);
	if (r < 0) {
		cache_file_close(file);
		return r;
	}
	*ret = file;
	return 0;
}

int cache_file_on_memory(int fd, struct cache_file **ret, struct weft_error *err)
{
	struct cache_file *file = calloc(1, sizeof(*file));

	if (!file || !(file->path = strdup("the cache's memory"))) {
		free(file);
		return weft_error_set(err, ENOMEM, "cannot make the cache: out of memory");
	}
	file->memory = true;
	file->fd = dup(fd);
	int r = file->fd < 0
		? weft_error_set(err, errno, "cannot use the cache's memory: %s", strerror(errno))
		: load(file, err);
	if (r < 0) {
		cache_file_close(file);
		return r;
	}
	*ret = file;
	return 0;
}

bool cache_file_is_memory(const struct cache_file *file)
{
	return file->memory;
}

void cache_file_unmake(struct cache_file *file)
{
	struct stat ours, there;

	if (file && file->made && fstat(file->fd, &ours) == 0 && lstat(file->path, &there) == 0 &&
		ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
		unlink(file->path);
}

void cache_file_close(struct cache_file *file)
{
	if (!file)
		return;
	unmap(file);
	weft_close_fd(file->fd);
	free(file->path);
	free(file);
}

const char *cache_file_path(const struct cache_file *file)
{
	return file->path;
}

const struct cache_file_identity *cache_file_identity(const struct cache_file *file)
{
	return file->header ? &file->known.identity : NULL;
}

/* nr entries from index on, as they are; -EIO. */
static int read_entries(const struct cache_file *file, size_t index, size_t nr, uint64_t *ret)
{
	return mapped_copy(ret, (const void *)&file->table[index], nr * sizeof(*ret), NULL);
}

uint64_t cache_file_dirty_bytes(const struct cache_file *file)
{
	uint64_t entries[PAGE_ENTRIES], n = 0;

	if (!file->header)
		return 0;
	const uint64_t nr = (uint64_t)file->known.identity.nr_slots * file->slot_blocks;
	for (uint64_t i = 0; i < nr; i += PAGE_ENTRIES) {
		const size_t some = (size_t)weft_min(PAGE_ENTRIES, nr - i);
		bool known = read_entries(file, i, some, entries) == 0;

		/* Entries that cannot be read may say anything. */
		for (size_t k = 0; k < some; k++)
			n += !known || entries[k] != 0;
	}
	return n * CACHE_BLOCK;
}

/*
 * This boot as cache files have always named it: with the end of its line.  "" when it cannot be
 * had.
 */
static void name_boot(char *buf, size_t len)
{
	weft_boot_id(buf, len);
	if (buf[0])
		buf[strlen(buf)] = '\n';
}

bool cache_file_same_boot(const struct cache_file *file)
{
	char boot[sizeof(file->known.identity.boot)];

	name_boot(boot, sizeof(boot));
	return file->header && boot[0] && strcmp(boot, file->known.identity.boot) == 0;
}

void cache_file_forget(struct cache_file *file)
{
	unmap(file);
}

int cache_file_discard(struct cache_file *file)
{
	unmap(file);
	return ftruncate(file->fd, 0) < 0 || fsync(file->fd) < 0 ? -errno : 0;
}

int cache_file_reset(struct cache_file *file, const struct cache_file_identity *identity,
	struct weft_error *err)
{
	size_t len = file_bytes(identity);
	struct header *header = &file->known;
	int r;

	unmap(file);
	*header = (struct header){.version = VERSION, .identity = *identity};
	memcpy(header->magic, magic, sizeof(magic));
	if (!header->identity.boot[0])
		name_boot(header->identity.boot, sizeof(header->identity.boot));
	header->sum = header_sum(header);
	r = ftruncate(file->fd, 0) < 0 || fchmod(file->fd, 0600) < 0 ? errno : 0;
	/* Allocate all room now: later nobody could be told. */
	if (r == 0 && !file->memory)
		r = posix_fallocate(file->fd, 0, (off_t)len);
	else if (r == 0 && ftruncate(file->fd, (off_t)len) < 0)
		r = errno;
	if (r == 0 &&
		(pwrite(file->fd, header, sizeof(*header), 0) != sizeof(*header) ||
			fsync(file->fd) < 0))
		r = errno;
	if (r == 0)
		r = -map(file, len);
	if (r == 0)
		return 0;
	if (ftruncate(file->fd, 0) < 0)
		r = errno;
	return weft_error_set(err, r, "cannot make %s a cache of %zu bytes: %s", file->path, len,
		strerror(r));
}

/* ---- entries ---- */

uint8_t *cache_file_data(const struct cache_file *file)
{
	return file->data;
}

static size_t index_of(const struct cache_file *file, uint32_t slot, unsigned i)
{
	return (size_t)slot * file->slot_blocks + i;
}

static uint64_t make_entry(const struct cache_file *file, const uint8_t *data, uint64_t block)
{
	size_t len = block + 1 == file->nr_blocks ? file->last_bytes : CACHE_BLOCK;
	/* What is killed leaves memory whole. */
	uint64_t sum = file->memory ? 0 : XXH3_64bits_withSeed(data, len, block);

	return (block + 1) << SUM_BITS | (sum & ((UINT64_C(1) << SUM_BITS) - 1));
}

/* The block that an entry at its place names; false: it says nothing. */
static bool is_entry(const struct cache_file *file, uint64_t entry, unsigned i, uint64_t *ret_block)
{
	if (entry >> SUM_BITS == 0)
		return false;
	*ret_block = (entry >> SUM_BITS) - 1;
	/* One slot is one chunk, in its place. */
	return *ret_block < file->nr_blocks && *ret_block % file->slot_blocks == i;
}

int cache_file_entry(const struct cache_file *file, uint32_t slot, unsigned i, uint64_t *ret_block)
{
	uint64_t entry;
	int r = read_entries(file, index_of(file, slot, i), 1, &entry);

	return r < 0 ? r : is_entry(file, entry, i, ret_block);
}

void cache_file_mark(struct cache_file *file, uint32_t slot, unsigned i, uint64_t block)
{
	size_t index = index_of(file, slot, i);
	const uint64_t entry = make_entry(file, file->data + index * CACHE_BLOCK, block);

	/*
	 * The entry follows the bytes: a process that is killed between leaves the old block, or a
	 * write that was not answered.
	 */
	atomic_signal_fence(memory_order_release);
	atomic_store_explicit(&file->table[index], entry, memory_order_relaxed);
}

struct unmarking {
	struct cache_file *file;
	uint32_t slot;
	unsigned first, nr;
};

static int unmark(void *ctx)
{
	const struct unmarking *u = ctx;

	for (unsigned i = u->first; i < u->first + u->nr; i++)
		atomic_store_explicit(&u->file->table[index_of(u->file, u->slot, i)], 0,
			memory_order_relaxed);
	return 0;
}

int cache_file_unmark(struct cache_file *file, uint32_t slot, unsigned first, unsigned nr)
{
	struct unmarking u = {.file = file, .slot = slot, .first = first, .nr = nr};
	const void *at;
	int r = mapped_try(unmark, &u, &at);

	if (r < 0)
		cache_file_say_lost(file, at);
	return r;
}

int cache_file_condemn(struct cache_file *file)
{
	static const char nothing[sizeof(magic)];

	if (pwrite(file->fd, nothing, sizeof(nothing), 0) == sizeof(nothing) &&
		fdatasync(file->fd) == 0)
		return 0;
	int r = -errno;
	weft_err("%s cannot be written: %s; remove it once its attachment has ended", file->path,
		strerror(-r));
	return r;
}

void cache_file_say_lost(struct cache_file *file, const void *at)
{
	if (atomic_exchange(&file->lost, true))
		return;
	weft_err("%s cannot be read or written at byte %zu: its disk failed, or somebody made the "
		 "file shorter; requests for lost blocks fail from now "
		 "on; save the others with weft rescue, and attach anew with another cache file",
		file->path, (size_t)((const uint8_t *)at - (const uint8_t *)file->header));
}

int cache_file_sync(const struct cache_file *file)
{
	return fdatasync(file->fd) < 0 ? -errno : 0;
}

bool cache_file_find(const struct cache_file *file, uint64_t block, size_t *at, void *bytes)
{
	const size_t nr =
		file->header ? (size_t)file->known.identity.nr_slots * file->slot_blocks : 0;
	uint64_t entry, named;

	/* A slot is a chunk, so that a block has one place in each. */
	for (size_t i = *at; i < nr; i++) {
		if (i % file->slot_blocks != block % file->slot_blocks ||
			read_entries(file, i, 1, &entry) < 0 ||
			!is_entry(file, entry, (unsigned)(i % file->slot_blocks), &named) ||
			named != block)
			continue;
		*at = i + 1;
		if (mapped_copy(bytes, file->data + i * CACHE_BLOCK, CACHE_BLOCK, NULL) == 0)
			return true;
	}
	return false;
}

/* ---- the changing fields of the header ---- */

struct word {
	_Atomic uint64_t *at;
	uint64_t value;
};

static int raise_to(void *ctx)
{
	const struct word *word = ctx;
	uint64_t seen = atomic_load_explicit(word->at, memory_order_relaxed);

	while (seen < word->value &&
		!atomic_compare_exchange_weak_explicit(word->at, &seen, word->value,
			memory_order_relaxed, memory_order_relaxed))
		;
	return 0;
}

static int store(void *ctx)
{
	const struct word *word = ctx;

	atomic_store_explicit(word->at, word->value, memory_order_relaxed);
	return 0;
}

/* Changes both the copy and the file.  Relaxed: it orders nobody's other accesses. */
static void change(struct cache_file *file, int (*how)(void *word), _Atomic uint64_t *known,
	_Atomic uint64_t *own, uint64_t value)
{
	struct word first = {known, value}, second = {own, value};
	const void *at;

	how(&first);
	if (mapped_try(how, &second, &at) < 0)
		cache_file_say_lost(file, at);
}

void cache_file_note_generation(struct cache_file *file, unsigned donor, uint64_t generation)
{
	/* The caller that makes the file tells it the earlier generations. */
	if (atomic_load(&file->mapped))
		change(file, raise_to, &file->known.generations[donor],
			&file->header->generations[donor], generation);
}

void cache_file_set_epoch(struct cache_file *file, unsigned donor, uint64_t epoch)
{
	change(file, store, &file->known.epochs[donor], &file->header->epochs[donor], epoch);
}

uint64_t cache_file_epoch(const struct cache_file *file, unsigned donor)
{
	return atomic_load(&file->known.epochs[donor]);
}

uint64_t cache_file_generation(const struct cache_file *file, unsigned donor)
{
	return atomic_load(&file->known.generations[donor]);
}

void cache_file_note_granted(struct cache_file *file, unsigned donor, uint64_t granted, bool wrote)
{
	if (!atomic_load(&file->mapped))
		return;
	/* Generations only grow, and a lane may note one late. */
	change(file, raise_to, &file->known.granted[donor], &file->header->granted[donor], granted);
	if (wrote)
		change(file, raise_to, &file->known.wrote[donor], &file->header->wrote[donor],
			granted);
}

uint64_t cache_file_granted(const struct cache_file *file, unsigned donor, bool *ret_wrote)
{
	uint64_t granted = atomic_load(&file->known.granted[donor]);

	*ret_wrote = granted && atomic_load(&file->known.wrote[donor]) == granted;
	return granted;
}

/* ---- all of it ---- */

struct place {
	uint64_t block, entry;
	size_t index;
};

static int by_block(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->block < y->block ? -1 : x->block > y->block;
}

static int tell(const struct cache_file *file, const struct place *place, bool check,
	cache_each_fn *fn, void *ctx)
{
	uint8_t data[CACHE_BLOCK];
	bool whole = mapped_copy(data, file->data + place->index * CACHE_BLOCK, sizeof(data),
			     NULL) == 0 &&
		(!check || make_entry(file, data, place->block) == place->entry);

	return fn(ctx, place->block * CACHE_BLOCK,
		place->block + 1 == file->nr_blocks ? file->last_bytes : CACHE_BLOCK,
		whole ? CACHE_CONTENT_DIRTY : CACHE_CONTENT_TORN, whole ? data : NULL);
}

int cache_file_each(const struct cache_file *file, cache_each_fn *fn, void *ctx,
	uint64_t *ret_unknown_bytes)
{
	uint64_t nr = cache_file_dirty_bytes(file) / CACHE_BLOCK, n = 0, unknown = 0, entry;
	/*
	 * A killed process leaves at most unanswered writes half done; a restart of the machine may
	 * leave anything.
	 */
	bool check = !cache_file_same_boot(file);
	int r = 0;

	*ret_unknown_bytes = 0;
	if (nr == 0)
		return 0;
	WEFT_CLEANUP_FREE struct place *places = calloc(nr, sizeof(*places));
	if (!places)
		return -ENOMEM;
	for (uint32_t slot = 0; slot < file->known.identity.nr_slots; slot++)
		for (unsigned i = 0; i < file->slot_blocks && n < nr; i++) {
			const size_t index = index_of(file, slot, i);

			if (read_entries(file, index, 1, &entry) < 0)
				unknown += CACHE_BLOCK;
			else if (is_entry(file, entry, i, &places[n].block)) {
				places[n].entry = entry;
				places[n++].index = index;
			}
		}
	qsort(places, n, sizeof(*places), by_block);
	for (uint64_t i = 0; i < n && r == 0; i++)
		r = tell(file, &places[i], check, fn, ctx);
	*ret_unknown_bytes = unknown;
	return r;
}
