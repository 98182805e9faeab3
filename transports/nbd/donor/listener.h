/* SPDX-License-Identifier: MIT */
/*
 * The donor's NBD side: accepts connections and serves a donor's regions on them.  A connection has
 * a thread from its first bytes on.
 *
 * Threads: the loop's; nbd_listener_status() any.
 */
#ifndef WEFT_TRANSPORTS_NBD_DONOR_LISTENER_H
#define WEFT_TRANSPORTS_NBD_DONOR_LISTENER_H

#include <stdint.h>

#include "fabric/donor/donor.h"
#include "fabric/base/loop.h"
#include "fabric/listener.h"

struct nbd_listener;

struct nbd_listener_config {
	/*
	 * connections with a grant, 0: 1024; more are refused, unless the donor knows the
	 * attachment
	 */
	unsigned max_connections;
	/*
	 * 0: 512, or a quarter of the descriptors that the process may have; see
	 * fabric/donor/strangers.h
	 */
	unsigned max_strangers;
	/* 0: 10 s; for each step of the handshake, see nbd_conn_serve() */
	uint32_t handshake_ms;
	/*
	 * 0: 120 s; a TCP peer that acknowledges nothing, or receives nothing of what was sent to
	 * it, is gone after this time.  It should not be too short: somebody may have stopped a
	 * client for a moment. Leases end sooner.
	 */
	uint32_t dead_ms;
	/*
	 * Clients may show a certificate: struct nbd_tls_server says what the directory has.  NULL:
	 * there are none.  Clients may show one of the donor's keys as well, if it has any.
	 */
	const char *tls_certificates;
};

/*
 * Serves on listening stream sockets (TCP or Unix), which become the listener's on success.  donor
 * and loop must outlive it.  config may be NULL.  0, -ENOMEM, -errno of fcntl(2), epoll_ctl(2), or
 * as nbd_tls_server_new().
 */
int nbd_listener_new(struct weft_donor *donor, struct weft_loop *loop, const int *fds,
	unsigned nr_fds, const struct nbd_listener_config *config, struct nbd_listener **ret,
	struct weft_error *err);

/*
 * Accepts no more and ends the connections: requests that were received are carried out and
 * answered, no more are received.  Returns at once.
 */
void nbd_listener_stop(struct nbd_listener *listener);

/*
 * After nbd_listener_stop(): waits for the connections to end; those left after timeout_ms are cut
 * off.  0, or -ETIMEDOUT: one is still busy in a region.  It ends by itself; the listener must not
 * be freed before.
 */
int nbd_listener_drain(struct nbd_listener *listener, uint32_t timeout_ms);

/* All connections ended before (asserted). Takes NULL. */
void nbd_listener_free(struct nbd_listener *listener);

void nbd_listener_status(struct nbd_listener *listener, struct weft_listener_status *ret);

#endif
