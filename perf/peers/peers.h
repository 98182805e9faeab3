/* SPDX-License-Identifier: MIT */
/*
 * The servers that are measured side by side, all with populated RAM of the same size behind them.
 * Started when first asked for, ended with the run.  Main thread only.
 */
#ifndef PERF_PEERS_PEERS_H
#define PERF_PEERS_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "perf/harness/nbd-client.h"

enum { PERF_PEER_NAME_MAX = 24 };
#define PERF_PEER_BYTES (UINT64_C(256) << 20)

struct perf_peer {
	char name[PERF_PEER_NAME_MAX];
	bool tcp;
	struct perf_nbd_target target;
	pid_t pid;   /* the server that the client talks to */
	pid_t donor; /* 0, or the server behind it */
	int error;   /* it could not be started: -errno */
	char why[256];
};

/*
 * "floor", "nbdkit", "nbdkit-sparse", "qemu", "weft", and "bridge": a weft bridge's Unix socket in
 * front of a weft donor over TCP (tcp is false for it).  0, or -errno with why (256 bytes): it is
 * not installed, not built, or did not start.
 */
int perf_peer_get(const char *name, bool tcp, struct perf_peer **ret, char *why);

#endif
