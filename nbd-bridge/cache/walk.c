/* SPDX-License-Identifier: MIT */
/*
 * FLUSH, FUA and write-through in the cache: a walk over the blocks that were dirty when it began,
 * until all of them have arrived.  Under a request's phases WALK and END.  The lane's thread.
 */
#include <errno.h>

#include "nbd-bridge/cache/cache-private.h"

/* Where FUA, write-through and FLUSH begin: everything that is dirty by now. */
int cache_begin_walk(struct cache_lane *cl, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;
	bool all = rq->kind == TP_FLUSH;

	rq->cache.phase = CACHE_PHASE_WALK;
	rq->cache.seq = atomic_fetch_add(&cache->seq, 1);
	rq->cache.walk_at = all ? 0 : rq->off >> cache->shift;
	rq->cache.walk_end = all
		? cache->nr_chunks
		: (rq->off + rq->len - 1 + cache_chunk_bytes(cache)) >> cache->shift;
	rq->cache.waited = false;
	if (all && atomic_load(&cache->nr_dirty) > 0)
		cache_push_kick(cl);
	return 1;
}

/* Whether the slot has dirty blocks that can be written back. */
static bool has_dirty(const struct cache_slot *slot)
{
	const struct cache_map map = cache_map_without(&slot->dirty, &slot->lost);

	return !cache_map_empty(&map);
}

/* Whether the chunk still has, or is sending, bytes that were dirty when the walk began. */
static bool is_due(const struct cache_slot *slot, uint64_t seq)
{
	return slot &&
		((!cache_map_empty(&slot->pushing) && slot->push_seq <= seq) ||
			(slot->dirty_seq <= seq && has_dirty(slot)));
}

/* Whether a write-back has failed since the request waits. */
static bool is_failed(const struct bridge_request *rq, const struct cache_slot *slot)
{
	return rq->cache.waited && slot->push_error < 0 && cache_map_empty(&slot->pushing);
}

static int walk_on(struct bridge_request *rq)
{
	rq->cache.walk_at++;
	rq->cache.waited = false;
	return 1;
}

int cache_step_end(struct cache_lane *cl, struct bridge_request *rq)
{
	return rq->cache.lost ? -EIO : 0;
}

int cache_step_walk(struct cache_lane *cl, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;
	uint64_t c = cache_next_dirty(cache, rq->cache.walk_at, rq->cache.walk_end);

	if (c != rq->cache.walk_at)
		rq->cache.waited = false;
	rq->cache.walk_at = c;
	if (c == rq->cache.walk_end) {
		bool sends = (rq->kind == TP_FLUSH || (rq->flags & TP_FUA)) &&
			cl->cache->attachment->info.can_flush;

		const uint8_t next = cl->rows ? CACHE_PHASE_COMMIT : CACHE_PHASE_END;

		return sends ? cache_io_other(cl, rq, TP_FLUSH, 0, 0, 0, next)
			     : cache_step_end(cl, rq);
	}
	struct cache_chunk *chunk = cache_lock(cache, c);
	const struct cache_slot *slot = cache_slot_of(cache, chunk);
	if (is_due(slot, rq->cache.seq) && !chunk->zeroing && cache_map_empty(&slot->pushing) &&
		!is_failed(rq, slot)) {
		cache_unlock(chunk);
		/* Other lanes may be able to write it back. */
		if (cache_push(cl, c) <= 0)
			cache_push_kick(cl);
		chunk = cache_lock(cache, c);
		slot = cache_slot_of(cache, chunk);
	}
	if (!is_due(slot, rq->cache.seq)) {
		/*
		 * The walk fails at its end only: blocks that are not lost are written back all the
		 * same.
		 */
		rq->cache.lost |= slot && slot->dead && slot->dirty_seq <= rq->cache.seq;
		cache_unlock(chunk);
		return walk_on(rq);
	}
	if (is_failed(rq, slot)) {
		int error = slot->push_error;

		cache_unlock(chunk);
		return error;
	}
	rq->cache.waited = true;
	return cache_wait_chunk(chunk, c, rq);
}
