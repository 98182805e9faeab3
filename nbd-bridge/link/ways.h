/* SPDX-License-Identifier: MIT */
/*
 * Which of the ways to a donor an attachment takes once it has begun: when it leaves a way, and
 * when it may return.  (bridge/find.c chooses the first way.)  No threads, no clock: the caller
 * holds the attachment's lock and passes the time.
 *
 * Way 0 is the fallback (TCP); the others are better and tried in turn: the best (RDMA, an address
 * each), and behind them second ones (QUIC).  When connecting over a better way fails, the whole
 * attachment leaves it for the fallback.  The attachment goes to a better way than the present one
 * when that has worked for a while.  The wait before the next look doubles each time that a better
 * way did not last.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_WAYS_H
#define WEFT_NBD_BRIDGE_LINK_WAYS_H

#include <stdbool.h>
#include <stdint.h>

enum {
	BRIDGE_RETURN_MS = 2000,      /* from a loss to the first look at the better way */
	BRIDGE_RETURN_MAX_MS = 60000, /* … however often it was lost */
	/* after a better way has lasted so long, the wait begins anew */
	BRIDGE_STEADY_MS = 60000,
	/* a better way must work so long before everything moves to it */
	BRIDGE_SETTLE_MS = 1000,
};

struct bridge_ways {
	unsigned nr;
	unsigned nr_best; /* from way 1 on */
	uint32_t return_ms;
	unsigned now;      /* the way that connections are made over */
	unsigned used;     /* the way that was granted last */
	uint64_t since_ns; /* since when used is what it is; 0: nothing was granted yet */
	uint64_t nr_changes;
	unsigned better;   /* the next to be looked at */
	uint32_t wait_ms;
	uint64_t look_ns;  /* not to be looked at before */
};

void bridge_ways_init(struct bridge_ways *ways, unsigned nr, unsigned nr_best, unsigned first,
	uint32_t return_ms);
/* Whether a is a worse way than b. */
bool bridge_ways_is_worse(const struct bridge_ways *ways, unsigned a, unsigned b);
/*
 * To be called when connecting over the present way was refused or not answered, and no lane has a
 * connection.  True: another way is taken from now on, under a higher generation.
 */
bool bridge_ways_refused(struct bridge_ways *ways);
/* To be called when a lane was granted over the way.  True: it is another way than before. */
bool bridge_ways_granted(struct bridge_ways *ways, unsigned way, uint64_t now_ns);
/* Whether it is time to look at a better way; if not, *ret_ns says when (0: never). */
bool bridge_ways_may_look(const struct bridge_ways *ways, uint64_t now_ns, uint64_t *ret_ns);
/* The look at ways->better failed. */
void bridge_ways_look_failed(struct bridge_ways *ways, uint64_t now_ns);

#endif
