/* SPDX-License-Identifier: MIT */
/*
 * When an attachment leaves a way for another, and when it may return: see ways.h.  No system
 * calls; under the lock of the attachment.
 */
#include "nbd-bridge/link/ways.h"

#include "fabric/base/util.h"

#define MS_NS UINT64_C(1000000)

void bridge_ways_init(struct bridge_ways *ways, unsigned nr, unsigned nr_best, unsigned first,
	uint32_t return_ms)
{
	*ways = (struct bridge_ways){
		.nr = nr,
		.nr_best = nr_best,
		.return_ms = return_ms ? return_ms : BRIDGE_RETURN_MS,
		.now = first,
		.used = first,
		.better = first > 0 && first <= nr_best ? first : 1,
	};
	ways->wait_ms = ways->return_ms;
}

/* 0: the best ways. */
static unsigned rank(const struct bridge_ways *ways, unsigned way)
{
	return way == 0 ? 2 : way > ways->nr_best;
}

bool bridge_ways_is_worse(const struct bridge_ways *ways, unsigned a, unsigned b)
{
	return rank(ways, a) > rank(ways, b);
}

/* The next of those that are better than the present one. */
static void next_better(struct bridge_ways *ways)
{
	const unsigned last = ways->now == 0 ? ways->nr - 1 : ways->nr_best;

	ways->better = ways->better < last ? ways->better + 1 : 1;
}

bool bridge_ways_refused(struct bridge_ways *ways)
{
	if (ways->nr < 2)
		return false;
	if (ways->now == 0) {
		const unsigned next = ways->better;

		/* Nothing works: take what comes back first. */
		next_better(ways);
		ways->now = next;
	} else {
		ways->now = 0;
	}
	return true;
}

bool bridge_ways_granted(struct bridge_ways *ways, unsigned way, uint64_t now_ns)
{
	const bool first = ways->since_ns == 0, changed = way != ways->used;

	ways->now = way;
	if (!first && !changed)
		return false;
	if (bridge_ways_is_worse(ways, way, ways->used)) {
		const bool lasted = now_ns - ways->since_ns >= BRIDGE_STEADY_MS * MS_NS;

		/* The first loss costs the shortest wait, whenever it comes. */
		ways->wait_ms = lasted || ways->nr_changes == 0
			? ways->return_ms
			: (uint32_t)weft_min(2 * (uint64_t)ways->wait_ms,
				  weft_max(BRIDGE_RETURN_MAX_MS, ways->return_ms));
	}
	if (way > 0)
		ways->better = rank(ways, way) == 0 ? way : 1;
	ways->look_ns = now_ns + ways->wait_ms * MS_NS;
	ways->used = way;
	ways->since_ns = now_ns;
	if (changed)
		ways->nr_changes++;
	return changed;
}

bool bridge_ways_may_look(const struct bridge_ways *ways, uint64_t now_ns, uint64_t *ret_ns)
{
	const bool may = ways->nr > 1 && ways->since_ns != 0 &&
		bridge_ways_is_worse(ways, ways->now, ways->better);

	*ret_ns = may ? weft_max(ways->look_ns, 1) : 0;
	return *ret_ns != 0 && now_ns >= *ret_ns;
}

void bridge_ways_look_failed(struct bridge_ways *ways, uint64_t now_ns)
{
	next_better(ways);
	ways->look_ns = now_ns + ways->wait_ms * MS_NS;
}
