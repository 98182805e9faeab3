/* SPDX-License-Identifier: MIT */
/*
 * Copies a region's chunks from another donor into one that is being made, and compares the hashes
 * of what came: straight into memory, or by way of buffers into a file.
 *
 * Threads: the owner's.  Blocks, in poll(2); a readable descriptor ends it.
 */
#ifndef WEFT_FABRIC_MOVE_PULL_H
#define WEFT_FABRIC_MOVE_PULL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/driver.h"
#include "fabric/hashing.h"
#include "fabric/move/pace.h"
#include "fabric/region/region.h"
#include "fabric/transport.h"
#include "fabric/uri.h"

enum {
	PULL_DEPTH = 60, /* READs, and HASHes, in flight; a connection may take fewer */
	PULL_CHUNKS = 16, /* in one READ: 1 MiB */
	PULL_BYTES = 8 << 20, /* of READs in flight */
	PULL_STRIKES = 3,
};

struct pull_slot {
	struct tp_op read, hash;
	uint64_t first;
	unsigned nr, nr_pending;
	int status;
	uint8_t *hashes;
	uint8_t *buf; /* FILE: what was read, before it is written */
};

struct pull {
	struct weft_region *region;
	int cancel_fd;
	uint64_t bandwidth; /* bytes a second; 0: no limit */
	struct pace *pace;  /* of it, the owner's */
	uint64_t nr_chunks, nr_words;
	uint64_t *dirty; /* chunks that are to be copied */
	uint64_t *bad;   /* whose hash was not what it is there, in the last round */
	uint8_t *strikes;
	/* Written by the owner's thread alone, read by others. */
	_Atomic uint64_t copied_bytes, checked_bytes;
	const struct tp_driver *driver; /* over which it is connected, or was */
	bool base_only; /* a better one was lost, and is not tried again */
	struct tp *tp;
	struct tp_conn *conn;
	struct tp_mem *mem, *hash_mem;
	/* FILE: PULL_CHUNKS for each slot; and for the hashes of what was written */
	uint8_t *buffers, *scratch;
	uint64_t unflushed_bytes; /* FILE */
	struct weft_hashing hashing;
	struct weft_hasher hasher;
	struct pull_slot slots[PULL_DEPTH];
};

/* region: it is written; the caller's reference.  All chunks are dirty.  0, or -ENOMEM. */
int pull_init(struct pull *pull, struct weft_region *region, int cancel_fd, struct weft_error *err);
void pull_fini(struct pull *pull);
/*
 * Connects as a reader of the region with this epoch, under the id; again, if it was connected
 * before.  Memory is read one-sidedly (RDMA), where both machines can and the donor lets us; over
 * the base transport otherwise, and once such a connection was lost.  0; -errno as tp_connect();
 * -ECANCELED.
 */
int pull_connect(struct pull *pull, const struct weft_uri *uri, const struct weft_key *key,
	const char *certificates, const uint8_t id[WEFT_ID_BYTES], uint64_t epoch,
	struct weft_error *err);
void pull_disconnect(struct pull *pull);

uint64_t pull_nr_dirty(const struct pull *pull);
uint64_t pull_dirty_bytes(const struct pull *pull);
/*
 * Copies the dirty chunks, which are dirty no more.  0; -ECANCELED; -errno of the connection: then
 * those that were not copied are dirty still; or of the file, when nothing is known of them.
 */
int pull_round(struct pull *pull, struct weft_error *err);
/* All chunks whose hashes differ are dirty afterwards, and no others; errors as above. */
int pull_compare(struct pull *pull, struct weft_error *err);
/*
 * `changed` are the chunks that were written since the round before began: they are dirty too.  A
 * chunk that differs and was not written is copied again.  0; -EIO: one differed PULL_STRIKES
 * times.
 */
int pull_judge(struct pull *pull, const uint64_t *changed, struct weft_error *err);

#endif
