/* SPDX-License-Identifier: MIT */
/* What the files of the QUIC client share; see client.h. */
#ifndef WEFT_TRANSPORTS_QUIC_BORROWER_CLIENT_PRIVATE_H
#define WEFT_TRANSPORTS_QUIC_BORROWER_CLIENT_PRIVATE_H

#include <stdatomic.h>

#include "fabric/base/crew.h"
#include "fabric/nbd/client.h"
#include "fabric/nbd/client-handshake.h"
#include "transports/quic/borrower/client.h"
#include "transports/quic/wire.h"

/* A connection on its way: its thread's until that is done, then the owner's. */
struct quic_connecting {
	_Atomic int refs; /* the owner's; the thread's, until it is done */
	char *host, *port, *region;
	struct weft_hello hello;
	struct nbd_tls_credentials *credentials;
	uint32_t timeout_ms, answer_ms, dead_ms;
	uint64_t deadline_ns;
	int cancel_fd, done_fd; /* eventfds: the owner gives up; done, or about to be */
	/* The result. */
	struct weft_error error; /* code 0: connected */
	struct quic_wire *wire; /* granted, all streams open; NULL: none */
	bool structured;
	struct tp_info info;
	/* The thread's. */
	struct quic_inbox *inbox;
	struct nbd_talk talk;
};

/* On a thread of the crew.  0, and quic_connecting_put() it; or -errno. */
int quic_connecting_start(struct weft_crew *crew, const struct tp_target *target,
	struct quic_connecting **ret, struct weft_error *err);
/* For the owner. */
static inline bool quic_connecting_is_done(const struct quic_connecting *connecting)
{
	return atomic_load(&connecting->refs) == 1;
}
/* Does not wait. */
void quic_connecting_cancel(struct quic_connecting *connecting);
/* Also while the thread still works: it cleans up. */
void quic_connecting_put(struct quic_connecting *connecting);
/* Ends and frees a wire; takes NULL. */
void quic_wire_free(struct quic_wire *wire);

#endif
