/* SPDX-License-Identifier: MIT */
/*
 * The kernel's nbd driver over generic netlink (linux/nbd-netlink.h).  Each call opens a socket of
 * its own and blocks until the kernel has answered.  Any thread.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_NBD_NETLINK_H
#define WEFT_NBD_BRIDGE_DEVICE_NBD_NETLINK_H

#include <stdint.h>

#include "fabric/base/error.h"

struct nbd_netlink_device {
	int index; /* -1: any that is free */
	uint64_t size_bytes;
	uint32_t block_bytes;
	uint16_t flags;           /* NBD_FLAG_… of the server */
	uint32_t timeout_s;       /* of a request; then it is sent again */
	/* how long requests wait for a new connection when all are dead */
	uint32_t dead_conn_s;
	const char *backend;      /* who may reconfigure it */
	/* sockets, one a connection; the kernel keeps its own references */
	const int *fds;
	unsigned nr_fds;
};

/* Whether the kernel has the driver, and we may use it: 0, or why not. */
int nbd_netlink_check(struct weft_error *err);
/*
 * The device's index, or -ENOENT: there is no driver (the message says what to do), -EPERM, -EBUSY:
 * the index is taken, -EINVAL and others: what the kernel said.
 */
int nbd_netlink_connect(const struct nbd_netlink_device *device, struct weft_error *err);
/*
 * Gives the device new sockets for its dead connections, in their order; the kernel closes sockets
 * beyond those.  0, or an error as above.
 */
int nbd_netlink_reconfigure(const struct nbd_netlink_device *device, struct weft_error *err);
/* Ends the device, even if somebody uses it.  Does nothing to a device that is not connected. */
int nbd_netlink_disconnect(int index, struct weft_error *err);

#endif
