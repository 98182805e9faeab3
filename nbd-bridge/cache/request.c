/*
 * Requests of a managed attachment: answered from the cache, or gone on with when what they wait for is there.
 * Runs on the request's lane, which others only tell that it may go on.
 *
 * A request has a phase and, in the first, a place that it has come to.  It works on the piece of it that lies in
 * one chunk, under the chunk's lock; when it cannot, it waits in one list and tries the same piece again.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "nbd-bridge/cache/cache.h"

enum phase {
	PHASE_COPY,   /* READ, WRITE, ZERO, TRIM: between its buffer and the cache */
	PHASE_ZEROED, /* ZERO, TRIM: of whole chunks, it is done at the donor; the cache's copies go */
	PHASE_WALK,   /* FLUSH, FUA, write-through: until everything dirty has arrived */
	PHASE_END,
};

struct piece {
	uint64_t c, off, len; /* off: in the chunk */
	unsigned first, nr;   /* blocks */
};

static struct piece piece_of(const struct bridge_cache *cache, const struct bridge_request *rq)
{
	uint64_t off = rq->next_off & (cache_chunk_bytes(cache) - 1);
	uint64_t len = weft_min(cache_chunk_bytes(cache) - off, rq->off + rq->len - rq->next_off);
	unsigned first = (unsigned)(off / CACHE_BLOCK);

	return (struct piece){
		.c = rq->next_off >> cache->shift,
		.off = off,
		.len = len,
		.first = first,
		.nr = (unsigned)((off + len - 1) / CACHE_BLOCK) - first + 1,
	};
}

static bool at_end(const struct bridge_request *rq)
{
	return rq->next_off == rq->off + rq->len;
}

static uint8_t *buffer_at(const struct bridge_request *rq)
{
	return (uint8_t *)rq->buf + (rq->next_off - rq->off);
}

/* ---- READ ---- */

static void used_ahead(struct bridge_lane *lane, struct cache_slot *slot, const struct piece *p)
{
	unsigned used = cache_map_count(&slot->ahead, p->first, p->nr);

	if (used == 0)
		return;
	cache_map_clear(&slot->ahead, p->first, p->nr);
	count(&lane->cache->counters.ahead_used, (uint64_t)used * CACHE_BLOCK);
}

static int read_absent(struct bridge_lane *lane, struct bridge_request *rq, const struct piece *p,
	struct cache_chunk *chunk, struct cache_slot *slot)
{
	struct cache_io *list = NULL;

	if (cache_is_lost(slot, p->first, p->nr))
		return cache_give_up_slot(lane, chunk, slot);
	int r = cache_fetch(lane, p->c, slot, p->first, p->nr, CACHE_DEMAND, rq, &list);

	rq->missed = true;
	if (r < 0 && !list && !cache_map_any(&slot->fetching, p->first, p->nr)) {
		cache_unlock(chunk);
		return cache_wait_io(lane, rq);
	}
	r = cache_wait_chunk(chunk, p->c, rq);
	cache_io_submit(lane, list);
	/* What comes behind it arrives meanwhile. */
	if (rq->next_off + p->len < rq->off + rq->len)
		cache_fetch_range(lane, rq->next_off + p->len, rq->off + rq->len - rq->next_off - p->len,
			CACHE_DEMAND);
	return r;
}

/* The READ's data are left where they are, if they may. */
static int hand_over(struct cache_lane *cl, struct bridge_request *rq, const struct piece *p, struct cache_chunk *chunk, struct cache_slot *slot)
{
	if (!rq->may_lend || p->len != rq->len || cl->nr_lent == cl->max_lent)
		return cache_copy_out(cl->cache, slot, buffer_at(rq), p->off, p->len);
	if (cache_touch(cl->cache, slot, p->off, p->len) < 0)
		return -EIO;
	cl->nr_lent++;
	chunk->nr_pins++;
	rq->lent = cache_bytes(cl->cache, slot) + p->off;
	return 0;
}

void cache_give_back(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;
	struct cache_chunk *chunk = cache_lock(cache, rq->off >> cache->shift);

	chunk->nr_pins--;
	cache_unlock(chunk);
	lane->cache->nr_lent--;
	rq->lent = NULL;
	cache_wake_room(lane);
}

static int step_read(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;

	if (at_end(rq))
		return 0;
	const struct piece p = piece_of(cache, rq);
	struct cache_chunk *chunk = cache_lock(cache, p.c);
	struct cache_slot *slot = cache_slot_of(cache, chunk);
	if (chunk->zeroing)
		return cache_wait_chunk(chunk, p.c, rq);
	if (!slot) {
		cache_unlock(chunk);
		rq->missed = true;
		return cache_slot_add(lane, p.c, rq);
	}
	slot->referenced = true;
	if (!cache_map_all(&slot->valid, p.first, p.nr))
		return read_absent(lane, rq, &p, chunk, slot);
	if (hand_over(lane->cache, rq, &p, chunk, slot) < 0)
		return cache_give_up_slot(lane, chunk, slot);
	chunk->reads += chunk->reads < UINT32_MAX;
	used_ahead(lane, slot, &p);
	cache_unlock(chunk);
	rq->next_off += p.len;
	return 1;
}

/* ---- WRITE and ZERO ---- */

/* The blocks at its ends that it writes a part of only, and that are not known yet: fetched.  Under the chunk's lock. */
static int fetch_ends(struct bridge_lane *lane, struct bridge_request *rq, const struct piece *p,
	struct cache_slot *slot, struct cache_io **list)
{
	const struct bridge_cache *cache = lane->cache->cache;
	uint64_t end = rq->next_off + p->len;
	unsigned last = p->first + p->nr - 1;
	int r = 1;

	if (p->off % CACHE_BLOCK != 0 && !cache_map_all(&slot->valid, p->first, 1))
		r = cache_fetch(lane, p->c, slot, p->first, 1, CACHE_DEMAND, rq, list) < 0 ? -EAGAIN : 0;
	if (r >= 0 && end % CACHE_BLOCK != 0 && end != cache->size_bytes && !cache_map_all(&slot->valid, last, 1))
		r = cache_fetch(lane, p->c, slot, last, 1, CACHE_DEMAND, rq, list) < 0 ? -EAGAIN : 0;
	return r;
}

/* Under the chunk's lock.  false: there are as many dirty chunks as there may be. */
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

static int wait_for_room(struct bridge_lane *lane, struct bridge_request *rq, struct cache_chunk *chunk)
{
	cache_unlock(chunk);
	int r = cache_wait_room(lane, rq);
	if (r < 0)
		cache_push_kick(lane);
	return r;
}

static int step_write(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;
	const struct piece p = piece_of(cache, rq);
	struct cache_chunk *chunk = cache_lock(cache, p.c);
	struct cache_slot *slot = cache_slot_of(cache, chunk);
	struct cache_io *list = NULL;

	if (chunk->zeroing)
		return cache_wait_chunk(chunk, p.c, rq);
	if (!slot) {
		cache_unlock(chunk);
		return cache_slot_add(lane, p.c, rq);
	}
	slot->referenced = true;
	if (cache_is_lost(slot, p.first, p.nr))
		return cache_give_up_slot(lane, chunk, slot);
	if (cache_map_any(&slot->fetching, p.first, p.nr) || cache_map_any(&slot->pushing, p.first, p.nr))
		return cache_wait_chunk(chunk, p.c, rq);
	int r = fetch_ends(lane, rq, &p, slot, &list);
	if (r == -EAGAIN && !list) {
		cache_unlock(chunk);
		return cache_wait_io(lane, rq);
	}
	if (r <= 0) {
		r = cache_wait_chunk(chunk, p.c, rq);
		cache_io_submit(lane, list);
		return r;
	}
	if (!count_dirty(cache, p.c, slot))
		return wait_for_room(lane, rq, chunk);
	r = cache_write(cache, p.c, slot, p.off, rq->kind == TP_ZERO ? NULL : buffer_at(rq), p.len);
	if (r < 0 && cache_map_empty(&slot->dirty) && cache_map_empty(&slot->pushing))
		cache_uncount(cache, p.c, slot);
	cache_unlock(chunk);
	cache_push_soon(lane);
	if (r < 0) {
		cache_wake_room(lane);
		return r;
	}
	if (p.off == 0 && p.c > 0)
		cache_push_filled(lane, p.c - 1);
	rq->next_off += p.len;
	return 1;
}

/* Where FUA, write-through and FLUSH begin: everything that is dirty by now. */
static int begin_walk(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;
	bool all = rq->kind == TP_FLUSH;

	rq->phase = PHASE_WALK;
	rq->seq = atomic_fetch_add(&cache->seq, 1);
	rq->walk_at = all ? 0 : rq->off >> cache->shift;
	rq->walk_end = all ? cache->nr_chunks : (rq->off + rq->len - 1 + cache_chunk_bytes(cache)) >> cache->shift;
	rq->waited = false;
	if (all && atomic_load(&cache->nr_dirty) > 0)
		cache_push_kick(lane);
	return 1;
}

static int end_of_copy(struct bridge_lane *lane, struct bridge_request *rq)
{
	if ((rq->flags & TP_FUA) || lane->bridge->config.write_through)
		return begin_walk(lane, rq);
	return 0;
}

/* Whole chunks are held, one by one, then made zeros (or trimmed) at the donor. */
static int take_chunk(struct bridge_lane *lane, struct bridge_request *rq, const struct piece *p)
{
	struct cache_chunk *chunk = cache_lock(lane->cache->cache, p->c);
	struct cache_slot *slot = cache_slot_of(lane->cache->cache, chunk);

	if (chunk->zeroing || (slot && slot->nr_ios > 0))
		return cache_wait_chunk(chunk, p->c, rq);
	chunk->zeroing = true;
	cache_unlock(chunk);
	if (rq->nr_taken++ == 0)
		rq->taken_from = p->c;
	rq->next_off += p->len;
	return 1;
}

/* -EIO: what was zeroed is so at the donor, but the cache file says still that it has something newer, and so has the cache. */
static int let_go(struct bridge_lane *lane, struct bridge_request *rq, bool zeroed)
{
	struct bridge_cache *cache = lane->cache->cache;
	int r = 0;

	for (uint64_t c = rq->taken_from; rq->nr_taken > 0; c++, rq->nr_taken--) {
		struct cache_chunk *chunk = cache_lock(cache, c);
		struct cache_slot *slot = cache_slot_of(cache, chunk);

		chunk->zeroing = false;
		if (slot && zeroed && cache_mark_clean(cache, slot, 0, (unsigned)(cache_chunk_bytes(cache) / CACHE_BLOCK)) < 0) {
			r = -EIO;
		} else if (slot && zeroed) {
			memset(&slot->valid, 0, sizeof(slot->valid));
			memset(&slot->dirty, 0, sizeof(slot->dirty));
			memset(&slot->ahead, 0, sizeof(slot->ahead));
			slot->referenced = false;
			cache_uncount(cache, c, slot);
		}
		cache_wake_chunk(lane, chunk);
		cache_unlock(chunk);
	}
	cache_wake_room(lane);
	return r;
}

static int step_copy(struct bridge_lane *lane, struct bridge_request *rq)
{
	const struct bridge_cache *cache = lane->cache->cache;

	if (rq->kind == TP_READ)
		return step_read(lane, rq);
	if ((rq->kind == TP_ZERO || rq->kind == TP_TRIM) && !at_end(rq)) {
		const struct piece p = piece_of(cache, rq);

		if (p.off == 0 && (p.len == cache_chunk_bytes(cache) || rq->next_off + p.len == cache->size_bytes))
			return take_chunk(lane, rq, &p);
	}
	if (rq->nr_taken > 0) {
		uint64_t off = rq->taken_from << cache->shift;

		return cache_io_other(lane, rq, rq->kind, rq->flags & (uint8_t)~TP_FUA, off, rq->next_off - off,
			PHASE_ZEROED);
	}
	if (at_end(rq))
		return end_of_copy(lane, rq);
	if (rq->kind == TP_TRIM) {
		/* Parts of chunks stay as they are, as they may. */
		rq->next_off += piece_of(cache, rq).len;
		return 1;
	}
	return step_write(lane, rq);
}

static int step_zeroed(struct bridge_lane *lane, struct bridge_request *rq)
{
	int r = let_go(lane, rq, true);

	rq->phase = PHASE_COPY;
	return r < 0 ? r : 1;
}

/* ---- FLUSH ---- */

/* What is dirty and can be written back. */
static bool has_dirty(const struct cache_slot *slot)
{
	const struct cache_map map = cache_map_without(&slot->dirty, &slot->lost);

	return !cache_map_empty(&map);
}

/* Whether the chunk has, or is sending, what was dirty when the walk began. */
static bool is_due(const struct cache_slot *slot, uint64_t seq)
{
	return slot && ((!cache_map_empty(&slot->pushing) && slot->push_seq <= seq) || (slot->dirty_seq <= seq && has_dirty(slot)));
}

/* What was written back since it waits has failed. */
static bool is_failed(const struct bridge_request *rq, const struct cache_slot *slot)
{
	return rq->waited && slot->push_error < 0 && cache_map_empty(&slot->pushing);
}

static int walk_on(struct bridge_request *rq)
{
	rq->walk_at++;
	rq->waited = false;
	return 1;
}

static int step_end(struct bridge_lane *lane, struct bridge_request *rq)
{
	return rq->lost ? -EIO : 0;
}

static int step_walk(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;
	uint64_t c = cache_next_dirty(cache, rq->walk_at, rq->walk_end);

	if (c != rq->walk_at)
		rq->waited = false;
	rq->walk_at = c;
	if (c == rq->walk_end) {
		bool sends = (rq->kind == TP_FLUSH || (rq->flags & TP_FUA)) && lane->bridge->info.can_flush;

		return sends ? cache_io_other(lane, rq, TP_FLUSH, 0, 0, 0, PHASE_END) : step_end(lane, rq);
	}
	struct cache_chunk *chunk = cache_lock(cache, c);
	const struct cache_slot *slot = cache_slot_of(cache, chunk);
	if (is_due(slot, rq->seq) && !chunk->zeroing && cache_map_empty(&slot->pushing) && !is_failed(rq, slot)) {
		cache_unlock(chunk);
		/* Others may be able to. */
		if (cache_push(lane, c) <= 0)
			cache_push_kick(lane);
		chunk = cache_lock(cache, c);
		slot = cache_slot_of(cache, chunk);
	}
	if (!is_due(slot, rq->seq)) {
		/* It fails at its end: what is not lost is written back all the same. */
		rq->lost |= slot && slot->dead && slot->dirty_seq <= rq->seq;
		cache_unlock(chunk);
		return walk_on(rq);
	}
	if (is_failed(rq, slot)) {
		int error = slot->push_error;

		cache_unlock(chunk);
		return error;
	}
	rq->waited = true;
	return cache_wait_chunk(chunk, c, rq);
}

/* ---- all of them ---- */

static int (*const steps[])(struct bridge_lane *lane, struct bridge_request *rq) = {
	[PHASE_COPY] = step_copy,
	[PHASE_ZEROED] = step_zeroed,
	[PHASE_WALK] = step_walk,
	[PHASE_END] = step_end,
};

static void finish(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct cache_counters *counters = &lane->cache->counters;

	if (rq->nr_taken > 0)
		let_go(lane, rq, false);
	if (rq->kind == TP_READ && rq->status == 0)
		count(rq->missed ? &counters->misses : &counters->hits, 1);
	*rq->active_link = rq->active_next;
	if (rq->active_next)
		rq->active_next->active_link = rq->active_link;
	lane_request_finish(lane, rq, rq->status);
}

bool cache_advance(struct bridge_lane *lane, struct bridge_request *rq)
{
	int r = 1;

	rq->waits_at = BRIDGE_WAITS_NOT;
	while (r > 0 && rq->status == 0) {
		r = steps[rq->phase](lane, rq);
		if (r == -EAGAIN)
			return false;
	}
	if (r < 0 && rq->status == 0)
		rq->status = r;
	if (rq->nr_ops > 0) {
		rq->waits_at = BRIDGE_WAITS_OPS;
		return false;
	}
	finish(lane, rq);
	return true;
}

/* 1: go on; 0: nothing to do; or -errno. */
static int admit(const struct bridge_lane *lane, const struct bridge_request *rq)
{
	const struct bridge *bridge = lane->bridge;
	const struct tp_info *info = &bridge->info;

	if (atomic_load_explicit(&bridge->refuses, memory_order_relaxed) || lane_touches_dead(lane, rq))
		return -EIO;
	if (atomic_load_explicit(&bridge->stopping, memory_order_relaxed))
		return -ESHUTDOWN;
	if (rq->kind == TP_FLUSH || rq->kind == TP_READ || rq->kind == TP_CACHE)
		return 1;
	if (info->read_only)
		return -EPERM;
	if (rq->kind == TP_TRIM && !info->can_trim)
		return 0;
	if (rq->kind == TP_ZERO && (!info->can_zero || ((rq->flags & TP_FAST_ZERO) && !info->can_fast_zero)))
		return -EOPNOTSUPP;
	return 1;
}

void cache_submit(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct cache_lane *cl = lane->cache;
	uint8_t kind = rq->kind;
	uint64_t off = rq->off, len = rq->len;
	int r = admit(lane, rq);

	rq->lane = lane;
	rq->next_off = off; /* of the region, whatever it does */
	rq->missed = rq->waited = rq->lost = false;
	rq->nr_taken = 0;
	rq->waits_at = BRIDGE_WAITS_NOT;
	rq->phase = kind == TP_CACHE ? PHASE_END : PHASE_COPY;
	rq->status = r < 0 ? r : 0;
	if (r == 0)
		rq->phase = PHASE_END;
	else if (r > 0 && kind == TP_FLUSH)
		begin_walk(lane, rq);
	rq->active_next = cl->active;
	rq->active_link = &cl->active;
	if (cl->active)
		cl->active->active_link = &rq->active_next;
	cl->active = rq;
	if (r > 0 && (kind == TP_READ || kind == TP_WRITE || kind == TP_ZERO || kind == TP_TRIM) && !lane_is_fresh(lane)) {
		/* Another may have been granted the region, and written. */
		rq->waits_at = BRIDGE_WAITS_LEASE;
		rq->wait_next = cl->lease_waiters;
		cl->lease_waiters = rq;
		return;
	}
	bool waits = !cache_advance(lane, rq);
	if (r <= 0)
		return;
	if (kind == TP_READ)
		cache_trend_note(lane, off, len, waits);
	if (kind == TP_CACHE)
		cache_fetch_range(lane, off, len, CACHE_AHEAD);
}

static void go_on(struct bridge_lane *lane, struct bridge_request *rq)
{
	bool pinned = rq->waits_at == BRIDGE_WAITS_CHUNK;
	uint64_t c = rq->wait_chunk;

	cache_advance(lane, rq);
	if (!pinned)
		return;
	struct cache_chunk *chunk = cache_lock(lane->cache->cache, c);
	chunk->nr_pins--;
	cache_unlock(chunk);
	cache_wake_room(lane);
}

bool cache_step(struct bridge_lane *lane)
{
	struct cache_lane *cl = lane->cache;
	struct bridge_request *rq, *list = NULL;

	/* In the order in which they became ready. */
	rq = atomic_exchange(&cl->ready, NULL);
	while (rq) {
		struct bridge_request *next = rq->wait_next;

		rq->wait_next = list;
		list = rq;
		rq = next;
	}
	bool any = list != NULL;
	while (list) {
		rq = list;
		list = list->wait_next;
		go_on(lane, rq);
	}
	unsigned nr_push = cl->nr_push;
	cache_push_pump(lane);
	return any || cl->nr_push > nr_push;
}

static bool unlist(struct bridge_request **list, const struct bridge_request *rq)
{
	for (; *list; list = &(*list)->wait_next) {
		if (*list != rq)
			continue;
		*list = rq->wait_next;
		return true;
	}
	return false;
}

/* false: it is ready already, or waits for operations of its own. */
static bool stop_waiting(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;
	bool was = false;

	if (rq->waits_at == BRIDGE_WAITS_CHUNK) {
		struct cache_chunk *chunk = cache_lock(cache, rq->wait_chunk);

		was = unlist(&chunk->waiters, rq);
		if (was)
			chunk->nr_pins--;
		cache_unlock(chunk);
	} else if (rq->waits_at == BRIDGE_WAITS_ROOM) {
		pthread_mutex_lock(&cache->lock);
		was = unlist(&cache->room, rq);
		if (was)
			atomic_fetch_sub(&cache->nr_room, 1);
		pthread_mutex_unlock(&cache->lock);
	} else if (rq->waits_at == BRIDGE_WAITS_IO) {
		was = unlist(&lane->cache->io_waiters, rq);
	} else if (rq->waits_at == BRIDGE_WAITS_LEASE) {
		was = unlist(&lane->cache->lease_waiters, rq);
	}
	return was;
}

void cache_purge(struct bridge_lane *lane, const struct bridge_link *link, int error, enum lane_purge which)
{
	struct bridge_request *rq = lane->cache->active, *next;

	for (; rq; rq = next) {
		next = rq->active_next;
		if ((which == PURGE_ORPHANS && !rq->orphan) || !lane_touches(rq, link))
			continue;
		if (rq->status == 0)
			rq->status = error;
		if (stop_waiting(lane, rq))
			cache_advance(lane, rq);
	}
}

void cache_lane_fresh(struct bridge_lane *lane)
{
	struct cache_lane *cl = lane->cache;

	if (!cl || !cl->lease_waiters || !lane_is_fresh(lane))
		return;
	/* The last that came is first here, and in the list of those that are ready. */
	struct bridge_request *rq = cl->lease_waiters, *in_order = NULL, *next;
	cl->lease_waiters = NULL;
	for (; rq; rq = next) {
		next = rq->wait_next;
		rq->wait_next = in_order;
		in_order = rq;
	}
	for (rq = in_order; rq; rq = next) {
		next = rq->wait_next;
		cache_ready(lane, rq);
	}
}

void cache_lane_granted(struct bridge_lane *lane)
{
	struct cache_lane *cl = lane->cache;

	if (!cl)
		return;
	/* What could not be written back meanwhile, and somebody may wait for. */
	if (atomic_load(&cl->cache->nr_dirty) > 0)
		cl->push_left = cl->cache->nr_chunks;
	cache_lane_fresh(lane);
	cache_pull(lane);
}
