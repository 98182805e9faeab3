/* SPDX-License-Identifier: MIT */
#include "fabric/move/pace.h"

#include "fabric/base/util.h"

/* What was not used is lost, but for this. */
#define BURST_NS UINT64_C(10000000)

uint64_t pace_turn_ns(struct pace *pace, uint64_t bytes_per_s, uint64_t len)
{
	const uint64_t now_ns = weft_now_ns(), least_ns = now_ns - weft_min(now_ns, BURST_NS);
	uint64_t free_ns = atomic_load(&pace->free_ns), turn_ns;

	if (!bytes_per_s)
		return 0;
	do
		turn_ns = weft_max(free_ns, least_ns);
	while (!atomic_compare_exchange_weak(&pace->free_ns, &free_ns,
		turn_ns + len * 1000000000u / bytes_per_s));
	return turn_ns;
}
