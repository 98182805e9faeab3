/* SPDX-License-Identifier: MIT */
/*
 * An io_uring that a lane's loop waits in instead of epoll(7): what the lane asks of the kernel is
 * submitted by the same system call that waits for what comes next.
 *
 * Everything here runs on the lane's thread, the only one that may enter the ring; it can be freed
 * by another once that one has ended.  Invariant: what was queued is submitted before the loop
 * sleeps, unless the kernel is out of memory; then it is tried each millisecond.
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
 * From the loop's next step on it waits in the ring.  nr_ops: most operations at any time.  0, or
 * -errno of io_uring_setup(2) or weft_loop_use().
 */
int bridge_ring_new(struct weft_loop *loop, unsigned nr_ops, struct bridge_ring **ret);
/*
 * The loop waits as before.  Operations are cancelled, if that can be, and nobody hears of them.
 * Takes NULL.
 */
void bridge_ring_free(struct bridge_ring *ring);

/*
 * An entry for the operation, to be prepared, which leaves its user_data as it is.  It is submitted
 * when the loop waits, or by bridge_ring_submit().  There are nr_ops at most between this and fn.
 */
struct io_uring_sqe *bridge_ring_queue(struct bridge_ring *ring, struct bridge_ring_op *op);
/* Queues a note, unless it is already; and takes it off again, if it is. */
void bridge_ring_note(struct bridge_ring *ring, struct bridge_ring_note *note);
void bridge_ring_note_cancel(struct bridge_ring *ring, struct bridge_ring_note *note);
/*
 * Submits now, for those who will not wait soon.  Results come with the next step.  0, or -EAGAIN:
 * the kernel is out of memory, and not all is.
 */
int bridge_ring_submit(struct bridge_ring *ring);
/* The same, and calls fn of what has ended at once.  The ring may be freed by that. */
int bridge_ring_submit_and_reap(struct bridge_ring *ring);

#endif
