/* SPDX-License-Identifier: MIT */
/*
 * Which of the ways to a donor an attachment takes once it has begun: when it leaves one, when it
 * may return.  (What it begins with is bridge/find.c's.)  No threads, no clock: whoever calls holds
 * the attachment's lock and says what time it is.
 *
 * Way 0 is the fallback (TCP); the others are better (RDMA, an address each) and tried in turn.  A
 * better way is left for the fallback when connecting over it fails, for the whole attachment.  It
 * is returned to when it has been seen to work for a while; the wait before it is looked at doubles
 * each time that it did not last.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_WAYS_H
#define WEFT_NBD_BRIDGE_LINK_WAYS_H

#include <stdbool.h>
#include <stdint.h>

enum {
	BRIDGE_RETURN_MS = 2000,      /* from a loss to the first look at the better way */
	BRIDGE_RETURN_MAX_MS = 60000, /* … however often it was lost */
	BRIDGE_STEADY_MS = 60000,     /* a better way that lasted so long begins anew */
	BRIDGE_SETTLE_MS = 1000,      /* so long it must work before everything moves to it */
};

struct bridge_ways {
	unsigned nr;
	uint32_t return_ms;
	unsigned now;      /* what connections are made over */
	unsigned used;     /* what was granted last */
	uint64_t since_ns; /* since when used is what it is; 0: nothing was granted yet */
	uint64_t nr_changes;
	unsigned better;   /* the next to be looked at */
	uint32_t wait_ms;
	uint64_t look_ns;  /* not to be looked at before */
};

void bridge_ways_init(struct bridge_ways *ways, unsigned nr, unsigned first, uint32_t return_ms);
/*
 * Connecting over the way that is taken was refused or not answered, and no lane has a connection:
 * true: another is taken from now on, under a higher generation.
 */
bool bridge_ways_refused(struct bridge_ways *ways);
/* A lane was granted over the way: true: it is another than before. */
bool bridge_ways_granted(struct bridge_ways *ways, unsigned way, uint64_t now_ns);
/* Whether a better way may be looked at; if not now, *ret_ns tells when (0: never). */
bool bridge_ways_may_look(const struct bridge_ways *ways, uint64_t now_ns, uint64_t *ret_ns);
/* The look at ways->better failed. */
void bridge_ways_look_failed(struct bridge_ways *ways, uint64_t now_ns);

#endif
