/* SPDX-License-Identifier: MIT */
/* See arm.h. */
#include "nbd-bridge/link/arm.h"

#include <string.h>

bool link_watch_anew(struct weft_loop *loop, struct tp_conn *conn, struct weft_watch *watch, int fd,
	uint32_t events, struct weft_error *why)
{
	weft_loop_remove(loop, watch);
	watch->fd = fd;
	int r = weft_loop_add(loop, watch, events);
	if (r < 0) {
		weft_error_set(why, -r, "cannot wait for the connection: %s", strerror(-r));
		tp_shutdown(conn);
	}
	return r < 0;
}
