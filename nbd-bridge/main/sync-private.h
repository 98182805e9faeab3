/* SPDX-License-Identifier: MIT */
/*
 * Private to sync.c, sync-chunk.c and sync-file.c: comparing and moving (sync.h).
 *
 * Few messages, so that they do not add up to more than what they carry: the hashes of leaves are
 * asked for a span of chunks, and commands of several chunks are sent together.
 *
 * Invariants: a chunk, or a span, is its thread's while nothing of it is in flight (pending).  The
 * end of a command, on whichever thread, notes an error and counts, no more; its result is kept
 * until the thread has taken it, so that weft_aio_poll() never sleeps over an end that nobody has
 * seen.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SYNC_PRIVATE_H
#define WEFT_NBD_BRIDGE_MAIN_SYNC_PRIVATE_H

#include <stdatomic.h>
#include <stddef.h>

#include "fabric/hashing.h"
#include "nbd-bridge/main/sync.h"

enum {
	CHUNK_BYTES = 4 << 20,
	LEAF_BYTES = 64 << 10,
	BLOCK_BYTES = 4 << 10,
	CHUNK_LEAVES = CHUNK_BYTES / LEAF_BYTES, /* 64: bits of a word */
	CHUNK_BLOCKS = CHUNK_BYTES / BLOCK_BYTES,
	LEAF_BLOCKS = LEAF_BYTES / BLOCK_BYTES,  /* 16: bits of a quarter of a word */
	/*
	 * in flight: two round trips of 25 ms at 5.4 GB/s.  The first that is free is taken, so
	 * that the memory of the last is not touched where the line is short
	 */
	NR_CHUNKS = 64,
	READ_BYTES = 256 << 10, /* read and hashed while the processor's cache has them */
	POLL_MS = 200,
	DENSE_CHUNKS = 7, /* after one in which nearly all differed, so many are not looked into */
	/*
	 * Leaves between two that are asked for, which are asked for as well rather than in two
	 * questions: where a leaf has a hash for each block, and where it has one.
	 */
	FINE_GAP_LEAVES = 1,
	VERIFY_GAP_LEAVES = 4,
	SPAN_BYTES = WEFT_HASH_MAX_BYTES, /* that one question for leaves is about: 16 chunks */
	SPAN_LEAVES = SPAN_BYTES / LEAF_BYTES,
	NR_SPANS = 8,
	AHEAD = 5, /* spans that are asked for before they are needed */
	TOGETHER = 8, /* chunks whose commands are sent together, if there is more to do */
};
_Static_assert(CHUNK_LEAVES == 64, "a word has a bit for each leaf");

enum chunk_state {
	CHUNK_FREE,
	CHUNK_COARSE, /* waits for the hashes of its leaves */
	CHUNK_FINE,   /* waits for those of the blocks of leaves that differ */
	CHUNK_MOVES,  /* waits for blocks to be written, or to come */
	CHUNK_VERIFY, /* waits for the hashes of the leaves that were written */
};

/* Commands in flight. */
struct pending {
	_Atomic unsigned nr;
	_Atomic int error; /* the first */
};

/* The hashes of leaves that the donor has. */
struct span {
	struct pending pending;
	uint64_t off;
	bool asked;
	unsigned nr_users; /* chunks that wait for it */
	uint8_t hashes[SPAN_LEAVES * WEFT_HASH_BYTES];
};

struct chunk {
	enum chunk_state state;
	struct pending pending;
	bool wants; /* the commands of its state are still to be begun */
	struct span *span; /* COARSE: has the hashes; NULL: they are in `theirs` */
	uint64_t off;
	uint32_t len;
	bool looked_into;  /* `fine` has the hashes of all blocks that differ */
	bool kept;         /* `data` has all of it, not only leaves that differ */
	uint64_t leaves;   /* that differ, a bit each */
	uint64_t blocks[CHUNK_BLOCKS / 64]; /* the same of blocks */
	const struct written *written;      /* VERIFY */
	uint8_t ours[CHUNK_LEAVES * WEFT_HASH_BYTES], theirs[CHUNK_LEAVES * WEFT_HASH_BYTES];
	uint8_t fine[CHUNK_BLOCKS * WEFT_HASH_BYTES]; /* theirs */
	uint8_t *data;                                /* CHUNK_BYTES: the file's */
};

/* What the donor is to have in the end, of a chunk in which leaves were written. */
struct written {
	uint64_t off, leaves;
	uint32_t len;
	uint8_t hashes[CHUNK_LEAVES * WEFT_HASH_BYTES];
};

struct sync {
	struct sync_config config;
	struct weft_hasher hasher;
	struct weft_hashing coarse, fine;
	struct sync_totals totals;
	uint64_t size_bytes;         /* of the region */
	uint64_t next_off, done;     /* of this pass */
	bool ended;                  /* the stream has */
	unsigned dense;              /* chunks that are not looked into, from now on */
	unsigned nr_used;            /* chunks that are not free */
	unsigned nr_wanting;         /* of them with commands to be begun */
	uint8_t *known;              /* what the region has, a hash a leaf; NULL: not wanted */
	bool has_known;
	struct written *written;     /* of this pass, in order of nothing */
	size_t nr_written, max_written, next_verify;
	uint8_t *data;
	uint8_t scratch[READ_BYTES]; /* of chunks that are not kept */
	struct span spans[NR_SPANS];
	struct chunk chunks[NR_CHUNKS];
};

/* sync-file.c */

/*
 * Reads the chunk, up to want bytes, and hashes its leaves.  keeps: chunk->data has it all; else
 * nothing.  ret: how many bytes there were.  0; -EINTR: asked to stop; or -errno with err.
 */
int sync_load(struct sync *s, struct chunk *chunk, uint32_t want, bool keeps, uint32_t *ret,
	struct weft_error *err);
/*
 * Sees to it that chunk->data has the leaves that differ.  They are hashed anew: the file may have
 * changed.  As sync_load().
 */
int sync_keep_leaves(struct sync *s, struct chunk *chunk, struct weft_error *err);
/* Says that it became shorter.  -EIO. */
int sync_file_is_short(const struct sync *s, struct weft_error *err);
int sync_write_file(const struct sync *s, const uint8_t *data, uint64_t off, uint32_t len);

/* sync-chunk.c */

/* Asks for hashes of the region, until `pending` says that they are there.  0, or -errno. */
int sync_ask(struct sync *s, struct pending *pending, const struct weft_hashing *hashing,
	uint64_t off, uint32_t len, uint8_t *ret);
/* Where the hashes of what the region has are kept, of the chunk's leaves. */
uint8_t *sync_known_of(const struct sync *s, const struct chunk *chunk);
/* The commands of that state are to be begun, with those of other chunks. */
void sync_chunk_want(struct sync *s, struct chunk *chunk, enum chunk_state state);
/* Moves a chunk on, of which nothing is in flight.  0, or -errno, perhaps with err. */
int sync_chunk_advance(struct sync *s, struct chunk *chunk, struct weft_error *err);
/* The chunk is free again. */
void sync_chunk_finish(struct sync *s, struct chunk *chunk);
/* Begins what chunks want, and sends it together.  0, or -errno. */
int sync_begin_wanted(struct sync *s);

#endif
