/* SPDX-License-Identifier: MIT */
/*
 * One direction of a line: what comes out of one TUN device goes into the other, later.  A
 * direction has a thread of its own, which owns everything in it; the others read it once that
 * thread has ended.
 */
#ifndef WEFT_PERF_PEERS_LINE_DIRECTION_H
#define WEFT_PERF_PEERS_LINE_DIRECTION_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/histogram.h"

/* What a line does to packets; the same in both directions. */
struct line_shape {
	uint64_t delay_ns, jitter_ns; /* one way; jitter_ns is at most delay_ns */
	uint64_t rate_bit_s;          /* 0: as fast as it goes */
	uint64_t queue_bytes;         /* that wait for the rate, at most */
	double loss;                  /* share of the packets, 0 to 1 */
	uint64_t seed;
};

struct line_counts {
	uint64_t packets, bytes; /* handed over; bytes of IP packets */
	uint64_t frames;         /* of the kernel's, in which these came */
	uint64_t lost;           /* packets, by chance */
	uint64_t dropped;        /* packets that found the queue full */
	uint64_t refused;        /* packets that the other device did not take */
	uint64_t queue_peak_bytes;
};

struct line_direction {
	int from, to; /* TUN devices, which do not block */
	struct line_shape shape;
	uint64_t random;           /* state of the generator */
	uint64_t free_ns, last_ns; /* the link's queue is empty then; the latest that was planned */

	/* Frames that are under way: in is where the next one goes, out the next one to be due. */
	uint8_t *ring;
	size_t in, out;
	bool wrapped;     /* in is behind out */
	uint8_t *scratch; /* a train that is cut */

	struct line_counts counts;
	struct weft_histogram
		late; /* ns between the time that was planned and the time it was handed over */
	pthread_t thread;
	int stop; /* an eventfd */
};

/*
 * which: 0 or 1; directions of one seed lose different packets.  stop: an eventfd, readable when
 * the thread shall end.  0, or -errno: no memory, no thread.
 */
int line_direction_start(struct line_direction *d, int from, int to, const struct line_shape *shape,
	unsigned which, int stop);
/* Waits for the thread, once stop is readable; what was under way is gone.  Takes one that was
 * never started. */
void line_direction_end(struct line_direction *d);
/* What was counted, as JSON, which the caller owns. */
json_t *line_direction_json(const struct line_direction *d);

#endif
