/* SPDX-License-Identifier: MIT */
/*
 * Requests of a managed attachment: answered from the cache, or continued when their wait is over.
 * Runs on the request's lane; other lanes only tell it that a request may go on.
 *
 * A request has a phase and, in the first, a place that it has come to.  It works on the piece of
 * it that lies in one chunk, under the chunk's lock; when it cannot, it waits in one list and tries
 * the same piece again.
 */
#include <assert.h>
#include <errno.h>

#include "nbd-bridge/cache/cache-private.h"

static int (*const steps[])(struct cache_lane *cl, struct bridge_request *rq) = {
	[CACHE_PHASE_COPY] = cache_step_copy,
	[CACHE_PHASE_ZEROED] = cache_step_zeroed,
	[CACHE_PHASE_WALK] = cache_step_walk,
	[CACHE_PHASE_COMMIT] = cache_step_commit,
	[CACHE_PHASE_END] = cache_step_end,
};

static void finish(struct cache_lane *cl, struct bridge_request *rq)
{
	struct cache_counters *counters = &cl->counters;

	if (rq->cache.nr_taken > 0)
		cache_let_go(cl, rq, false);
	if (rq->kind == TP_READ && rq->lane.status == 0)
		weft_count(rq->cache.missed ? &counters->misses : &counters->hits, 1);
	*rq->cache.active_link = rq->cache.active_next;
	if (rq->cache.active_next)
		rq->cache.active_next->cache.active_link = rq->cache.active_link;
	lane_request_finish(cl->lane, rq, rq->lane.status);
}

/* Goes on with a request until it waits, or (true) is done. */
static bool advance(struct cache_lane *cl, struct bridge_request *rq)
{
	int r = 1;

	rq->cache.waits_at = BRIDGE_WAITS_NOT;
	while (r > 0 && rq->lane.status == 0) {
		r = steps[rq->cache.phase](cl, rq);
		if (r == -EAGAIN)
			return false;
	}
	if (r < 0 && rq->lane.status == 0)
		rq->lane.status = r;
	if (rq->lane.nr_ops > 0) {
		rq->cache.waits_at = BRIDGE_WAITS_OPS;
		return false;
	}
	finish(cl, rq);
	return true;
}

/*
 * Whether the donors are known to have the contents that are remembered.  The time is read once a
 * step.
 */
static bool is_fresh(struct cache_lane *cl)
{
	uint64_t now_ns = weft_worker_now(cl->worker);

	if (cl->boottime_for_ns != now_ns) {
		cl->boottime_ns = weft_boottime_ns();
		cl->boottime_for_ns = now_ns;
	}
	return cl->boottime_ns <=
		atomic_load_explicit(&cl->cache->attachment->fresh_until_ns, memory_order_relaxed);
}

/* Another borrower may have been granted the region, and may have written. */
static void wait_for_lease(struct cache_lane *cl, struct bridge_request *rq)
{
	rq->cache.waits_at = BRIDGE_WAITS_LEASE;
	rq->cache.wait_next = cl->lease_waiters;
	cl->lease_waiters = rq;
}

static void list(struct cache_lane *cl, struct bridge_request *rq)
{
	rq->cache.active_next = cl->active;
	rq->cache.active_link = &cl->active;
	if (cl->active)
		cl->active->cache.active_link = &rq->cache.active_next;
	cl->active = rq;
}

static void submit(void *ctx, struct bridge_request *rq)
{
	struct cache_lane *cl = ctx;
	uint8_t kind = rq->kind;
	uint64_t off = rq->off, len = rq->len;
	int r = lane_admit(cl->lane, rq);

	/* Hashes are of what the donor has, which is not what the cache says. */
	if (kind == TP_HASH)
		r = -EOPNOTSUPP;
	rq->cache.at = cl;
	rq->lane.next_off = off; /* offsets are the region's for every kind of request */
	rq->cache.missed = rq->cache.waited = rq->cache.lost = false;
	rq->cache.nr_taken = 0;
	rq->cache.commit = 0;
	rq->cache.waits_at = BRIDGE_WAITS_NOT;
	rq->cache.phase = kind == TP_CACHE ? CACHE_PHASE_END : CACHE_PHASE_COPY;
	rq->lane.status = r < 0 ? r : 0;
	if (r == 0)
		rq->cache.phase = CACHE_PHASE_END;
	else if (r > 0 && kind == TP_FLUSH)
		cache_begin_walk(cl, rq);
	list(cl, rq);
	if (r > 0 && (kind == TP_READ || kind == TP_WRITE || kind == TP_ZERO || kind == TP_TRIM) &&
		!is_fresh(cl)) {
		wait_for_lease(cl, rq);
		return;
	}
	bool waits = !advance(cl, rq);
	if (r <= 0)
		return;
	if (kind == TP_READ)
		cache_trend_note(cl, off, len, waits);
	if (kind == TP_CACHE)
		cache_fetch_range(cl, off, len, &cache_ahead);
}

static void go_on(struct cache_lane *cl, struct bridge_request *rq)
{
	bool pinned = rq->cache.waits_at == BRIDGE_WAITS_CHUNK;
	uint64_t c = rq->cache.wait_chunk;

	advance(cl, rq);
	if (!pinned)
		return;
	struct cache_chunk *chunk = cache_lock(cl->cache, c);
	chunk->nr_pins--;
	cache_unlock(chunk);
	cache_wake_room(cl);
}

static bool step(void *ctx)
{
	struct cache_lane *cl = ctx;
	struct bridge_request *rq, *in_order = NULL;
	const bool sent = cl->rows && cache_send_held(cl);

	/* In the order in which they became ready. */
	rq = atomic_exchange(&cl->ready, NULL);
	while (rq) {
		struct bridge_request *next = rq->cache.wait_next;

		rq->cache.wait_next = in_order;
		in_order = rq;
		rq = next;
	}
	bool any = in_order != NULL;
	while (in_order) {
		rq = in_order;
		in_order = in_order->cache.wait_next;
		go_on(cl, rq);
	}
	unsigned nr_push = cl->nr_push;
	cache_push_pump(cl);
	return sent || any || cl->nr_push > nr_push;
}

static bool unlist(struct bridge_request **list, const struct bridge_request *rq)
{
	for (; *list; list = &(*list)->cache.wait_next) {
		if (*list != rq)
			continue;
		*list = rq->cache.wait_next;
		return true;
	}
	return false;
}

/* False: the request is ready already, or waits for its own operations. */
static bool stop_waiting(struct cache_lane *cl, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;
	bool was = false;

	if (rq->cache.waits_at == BRIDGE_WAITS_CHUNK) {
		struct cache_chunk *chunk = cache_lock(cache, rq->cache.wait_chunk);

		was = unlist(&chunk->waiters, rq);
		if (was)
			chunk->nr_pins--;
		cache_unlock(chunk);
	} else if (rq->cache.waits_at == BRIDGE_WAITS_ROOM) {
		pthread_mutex_lock(&cache->lock);
		was = unlist(&cache->room, rq);
		if (was)
			atomic_fetch_sub(&cache->nr_room, 1);
		pthread_mutex_unlock(&cache->lock);
	} else if (rq->cache.waits_at == BRIDGE_WAITS_IO) {
		was = unlist(&cl->io_waiters, rq);
	} else if (rq->cache.waits_at == BRIDGE_WAITS_LEASE) {
		was = unlist(&cl->lease_waiters, rq);
	} else if (rq->cache.waits_at == BRIDGE_WAITS_COMMIT) {
		was = unlist(&cl->commit_waiters, rq);
	}
	return was;
}

static void purge(void *ctx, const struct bridge_link *link, int error, bool orphans_only)
{
	struct cache_lane *cl = ctx;
	struct bridge_request *rq = cl->active, *next;

	for (; rq; rq = next) {
		next = rq->cache.active_next;
		if ((orphans_only && !rq->lane.orphan) || !lane_touches(rq, link))
			continue;
		if (rq->lane.status == 0)
			rq->lane.status = error;
		if (stop_waiting(cl, rq))
			advance(cl, rq);
	}
}

static void woken(void *ctx)
{
	struct cache_lane *cl = ctx;

	if (!cl->lease_waiters || !is_fresh(cl))
		return;
	/* Both this list and the ready list have the last one first. */
	struct bridge_request *rq = cl->lease_waiters, *in_order = NULL, *next;
	cl->lease_waiters = NULL;
	for (; rq; rq = next) {
		next = rq->cache.wait_next;
		rq->cache.wait_next = in_order;
		in_order = rq;
	}
	for (rq = in_order; rq; rq = next) {
		next = rq->cache.wait_next;
		cache_ready(cl, rq);
	}
}

static void granted(void *ctx)
{
	struct cache_lane *cl = ctx;

	/* Somebody may wait for blocks that could not be written back meanwhile. */
	if (atomic_load(&cl->cache->nr_dirty) > 0)
		cl->push_left = cl->cache->nr_chunks;
	woken(cl);
	cache_pull(cl);
}

/* Ends the loan of a READ's data: the slot may go to another chunk again. */
static void give_back(void *ctx, struct bridge_request *rq)
{
	struct cache_lane *cl = ctx;
	struct bridge_cache *cache = cl->cache;
	struct cache_chunk *chunk = cache_lock(cache, rq->off >> cache->shift);

	chunk->nr_pins--;
	cache_unlock(chunk);
	cl->nr_lent--;
	rq->lent = NULL;
	cache_wake_room(cl);
}

const struct lane_stage cache_stage = {
	.submit = submit,
	.step = step,
	.purge = purge,
	.granted = granted,
	.woken = woken,
	.give_back = give_back,
};
