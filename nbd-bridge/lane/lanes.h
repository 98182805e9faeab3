/* SPDX-License-Identifier: MIT */
/* The lanes of a bridge, and what they share: a few atomics, which no request writes. */
#ifndef WEFT_NBD_BRIDGE_LANE_LANES_H
#define WEFT_NBD_BRIDGE_LANE_LANES_H

#include "nbd-bridge/lane/lane.h"

enum { BRIDGE_MAX_LANES = 64 };

struct bridge_lanes {
	struct bridge_attachment *attachment;
	bool driven; /* the thread that has a request runs the lane: drive.h */
	unsigned nr;
	struct bridge_lane *lane[BRIDGE_MAX_LANES];
	_Atomic uint32_t next;
	/* requests that may still change data, and whose senders have gone */
	_Atomic uint32_t nr_orphans;
	_Atomic bool big_taken;      /* a lane has a big buffer over LANE_BIG_KEPT */
	_Atomic bool stopping;       /* new requests fail */
	pthread_mutex_t lock;
	/* of CLOCK_MONOTONIC, with the lock: lanes have something to tell the control thread */
	pthread_cond_t changed;
};

/* Makes no lane: lane_new() does, and its caller adds the lane here. */
void lanes_init(struct bridge_lanes *lanes, struct bridge_attachment *attachment, bool driven);
/* All of them have been freed. */
void lanes_fini(struct bridge_lanes *lanes);
/* Makes all lanes look at what has changed.  Any thread. */
void lanes_wake(struct bridge_lanes *lanes);
/* Deals lanes out in turn: connected ones, if there are any.  Any thread. */
struct bridge_lane *lanes_next(struct bridge_lanes *lanes);
/* Tells the control thread, which waits for `changed`, that *flag is set.  A lane's thread. */
void lanes_tell(struct bridge_lanes *lanes, bool *flag);
/* Whether no lane has a request under way.  Any thread. */
bool lanes_are_idle(const struct bridge_lanes *lanes);

#endif
