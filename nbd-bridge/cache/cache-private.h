/* SPDX-License-Identifier: MIT */
/*
 * Private to nbd-bridge/cache/: the insides of the chunk fetcher.
 *
 * The region is cut into chunks, and the cache's memory into slots of a chunk's size.  The table
 * says which slot a chunk has.  Each block of 4 KiB of a slot has a state:
 *
 *     absent         neither: the donor alone has it
 *     fetching       the transport writes into it; nobody else looks at it
 *     clean          valid: the same as the donor's
 *     dirty          valid, and newer than the donor's
 *     writing back   valid, and the transport reads it; it is read by anybody and written by nobody
 *
 * Where contents are sealed (seal.h), what was fetched is opened before it is valid, and what is
 * written back is sealed, both while no lock is held: nobody else looks at a block that is
 * fetching, or writes one that is written back.  A block's row is that operation's meanwhile.
 *
 * A failed fetch makes a block absent again, a failed write-back dirty again.
 *
 * Besides, a block of a cache file can be lost: the file's page cannot be read or written.  A lost
 * block is never valid, so a request that wants the block fails.  If the block was dirty, it stays
 * dirty, and each FLUSH fails.  A slot that lost only clean blocks is given up, and its chunk gets
 * another.
 *
 * Invariants: the chunk's lock alone guards a chunk's slot and its maps, and is never held over
 * anything that waits.  `fetching` and `pushing` are disjoint from each other and from `dirty`; a
 * block that is one of the latter two is valid.  A slot may be evicted when it is clean, no
 * operation is in it and nobody waits for its chunk.  A request that waits holds no slot but that
 * of the chunk it waits for; a ZERO also holds the chunks below that it has taken.  Order of locks:
 * the cache's, then a chunk's.  With the cache's lock held, a chunk's lock is only tried, except in
 * cache_clear(), beside which nobody works.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_CACHE_PRIVATE_H
#define WEFT_NBD_BRIDGE_CACHE_CACHE_PRIVATE_H

#include "fabric/base/counter.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/blocks.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/cache/seal.h"

struct cache_io;
struct cache_lane;
struct cache_slot;

enum {
	CACHE_IOS = 128,       /* a lane's own operations at most: fetches, pushes */
	CACHE_AHEAD_IOS = 64,  /* of them, read ahead of demand … */
	CACHE_PUSH_IOS = 32,   /* … and written back */
	CACHE_RATHER_IOS = 24, /* left for demand by everything else */
	CACHE_TREND = 32,      /* offsets that the trend is looked for in */
	CACHE_IOS_MIN = 48,
	/*
	 * a lane's bytes on their way to or from a cache file; more where CACHE_IOS_MIN chunks are
	 */
	CACHE_BOUNCE = 32 << 20,
};

/* What an operation is for: how many there may be of it at a time. */
enum cache_use { CACHE_DEMAND, CACHE_AHEAD, CACHE_PULL, CACHE_PUSH, CACHE_OTHER };

/* A request's phases. */
enum cache_phase {
	CACHE_PHASE_COPY,   /* READ, WRITE, ZERO, TRIM: between its buffer and the cache */
	/* ZERO, TRIM: the donor has done whole chunks; the cache's copies of those go */
	CACHE_PHASE_ZEROED,
	/* FLUSH, FUA, write-through: waits until all dirty bytes have arrived */
	CACHE_PHASE_WALK,
	/* FLUSH, FUA, of contents that are sealed with a file: the rows are to be on disk */
	CACHE_PHASE_COMMIT,
	CACHE_PHASE_END,
};

/* How the operations of one use differ from others.  A NULL function: they do not. */
struct cache_io_kind {
	enum cache_use use;
	/* One was taken. */
	void (*begin)(struct cache_lane *cl);
	/*
	 * It has ended: changes its blocks, under the chunk's lock.  NULL: it has no blocks.
	 * Returns the error that the operation ends with.
	 */
	int (*end)(struct cache_io *io, struct cache_slot *slot, int error);
	/* It was put back, and no lock is held. */
	void (*after)(struct cache_lane *cl, int error);
};

/* An operation of the cache's own. */
struct cache_io {
	struct bridge_request rq;
	struct cache_lane *cl;
	const struct cache_io_kind *kind;
	struct bridge_request *owner; /* a request that fails if this fails; NULL: none */
	uint64_t chunk;
	uint16_t first, nr; /* blocks */
	/*
	 * memory for a chunk that the transport knows, where it may not have the slot's bytes, or
	 * not as they are there; NULL: there is no such memory
	 */
	uint8_t *bounce;
	uint8_t *bytes;       /* in the slot */
	/* of a seal with a file: the blocks' rows once the donor has the bytes … */
	struct seal_row *rows;
	uint64_t ticket; /* … and what has to be on disk before they are sent; 0: nothing */
	struct cache_map bad; /* fetched blocks, counted from `first`, that did not open … */
	bool any_bad;         /* … if there are any */
	struct cache_io *next;
};

struct cache_slot {
	_Atomic uint64_t chunk; /* whose it is; UINT64_MAX: nobody's */
	int32_t next_free;
	bool referenced, counted; /* counted: in nr_dirty */
	/* damaged: some block is lost; dead: a dirty one is (counted in nr_dead) */
	bool damaged, dead;
	uint16_t nr_ios;
	int push_error; /* of the last write-back */
	/* The cache's sequence number when the oldest of these bytes were written. */
	uint64_t dirty_seq, push_seq;
	struct cache_map valid, dirty, fetching, pushing;
	struct cache_map ahead; /* fetched ahead of demand, and not asked for yet */
	struct cache_map lost;
};

/* A chunk without a slot is all zeros, so the table costs memory only where it is used. */
struct cache_chunk {
	pthread_mutex_t lock;
	int32_t slot; /* plus 1; 0: none */
	uint32_t nr_pins;
	uint32_t reads; /* requests that read it; stays at UINT32_MAX */
	bool zeroing; /* a ZERO of the whole chunk is under way; writes and fetches wait */
	struct bridge_request *waiters;
};

struct cache_trend {
	int64_t deltas[CACHE_TREND];
	unsigned nr;
	uint64_t last_off, last_end;
	unsigned in_sequence; /* READs that began where the one before ended */
	/* next: fetched up to here (or down to here); window: bytes to be ahead */
	uint64_t next, window;
	int64_t delta;         /* the trend; 0: none */
};

struct cache_counters {
	_Atomic uint64_t hits, misses, fetched_bytes, pushed_bytes, ahead_bytes, ahead_used,
		ahead_wasted;
	_Atomic uint64_t pulled_bytes, push_errors;
};

/* A lane's part of the cache. */
struct cache_lane {
	struct bridge_cache *cache;
	struct bridge_lane *lane;
	struct weft_worker *worker; /* the lane's */
	uint64_t boottime_ns, boottime_for_ns; /* at this now_ns of the worker */
	struct tp_mem *mem, *bounce_mem; /* of the slots, of the bounces; NULL: not needed */
	struct sealer *sealer; /* NULL: the contents are not sealed */
	struct seal_row *rows; /* of all operations; NULL: not needed */
	struct cache_io *held, **held_tail; /* operations that wait for their rows, in order */
	struct bridge_request *commit_waiters;
	uint8_t *bounces;
	size_t bounces_len;
	unsigned nr_ios;
	struct cache_io *free_ios;
	unsigned nr_free, nr_ahead, nr_push, nr_pulls;
	unsigned nr_lent, max_lent; /* READs whose senders look at the data in the slots */
	struct bridge_request *active;     /* requests that are not done */
	struct bridge_request *io_waiters; /* for an operation to come free */
	/* requests that wait until a donor confirms that it has the contents that are remembered */
	struct bridge_request *lease_waiters;
	_Atomic(struct bridge_request *) ready; /* requests that may go on; any thread adds */
	_Atomic bool kicked; /* write back at once */
	uint64_t push_at, push_left; /* the next chunk to look at, and how many */
	struct weft_timer push, pull;
	struct cache_trend trend;
	struct cache_counters counters;
	struct cache_io ios[CACHE_IOS];
};

/* ready.c: the pages of slots that are used for the first time. */
struct cache_ready {
	pthread_t thread;
	bool runs;
	_Atomic bool waits;
	/* slots that were handed out, from the first on; the cache's lock */
	_Atomic uint32_t nr_used;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* Under the lock. */
	bool ends;
	uint64_t bytes; /* whose pages are there */
};

struct bridge_cache {
	struct bridge_cache_config config;
	struct bridge_attachment *attachment;
	struct bridge_lanes *lanes;
	struct cache_path path;
	unsigned shift; /* of a chunk's size */
	uint64_t size_bytes, nr_chunks;
	uint32_t nr_slots, max_dirty;
	uint8_t *memory; /* the slots; the file's, if there is one */
	size_t memory_len;
	struct cache_ready ready;
	struct cache_file *file;
	struct seal *seal;
	/* the slots lie in a file on disk: pages may be lost, and no transport may keep them */
	bool on_disk;
	bool bounces_writes; /* the transport sends other memory than the slots' */
	struct cache_chunk *chunks;
	struct cache_slot *slots;
	_Atomic uint64_t *dirty_map; /* a bit for each chunk that is dirty or written back */
	_Atomic uint64_t seq;
	_Atomic uint32_t nr_dirty; /* slots */
	_Atomic uint32_t nr_dead, nr_given_up; /* slots of a file that are useless */
	/* requests that wait for a slot or for fewer dirty ones, or are about to */
	_Atomic uint32_t nr_room;
	_Atomic int push_error;    /* of the last write-back */
	_Atomic uint64_t pull_next; /* how many chunks had their turn */
	uint32_t *pull_order;       /* chunks; NULL: in the region's order */
	_Atomic uint32_t nr_pulls, pull_workers; /* chunks at a time: now, and at most */
	_Atomic uint64_t pull_due_ns;
	_Atomic bool pull_full; /* no slot is free: more pulling would evict chunks that are used */
	uint64_t window_min, window_max;
	pthread_mutex_t lock;
	/* Under the lock. */
	int32_t free_slots;
	uint32_t nr_free;
	uint32_t hand;
	struct bridge_request *room;
	struct cache_lane *of_lane[BRIDGE_MAX_LANES]; /* NULL: the lane has not joined */
};

/* Memory without a file only.  Once; cache_ready_end() takes one that was not started. */
void cache_ready_start(struct bridge_cache *cache);
void cache_ready_end(struct bridge_cache *cache);
/* The slot is handed out.  Under the cache's lock. */
void cache_ready_used(struct bridge_cache *cache, uint32_t slot);

static inline uint64_t cache_chunk_bytes(const struct bridge_cache *cache)
{
	return UINT64_C(1) << cache->shift;
}

static inline struct cache_chunk *cache_lock(struct bridge_cache *cache, uint64_t c)
{
	pthread_mutex_lock(&cache->chunks[c].lock);
	return &cache->chunks[c];
}

static inline void cache_unlock(struct cache_chunk *chunk)
{
	pthread_mutex_unlock(&chunk->lock);
}

static inline struct cache_slot *cache_slot_of(struct bridge_cache *cache,
	const struct cache_chunk *chunk)
{
	return chunk->slot ? &cache->slots[chunk->slot - 1] : NULL;
}

static inline uint8_t *cache_bytes(struct bridge_cache *cache, const struct cache_slot *slot)
{
	return cache->memory + ((uint64_t)(slot - cache->slots) << cache->shift);
}

/* The part of a request that is next: as far as it lies in one chunk. */
struct cache_piece {
	uint64_t c, off, len; /* off: in the chunk */
	unsigned first, nr;   /* blocks */
};

static inline struct cache_piece cache_piece_of(const struct bridge_cache *cache,
	const struct bridge_request *rq)
{
	uint64_t off = rq->lane.next_off & (cache_chunk_bytes(cache) - 1);
	uint64_t len =
		weft_min(cache_chunk_bytes(cache) - off, rq->off + rq->len - rq->lane.next_off);
	unsigned first = (unsigned)(off / CACHE_BLOCK);

	return (struct cache_piece){
		.c = rq->lane.next_off >> cache->shift,
		.off = off,
		.len = len,
		.first = first,
		.nr = (unsigned)((off + len - 1) / CACHE_BLOCK) - first + 1,
	};
}

static inline bool cache_at_end(const struct bridge_request *rq)
{
	return rq->lane.next_off == rq->off + rq->len;
}

static inline uint8_t *cache_buffer_at(const struct bridge_request *rq)
{
	return (uint8_t *)rq->buf + (rq->lane.next_off - rq->off);
}

/* wait.c: any lane's thread */

/* Puts rq among the chunk's waiters, and releases the lock.  Returns -EAGAIN. */
int cache_wait_chunk(struct cache_chunk *chunk, uint64_t c, struct bridge_request *rq);
/*
 * -EAGAIN: there are as many dirty chunks as allowed, and rq waits; 1: there are fewer by now;
 * -EIO: there will never be fewer.
 */
int cache_wait_room(struct cache_lane *cl, struct bridge_request *rq);
/* Under the cache's lock: rq waits for a slot, or for fewer dirty ones.  Returns -EAGAIN. */
int cache_push_room(struct bridge_cache *cache, struct bridge_request *rq);
int cache_wait_io(struct cache_lane *cl, struct bridge_request *rq);
/* rq, of any lane, may go on. */
void cache_ready(struct cache_lane *cl, struct bridge_request *rq);
/* Under the chunk's lock. */
void cache_wake_chunk(struct cache_lane *cl, struct cache_chunk *chunk);
void cache_wake_room(struct cache_lane *cl);
/* Makes all lanes write back at once. */
void cache_push_kick(struct cache_lane *cl);

/* slots.c: any lane's thread */

/*
 * Gives chunk c a slot if it has none: 1; -EAGAIN: rq (may be NULL) waits for one; -EIO: all are
 * lost.
 */
int cache_slot_add(struct cache_lane *cl, uint64_t c, struct bridge_request *rq);
/*
 * Some of a chunk's blocks are at the donor: notes that in the file, if there is one.  0, or -EIO:
 * the file cannot be written.  Under the chunk's lock.
 */
int cache_mark_clean(struct bridge_cache *cache, const struct cache_slot *slot, unsigned first,
	unsigned nr);
/* The last of a chunk's dirty bytes is clean, or gone.  Under the chunk's lock. */
void cache_uncount(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot);
/*
 * A wanted block is lost.  1: the chunk's slot is given up, and the chunk may be tried anew; or
 * -EIO.  Releases the chunk's lock.
 */
int cache_give_up_slot(struct cache_lane *cl, struct cache_chunk *chunk, struct cache_slot *slot);
/* A slot that belongs to no chunk is never used again. */
void cache_retire_slot(struct bridge_cache *cache);

/*
 * bytes.c: copies between a slot's bytes, of which a file may lose some, and other memory.  All
 * under the chunk's lock.  -EIO: blocks are lost, and noted as lost.
 */

/* len bytes from the slot's byte off on, which are valid. */
int cache_copy_out(struct bridge_cache *cache, struct cache_slot *slot, void *to, uint64_t off,
	uint64_t len);
/* Whether the bytes are there, before somebody looks at them in their place. */
int cache_touch(struct bridge_cache *cache, struct cache_slot *slot, uint64_t off, uint64_t len);
/* Stores bytes that were fetched; from NULL: zeros. */
int cache_copy_in(struct bridge_cache *cache, struct cache_slot *slot, uint64_t off,
	const void *from, uint64_t len);
/*
 * Stores bytes that a request writes (from NULL: zeros).  They become valid and dirty, in the file
 * too; after -EIO that may be true of a part of them.
 */
int cache_write(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot, uint64_t off,
	const void *from, uint64_t len);
static inline bool cache_is_lost(const struct cache_slot *slot, unsigned first, unsigned nr)
{
	return slot->damaged && cache_map_any(&slot->lost, first, nr);
}
/* To be called when the slot's dirty blocks have changed. */
void cache_count_dead(struct bridge_cache *cache, struct cache_slot *slot);

/* io.c: the cache's own operations.  The lane's thread. */

/* NULL: no operation is free, or this use has its share already. */
struct cache_io *cache_io_get(struct cache_lane *cl, const struct cache_io_kind *kind);
void cache_io_put(struct cache_io *io);
/*
 * Fills in an operation for some of a chunk's blocks, and adds it to the list.  Under the chunk's
 * lock.  The bounce of a WRITE has the bytes already.
 */
void cache_io_blocks(struct cache_io *io, uint8_t kind, uint64_t c, struct cache_slot *slot,
	unsigned first, unsigned nr, struct cache_io **list);
/*
 * Begins an operation without blocks; rq waits for it, and goes on with its next phase.  Returns
 * -EAGAIN.
 */
int cache_io_other(struct cache_lane *cl, struct bridge_request *rq, uint8_t kind, uint8_t flags,
	uint64_t off, uint64_t len, uint8_t next_phase);
/* With no lock held: the operations may be done within this call. */
void cache_io_submit(struct cache_lane *cl, struct cache_io *list);

/* fetch.c: the lane's thread */

extern const struct cache_io_kind cache_demand;
/* As the `end` of a kind that fetches. */
int cache_end_fetch(struct cache_io *io, struct cache_slot *slot, int error);
/*
 * Fetches those of these blocks that are absent.  Under the chunk's lock.  -EAGAIN: not all are
 * being fetched, for want of operations.
 */
int cache_fetch(struct cache_lane *cl, uint64_t c, struct cache_slot *slot, unsigned first,
	unsigned nr, const struct cache_io_kind *kind, struct bridge_request *owner,
	struct cache_io **list);
/* Fetches as far as there are slots and operations; fewer are no error.  Returns where it ended. */
uint64_t cache_fetch_range(struct cache_lane *cl, uint64_t off, uint64_t len,
	const struct cache_io_kind *kind);

/* ahead.c: the lane's thread */

extern const struct cache_io_kind cache_ahead;
/* After a READ came: looks for a trend, and fetches ahead.  waits: whether the READ has to wait. */
void cache_trend_note(struct cache_lane *cl, uint64_t off, uint64_t len, bool waits);

/* sealed.c: the lane's thread */

/* Seals what a WRITE sends, and sets the blocks' rows.  The caller holds no lock.  0, or -EIO. */
int cache_seal(struct cache_io *io);
/* Opens what a READ fetched, in its place; io->bad: all but these.  The caller holds no lock. */
void cache_open(struct cache_io *io);
/* Makes absent blocks valid that are zeros by their rows.  The caller holds the chunk's lock. */
void cache_fill_zeros(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot,
	unsigned first, unsigned nr);
/*
 * Of a seal with a file.  Tells what was in doubt, and begins to log: before a lane joins, on the
 * control thread, which waits for READs.  0, or -errno.
 */
int cache_end_doubts(struct bridge_cache *cache, struct weft_error *err);
/* The seal's thread wakes the lanes, or does not any more. */
void cache_watch_seal(struct bridge_cache *cache, bool on);
/* Sends the operations whose rows are on disk, and lets requests go on.  True: there were any. */
bool cache_send_held(struct cache_lane *cl);
/* A request's step: waits until all rows that are settled are on disk. */
int cache_step_commit(struct cache_lane *cl, struct bridge_request *rq);
/* Begins other contents, empty, while no request is under way.  0, or -errno. */
int cache_seal_anew(struct bridge_cache *cache, struct weft_error *err);

/* pull.c: the lane's thread */

/* Pulls the whole region, in order, as far as there is memory. */
void cache_pull(struct cache_lane *cl);
void cache_pull_init(struct cache_lane *cl);

/* push.c: the lane's thread */

/*
 * Starts to write back the dirty blocks of chunk c.  1: it has; 0: there are none, or not now;
 * -EAGAIN: no operation is free.
 */
int cache_push(struct cache_lane *cl, uint64_t c);
/* The same if all of chunk c is dirty: a stream of writes has filled the chunk and gone on. */
void cache_push_filled(struct cache_lane *cl, uint64_t c);
void cache_push_pump(struct cache_lane *cl);
/* Something became dirty. */
void cache_push_soon(struct cache_lane *cl);
/*
 * The first chunk from `from` on, and before `to`, that is dirty or being written back; `to`: none.
 */
uint64_t cache_next_dirty(const struct bridge_cache *cache, uint64_t from, uint64_t to);
void cache_push_init(struct cache_lane *cl);

/*
 * read.c, write.c, walk.c: a request's steps.  1: the next step is due; 0: the request is done;
 * -EAGAIN: it waits; or the error that it ends with.  The lane's thread.
 */
int cache_step_read(struct cache_lane *cl, struct bridge_request *rq);
int cache_step_copy(struct cache_lane *cl, struct bridge_request *rq);
int cache_step_zeroed(struct cache_lane *cl, struct bridge_request *rq);
int cache_step_walk(struct cache_lane *cl, struct bridge_request *rq);
int cache_step_end(struct cache_lane *cl, struct bridge_request *rq);
/* FUA, write-through and FLUSH begin here, with everything that is dirty by now.  Returns 1. */
int cache_begin_walk(struct cache_lane *cl, struct bridge_request *rq);
/* Releases the chunks that a ZERO has taken.  zeroed: they are zeros at the donor. */
int cache_let_go(struct cache_lane *cl, struct bridge_request *rq, bool zeroed);

/* request.c */
extern const struct lane_stage cache_stage;

/*
 * sizes.c: sets the sizes of chunks and slots, and how far to read ahead: as the file says that is
 * resumed, or to fit the path.  0, or -EINVAL.
 */
int cache_set_sizes(struct bridge_cache *cache, struct weft_error *err);

#endif
