/* SPDX-License-Identifier: MIT */
/* Waiting for a connection on its lane's loop. */
#ifndef WEFT_NBD_BRIDGE_LINK_ARM_H
#define WEFT_NBD_BRIDGE_LINK_ARM_H

#include <stdbool.h>

#include "fabric/base/loop.h"
#include "fabric/transport.h"

/* Another descriptor than before; see below. */
bool link_watch_anew(struct weft_loop *loop, struct tp_conn *conn, struct weft_watch *watch, int fd,
	uint32_t events, struct weft_error *why);

/*
 * Asks the connection for a wake-up by the watch.  True: there is work already.  A connection that
 * the loop cannot wait for is shut down, and why says so.  The lane's thread, at the end of a step.
 */
static inline bool link_arm_conn(struct weft_loop *loop, struct tp_conn *conn,
	struct weft_watch *watch, struct weft_error *why)
{
	int fd = tp_event_fd(conn);
	int events = tp_arm(conn);

	if (events == 0)
		return true;
	if (fd != watch->fd || !watch->added)
		return link_watch_anew(loop, conn, watch, fd, (uint32_t)events, why);
	weft_loop_modify(loop, watch, (uint32_t)events);
	return false;
}

#endif
