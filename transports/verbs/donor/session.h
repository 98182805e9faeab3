/* SPDX-License-Identifier: MIT */
/*
 * A session at the donor, private to transports/verbs/donor/.
 *
 * Threads: each session has one, which does everything that may wait for the driver or the donor.
 * The acceptor's lock guards the list, the counts, and a session's token and mailbox; it is never
 * held over a wait for a driver.
 */
#ifndef WEFT_TRANSPORTS_VERBS_DONOR_SESSION_H
#define WEFT_TRANSPORTS_VERBS_DONOR_SESSION_H

#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>

#include "fabric/listener.h"
#include "transports/verbs/donor/listener.h"
#include "transports/verbs/proto.h"
#include "transports/rdma/acceptor.h"
#include "transports/verbs/donor/share.h"

struct verbs_session;

struct verbs_listener {
	struct weft_listener base;
	char place[280]; /* for weft serve: "10.0.0.1:10809" */
	struct weft_rdma_acceptor acceptor;
	struct weft_donor *donor;
	struct verbs_listener_config config;
	struct verbs_shares shares;
	/* under the acceptor's lock */
	struct verbs_session *sessions;
	unsigned nr_granted;
	unsigned nr_leaving; /* strangers that made room and are not gone yet */
};

/* The parts of a connection request that are needed to accept it. */
struct verbs_params {
	uint8_t responder_resources, initiator_depth;
};

struct verbs_session {
	struct verbs_listener *listener;
	struct verbs_session *next;
	struct rdma_event_channel *channel;
	struct rdma_cm_id *control;
	int wake_fd;
	struct weft_stranger stranger;
	_Atomic bool fenced, stopped;
	_Atomic bool unwanted; /* it makes room for others; counted in nr_leaving */
	/*
	 * Under the acceptor's lock: the token once granted (has_token), and the data connection
	 * that came with it.
	 */
	bool has_token;
	uint8_t token[VERBS_TOKEN_BYTES];
	/* … by a request that proves it; NULL: by one that says the token */
	const struct weft_proof *keys;
	uint64_t number, counter; /* its own, and the highest that came with a right MAC */
	bool arriving; /* it is on its way here */
	struct rdma_cm_id *arrived;
	struct verbs_params arrived_params;
};

/*
 * Starts the session's thread for a connection request, whose id becomes the session's.  0, or
 * -errno: the id is still the caller's.
 */
int verbs_session_start(struct verbs_listener *listener, struct rdma_cm_id *id);
/* Any thread; the session must be in the listener's list, and the lock held. */
void verbs_session_wake(struct verbs_session *session);

#endif
