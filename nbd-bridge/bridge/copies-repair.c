/* SPDX-License-Identifier: MIT */
/*
 * Repairing bytes at which current copies differ although they should not: somebody has chosen the
 * copy that is right.  One repair at a time: the thread that asks waits for the one that keeps the
 * copies.
 */
#include <errno.h>
#include <string.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"

enum { REPAIR_MS = 20000 };

int bridge_copies_repair(struct bridge *bridge, unsigned stripe, unsigned copy, uint64_t off,
	uint64_t len, struct weft_error *err)
{
	struct bridge_copies *copies = bridge->copies;
	const uint64_t end_ns = weft_now_ns() + REPAIR_MS * UINT64_C(1000000);

	if (!copies || stripe >= copies->nr_stripes || copy >= copies->nr || len == 0 ||
		len > COPIES_WINDOW || off > copies->shared.part_bytes ||
		len > copies->shared.part_bytes - off)
		return weft_error_set(err, EINVAL, "there are no such bytes of a copy");
	pthread_mutex_lock(&copies->lock);
	const bool busy = copies->repair.asked || !copies->running;
	if (!busy)
		copies->repair = (struct copies_repair){.asked = true,
			.stripe = stripe,
			.source = stripe * copies->nr + copy,
			.off = off,
			.len = len,
			.error = -ETIMEDOUT};
	copies->kicked = true;
	pthread_cond_broadcast(&copies->changed);
	while (!busy && copies->repair.asked &&
		weft_cond_wait_until(&copies->changed, &copies->lock, end_ns))
		;
	int r = busy ? -EBUSY : copies->repair.error;
	pthread_mutex_unlock(&copies->lock);
	return r < 0 ? weft_error_set(err, -r, "not repaired: %s", strerror(-r)) : 0;
}
