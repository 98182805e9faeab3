/* SPDX-License-Identifier: MIT */
/*
 * The donor's QUIC side: one UDP socket, whose datagrams go to connections by their ids.  A
 * connection has a socket of its own from its first datagram on, which the kernel prefers for its
 * peer, and a thread.  So only first datagrams come by here, and those of a peer whose address has
 * changed.
 *
 * Threads: the loop's; quic_listener_status() any.
 */
#ifndef WEFT_TRANSPORTS_QUIC_DONOR_LISTENER_H
#define WEFT_TRANSPORTS_QUIC_DONOR_LISTENER_H

#include "fabric/donor/donor.h"
#include "fabric/base/loop.h"
#include "fabric/listener.h"

struct quic_listener;

struct quic_listener_config {
	/* As struct nbd_listener_config has them. */
	unsigned max_connections, max_strangers;
	uint32_t handshake_ms;
	/* 0: 120 s; a peer that is silent for so long is gone */
	uint32_t idle_ms;
	/*
	 * 0: 16; with more strangers than so many, whoever comes has to prove first that datagrams
	 * reach it (RFC 9000, 8.1.2)
	 */
	unsigned max_unproved;
	const char *tls_certificates;
};

/*
 * Serves at the address, of UDP.  donor and loop outlive it.  config may be NULL.  0; -ENOKEY: the
 * donor knows neither keys nor certificates, and QUIC is never without; -ENOMEM, or -errno of
 * bind(2) and others.
 */
int quic_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct quic_listener_config *config,
	struct quic_listener **ret, struct weft_error *err);
/* As nbd_listener_stop(), _drain(), _free(), and _status(). */
void quic_listener_stop(struct quic_listener *listener);
int quic_listener_drain(struct quic_listener *listener, uint32_t timeout_ms);
void quic_listener_free(struct quic_listener *listener);
void quic_listener_status(struct quic_listener *listener, struct weft_listener_status *ret);
/* Where it listens. */
void quic_listener_address(const struct quic_listener *listener, struct sockaddr_storage *ret);

#endif
