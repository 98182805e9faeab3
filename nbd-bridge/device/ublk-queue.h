/* SPDX-License-Identifier: MIT */
/*
 * A queue of a ublk device: the kernel's requests in, their results back, over the io_uring that
 * its lane waits in.
 *
 * A queue is served by one lane, and everything but making and freeing it happens on the lane's
 * thread: the kernel binds a queue to the thread that fetches for it.
 *
 * Invariant: a tag is with the kernel (fetched), waits for a buffer, waits for its data (WRITE), is
 * with the lane as a request, or waits for the next submission with its result.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_UBLK_QUEUE_H
#define WEFT_NBD_BRIDGE_DEVICE_UBLK_QUEUE_H

#include "nbd-bridge/bridge/bridge.h"
#include "nbd-bridge/device/ring.h"
#include "nbd-bridge/device/ublk-control.h"

enum {
	UBLK_DEPTH = 128,            /* requests of a queue; as many as a lane has operations */
	UBLK_MAX_IO_BYTES = 1 << 20, /* of one request; the largest block of a lane's pool */
};

struct ublk_queue;

struct ublk_queue_config {
	struct bridge *bridge;
	struct bridge_lane *lane;
	struct bridge_ring *ring; /* the lane's */
	int cdev; /* the front-end's */
	uint16_t index, depth;
	uint64_t size_bytes;
	_Atomic bool *gone; /* set when the device is stopped, by whomever */
};

struct ublk_tag {
	struct bridge_request rq; /* rq.buf: its buffer, or NULL */
	struct bridge_ring_op op;
	struct ublksrv_io_cmd cmd; /* the command that the kernel has, or refused for now */
	uint32_t cmd_op;
	struct ublk_queue *queue;
	struct ublk_tag *next;
	uint16_t index;
	bool submitted; /* with the lane */
	bool refused;   /* … although its request has been answered */
	bool waits_for_data; /* of a WRITE, which the kernel copies into its buffer */
	bool answered;  /* its buffer belongs to an answer that the kernel may not have taken yet */
	bool again;     /* its command is to be sent again */
};

struct ublk_queue {
	struct ublk_queue_config config;
	const struct ublksrv_io_desc *descs; /* what the kernel asks for, by tag */
	bool serving, began, aborted, freed;
	unsigned nr_submitted;
	int error; /* of the last command that failed */
	struct bridge_ring_note submitted;
	struct weft_deferred submit;
	struct weft_timer retry;
	struct bridge_waiter waiter;
	struct ublk_tag *waiting, **waiting_tail; /* for a buffer */
	struct ublk_tag *answered; /* those of these whose answers are not submitted yet */
	/* … that are; their buffers are put back at the end of the step */
	struct ublk_tag *taken;
	struct ublk_tag tags[];
};

/* Copies config.  0, -ENOMEM or -errno of mmap(2). */
int ublk_queue_new(const struct ublk_queue_config *config, struct ublk_queue **ret,
	struct weft_error *err);
/* On the lane: fetches for every tag.  0, or what the kernel says to a fetch. */
int ublk_queue_begin(struct ublk_queue *queue, struct weft_error *err);
/*
 * On the lane: what is asked fails, now and from now on; what is with the lane still ends into
 * nothing.
 */
void ublk_queue_abort(struct ublk_queue *queue);
/*
 * On the lane: what the kernel still asks for is not looked at, and what is with the lane still
 * ends into nothing.  The ring is to be freed in the same call of the lane, so that nothing of it
 * is submitted any more.
 */
void ublk_queue_end(struct ublk_queue *queue);
/*
 * On the lane, once it has ended; it goes when the last of its requests has come back.  Takes NULL.
 */
void ublk_queue_free(struct ublk_queue *queue);

#endif
