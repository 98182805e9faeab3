/* SPDX-License-Identifier: MIT */
/*
 * WRITE, ZERO and TRIM in the cache.  Under a request's phases COPY and ZEROED.  The lane's thread.
 */
#include <errno.h>
#include <string.h>

#include "nbd-bridge/cache/cache-private.h"

/*
 * Fetches the absent blocks at the ends of a write that covers only a part of them.  Under the
 * chunk's lock.
 */
static int fetch_ends(struct cache_lane *cl, struct bridge_request *rq, const struct cache_piece *p,
	struct cache_slot *slot, struct cache_io **list)
{
	struct bridge_cache *cache = cl->cache;
	uint64_t end = rq->lane.next_off + p->len;
	unsigned last = p->first + p->nr - 1;
	int r = 1;

	if (p->off % CACHE_BLOCK != 0 && !cache_map_all(&slot->valid, p->first, 1))
		r = cache_fetch(cl, p->c, slot, p->first, 1, &cache_demand, rq, list) < 0 ? -EAGAIN
											  : 0;
	if (r >= 0 && end % CACHE_BLOCK != 0 && end != cache->size_bytes &&
		!cache_map_all(&slot->valid, last, 1))
		r = cache_fetch(cl, p->c, slot, last, 1, &cache_demand, rq, list) < 0 ? -EAGAIN : 0;
	return r;
}

/* Makes those of these blocks valid that are sealed zeros, which nobody fetches. */
static void fill_ends(struct bridge_cache *cache, const struct cache_piece *p,
	struct cache_slot *slot)
{
	if (p->off % CACHE_BLOCK != 0)
		cache_fill_zeros(cache, p->c, slot, p->first, 1);
	if ((p->off + p->len) % CACHE_BLOCK != 0)
		cache_fill_zeros(cache, p->c, slot, p->first + p->nr - 1, 1);
}

/* Under the chunk's lock.  False: there are as many dirty chunks as allowed. */
static bool count_dirty(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot)
{
	if (!slot->counted) {
		uint32_t n = atomic_load(&cache->nr_dirty);

		do
			if (n >= cache->max_dirty)
				return false;
		while (!atomic_compare_exchange_weak(&cache->nr_dirty, &n, n + 1));
		slot->counted = true;
		atomic_fetch_or(&cache->dirty_map[c / 64], UINT64_C(1) << c % 64);
	}
	if (cache_map_empty(&slot->dirty))
		slot->dirty_seq = atomic_load(&cache->seq);
	return true;
}

static int wait_for_room(struct cache_lane *cl, struct bridge_request *rq,
	struct cache_chunk *chunk)
{
	cache_unlock(chunk);
	int r = cache_wait_room(cl, rq);
	if (r < 0)
		cache_push_kick(cl);
	return r;
}

static int step_write(struct cache_lane *cl, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;
	const struct cache_piece p = cache_piece_of(cache, rq);
	struct cache_chunk *chunk = cache_lock(cache, p.c);
	struct cache_slot *slot = cache_slot_of(cache, chunk);
	struct cache_io *list = NULL;

	if (chunk->zeroing)
		return cache_wait_chunk(chunk, p.c, rq);
	if (!slot) {
		cache_unlock(chunk);
		return cache_slot_add(cl, p.c, rq);
	}
	slot->referenced = true;
	if (cache->seal)
		fill_ends(cache, &p, slot);
	if (cache_is_lost(slot, p.first, p.nr))
		return cache_give_up_slot(cl, chunk, slot);
	if (cache_map_any(&slot->fetching, p.first, p.nr) ||
		cache_map_any(&slot->pushing, p.first, p.nr))
		return cache_wait_chunk(chunk, p.c, rq);
	int r = fetch_ends(cl, rq, &p, slot, &list);
	if (r == -EAGAIN && !list) {
		cache_unlock(chunk);
		return cache_wait_io(cl, rq);
	}
	if (r <= 0) {
		r = cache_wait_chunk(chunk, p.c, rq);
		cache_io_submit(cl, list);
		return r;
	}
	if (!count_dirty(cache, p.c, slot))
		return wait_for_room(cl, rq, chunk);
	r = cache_write(cache, p.c, slot, p.off, rq->kind == TP_ZERO ? NULL : cache_buffer_at(rq),
		p.len);
	if (r < 0 && cache_map_empty(&slot->dirty) && cache_map_empty(&slot->pushing))
		cache_uncount(cache, p.c, slot);
	cache_unlock(chunk);
	cache_push_soon(cl);
	if (r < 0) {
		cache_wake_room(cl);
		return r;
	}
	if (p.off == 0 && p.c > 0)
		cache_push_filled(cl, p.c - 1);
	rq->lane.next_off += p.len;
	return 1;
}

static int end_of_copy(struct cache_lane *cl, struct bridge_request *rq)
{
	if ((rq->flags & TP_FUA) || cl->cache->config.write_through)
		return cache_begin_walk(cl, rq);
	return 0;
}

/* Whole chunks are held, one by one, then made zeros (or trimmed) at the donor. */
static int take_chunk(struct cache_lane *cl, struct bridge_request *rq, const struct cache_piece *p)
{
	struct cache_chunk *chunk = cache_lock(cl->cache, p->c);
	struct cache_slot *slot = cache_slot_of(cl->cache, chunk);

	if (chunk->zeroing || (slot && slot->nr_ios > 0))
		return cache_wait_chunk(chunk, p->c, rq);
	chunk->zeroing = true;
	cache_unlock(chunk);
	if (rq->cache.nr_taken++ == 0)
		rq->cache.taken_from = p->c;
	rq->lane.next_off += p->len;
	return 1;
}

/*
 * Drops what the cache has of a chunk that was made zeros.  The caller holds the chunk's lock.
 * -EIO: the cache file still says that it has newer bytes, and so does the cache.
 */
static int drop_zeroed(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot)
{
	if (!slot)
		return 0;
	if (cache_mark_clean(cache, slot, 0, (unsigned)(cache_chunk_bytes(cache) / CACHE_BLOCK)) <
		0)
		return -EIO;
	memset(&slot->valid, 0, sizeof(slot->valid));
	memset(&slot->dirty, 0, sizeof(slot->dirty));
	memset(&slot->ahead, 0, sizeof(slot->ahead));
	slot->referenced = false;
	cache_uncount(cache, c, slot);
	return 0;
}

/*
 * Makes zeros of the sealed chunks that a ZERO or TRIM has taken, whatever the donors do then.  A
 * bridge that is killed meanwhile leaves the old bytes, or zeros.
 */
static void zero_taken(struct cache_lane *cl, const struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;

	for (uint64_t i = 0; i < rq->cache.nr_taken; i++) {
		const uint64_t c = rq->cache.taken_from + i, off = c << cache->shift;
		const uint64_t len = weft_min(cache_chunk_bytes(cache), cache->size_bytes - off);
		struct cache_chunk *chunk = cache_lock(cache, c);

		seal_make_zero(cache->seal, off / CACHE_BLOCK,
			(len + CACHE_BLOCK - 1) / CACHE_BLOCK);
		/* A chunk that cannot be dropped is newer, and is written back. */
		drop_zeroed(cache, c, cache_slot_of(cache, chunk));
		cache_unlock(chunk);
	}
}

int cache_let_go(struct cache_lane *cl, struct bridge_request *rq, bool zeroed)
{
	struct bridge_cache *cache = cl->cache;
	int r = 0;

	for (uint64_t c = rq->cache.taken_from; rq->cache.nr_taken > 0; c++, rq->cache.nr_taken--) {
		struct cache_chunk *chunk = cache_lock(cache, c);

		chunk->zeroing = false;
		if (zeroed && drop_zeroed(cache, c, cache_slot_of(cache, chunk)) < 0)
			r = -EIO;
		cache_wake_chunk(cl, chunk);
		cache_unlock(chunk);
	}
	cache_wake_room(cl);
	return r;
}

int cache_step_copy(struct cache_lane *cl, struct bridge_request *rq)
{
	const struct bridge_cache *cache = cl->cache;

	if (rq->kind == TP_READ)
		return cache_step_read(cl, rq);
	if ((rq->kind == TP_ZERO || rq->kind == TP_TRIM) && !cache_at_end(rq)) {
		const struct cache_piece p = cache_piece_of(cache, rq);

		if (p.off == 0 &&
			(p.len == cache_chunk_bytes(cache) ||
				rq->lane.next_off + p.len == cache->size_bytes))
			return take_chunk(cl, rq, &p);
	}
	if (rq->cache.nr_taken > 0) {
		uint64_t off = rq->cache.taken_from << cache->shift;

		if (cache->seal)
			zero_taken(cl, rq);
		return cache_io_other(cl, rq, rq->kind, rq->flags & (uint8_t)~TP_FUA, off,
			rq->lane.next_off - off, CACHE_PHASE_ZEROED);
	}
	if (cache_at_end(rq))
		return end_of_copy(cl, rq);
	if (rq->kind == TP_TRIM) {
		/* Parts of chunks stay as they are, which TRIM allows. */
		rq->lane.next_off += cache_piece_of(cache, rq).len;
		return 1;
	}
	return step_write(cl, rq);
}

int cache_step_zeroed(struct cache_lane *cl, struct bridge_request *rq)
{
	int r = cache_let_go(cl, rq, true);

	rq->cache.phase = CACHE_PHASE_COPY;
	return r < 0 ? r : 1;
}
