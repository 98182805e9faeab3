/* SPDX-License-Identifier: MIT */
/*
 * A queue of a ublk device: takes the kernel's requests and gives back their results, over the
 * io_uring that its lane waits in.
 *
 * One lane serves a queue.  Everything but making and freeing happens on the lane's thread: the
 * kernel binds a queue to the thread that fetches for it.
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
	_Atomic bool *gone; /* set when somebody stops the device */
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
	bool refused;   /* … although its request was answered already, with -EIO */
	bool waits_for_data; /* of a WRITE, which the kernel copies into its buffer */
	bool answered;  /* its buffer belongs to an answer that the kernel may not have taken yet */
	bool again;     /* its command is to be sent again */
};

struct ublk_queue {
	struct ublk_queue_config config;
	const struct ublksrv_io_desc *descs; /* the kernel's requests, by tag */
	bool serving, began, aborted, freed;
	unsigned nr_submitted;
	int error; /* of the last command that failed */
	struct bridge_ring_note submitted;
	struct weft_deferred submit;
	struct weft_timer retry;
	struct bridge_waiter waiter;
	struct ublk_tag *waiting, **waiting_tail; /* for a buffer */
	/* tags that are `answered` and whose answers are not submitted yet */
	struct ublk_tag *answered;
	/* … and those whose are: their buffers are put back at the end of the step */
	struct ublk_tag *taken;
	struct ublk_tag tags[];
};

/* Copies config.  0, -ENOMEM or -errno of mmap(2). */
int ublk_queue_new(const struct ublk_queue_config *config, struct ublk_queue **ret,
	struct weft_error *err);
/* On the lane: fetches for every tag.  0, or the kernel's error for a fetch. */
int ublk_queue_begin(struct ublk_queue *queue, struct weft_error *err);
/*
 * On the lane: the kernel's requests fail from now on.  Requests that are still with the lane end
 * without an answer.
 */
void ublk_queue_abort(struct ublk_queue *queue);
/*
 * On the lane: the kernel's requests are ignored from now on, and requests that are still with the
 * lane end without an answer.  The ring must be freed in the same call of the lane, so that nothing
 * of the queue is submitted any more.
 */
void ublk_queue_end(struct ublk_queue *queue);
/*
 * On the lane, after ublk_queue_end(): the memory is freed when the last request has come back.
 * Takes NULL.
 */
void ublk_queue_free(struct ublk_queue *queue);

#endif
