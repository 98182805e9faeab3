/* SPDX-License-Identifier: MIT */
/*
 * A case that is a load of the measuring client on a peer: what all suites over sockets share.
 */
#ifndef PERF_SUITES_LOAD_H
#define PERF_SUITES_LOAD_H

#include "perf/harness/nbd-client.h"
#include "perf/harness/perf.h"

/*
 * Where client and server run.  Left alone, the scheduler puts a pair now on one CPU, now on two,
 * and the figures jump by a factor of three; so it is said, and each placement is compared with
 * itself.
 */
enum perf_place {
	PERF_PLACE_FREE,
	PERF_PLACE_SAME, /* on one CPU: what the code costs */
	PERF_PLACE_CROSS, /* client and server on a CPU each: wake-ups across CPUs, too */
};

/* A load that several peers get. */
struct perf_shape {
	const char *name;
	uint32_t len;
	unsigned conns, depth;
	enum perf_place place;
	bool write;    /* where the suite does not take both ways in turn */
	bool quick;    /* measured by a quick run, too */
	uint64_t span; /* 0: the whole export */
};

struct perf_load_case {
	const char *peer;
	bool tcp;
	struct perf_nbd_load load; /* generation is filled in, and span where it is 0 */
	enum perf_place place;
	struct perf_echo_hello hello; /* for the floor: another way of sending and receiving */
};

/* Of the shape, reading or writing. */
void perf_load_shape(struct perf_load_case *l, const struct perf_shape *shape, bool write);

/*
 * Counters: ops_s, MB_s; p50_us, p99_us: latency; server_us, donor_us, client_us: CPU time an
 * operation; both_us: their sum; when all run on one CPU its inverse is the throughput, were the
 * CPU not shared with strangers; client_%, bridge_%, donor_%: shares of it; switches, calls:
 * context switches and system calls of the server an operation (where the kernel lets us count
 * these); receives_op: receives of the client.
 */
void perf_load_add(const struct perf_load_case *l, const char *name, ...)
	__attribute__((format(printf, 2, 3)));

#endif
