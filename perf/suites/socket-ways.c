/* SPDX-License-Identifier: MIT */
/*
 * Ways to receive and to send, in isolation: the floor's echo doing it one way or the other,
 * beside its usual way (a blocking recv(2), one flat send(2) a batch).
 */
#include <stdio.h>

#include "fabric/base/util.h"
#include "perf/peers/peers.h"
#include "perf/suites/load.h"
#include "perf/suites/suites.h"

static const struct {
	const char *name;
	struct perf_echo_hello hello;
} ways[] = {
	{"plain", {.receive = PERF_RECEIVE_BLOCK, .send = PERF_SEND_FLAT}},
	{"poll", {.receive = PERF_RECEIVE_POLL}},
	{"try-block", {.receive = PERF_RECEIVE_TRY}},
	{"try-poll", {.receive = PERF_RECEIVE_TRY_POLL}},
	{"spin-20us", {.receive = PERF_RECEIVE_SPIN, .spin_ns = 20000}},
	{"busy-poll-50us", {.busy_us = 50}},
	{"ram", {.span = PERF_PEER_BYTES}},
	{"ram-iovec", {.span = PERF_PEER_BYTES, .send = PERF_SEND_IOVEC}},
	{"iovec", {.send = PERF_SEND_IOVEC}},
	{"more", {.send = PERF_SEND_MORE}},
	{"early", {.send = PERF_SEND_EARLY}},
	{"each", {.send = PERF_SEND_EACH}},
	{"chunk-64K", {.chunk = 64 << 10}},
	{"chunk-128K", {.chunk = 128 << 10}},
	{"chunk-256K", {.chunk = 256 << 10}},
	{"buf-128K", {.sndbuf = 128 << 10}},
	{"buf-512K", {.sndbuf = 512 << 10}},
	{"buf-1M", {.sndbuf = 1 << 20}},
	{"buf-4M", {.sndbuf = 4 << 20}},
};

static const struct perf_shape shapes[] = {
	{"read/4K-1x1-same", 4 << 10, 1, 1, .place = PERF_PLACE_SAME},
	{"read/4K-1x1-cross", 4 << 10, 1, 1, .place = PERF_PLACE_CROSS},
	{"read/4K-1x16-same", 4 << 10, 1, 16, .place = PERF_PLACE_SAME},
	{"read/4K-1x16-cross", 4 << 10, 1, 16, .place = PERF_PLACE_CROSS},
	{"read/1M-1x1-same", 1 << 20, 1, 1, .place = PERF_PLACE_SAME},
	{"read/1M-1x1-cross", 1 << 20, 1, 1, .place = PERF_PLACE_CROSS},
	{"write/4K-1x16-same", 4 << 10, 1, 16, .place = PERF_PLACE_SAME, .write = true},
	{"write/4K-1x16-cross", 4 << 10, 1, 16, .place = PERF_PLACE_CROSS, .write = true},
	{"read/1M-1x4-same", 1 << 20, 1, 4, .place = PERF_PLACE_SAME},
	{"read/1M-1x4-cross", 1 << 20, 1, 4, .place = PERF_PLACE_CROSS},
	{"write/1M-1x4-same", 1 << 20, 1, 4, .place = PERF_PLACE_SAME, .write = true},
	{"write/1M-1x4-cross", 1 << 20, 1, 4, .place = PERF_PLACE_CROSS, .write = true},
};

void suite_socket_ways(void)
{
	static const char *const counters[] = {"ops_s", "MB_s", "p50_us", "server_us", "client_us",
		"both_us", "switches", "calls", NULL};
	static const struct perf_ratio ratios[] = {{"of plain", "ops_s", "plain"},
		{"CPU/plain", "both_us", "plain"}, {NULL, NULL, NULL}};
	static const struct perf_columns columns = {"socket-ways", counters, ratios};

	if (perf_options.quick)
		return;
	for (int tcp = 0; tcp < 2; tcp++)
		for (unsigned s = 0; s < WEFT_ARRAY_LEN(shapes); s++)
			for (unsigned w = 0; w < WEFT_ARRAY_LEN(ways); w++) {
				struct perf_load_case l = {
					.peer = "floor",
					.tcp = tcp,
					.hello = ways[w].hello,
				};

				perf_load_shape(&l, &shapes[s], shapes[s].write);
				perf_load_add(&l, "socket-ways/%s/%s/%s", tcp ? "tcp" : "unix",
					shapes[s].name, ways[w].name);
			}
	perf_columns_add(&columns);
}
