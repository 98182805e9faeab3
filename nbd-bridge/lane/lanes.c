/* SPDX-License-Identifier: MIT */
/* The lanes of a bridge together.  The control thread, unless a comment says otherwise. */
#include "nbd-bridge/lane/lanes.h"

#include "fabric/base/thread.h"
#include "nbd-bridge/lane/lane-private.h"

void lanes_init(struct bridge_lanes *lanes, struct bridge_attachment *attachment, bool driven)
{
	lanes->attachment = attachment;
	lanes->driven = driven;
	pthread_mutex_init(&lanes->lock, NULL);
	weft_cond_init(&lanes->changed);
}

void lanes_fini(struct bridge_lanes *lanes)
{
	pthread_cond_destroy(&lanes->changed);
	pthread_mutex_destroy(&lanes->lock);
}

void lanes_wake(struct bridge_lanes *lanes)
{
	for (unsigned i = 0; i < lanes->nr; i++)
		weft_loop_wake(lanes->lane[i]->worker.loop);
}

struct bridge_lane *lanes_next(struct bridge_lanes *lanes)
{
	unsigned next = atomic_fetch_add(&lanes->next, 1);

	/* A donor without room may have refused some lanes' connections; the other lanes work. */
	for (unsigned i = 0; i < lanes->nr; i++) {
		struct bridge_lane *lane = lanes->lane[(next + i) % lanes->nr];

		if (atomic_load(&lane->ready))
			return lane;
	}
	return lanes->lane[next % lanes->nr];
}

void lanes_tell(struct bridge_lanes *lanes, bool *flag)
{
	pthread_mutex_lock(&lanes->lock);
	*flag = true;
	pthread_cond_broadcast(&lanes->changed);
	pthread_mutex_unlock(&lanes->lock);
}

bool lanes_are_idle(const struct bridge_lanes *lanes)
{
	for (unsigned i = 0; i < lanes->nr; i++)
		if (atomic_load_explicit(&lanes->lane[i]->nr_requests, memory_order_acquire) > 0)
			return false;
	return true;
}
