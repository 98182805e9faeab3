/* SPDX-License-Identifier: MIT */
/*
 * A lane's buffers, which its transports know, and other memory that is registered with them. The
 * lane's thread.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_BUFFERS_H
#define WEFT_NBD_BRIDGE_LANE_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>

#include "fabric/base/error.h"
#include "fabric/transport.h"

struct bridge_lane;

/*
 * register: registers memory for requests of this lane, with each transport that the lane may take.
 * 0, or -errno.  deregister: 0, or -EBUSY while operations in flight point into the memory.  Takes
 * NULL.
 */
int bridge_lane_register(struct bridge_lane *lane, void *base, size_t len, struct tp_mem **ret,
	struct weft_error *err);
int bridge_lane_deregister(struct bridge_lane *lane, struct tp_mem *mem);
/*
 * Registers all memory of the process, so that requests may point anywhere. -EOPNOTSUPP: a
 * transport of the lane has to know its buffers.
 */
int bridge_lane_register_all(struct bridge_lane *lane, struct tp_mem **ret, struct weft_error *err);

/*
 * A buffer for len bytes (1 to BRIDGE_MAX_REQUEST) with its registration.  0, or -EAGAIN: then the
 * waiter is queued, and its fn is called once there may be a buffer.  Waiters are served in turn:
 * nobody else gets a buffer before the first waiter does.
 */
struct bridge_waiter {
	void (*fn)(struct bridge_waiter *waiter);
	struct bridge_waiter *next;
	bool queued;
};
int bridge_lane_buffer_get(struct bridge_lane *lane, size_t len, struct bridge_waiter *waiter,
	void **ret, struct tp_mem **ret_mem);
void bridge_lane_buffer_put(struct bridge_lane *lane, void *buf);
/* Whether anybody but `self` waits for a buffer. */
bool bridge_lane_others_wait(const struct bridge_lane *lane, const struct bridge_waiter *self);
void bridge_lane_waiter_cancel(struct bridge_lane *lane, struct bridge_waiter *waiter);

#endif
