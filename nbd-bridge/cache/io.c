/*
 * The cache's own operations: requests that a lane makes for itself, and what their ends mean for the blocks.
 * Everything here runs on the lane's thread.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "nbd-bridge/cache/cache.h"

static unsigned *share_of(struct cache_lane *cl, enum cache_use use)
{
	return use == CACHE_AHEAD ? &cl->nr_ahead : use == CACHE_PUSH ? &cl->nr_push : NULL;
}

struct cache_io *cache_io_get(struct bridge_lane *lane, enum cache_use use)
{
	struct cache_lane *cl = lane->cache;
	struct cache_io *io = cl->free_ios;
	unsigned *share = share_of(cl, use);

	if (!io || (use != CACHE_DEMAND && use != CACHE_OTHER && cl->nr_free <= CACHE_RATHER_IOS))
		return NULL;
	if (share && *share >= (use == CACHE_AHEAD ? CACHE_AHEAD_IOS : CACHE_PUSH_IOS))
		return NULL;
	if (share)
		(*share)++;
	if (use == CACHE_PULL)
		atomic_fetch_add(&cl->cache->nr_pulls, 1);
	cl->free_ios = io->next;
	cl->nr_free--;
	io->use = (uint8_t)use;
	io->owner = NULL;
	return io;
}

void cache_io_put(struct cache_io *io)
{
	struct cache_lane *cl = io->lane->cache;
	unsigned *share = share_of(cl, io->use);
	struct bridge_request *rq = cl->io_waiters;

	if (share)
		(*share)--;
	io->next = cl->free_ios;
	cl->free_ios = io;
	cl->nr_free++;
	cl->io_waiters = NULL;
	while (rq) {
		struct bridge_request *next = rq->wait_next;

		cache_ready(io->lane, rq);
		rq = next;
	}
}

static void settle_owner(struct cache_io *io, int error)
{
	struct bridge_request *rq = io->owner;

	if (!rq)
		return;
	if (error < 0 && rq->status == 0)
		rq->status = error;
	if (--rq->nr_ops == 0 && rq->waits_at == BRIDGE_WAITS_OPS)
		cache_ready(io->lane, rq);
}

/* Under the chunk's lock.  The error that it ends with. */
static int end_fetch(struct cache_io *io, struct cache_slot *slot, int error)
{
	struct cache_counters *counters = &io->lane->cache->counters;

	cache_map_clear(&slot->fetching, io->first, io->nr);
	if (error == 0 && io->bounce)
		error = cache_copy_in(io->lane->cache->cache, slot, (uint64_t)io->first * CACHE_BLOCK, io->bounce, io->rq.len);
	if (error < 0)
		return error;
	cache_map_set(&slot->valid, io->first, io->nr);
	count(&counters->fetched_bytes, io->rq.len);
	if (io->use == CACHE_AHEAD) {
		cache_map_set(&slot->ahead, io->first, io->nr);
		count(&counters->ahead_bytes, io->rq.len);
	}
	if (io->use == CACHE_PULL)
		count(&counters->pulled_bytes, io->rq.len);
	return 0;
}

/* The same. */
static int end_push(struct cache_io *io, struct cache_slot *slot, int error)
{
	struct cache_counters *counters = &io->lane->cache->counters;
	struct bridge_cache *cache = io->lane->cache->cache;

	cache_map_clear(&slot->pushing, io->first, io->nr);
	if (error == 0)
		error = cache_mark_clean(cache, slot, io->first, io->nr);
	slot->push_error = error;
	if (error < 0) {
		if (cache_map_empty(&slot->dirty) || slot->push_seq < slot->dirty_seq)
			slot->dirty_seq = slot->push_seq;
		cache_map_set(&slot->dirty, io->first, io->nr);
		cache_count_dead(cache, slot);
		count(&counters->push_errors, 1);
	} else {
		count(&counters->pushed_bytes, io->rq.len);
	}
	if (cache_map_empty(&slot->dirty) && cache_map_empty(&slot->pushing))
		cache_uncount(cache, io->chunk, slot);
	atomic_store(&cache->push_error, error);
	return error;
}

static void io_done(struct bridge_request *rq, int error)
{
	struct cache_io *io = weft_container_of(rq, struct cache_io, rq);
	struct bridge_lane *lane = io->lane;
	struct bridge_cache *cache = lane->cache->cache;
	enum cache_use use = io->use;

	if (use != CACHE_OTHER) {
		struct cache_chunk *chunk = cache_lock(cache, io->chunk);
		struct cache_slot *slot = cache_slot_of(cache, chunk);

		slot->nr_ios--;
		error = use == CACHE_PUSH ? end_push(io, slot, error) : end_fetch(io, slot, error);
		/* Before those who wait go on: they are to see the error. */
		settle_owner(io, error);
		cache_wake_chunk(lane, chunk);
		cache_unlock(chunk);
		cache_wake_room(lane);
	} else {
		settle_owner(io, error);
	}
	cache_io_put(io);
	if (use == CACHE_PUSH && error < 0)
		cache_push_soon(lane);
	if (use == CACHE_PULL) {
		atomic_fetch_sub(&cache->nr_pulls, 1);
		if (error == 0)
			cache_pull(lane);
		else
			cache_pull_later(lane);
	}
}

void cache_io_blocks(struct cache_io *io, uint8_t kind, uint64_t c, struct cache_slot *slot, unsigned first,
	unsigned nr, struct cache_io **list)
{
	struct bridge_cache *cache = io->lane->cache->cache;
	uint64_t off = (c << cache->shift) + (uint64_t)first * CACHE_BLOCK;

	io->chunk = c;
	io->first = (uint16_t)first;
	io->nr = (uint16_t)nr;
	io->rq.kind = kind;
	io->rq.flags = 0;
	io->rq.off = off;
	io->rq.len = weft_min((uint64_t)nr * CACHE_BLOCK, cache->size_bytes - off);
	io->rq.buf = cache_bytes(cache, slot) + (uint64_t)first * CACHE_BLOCK;
	if (io->bounce)
		io->rq.buf = io->bounce;
	io->rq.mem = io->lane->cache->mem;
	slot->nr_ios++;
	io->next = *list;
	*list = io;
}

int cache_io_other(struct bridge_lane *lane, struct bridge_request *rq, uint8_t kind, uint8_t flags, uint64_t off,
	uint64_t len, uint8_t next_phase)
{
	struct cache_io *io = cache_io_get(lane, CACHE_OTHER);

	if (!io)
		return cache_wait_io(lane, rq);
	io->owner = rq;
	io->rq.kind = kind;
	io->rq.flags = flags;
	io->rq.off = off;
	io->rq.len = len;
	io->rq.buf = NULL;
	io->rq.mem = NULL;
	io->next = NULL;
	rq->phase = next_phase;
	rq->nr_ops++;
	rq->waits_at = BRIDGE_WAITS_OPS;
	cache_io_submit(lane, io);
	return -EAGAIN;
}

void cache_io_submit(struct bridge_lane *lane, struct cache_io *list)
{
	while (list) {
		struct cache_io *io = list;

		list = io->next;
		io->rq.done = io_done;
		io->rq.internal = true;
		lane_submit_direct(lane, &io->rq);
	}
}
