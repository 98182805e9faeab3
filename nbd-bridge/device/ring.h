/* SPDX-License-Identifier: MIT */
/*
 * An io_uring that a lane's loop waits in instead of epoll(7): one system call submits what the
 * lane asks of the kernel, and waits for what comes next.
 *
 * Everything here runs on the lane's thread, the only one that may enter the ring.  After that
 * thread's end another may free the ring.  Invariant: all that was queued is submitted before the
 * loop sleeps.  If the kernel is out of memory, submitting is tried each millisecond.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_RING_H
#define WEFT_NBD_BRIDGE_DEVICE_RING_H

#include <liburing.h>

#include "fabric/base/loop.h"

struct bridge_ring;

/*
 * An operation; the owner embeds it and keeps it in place until fn was called with its result, or
 * the ring is freed.
 */
struct bridge_ring_op {
	void (*fn)(struct bridge_ring_op *op, int result);
};

/* Something to do once all that is queued now has been submitted. */
struct bridge_ring_note {
	void (*fn)(struct bridge_ring_note *note);
	struct bridge_ring_note *next;
	bool queued;
};

/*
 * From its next step on the loop waits in the ring.  nr_ops: the most operations at any time.  0,
 * or -errno of io_uring_setup(2) or weft_loop_use().
 */
int bridge_ring_new(struct weft_loop *loop, unsigned nr_ops, struct bridge_ring **ret);
/*
 * The loop waits in epoll_wait(2) again.  Operations are cancelled where possible, and their fn is
 * not called.  Takes NULL.
 */
void bridge_ring_free(struct bridge_ring *ring);

/*
 * An entry for the operation.  The caller prepares it, and leaves its user_data as it is.  It is
 * submitted when the loop waits, or by bridge_ring_submit().  At most nr_ops operations may be
 * between this call and fn.
 */
struct io_uring_sqe *bridge_ring_queue(struct bridge_ring *ring, struct bridge_ring_op *op);
/* Queue a note, unless it is queued; and take it off the queue, if it is queued. */
void bridge_ring_note(struct bridge_ring *ring, struct bridge_ring_note *note);
void bridge_ring_note_cancel(struct bridge_ring *ring, struct bridge_ring_note *note);
/*
 * Submits now, for a lane that will not wait soon.  Results come with the next step.  0, or
 * -EAGAIN: the kernel is out of memory, and not everything is submitted.
 */
int bridge_ring_submit(struct bridge_ring *ring);
/* The same, and calls fn of the operations that have ended.  An fn may free the ring. */
int bridge_ring_submit_and_reap(struct bridge_ring *ring);

#endif
