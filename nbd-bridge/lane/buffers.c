/* SPDX-License-Identifier: MIT */
/*
 * A lane's buffers: their memory and its registration, the pool, one larger buffer on demand, and
 * the queue of those who wait.  Everything here runs on the lane's thread, except making and
 * freeing the lane.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/map.h"
#include "nbd-bridge/lane/lane-private.h"

/* ---- memory ---- */

int bridge_lane_register(struct bridge_lane *lane, void *base, size_t len, struct tp_mem **ret,
	struct weft_error *err)
{
	struct tp_mem *first = NULL, *mem;

	for (unsigned i = 0; i < lane->attachment->nr_transports; i++) {
		int r = tp_register(lane->tps[i], base, len, &mem, err);

		if (r < 0) {
			bridge_lane_deregister(lane, first);
			return r;
		}
		/* The registrations form a ring, in which a link finds the one of its transport. */
		mem->twin = first ? first->twin : mem;
		if (first)
			first->twin = mem;
		else
			first = mem;
	}
	*ret = first;
	return 0;
}

int bridge_lane_deregister(struct bridge_lane *lane, struct tp_mem *first)
{
	struct tp_mem *mem = first;

	if (!first)
		return 0;
	do {
		if (mem->nr_borrowed > 0)
			return -EBUSY;
		mem = mem->twin;
	} while (mem != first);
	for (mem = first->twin; mem != first;) {
		struct tp_mem *twin = mem->twin;

		tp_deregister(mem);
		mem = twin;
	}
	return tp_deregister(first);
}

int bridge_lane_register_all(struct bridge_lane *lane, struct tp_mem **ret, struct weft_error *err)
{
	for (unsigned i = 0; i < lane->attachment->nr_transports; i++)
		if (!lane->tps[i]->ops->any_memory)
			return -EOPNOTSUPP;
	return bridge_lane_register(lane, (void *)1, SIZE_MAX - 1, ret, err);
}

int lane_make_arena(struct bridge_lane *lane, struct weft_error *err)
{
	lane->arena = weft_map_bytes(LANE_ARENA);
	if (!lane->arena)
		return weft_error_set(err, ENOMEM, "cannot map %d bytes of buffers", LANE_ARENA);
	int r = bridge_pool_new(lane->arena, LANE_ARENA, &lane->pool);
	if (r < 0)
		return weft_error_set(err, -r, "cannot make a buffer pool: %s", strerror(-r));
	return bridge_lane_register(lane, lane->arena, LANE_ARENA, &lane->arena_mem, err);
}

void lane_drop_arena(struct bridge_lane *lane)
{
	bridge_lane_deregister(lane, lane->arena_mem);
	bridge_pool_free(lane->pool);
	weft_unmap_bytes(lane->arena, LANE_ARENA);
	lane->arena_mem = NULL;
	lane->pool = NULL;
	lane->arena = NULL;
}

int lane_remake_arena(struct bridge_lane *lane, struct weft_error *err)
{
	assert(bridge_pool_used(lane->pool) == 0);
	lane_drop_arena(lane);
	return lane_make_arena(lane, err);
}

uint64_t lane_buffer_bytes(const struct bridge_lane *lane)
{
	return bridge_pool_used(lane->pool);
}

/* ---- giving it out ---- */

static int big_get(struct bridge_lane *lane, size_t len, void **ret, struct tp_mem **ret_mem)
{
	if (lane->big_used)
		return -EAGAIN;
	if (lane->big && lane->big_len < len) {
		bridge_lane_deregister(lane, lane->big_mem);
		weft_unmap_bytes(lane->big, lane->big_len);
		lane->big = NULL;
	}
	if (!lane->big) {
		size_t want = LANE_BIG_KEPT;

		while (want < len)
			want *= 2;
		if (want > LANE_BIG_KEPT && atomic_exchange(&lane->lanes->big_taken, true))
			return -EAGAIN;
		void *big = weft_map_bytes(want);
		int r = big ? 0 : -ENOMEM;
		if (r == 0) {
			r = bridge_lane_register(lane, big, want, &lane->big_mem, NULL);
			if (r < 0)
				weft_unmap_bytes(big, want);
		}
		if (r < 0) {
			if (want > LANE_BIG_KEPT)
				atomic_store(&lane->lanes->big_taken, false);
			return -ENOMEM;
		}
		lane->big = big;
		lane->big_len = want;
	}
	lane->big_used = true;
	lane->big_idle = false;
	*ret = lane->big;
	*ret_mem = lane->big_mem;
	return 0;
}

void lane_drop_big(struct bridge_lane *lane)
{
	if (!lane->big)
		return;
	bool taken = lane->big_len > LANE_BIG_KEPT;

	if (bridge_lane_deregister(lane, lane->big_mem) < 0)
		return;
	weft_unmap_bytes(lane->big, lane->big_len);
	lane->big = NULL;
	lane->big_mem = NULL;
	if (taken) {
		atomic_store(&lane->lanes->big_taken, false);
		lanes_wake(lane->lanes);
	}
}

static void big_put(struct bridge_lane *lane)
{
	lane->big_used = false;
	if (lane->big_len > LANE_BIG_KEPT)
		lane_drop_big(lane);
}

void lane_trim_big(struct bridge_lane *lane)
{
	if (!lane->big || lane->big_used)
		return;
	if (lane->big_idle)
		lane_drop_big(lane);
	else
		lane->big_idle = true;
}

static void waiter_push(struct bridge_lane *lane, struct bridge_waiter *waiter)
{
	if (waiter->queued)
		return;
	waiter->queued = true;
	if (lane->serving == waiter) {
		/* It was this waiter's turn, but there is not enough yet: it stays the first. */
		waiter->next = lane->waiters;
		lane->waiters = waiter;
		if (!waiter->next)
			lane->waiters_tail = &waiter->next;
		return;
	}
	waiter->next = NULL;
	*lane->waiters_tail = waiter;
	lane->waiters_tail = &waiter->next;
}

int bridge_lane_buffer_get(struct bridge_lane *lane, size_t len, struct bridge_waiter *waiter,
	void **ret, struct tp_mem **ret_mem)
{
	assert(len > 0 && len <= BRIDGE_MAX_REQUEST);
	int r = -EAGAIN;

	if (!lane->waiters || lane->serving == waiter) {
		if (len > BRIDGE_POOL_MAX) {
			r = big_get(lane, len, ret, ret_mem);
		} else {
			void *buf = bridge_pool_get(lane->pool, len);

			if (buf) {
				*ret = buf;
				*ret_mem = lane->arena_mem;
				r = 0;
			}
		}
	}
	if (r == -EAGAIN)
		waiter_push(lane, waiter);
	else if (lane->serving == waiter)
		lane->serving = NULL;
	return r;
}

void bridge_lane_buffer_put(struct bridge_lane *lane, void *buf)
{
	if (buf == lane->big)
		big_put(lane);
	else
		bridge_pool_put(lane->pool, buf);
	lane->buffers_freed = true;
}

bool bridge_lane_others_wait(const struct bridge_lane *lane, const struct bridge_waiter *self)
{
	const struct bridge_waiter *first = lane->waiters;

	return first && (first != self || first->next);
}

void bridge_lane_waiter_cancel(struct bridge_lane *lane, struct bridge_waiter *waiter)
{
	if (lane->serving == waiter)
		lane->serving = NULL;
	if (!waiter->queued)
		return;
	for (struct bridge_waiter **p = &lane->waiters; *p; p = &(*p)->next) {
		if (*p != waiter)
			continue;
		*p = waiter->next;
		if (!waiter->next)
			lane->waiters_tail = p;
		break;
	}
	waiter->queued = false;
	lane->buffers_freed = true; /* the next one may need less */
}

void lane_serve_waiters(struct bridge_lane *lane)
{
	lane->buffers_freed = false;
	while (lane->waiters) {
		struct bridge_waiter *waiter = lane->waiters;

		lane->waiters = waiter->next;
		if (!lane->waiters)
			lane->waiters_tail = &lane->waiters;
		waiter->queued = false;
		lane->serving = waiter;
		waiter->fn(waiter);
		/*
		 * It is still this waiter's turn: it asked for nothing, or was put back as the
		 * first.
		 */
		bool unserved = lane->serving == waiter && lane->waiters == waiter;
		lane->serving = NULL;
		if (unserved)
			break;
	}
}
