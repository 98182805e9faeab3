/* SPDX-License-Identifier: MIT */
/*
 * A lane's flight recorder: the last requests, and the last events of its links.  Each has a ring
 * of fixed size, so that thousands of requests do not push out the reason why the transport
 * changed. The lane's thread owns the recorder; readers run there (bridge_lane_run()).
 */
#ifndef WEFT_NBD_BRIDGE_LINK_RECORDER_H
#define WEFT_NBD_BRIDGE_LINK_RECORDER_H

#include <jansson.h>
#include <stdint.h>

enum { BRIDGE_RECORDER_ENTRIES = 256, BRIDGE_RECORDER_EVENTS = 64 };

enum bridge_event {
	BRIDGE_EVENT_REQUEST,   /* a request was answered: kind, flags, off, len, error, duration */
	BRIDGE_EVENT_CONNECT,   /* connecting began; a: generation; b: way */
	BRIDGE_EVENT_GRANTED,   /* a: generation; b: operations that are posted again */
	BRIDGE_EVENT_REFUSED,   /* connecting failed: error; a: generation */
	/* the connection was lost: error; a: generation; b: operations not answered */
	BRIDGE_EVENT_LOST,
	BRIDGE_EVENT_DEAD,      /* --dead-timeout is over: waiting requests failed; b: how many */
	BRIDGE_EVENT_STALE,     /* for good: error */
	BRIDGE_EVENT_MOVED,     /* the first grant over another way; a: generation; b: way */
	/* a look at a better way ended: 0 or its error; a: generation; b: way */
	BRIDGE_EVENT_LOOKED,
	/* the connection was replaced in time, or not: error; a: generation; b: way */
	BRIDGE_EVENT_RENEWED,
};

struct bridge_record {
	uint64_t when_ns;
	uint64_t a, b; /* REQUEST: off and len */
	uint64_t took_ns;
	int error;
	uint8_t event, kind, flags;
};

struct bridge_recorder {
	uint64_t nr, nr_events; /* written ever */
	struct bridge_record ring[BRIDGE_RECORDER_ENTRIES]; /* requests */
	struct bridge_record events[BRIDGE_RECORDER_EVENTS];
};

/* A request's. */
static inline struct bridge_record *bridge_recorder_next(struct bridge_recorder *recorder)
{
	return &recorder->ring[recorder->nr++ % BRIDGE_RECORDER_ENTRIES];
}

void bridge_recorder_event(struct bridge_recorder *recorder, enum bridge_event event, int error,
	uint64_t a, uint64_t b);

/* Oldest first: an array of objects (a new reference). */
json_t *bridge_recorder_json(const struct bridge_recorder *recorder);

#endif
