/* SPDX-License-Identifier: MIT */
/*
 * What listeners over RDMA share: an address on which connections are accepted, also after its
 * device was removed and has come back; who came, and how many; the end.
 *
 * Threads: the loop's, where nothing waits for a driver; weft_rdma_acceptor_drain(), _status() and
 * what is under the lock: any.
 */
#ifndef WEFT_TRANSPORTS_RDMA_ACCEPTOR_H
#define WEFT_TRANSPORTS_RDMA_ACCEPTOR_H

#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "fabric/base/loop.h"
#include "fabric/donor/strangers.h"
#include "fabric/listener.h"
#include "transports/rdma/reaper.h"

/* A connection request, which its event has no longer. */
struct weft_rdma_request {
	uint8_t private_data[UINT8_MAX];
	uint8_t len; /* of those; the peer may have sent fewer */
	uint8_t responder_resources, initiator_depth;
};

struct weft_rdma_acceptor {
	/* Set before it is opened. */
	const char *how;     /* for people, behind "listen on ADDRESS": "over RDMA" */
	const char *without; /* … and what there is while the device is away: "TCP only" */
	/* A request, whose id may move: it is rejected, or the callee has the id. */
	void (*request)(struct weft_rdma_acceptor *acceptor, struct rdma_cm_id *id,
		const struct weft_rdma_request *request);
	/* After weft_rdma_acceptor_close(), when drivers have let go; on the reaper's thread. */
	void (*closed)(struct weft_rdma_acceptor *acceptor);

	char place[280]; /* for people: "10.0.0.1:10809" */
	struct sockaddr_storage address; /* with the port, once it is open */
	struct weft_loop *loop;
	struct weft_rdma_reaper *reaper;
	struct weft_rdma_job last;
	struct rdma_event_channel *events;
	struct rdma_cm_id *id; /* NULL: its device was removed, retry looks for it */
	struct ibv_context **devices; /* keeps them open */
	struct weft_watch watch;
	struct weft_timer retry;
	struct weft_strangers strangers;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	bool stopping;
	unsigned nr; /* sessions, whose threads run */
	uint64_t nr_accepted, nr_refused;
};

/*
 * Listens on the address (port 0: any).  The loop must outlive it.  -ENODEV: no RDMA device;
 * -EADDRINUSE, -EADDRNOTAVAIL, -ENOMEM.  Closed by the caller in any case.
 */
int weft_rdma_acceptor_open(struct weft_rdma_acceptor *acceptor, struct weft_loop *loop,
	const struct sockaddr *address, unsigned max_strangers, struct weft_error *err);
uint16_t weft_rdma_acceptor_port(const struct weft_rdma_acceptor *acceptor);
/*
 * Where a borrower reaches it, as offers: "rdma:10809:192.0.2.7", word being "rdma".  One that
 * listens on all addresses offers each that is on an RDMA device, as far as they fit, with commas
 * between.  One that listens on an address offers that if with_address, else "rdma:10809".
 */
void weft_rdma_acceptor_offers(const struct weft_rdma_acceptor *acceptor, const char *word,
	bool with_address, char *buf, size_t len);
/* An address of its, with the port, which others reach: "192.0.2.7:5555". */
void weft_rdma_acceptor_reached_at(const struct weft_rdma_acceptor *acceptor, char *buf,
	size_t len);
/* Answers a request with a refusal.  The id is not the caller's any more. */
void weft_rdma_acceptor_reject(struct weft_rdma_acceptor *acceptor, struct rdma_cm_id *id,
	const void *private_data, uint8_t len);
/* Waits until no session is left.  0, or -ETIMEDOUT: a driver keeps one. */
int weft_rdma_acceptor_drain(struct weft_rdma_acceptor *acceptor, uint32_t timeout_ms);
/* Of who came, and is there. */
void weft_rdma_acceptor_status(struct weft_rdma_acceptor *acceptor,
	struct weft_listener_status *ret);
/* All sessions ended before (asserted). */
void weft_rdma_acceptor_close(struct weft_rdma_acceptor *acceptor);

#endif
