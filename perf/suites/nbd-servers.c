/* SPDX-License-Identifier: MIT */
/*
 * NBD servers side by side, by Unix socket and by TCP: nbdkit, qemu and weft, and two floors.
 * "floor" sends from and receives into as much RAM as the servers; "bare" has one payload in the
 * cache. Rows "hot" stay within 512 KiB, so that everybody's payload is in the cache.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/harness/perf.h"
#include "perf/peers/peers.h"
#include "perf/suites/load.h"
#include "perf/suites/suites.h"

static const struct {
	const char *name, *peer;
	struct perf_echo_hello hello;
	bool quick;
} servers[] = {
	{"floor", "floor",
		{.receive = PERF_RECEIVE_BEST, .span = PERF_PEER_BYTES, .send = PERF_SEND_IOVEC},
		true},
	{"bare", "floor", {.receive = PERF_RECEIVE_BEST, .send = PERF_SEND_FLAT}, false},
	{"nbdkit", "nbdkit", {0}, true},
	{"qemu", "qemu", {0}, false},
	{"weft", "weft", {0}, true},
};

enum { HOT_BYTES = 512 << 10 };

static const struct perf_shape shapes[] = {
	{"4K-1x1-same", 4 << 10, 1, 1, .place = PERF_PLACE_SAME, .quick = true},
	{"4K-1x1-cross", 4 << 10, 1, 1, .place = PERF_PLACE_CROSS},
	{"4K-1x16-same", 4 << 10, 1, 16, .place = PERF_PLACE_SAME, .quick = true},
	{"4K-1x16-same-hot", 4 << 10, 1, 16, .place = PERF_PLACE_SAME, .span = HOT_BYTES},
	{"4K-1x16-cross", 4 << 10, 1, 16, .place = PERF_PLACE_CROSS},
	{"4K-2x16-free", 4 << 10, 2, 16, .place = PERF_PLACE_FREE, .quick = true},
	{"64K-1x1-same", 64 << 10, 1, 1, .place = PERF_PLACE_SAME},
	{"64K-1x16-same", 64 << 10, 1, 16, .place = PERF_PLACE_SAME},
	{"64K-1x16-cross", 64 << 10, 1, 16, .place = PERF_PLACE_CROSS},
	{"1M-1x1-same", 1 << 20, 1, 1, .place = PERF_PLACE_SAME},
	{"1M-1x1-cross", 1 << 20, 1, 1, .place = PERF_PLACE_CROSS},
	{"1M-1x4-same", 1 << 20, 1, 4, .place = PERF_PLACE_SAME, .quick = true},
	{"1M-1x4-cross", 1 << 20, 1, 4, .place = PERF_PLACE_CROSS},
	{"1M-2x4-free", 1 << 20, 2, 4, .place = PERF_PLACE_FREE},
};

void suite_nbd_servers(void)
{
	static const char *const counters[] = {"ops_s", "MB_s", "p50_us", "p99_us", "server_us",
		"client_us", "both_us", "switches", "calls", NULL};
	static const struct perf_ratio ratios[] = {{"of floor", "ops_s", "floor"},
		{"of bare", "ops_s", "bare"}, {"of nbdkit", "ops_s", "nbdkit"},
		{"CPU/floor", "both_us", "floor"}, {"CPU/nbdkit", "both_us", "nbdkit"},
		{"srv/nbdkit", "server_us", "nbdkit"}, {"p50/floor", "p50_us", "floor"},
		{NULL, NULL, NULL}};
	static const struct perf_columns columns = {"nbd-servers", counters, ratios};
	/*
	 * What is promised, and what a quick run on a shared machine holds it to.  both_us is the
	 * CPU time of an operation at both ends: where all runs on one CPU its inverse is the
	 * throughput, without the time that other people's processes took, so it needs little
	 * slack; what needs more has it.
	 */
	static const struct perf_bound bounds[] = {
		{"nbd-servers/*/4K-1x*-same", "nbdkit", "floor", "both_us", 0.95, 0,
			"the floor is one: no peer beats it by over 5 % at 4 KiB"},
		{"nbd-servers/*/4K-1x16-same", "weft", "floor", "both_us", 0, 1.18,
			"0.85 of the floor at depth 16: 1/0.85, no slack"},
		{"nbd-servers/*/4K-1x16-same", "weft", "nbdkit", "both_us", 0, 0.5,
			"twice nbdkit at depth 16, no slack"},
		{"nbd-servers/*/4K-1x16-same", "weft", "nbdkit", "server_us", 0, 0.5,
			"half of nbdkit's CPU time at depth 16, no slack"},
		{"nbd-servers/*/4K-2x16-free", "weft", "nbdkit", "ops_s", 3, 0,
			"three times nbdkit on two connections, no slack"},
		{"nbd-servers/*/4K-1x1-same", "weft", "nbdkit", "both_us", 0, 1.05,
			"level with the best peer, 5 % for noise"},
		{"nbd-servers/*/1M-1x4-same", "weft", "nbdkit", "both_us", 0, 1.1,
			"level with the best peer, 10 % for noise"},
		{"nbd-servers/*/1M-1x4-same", "weft", "nbdkit", "server_us", 0, 1.1,
			"CPU time level with nbdkit's, 10 % for noise"},
	};

	for (int tcp = 0; tcp < 2; tcp++)
		for (int write = 0; write < 2; write++)
			for (unsigned s = 0; s < WEFT_ARRAY_LEN(shapes); s++)
				for (unsigned p = 0; p < WEFT_ARRAY_LEN(servers); p++) {
					struct perf_load_case l = {
						.peer = servers[p].peer,
						.hello = servers[p].hello,
						.tcp = tcp,
					};

					/*
					 * qemu has never been the best peer, and is slow to
					 * measure.
					 */
					if (perf_options.quick &&
						(!shapes[s].quick || !servers[p].quick))
						continue;
					perf_load_shape(&l, &shapes[s], write);
					perf_load_add(&l, "nbd-servers/%s/%s/%s/%s",
						tcp ? "tcp" : "unix", write ? "write" : "read",
						shapes[s].name, servers[p].name);
				}
	perf_columns_add(&columns);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(bounds); i++)
		perf_bound_add(&bounds[i]);
}
