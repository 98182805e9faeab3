/* SPDX-License-Identifier: MIT */
/*
 * Waiting for libnbd with a bound of one's own.  Its calls that wait have none, and nbd_poll(3)
 * begins its time anew after each signal, of which some programs get one every few milliseconds.
 * For whoever links libnbd; on the one thread that uses the handle.
 */
#ifndef WEFT_FABRIC_NBD_LIBNBD_H
#define WEFT_FABRIC_NBD_LIBNBD_H

#include <libnbd.h>
#include <poll.h>

/* What poll(2) is to wait for before libnbd can go on. */
static inline struct pollfd nbd_libnbd_wants(struct nbd_handle *nbd)
{
	const unsigned direction = nbd_aio_get_direction(nbd);

	return (struct pollfd){
		.fd = nbd_aio_get_fd(nbd),
		.events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				  (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)),
	};
}

/*
 * Moves libnbd on once, after poll(2) has found something of that.  0; or -1 where libnbd says so,
 * and nbd_get_error(3) says why.
 */
static inline int nbd_libnbd_go_on(struct nbd_handle *nbd, const struct pollfd *p)
{
	/* An end or an error of the socket is found by the side that waits. */
	return (p->events & POLLIN) && (p->revents & ~POLLOUT) ? nbd_aio_notify_read(nbd)
							       : nbd_aio_notify_write(nbd);
}

#endif
