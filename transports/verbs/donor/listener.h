/* SPDX-License-Identifier: MIT */
/*
 * The donor's verbs side: accepts connections of rdma_cm and serves a donor's regions on them.  A
 * session has a thread, which sleeps: reads and writes cost it nothing.
 *
 * Threads: the loop's; verbs_listener_status() any.
 */
#ifndef WEFT_TRANSPORTS_VERBS_DONOR_LISTENER_H
#define WEFT_TRANSPORTS_VERBS_DONOR_LISTENER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "fabric/donor/donor.h"
#include "fabric/base/loop.h"
#include "fabric/listener.h"

struct verbs_listener;

struct verbs_listener_config {
	bool may_be_plaintext; /* each key is good for RDMA, whose payload is in plaintext */
	/* 0: 1024 with a grant; further ones are refused, unless the donor knows the attachment */
	unsigned max_sessions;
	unsigned max_strangers; /* 0: 128; see fabric/donor/strangers.h */
	/* 0: 10 s; from accept to hello, and from grant to the data connection */
	uint32_t handshake_ms;
	/* 0: 512 MiB; of a memory registration; a multiple of the page size */
	uint64_t chunk_bytes;
};

/*
 * Listens on the address (port 0: any).  donor and loop must outlive it.  config may be NULL.
 * -ENODEV: no RDMA device; -EADDRINUSE, -EADDRNOTAVAIL; -ENOMEM.
 */
int verbs_listener_new(struct weft_donor *donor, struct weft_loop *loop,
	const struct sockaddr *address, const struct verbs_listener_config *config,
	struct verbs_listener **ret, struct weft_error *err);
uint16_t verbs_listener_port(const struct verbs_listener *listener);
/*
 * Where a borrower reaches the listener, as offers: "rdma:10809".  A listener on all addresses
 * offers "rdma:10809:192.0.2.7" for each address that is on an RDMA device, as far as they fit,
 * with commas between.
 */
void verbs_listener_offers(const struct verbs_listener *listener, char *buf, size_t len);

/* Accepts no more and ends the sessions.  Returns at once. */
void verbs_listener_stop(struct verbs_listener *listener);
/*
 * After verbs_listener_stop(): waits until no session holds a grant, and a little for their
 * threads.  0, or -ETIMEDOUT: a driver keeps a session.  It ends by itself; the listener must not
 * be freed before.
 */
int verbs_listener_drain(struct verbs_listener *listener, uint32_t timeout_ms);
/* All sessions ended before (asserted).  Takes NULL. */
void verbs_listener_free(struct verbs_listener *listener);

/* RDMA's requests cost the donor nothing, and are not counted. */
void verbs_listener_status(struct verbs_listener *listener, struct weft_listener_status *ret);

#endif
