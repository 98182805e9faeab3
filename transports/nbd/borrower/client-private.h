/* SPDX-License-Identifier: MIT */
/* What the files of the NBD client share; see client.h. */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_PRIVATE_H
#define WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/nbd/client.h"
#include "transports/nbd/borrower/client.h"
#include "transports/nbd/borrower/dial.h"

/* A connection on its way.  It belongs to its thread until `done`, and to the owner afterwards. */
struct nbd_connecting {
	struct nbd_connecting *next;
	pthread_t thread;
	char *host, *port, *region;
	struct weft_hello hello;
	struct nbd_dial dial; /* its cancel_fd is an eventfd: the owner gives up */
	int done_fd;          /* eventfd: done was set */
	_Atomic bool done;
	/* The result. */
	struct weft_error error; /* code 0: connected */
	struct nbd_stream stream; /* at the start of the transmission phase; fd -1: none */
	bool structured;
	struct tp_info info;
	/* The thread's. */
	struct nbd_talk talk;
};

/* Starts the thread.  0, or -errno. */
int nbd_connecting_start(const struct tp_target *target, struct nbd_connecting **ret,
	struct weft_error *err);
/* Does not wait. */
void nbd_connecting_cancel(struct nbd_connecting *connecting);
/* Waits for the thread and frees. */
void nbd_connecting_finish(struct nbd_connecting *connecting);

/* foreign.c: on the thread.  0, or -errno with c->error set; info has no transport and path. */
int nbd_foreign_handshake(struct nbd_connecting *c, int fd);

struct nbd_tp_conn {
	struct tp_conn conn;
	struct nbd_connecting *connecting; /* until it is joined */
	struct nbd_client client;          /* from then on */
	/* it said goodbye; the peer ends the connection when it has released the grant */
	bool leaving;
	uint64_t leave_ns; /* the time at which it stops waiting for that */
	struct nbd_tp_conn *next_leaving;
};

struct nbd_tp {
	struct tp tp;
	uint32_t depth;
	struct nbd_connecting *orphans; /* given up, not joined yet */
	struct nbd_tp_conn *leaving;
};

static inline struct nbd_tp_conn *nbd_tp_conn_of(struct tp_conn *conn)
{
	return (struct nbd_tp_conn *)conn;
}

#endif
