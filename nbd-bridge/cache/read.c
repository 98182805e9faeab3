/* SPDX-License-Identifier: MIT */
/*
 * READ in the cache: from a slot, after its absent blocks have been fetched.  Under a request's
 * phase COPY.  The lane's thread.
 */
#include <errno.h>

#include "nbd-bridge/cache/cache-private.h"

static void used_ahead(struct cache_lane *cl, struct cache_slot *slot, const struct cache_piece *p)
{
	unsigned used = cache_map_count(&slot->ahead, p->first, p->nr);

	if (used == 0)
		return;
	cache_map_clear(&slot->ahead, p->first, p->nr);
	weft_count(&cl->counters.ahead_used, (uint64_t)used * CACHE_BLOCK);
}

static int read_absent(struct cache_lane *cl, struct bridge_request *rq,
	const struct cache_piece *p, struct cache_chunk *chunk, struct cache_slot *slot)
{
	struct cache_io *list = NULL;

	if (cache_is_lost(slot, p->first, p->nr))
		return cache_give_up_slot(cl, chunk, slot);
	int r = cache_fetch(cl, p->c, slot, p->first, p->nr, &cache_demand, rq, &list);

	rq->cache.missed = true;
	if (r < 0 && !list && !cache_map_any(&slot->fetching, p->first, p->nr)) {
		cache_unlock(chunk);
		return cache_wait_io(cl, rq);
	}
	r = cache_wait_chunk(chunk, p->c, rq);
	cache_io_submit(cl, list);
	/* The next blocks of the request arrive meanwhile. */
	if (rq->lane.next_off + p->len < rq->off + rq->len)
		cache_fetch_range(cl, rq->lane.next_off + p->len,
			rq->off + rq->len - rq->lane.next_off - p->len, &cache_demand);
	return r;
}

/* Leaves the READ's data in their slot, if the request allows that. */
static int hand_over(struct cache_lane *cl, struct bridge_request *rq, const struct cache_piece *p,
	struct cache_chunk *chunk, struct cache_slot *slot)
{
	if (!rq->may_lend || p->len != rq->len || cl->nr_lent == cl->max_lent)
		return cache_copy_out(cl->cache, slot, cache_buffer_at(rq), p->off, p->len);
	if (cache_touch(cl->cache, slot, p->off, p->len) < 0)
		return -EIO;
	cl->nr_lent++;
	chunk->nr_pins++;
	rq->lent = cache_bytes(cl->cache, slot) + p->off;
	return 0;
}

int cache_step_read(struct cache_lane *cl, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;

	if (cache_at_end(rq))
		return 0;
	const struct cache_piece p = cache_piece_of(cache, rq);
	struct cache_chunk *chunk = cache_lock(cache, p.c);
	struct cache_slot *slot = cache_slot_of(cache, chunk);
	if (chunk->zeroing)
		return cache_wait_chunk(chunk, p.c, rq);
	if (!slot) {
		cache_unlock(chunk);
		rq->cache.missed = true;
		return cache_slot_add(cl, p.c, rq);
	}
	slot->referenced = true;
	if (cache->seal)
		cache_fill_zeros(cache, p.c, slot, p.first, p.nr);
	if (!cache_map_all(&slot->valid, p.first, p.nr))
		return read_absent(cl, rq, &p, chunk, slot);
	if (hand_over(cl, rq, &p, chunk, slot) < 0)
		return cache_give_up_slot(cl, chunk, slot);
	chunk->reads += chunk->reads < UINT32_MAX;
	used_ahead(cl, slot, &p);
	cache_unlock(chunk);
	rq->lane.next_off += p.len;
	return 1;
}
