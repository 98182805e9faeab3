/* SPDX-License-Identifier: MIT */
/*
 * Repairing bytes at which current copies differ although they should not: somebody has chosen the
 * copy that is right.  One repair at a time: the thread that keeps the copies does it, and whoever
 * asks does so until it is over.
 */
#include <errno.h>
#include <string.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"

enum {
	WAIT_MS = 20, /* whoever asks has others to answer */
	FRESH_MS = 5000, /* a result that nobody has asked for in that time is nobody's */
};

static bool is_same(const struct copies_repair *a, const struct copies_repair *b)
{
	return a->stripe == b->stripe && a->source == b->source && a->off == b->off &&
		a->len == b->len;
}

/* Whether the last repair was this one, and is over: nobody was told yet. */
static bool has_result(const struct copies_repair *last, const struct copies_repair *repair)
{
	return !last->asked && !last->told && last->len > 0 && is_same(last, repair) &&
		weft_now_ns() - last->end_ns < FRESH_MS * UINT64_C(1000000);
}

/* Begins, or goes on waiting; under the lock. */
static int begin_or_wait(struct bridge_copies *copies, const struct copies_repair *repair)
{
	const uint64_t end_ns = weft_now_ns() + WAIT_MS * UINT64_C(1000000);
	struct copies_repair *last = &copies->repair;

	if (!copies->running || (last->asked && !is_same(last, repair)))
		return -EBUSY;
	if (!last->asked && !has_result(last, repair)) {
		*last = *repair;
		copies->kicked = true;
		pthread_cond_broadcast(&copies->changed);
	}
	while (last->asked && weft_cond_wait_until(&copies->changed, &copies->lock, end_ns))
		;
	if (last->asked)
		return -EINPROGRESS;
	last->told = true;
	return last->error;
}

int bridge_copies_repair(struct bridge *bridge, unsigned stripe, unsigned copy, uint64_t off,
	uint64_t len, struct weft_error *err)
{
	struct bridge_copies *copies = bridge->copies;

	if (!copies || stripe >= copies->nr_stripes || copy >= copies->nr || len == 0 ||
		len > COPIES_WINDOW || off > copies->shared.part_bytes ||
		len > copies->shared.part_bytes - off)
		return weft_error_set(err, EINVAL, "there are no such bytes of a copy");
	pthread_mutex_lock(&copies->lock);
	int r = begin_or_wait(copies, &(struct copies_repair){.asked = true,
						.stripe = stripe,
						.source = stripe * copies->nr + copy,
						.off = off,
						.len = len});
	pthread_mutex_unlock(&copies->lock);
	return r < 0 ? weft_error_set(err, -r, "not repaired: %s", strerror(-r)) : 0;
}
