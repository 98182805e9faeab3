/* SPDX-License-Identifier: MIT */
/*
 * Whether a request of the kernel's nbd driver may be carried out, or is a second copy of one that
 * may still be on its way.
 *
 * When a request is not answered within the driver's time-out, the driver shuts the request's
 * connection down and sends it again over another.  The first copy may be with the donor; if the
 * second were carried out and answered, a newer write to the same blocks could be overtaken by the
 * first.  So the connections of a device are a set that lives and ends together.  Once the driver
 * has shut one, no request that was sent again is carried out until all requests that came over the
 * set have ended, and the driver has got a new set.
 *
 * A request that was sent again is recognised by its queue.  The driver has a hardware queue for
 * each connection, and sends a queue's requests over the connection of the same number.  A request
 * comes over another connection ("foreign") only when its own is dead, or not there yet.  The queue
 * is in the cookie.  A foreign request, and any request while foreign ones are in flight, is
 * carried out only if no connection of the set has been shut.  The driver shuts a connection before
 * it sends again, and poll(2) tells at once, so this test misses nothing.  It does not depend on
 * which connection has which number.
 *
 * Any thread, except for making and ending a barrier.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_NBD_BARRIER_H
#define WEFT_NBD_BRIDGE_DEVICE_NBD_BARRIER_H

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { NBD_BARRIER_MAX = 64 };

struct nbd_barrier {
	unsigned nr;
	/* The set's sockets, our ends: descriptors that stay open as long as the set is in use. */
	struct pollfd fds[NBD_BARRIER_MAX];
	_Atomic unsigned nr_foreign; /* foreign requests in flight */
	_Atomic bool over;           /* a connection was shut */
};

/* The byte order of cookies: big-endian since Linux 6.5, the machine's before. */
enum nbd_cookie_order { NBD_COOKIE_UNKNOWN, NBD_COOKIE_BIG, NBD_COOKIE_NATIVE, NBD_COOKIE_STRANGE };

/*
 * The hardware queue of a request, from its cookie as the protocol's byte order gives it; -1: not
 * known.  *order is the order as far as known (NBD_COOKIE_UNKNOWN at first); a cookie that fits no
 * order makes it STRANGE for good.
 */
int nbd_cookie_queue(enum nbd_cookie_order *order, uint64_t cookie, unsigned nr_queues);

/*
 * A request of `queue` (-1: not known) came over connection `index`.  True: it may be carried out;
 * *ret_foreign: call nbd_barrier_done() when it has ended.  False: never; `over` is set.
 */
bool nbd_barrier_pass(struct nbd_barrier *barrier, unsigned index, int queue, bool *ret_foreign);
void nbd_barrier_done(struct nbd_barrier *barrier);

#endif
