/* SPDX-License-Identifier: MIT */
/*
 * A cache on disk: what a bridge's cache holds and the donor has not outlives the bridge.
 *
 * The file: a header; a table with 8 bytes for each block of each slot; the slots' bytes.  All of
 * it is mapped and shared, so that what a killed process stored is there.  A table's entry is 0, or
 * says that this block is newer than the donor's: which block of the region it is, and a checksum
 * of that number and its bytes.
 *
 * After the machine was restarted the file may be older than what the donor has, in any part of it:
 * then it is good for cache_file_each() alone, whose checksums tell what is whole.
 *
 * Opened and closed by one thread; entries belong to whoever holds their chunk's lock, what the
 * header says is stored by any thread.
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

/* What a file was made for. */
struct cache_file_identity {
	char uri[CACHE_FILE_URI]; /* one of each donor, spaces between */
	uint64_t size_bytes, stripe_bytes;
	uint32_t chunk_bytes, nr_slots;
	uint32_t nr_donors, reserved;
	uint8_t ids[CACHE_FILE_DONORS][WEFT_ID_BYTES]; /* as whom each donor knows us; secret */
	char boot[40]; /* of the machine when it was made; "", when making one: this boot */
};

struct cache_file;

/*
 * Opens the file and takes its lock.  make: to write, and an empty one, mode 0600, if there is
 * none; otherwise to read.  -EBUSY: a bridge or a rescue has it.  -EINVAL: it is neither empty nor
 * a whole cache file, and is left as it is.  -ELOOP: a link, which is not followed.
 */
int cache_file_open(const char *path, bool make, struct cache_file **ret, struct weft_error *err);
/*
 * Removes the file if opening it made it: the attach that it was made for has failed.  Takes NULL.
 */
void cache_file_unmake(struct cache_file *file);
/* Takes NULL. */
void cache_file_close(struct cache_file *file);
const char *cache_file_path(const struct cache_file *file);
/* NULL: it was never used. */
const struct cache_file_identity *cache_file_identity(const struct cache_file *file);
/*
 * Bytes that are newer than the donor's, or may be, as the table cannot be read: what its bridge
 * did not end cleanly with.
 */
uint64_t cache_file_dirty_bytes(const struct cache_file *file);
/* Whether the machine has run since the file was made: what it holds may be written back. */
bool cache_file_same_boot(const struct cache_file *file);

/*
 * What was there before is of no interest: cache_file_reset() comes next.  Before anybody else
 * knows the file.
 */
void cache_file_forget(struct cache_file *file);
/* For good: the file is empty, and durably so.  0, or -errno. */
int cache_file_discard(struct cache_file *file);
/* Begins anew, empty, with room for all slots; On disk when it returns.  -ENOSPC, … */
int cache_file_reset(struct cache_file *file, const struct cache_file_identity *identity,
	struct weft_error *err);

/*
 * The slots' bytes.  Whoever touches them does so by nbd-bridge/cache/mapped.h, and tells of what
 * is lost.
 */
uint8_t *cache_file_data(const struct cache_file *file);
/* Says so, the first time.  at: in the mapped file. */
void cache_file_say_lost(struct cache_file *file, const void *at);
/*
 * 1: the slot's block i is newer than *ret_block of the region; 0: it is not; -EIO: nobody knows.
 */
int cache_file_entry(const struct cache_file *file, uint32_t slot, unsigned i, uint64_t *ret_block);
/*
 * The slot's block is newer than the donor's from now on, as it is now.  Inside mapped_try().  Any
 * thread; a block has one that changes it at a time.
 */
void cache_file_mark(struct cache_file *file, uint32_t slot, unsigned i, uint64_t block);
/* nr blocks are the donor's.  0; -EIO: the file says of some of them still that they are newer. */
int cache_file_unmark(struct cache_file *file, uint32_t slot, unsigned first, unsigned nr);
/*
 * Nobody goes on with the file, or saves what it says, after this: it is no cache file any more.
 * 0, or -errno.
 */
int cache_file_condemn(struct cache_file *file);
/* Donor i was, or is about to be, asked for a grant at this generation.  Any thread. */
void cache_file_note_generation(struct cache_file *file, unsigned donor, uint64_t generation);
/*
 * Of which contents of donor i the file has more than the donor; 0: of whichever there are, and
 * none of it was written back yet.  One store, which whoever is killed has made or not.  Any
 * thread.
 */
void cache_file_set_epoch(struct cache_file *file, unsigned donor, uint64_t epoch);
uint64_t cache_file_epoch(const struct cache_file *file, unsigned donor);
uint64_t cache_file_generation(const struct cache_file *file, unsigned donor);
/* As in weft_hello, of that epoch. */
void cache_file_note_granted(struct cache_file *file, unsigned donor, uint64_t granted, bool wrote);
uint64_t cache_file_granted(const struct cache_file *file, unsigned donor, bool *ret_wrote);

/* What cache_file_each() and a cache tell of a run of blocks. */
enum cache_content {
	CACHE_CONTENT_CLEAN, /* as at the donor */
	CACHE_CONTENT_DIRTY, /* newer */
	/* was newer, but its bytes are not what they were, or cannot be read: data is NULL */
	CACHE_CONTENT_TORN,
};
/* off and len: bytes of the region.  0, or -errno, which ends the walk. */
typedef int cache_each_fn(void *ctx, uint64_t off, uint64_t len, enum cache_content content,
	const void *data);
/*
 * Everything that is newer than the donor's, in the region's order.  *ret_unknown_bytes: of blocks
 * of which the table cannot be read.
 */
int cache_file_each(const struct cache_file *file, cache_each_fn *fn, void *ctx,
	uint64_t *ret_unknown_bytes);

#endif
