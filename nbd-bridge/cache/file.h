/* SPDX-License-Identifier: MIT */
/*
 * A cache on disk: bytes that a bridge's cache holds and the donor has not received outlive the
 * bridge.
 *
 * The file: a header; a table with 8 bytes for each block of each slot; the slots' bytes.  The
 * whole file is mapped and shared, so that it has all that a killed process stored.  A table's
 * entry is 0, or says that the block is newer than the donor's: then the entry has the block's
 * number in the region, and a checksum of that number and the bytes.
 *
 * The file may be memory instead, which outlives the bridge.  Then nothing can happen to it, its
 * entries have no checksum, and nothing is left of it after a restart.
 *
 * After a restart of the machine any part of the file may be older than the donor's contents.  Then
 * the file is good for cache_file_each() alone, whose checksums tell which blocks are whole.
 *
 * Threads: one opens and closes the file; an entry may be touched under its chunk's lock; any
 * thread stores what the header says.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_FILE_H
#define WEFT_NBD_BRIDGE_CACHE_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"

enum { CACHE_FILE_DONORS = 16, CACHE_FILE_URI = 4096 };

/* What the file was made for. */
struct cache_file_identity {
	char uri[CACHE_FILE_URI]; /* a URI for each donor, with spaces between */
	uint64_t size_bytes, stripe_bytes;
	uint32_t chunk_bytes, nr_slots;
	uint32_t nr_donors;
	uint32_t sealed; /* enum seal_kind: how the donors' contents are sealed */
	uint8_t ids[CACHE_FILE_DONORS][WEFT_ID_BYTES]; /* our id at each donor; secret */
	/* the machine's boot when the file was made; "", when making one: this boot */
	char boot[40];
};

struct cache_file;

/*
 * Opens the file and takes its lock.  make: to write, and makes an empty file of mode 0600 if there
 * is none; otherwise to read.  -EBUSY: a bridge or a rescue has the file.  -EINVAL: the file is
 * neither empty nor a whole cache file, and is left as it is.  -ELOOP: it is a link, which is not
 * followed.
 */
int cache_file_open(const char *path, bool make, struct cache_file **ret, struct weft_error *err);
/*
 * Does the same on memory that outlives the bridge (memfd_create(2)), which is empty or as a bridge
 * left it.  No page of it is ever lost, and a transport may keep its pages.  The caller keeps fd.
 */
int cache_file_on_memory(int fd, struct cache_file **ret, struct weft_error *err);
bool cache_file_is_memory(const struct cache_file *file);
/*
 * Removes the file if cache_file_open() made it: the attach that needed it has failed.  Takes NULL.
 */
void cache_file_unmake(struct cache_file *file);
/* Takes NULL. */
void cache_file_close(struct cache_file *file);
/* For people; of memory: words that say so. */
const char *cache_file_path(const struct cache_file *file);
/* NULL: the file was never used. */
const struct cache_file_identity *cache_file_identity(const struct cache_file *file);
/*
 * Bytes that are newer than the donor's, or that may be since the table cannot be read.  A bridge
 * that ended cleanly leaves none.
 */
uint64_t cache_file_dirty_bytes(const struct cache_file *file);
/*
 * Whether the machine has not been restarted since the file was made: then its blocks may be
 * written back.
 */
bool cache_file_same_boot(const struct cache_file *file);

/*
 * Forgets what the file held; cache_file_reset() comes next.  Before any other thread knows the
 * file.
 */
void cache_file_forget(struct cache_file *file);
/* Makes the file empty, durably.  0, or -errno. */
int cache_file_discard(struct cache_file *file);
/* Begins anew, empty, with room for all slots.  On disk when it returns.  0, or -ENOSPC, … */
int cache_file_reset(struct cache_file *file, const struct cache_file_identity *identity,
	struct weft_error *err);

/*
 * The slots' bytes.  To be touched by the functions of nbd-bridge/cache/mapped.h alone; the caller
 * notes lost blocks.
 */
uint8_t *cache_file_data(const struct cache_file *file);
/* Warns that a part of the file is lost, the first time.  at: an address in the mapped file. */
void cache_file_say_lost(struct cache_file *file, const void *at);
/*
 * 1: block i of the slot is newer than the donor's, and is block *ret_block of the region; 0: it is
 * not newer; -EIO: the entry cannot be read.
 */
int cache_file_entry(const struct cache_file *file, uint32_t slot, unsigned i, uint64_t *ret_block);
/*
 * Notes that block i of the slot, with its present bytes, is newer than the donor's.  Inside
 * mapped_try().  Any thread; one at a time changes a block.
 */
void cache_file_mark(struct cache_file *file, uint32_t slot, unsigned i, uint64_t block);
/*
 * Notes that nr blocks are as at the donor.  0; -EIO: the file still says of some that they are
 * newer.
 */
int cache_file_unmark(struct cache_file *file, uint32_t slot, unsigned first, unsigned nr);
/* Has all that was stored in the file on disk when it returns.  Any thread.  0, or -errno. */
int cache_file_sync(const struct cache_file *file);
/*
 * The bytes of a block that an entry from index *at on names, whether or not they are what it was
 * made for; *at: where to go on.  False: there are no more.  bytes: CACHE_BLOCK of them.
 */
bool cache_file_find(const struct cache_file *file, uint64_t block, size_t *at, void *bytes);
/*
 * Makes it useless: afterwards it is no cache file any more, and nobody goes on with it or rescues
 * anything from it.  0, or -errno.
 */
int cache_file_condemn(struct cache_file *file);
/*
 * Notes that the donor was, or is about to be, asked for a grant at this generation.  Any thread.
 */
void cache_file_note_generation(struct cache_file *file, unsigned donor, uint64_t generation);
/*
 * The epoch of the donor's contents that the file's newer blocks belong to; 0: they belong to
 * whichever contents there are, and none was written back yet.  Setting is one store, which a
 * killed process has made or not.  Any thread.
 */
void cache_file_set_epoch(struct cache_file *file, unsigned donor, uint64_t epoch);
uint64_t cache_file_epoch(const struct cache_file *file, unsigned donor);
uint64_t cache_file_generation(const struct cache_file *file, unsigned donor);
/* As in weft_hello, of that epoch. */
void cache_file_note_granted(struct cache_file *file, unsigned donor, uint64_t granted, bool wrote);
uint64_t cache_file_granted(const struct cache_file *file, unsigned donor, bool *ret_wrote);

/* What cache_file_each() and cache_each() tell of a run of blocks. */
enum cache_content {
	CACHE_CONTENT_CLEAN, /* as at the donor */
	CACHE_CONTENT_DIRTY, /* newer */
	/* was newer, but its bytes have changed since, or cannot be read: data is NULL */
	CACHE_CONTENT_TORN,
};
/* off and len: bytes of the region.  0, or -errno, which ends the walk. */
typedef int cache_each_fn(void *ctx, uint64_t off, uint64_t len, enum cache_content content,
	const void *data);
/*
 * Calls fn for all blocks that are newer than the donor's, in the region's order.
 * *ret_unknown_bytes: bytes of blocks whose table cannot be read.
 */
int cache_file_each(const struct cache_file *file, cache_each_fn *fn, void *ctx,
	uint64_t *ret_unknown_bytes);

#endif
