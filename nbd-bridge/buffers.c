/*
 * A lane's buffers: the pool, one larger buffer on demand, and the queue of those who wait.
 * Everything here runs on the lane's thread.
 */
#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "nbd-bridge/lane.h"

static int big_get(struct bridge_lane *lane, size_t len, void **ret, struct tp_mem **ret_mem)
{
	struct bridge *bridge = lane->bridge;

	if (lane->big_used)
		return -EAGAIN;
	if (lane->big && lane->big_len < len) {
		bridge_lane_deregister(lane, lane->big_mem);
		munmap(lane->big, lane->big_len);
		lane->big = NULL;
	}
	if (!lane->big) {
		size_t want = LANE_BIG_KEPT;

		while (want < len)
			want *= 2;
		if (want > LANE_BIG_KEPT && atomic_exchange(&bridge->big_taken, true))
			return -EAGAIN;
		void *big = mmap(NULL, want, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		int r = big == MAP_FAILED ? -ENOMEM : 0;
		if (r == 0) {
			r = bridge_lane_register(lane, big, want, &lane->big_mem, NULL);
			if (r < 0)
				munmap(big, want);
		}
		if (r < 0) {
			if (want > LANE_BIG_KEPT)
				atomic_store(&bridge->big_taken, false);
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
	munmap(lane->big, lane->big_len);
	lane->big = NULL;
	lane->big_mem = NULL;
	if (taken) {
		atomic_store(&lane->bridge->big_taken, false);
		bridge_wake_lanes(lane->bridge);
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
		/* It was its turn and there is not enough yet: it stays the first. */
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
		/* Still its turn: it asked for nothing any more, or was put back as the first. */
		bool unserved = lane->serving == waiter && lane->waiters == waiter;
		lane->serving = NULL;
		if (unserved)
			break;
	}
}
