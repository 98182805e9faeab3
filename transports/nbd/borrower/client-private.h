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

/* A handshake.  It belongs to its thread until `done`, and to the owner afterwards. */
struct nbd_client_handshake {
	struct nbd_client_handshake *next;
	pthread_t thread;
	char *host, *port, *region;
	struct weft_hello hello;
	uint32_t timeout_ms, dead_ms;
	int cancel_fd; /* eventfd: the owner gives up */
	int done_fd;   /* eventfd: done was set */
	_Atomic bool done;
	bool orphan; /* its connection is gone; the owner's field */
	/* The result. */
	struct weft_error error; /* code 0: connected */
	int fd;                  /* a socket at the start of the transmission phase; -1: none */
	bool structured;
	struct tp_info info;
	/* The thread's. */
	uint64_t deadline_ns;
	char server_text[256];
	char grant_name[WEFT_CONTEXT_MAX];
	struct weft_welcome welcome;
	unsigned nr_grants;
};

/* Starts the thread.  0, or -errno. */
int nbd_client_handshake_start(const struct tp_target *target, struct nbd_client_handshake **ret,
	struct weft_error *err);
/* Does not wait. */
void nbd_client_handshake_cancel(struct nbd_client_handshake *hs);
/* Waits for the thread and frees. */
void nbd_client_handshake_finish(struct nbd_client_handshake *hs);

struct nbd_tp_conn {
	struct tp_conn conn;
	struct nbd_client_handshake *hs; /* until it is joined */
	struct nbd_client client;        /* from then on */
	/* it said goodbye; the peer ends the connection when it has released the grant */
	bool leaving;
	uint64_t leave_ns; /* the time at which it stops waiting for that */
	struct nbd_tp_conn *next_leaving;
};

struct nbd_tp {
	struct tp tp;
	uint32_t depth;
	struct nbd_client_handshake *orphans; /* given up, not joined yet */
	struct nbd_tp_conn *leaving;
};

static inline struct nbd_tp_conn *nbd_tp_conn_of(struct tp_conn *conn)
{
	return (struct nbd_tp_conn *)conn;
}

#endif
