/* SPDX-License-Identifier: MIT */
/*
 * What each hop costs: a client at a bridge's Unix socket, the bridge at a donor over TCP, or with
 * all in its cache (bridge-hits); beside it the same client at a donor over TCP, and at both
 * floors.  On one CPU (same) the CPU times of client, bridge and donor add up to the latency at
 * depth 1, so they are the hops' shares.
 */
#include <stddef.h>

#include "fabric/base/util.h"
#include "perf/peers/peers.h"
#include "perf/suites/load.h"
#include "perf/suites/suites.h"

static const struct {
	const char *name, *peer;
	bool tcp;
} contestants[] = {
	{"floor-unix", "floor", false},
	{"floor-tcp", "floor", true},
	{"donor-tcp", "weft", true},
	{"bridge", "bridge", false},
	{"bridge-hits", "bridge-cached", false},
};

static const struct perf_shape shapes[] = {
	{"4K-1x1-same", 4 << 10, 1, 1, .place = PERF_PLACE_SAME},
	{"4K-1x1-cross", 4 << 10, 1, 1, .place = PERF_PLACE_CROSS},
	{"4K-1x16-same", 4 << 10, 1, 16, .place = PERF_PLACE_SAME},
	{"4K-1x16-cross", 4 << 10, 1, 16, .place = PERF_PLACE_CROSS},
	{"4K-2x16-free", 4 << 10, 2, 16, .place = PERF_PLACE_FREE},
	{"64K-1x16-same", 64 << 10, 1, 16, .place = PERF_PLACE_SAME},
	{"1M-1x4-same", 1 << 20, 1, 4, .place = PERF_PLACE_SAME},
	{"1M-1x4-cross", 1 << 20, 1, 4, .place = PERF_PLACE_CROSS},
	{"4K-4x16-free", 4 << 10, 4, 16, .place = PERF_PLACE_FREE},
	{"4K-8x16-free", 4 << 10, 8, 16, .place = PERF_PLACE_FREE},
};

void suite_bridge(void)
{
	static const char *const counters[] = {"ops_s", "MB_s", "p50_us", "p99_us", "client_us",
		"server_us", "donor_us", "both_us", "client_%", "bridge_%", "donor_%", "switches",
		"calls", NULL};
	static const struct perf_ratio ratios[] = {{"of floor", "ops_s", "floor-unix"},
		{"CPU/floor", "both_us", "floor-unix"}, {"of donor", "ops_s", "donor-tcp"},
		{"p50/donor", "p50_us", "donor-tcp"}, {"CPU/donor", "both_us", "donor-tcp"},
		{NULL, NULL, NULL}};
	static const struct perf_columns columns = {"bridge", counters, ratios};

	if (perf_options.quick)
		return;
	for (int write = 0; write < 2; write++)
		for (unsigned s = 0; s < WEFT_ARRAY_LEN(shapes); s++)
			for (unsigned c = 0; c < WEFT_ARRAY_LEN(contestants); c++) {
				struct perf_load_case l = {
					.peer = contestants[c].peer,
					.tcp = contestants[c].tcp,
					.hello = {.receive = PERF_RECEIVE_BEST,
						.span = PERF_PEER_BYTES,
						.send = PERF_SEND_IOVEC},
				};

				perf_load_shape(&l, &shapes[s], write);
				perf_load_add(&l, "bridge/%s/%s/%s", write ? "write" : "read",
					shapes[s].name, contestants[c].name);
			}
	perf_columns_add(&columns);
}
