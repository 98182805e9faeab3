/* SPDX-License-Identifier: MIT */
/* What the files of the NBD client share; see client.h. */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_PRIVATE_H
#define WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/crew.h"
#include "fabric/nbd/client.h"
#include "transports/nbd/borrower/client.h"
#include "transports/nbd/borrower/dial.h"

/* A connection on its way: its thread's until that is done, then the owner's. */
struct nbd_connecting {
	_Atomic int refs; /* the owner's; the thread's, until it is done */
	char *host, *port, *region;
	struct weft_hello hello;
	struct nbd_dial dial; /* its cancel_fd is an eventfd: the owner gives up */
	int done_fd;          /* eventfd: done, or about to be */
	/* The result. */
	struct weft_error error; /* code 0: connected */
	struct nbd_stream stream; /* at the start of the transmission phase; fd -1: none */
	bool structured;
	struct tp_info info;
	/* The thread's. */
	struct nbd_talk talk;
};

/* On a thread of the crew.  0, and nbd_connecting_put() it; or -errno. */
int nbd_connecting_start(struct weft_crew *crew, const struct tp_target *target,
	struct nbd_connecting **ret, struct weft_error *err);
/* For the owner. */
static inline bool nbd_connecting_is_done(const struct nbd_connecting *connecting)
{
	return atomic_load(&connecting->refs) == 1;
}
/* Does not wait. */
void nbd_connecting_cancel(struct nbd_connecting *connecting);
/* Also while the thread still works: it cleans up. */
void nbd_connecting_put(struct nbd_connecting *connecting);

/* foreign.c: on the thread.  0, or -errno with c->error set; info has no transport and path. */
int nbd_foreign_handshake(struct nbd_connecting *c, int fd);

struct nbd_tp_conn {
	struct tp_conn conn;
	struct nbd_connecting *connecting; /* until it is done */
	struct nbd_client client;          /* from then on */
	/* it said goodbye; the peer ends the connection when it has released the grant */
	bool leaving;
	uint64_t leave_ns; /* the time at which it stops waiting for that */
	struct nbd_tp_conn *next_leaving;
};

struct nbd_tp {
	struct tp tp;
	uint32_t depth;
	struct weft_crew crew; /* connects */
	struct nbd_tp_conn *leaving;
};

static inline struct nbd_tp_conn *nbd_tp_conn_of(struct tp_conn *conn)
{
	return (struct nbd_tp_conn *)conn;
}

#endif
