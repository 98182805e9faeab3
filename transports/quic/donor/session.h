/* SPDX-License-Identifier: MIT */
/*
 * Private to transports/quic/donor/: one connection of the listener (session.c), its thread
 * (run.c), who keeps it alive meanwhile (keeper.c), what comes to it (mail.c), its exports
 * (service.c), where its datagrams go (routes.c), and the listener's state.
 *
 * Threads: a session belongs to its thread, or to the keeper.  The listener's thread puts datagrams
 * into its mailbox, and anybody may end it (quic_session_kill()), both under the listener's lock,
 * or with a grant of it.
 */
#ifndef WEFT_TRANSPORTS_QUIC_DONOR_SESSION_H
#define WEFT_TRANSPORTS_QUIC_DONOR_SESSION_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/base/crew.h"
#include "fabric/exports/export.h"
#include "transports/quic/donor/listener.h"
#include "transports/quic/wire.h"

enum {
	QUIC_ROUTES = 16,      /* ids of a connection: a peer takes 8, and gives some back */
	QUIC_ROUTE_PLACES = 1024,
	QUIC_MAILBOX = 32,     /* datagrams; more are lost, as on the network */
	QUIC_RESET_PLACES = 256,
};

/* An id that leads to a session. */
struct quic_route {
	struct quic_route *next; /* at its place */
	struct quic_session *session; /* NULL: it is free */
	uint8_t len, cid[QUIC_CID_MAX_BYTES];
};

struct quic_letter {
	struct quic_path path;
	size_t len;
	uint8_t bytes[];
};

struct quic_keeper {
	pthread_mutex_t lock;
	pthread_cond_t news;
	/* Under the lock. */
	bool runs, ends;
	bool idle;        /* it waits for something to be lent */
	bool lent;
	uint64_t lent_ns; /* since when */
};

struct quic_session {
	struct quic_listener *listener;
	struct quic_session *next, **prev; /* under the listener's lock */
	struct quic_route routes[QUIC_ROUTES]; /* likewise */
	struct weft_stranger stranger;
	int wake_fd;
	_Atomic bool killed, draining;
	pthread_mutex_t mail_lock;
	unsigned nr_letters; /* likewise */
	struct quic_letter *letters[QUIC_MAILBOX];

	struct quic_keeper keeper;

	/* The thread's, or the keeper's. */
	struct quic_wire wire;
	struct quic_inbox *inbox;
	uint64_t deadline_ns; /* for a grant */
	struct weft_peer peer;
	bool is_known;        /* the peer has proved who it is */
	bool counted;         /* in the listener's nr_granted */
	bool cut_off;         /* it ends, and requests of other streams than the first are left */
	struct weft_grant *grant;
	struct weft_region *asked;
	uint64_t asked_tenure;
	struct nbd_conn *conns[QUIC_STREAMS]; /* the first has the handshake */
	struct weft_export exports[QUIC_STREAMS];
};

struct quic_listener {
	struct weft_listener base;
	struct weft_donor *donor;
	struct weft_loop *loop;
	struct quic_listener_config config;
	struct nbd_tls_credentials *credentials;
	struct quic_socket socket; /* sessions send by it too, to addresses that they try */
	struct weft_watch watch;
	struct quic_inbox *inbox;
	uint8_t token_secret[QUIC_SECRET_BYTES], reset_secret[QUIC_SECRET_BYTES];
	bool stopping;
	struct weft_strangers strangers;
	struct weft_crew crew;
	/* When a stateless reset was sent last to a place of sources; the seed says whose it is. */
	uint64_t reset_ns[QUIC_RESET_PLACES], reset_seed;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct quic_session *sessions;
	unsigned nr_sessions, nr_granted;
	uint64_t accepted, refused;
	struct weft_export_counters ended; /* of sessions that are gone */
	struct quic_route *places[QUIC_ROUTE_PLACES];
};

/* service.c; user of a connection: one of the session's exports. */
extern const struct nbd_service quic_donor_service;

/* routes.c; under the listener's lock.  Ids are random, but the one that a client begins with. */

/* False: the session has as many as it may, or the id is taken. */
bool quic_route_add(struct quic_session *session, const uint8_t *cid, size_t len);
void quic_route_drop(struct quic_session *session, const uint8_t *cid, size_t len);
void quic_route_drop_all(struct quic_session *session);
/* NULL: it leads nowhere. */
struct quic_session *quic_route_find(struct quic_listener *listener, const uint8_t *cid,
	size_t len);

/* session.c */

/* A datagram that came by the listener's socket.  Under the listener's lock. */
void quic_session_post(struct quic_session *session, const struct quic_path *path,
	const uint8_t *datagram, size_t len);
/* Its thread looks at everything again.  Any thread; does not block. */
void quic_session_wake(struct quic_session *session);
/* drain: what was received is answered first.  Any thread; does not block. */
void quic_session_kill(struct quic_session *session, bool drain);
/* weft_grant.fence. */
void quic_session_fence(void *session);
/* Before and after a grant: as nbd_session_count(). */
int quic_session_count(struct quic_session *session, bool known, struct weft_error *err);
void quic_session_uncount(struct quic_session *session);

/* keeper.c; the session's thread */

void quic_keeper_init(struct quic_keeper *keeper);
/* Before and after a call that may take long, and does not touch the connection.  Does not wait. */
void quic_keeper_lend(struct quic_session *session);
void quic_keeper_take_back(struct quic_session *session);
/* Waits for the keeper's end; nothing is lent. */
void quic_keeper_end(struct quic_session *session);

/* mail.c; the session's thread, or the keeper */

/* What came by the listener's socket.  0, or as quic_receive(). */
int quic_session_read_mail(struct quic_session *session, uint64_t now_ns);
/*
 * Takes in what came, and acknowledges it, in the middle of the engine's work.  How the connection
 * ended meanwhile, its thread finds out.
 */
void quic_session_keep_up(struct quic_session *session);

/* run.c */

/*
 * Begins a connection with its first datagram; the crew serves it.  0, or -errno, and the datagram
 * is as good as lost.
 */
int quic_session_start(struct quic_listener *listener, const struct quic_initial *initial,
	const struct quic_path *path, const uint8_t *datagram, size_t len);

#endif
