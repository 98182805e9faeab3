/* SPDX-License-Identifier: MIT */
/*
 * Private to transports/nbd/donor/: one connection of the listener (session.c), its exports
 * (service.c), and the listener's state, which includes the sessions' counts.
 *
 * Threads: a session belongs to the loop's thread until the peer has said something, then to its
 * own thread.  fence() and the listener may end it from other threads, under alive_lock.
 */
#ifndef WEFT_TRANSPORTS_NBD_DONOR_SESSION_H
#define WEFT_TRANSPORTS_NBD_DONOR_SESSION_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/base/accept.h"
#include "fabric/base/crew.h"
#include "fabric/exports/export.h"
#include "fabric/listener.h"
#include "fabric/nbd/server.h"
#include "transports/nbd/donor/listener.h"

struct nbd_session {
	struct nbd_listener *listener;
	struct weft_donor *donor;
	/*
	 * under the listener's lock; while the session is silent, only the loop's thread touches
	 * them
	 */
	struct nbd_session *next, **prev;
	struct weft_stranger stranger;
	struct weft_watch watch;  /* for its first bytes */
	uint64_t deadline_ns;     /* for its first bytes */
	bool silent;              /* no thread yet, and no conn */
	bool counted;             /* in the listener's nr_granted */
	struct nbd_conn *conn;
	pthread_mutex_t alive_lock;
	bool alive; /* conn may be killed */
	uint32_t handshake_ms;

	struct weft_export export;  /* the user of conn */
	struct weft_region *asked;  /* a region whose strings the engine may still read */
	uint64_t asked_tenure;      /* of NAME@TENURE; 0: NAME */
	/* asked by a session's alias, this one, which may write */
	bool asked_by_alias, alias_writes;
	uint8_t asked_alias[WEFT_ID_BYTES];
	bool has_pass;              /* was given the one of its TLS session */

	struct weft_peer peer;
};

struct nbd_socket {
	struct weft_acceptor acceptor;
	int fd;
	struct nbd_listener *listener;
};

/* Silent sessions, oldest first. */
struct nbd_silent_list {
	struct nbd_session *first, **end;
};

struct nbd_listener {
	struct weft_listener base;
	struct weft_donor *donor;
	struct weft_loop *loop;
	struct nbd_listener_config config;
	struct nbd_tls_credentials *tls; /* NULL: there is none */
	bool stopping;
	struct weft_strangers strangers;

	/* The loop's thread's. */
	struct weft_crew crew; /* of sessions */
	struct nbd_silent_list silent;
	struct weft_timer silent_timer; /* for the oldest silent session */
	struct nbd_session *made_room;  /* a silent session that has to end */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct nbd_session *sessions;
	unsigned nr_sessions, nr_silent, nr_granted, nr_listing;
	uint64_t accepted, refused;
	struct weft_export_counters ended; /* of sessions that are gone */

	unsigned nr_sockets;
	struct nbd_socket sockets[];
};

/* service.c; user of nbd_conn_new(): the session's export. */
extern const struct nbd_service nbd_donor_service;

/* session.c */

/* The peer has said something: its name, and time-outs for its socket. */
void nbd_session_set_up(struct nbd_session *session);
/*
 * Shuts its connection down, if it has one still; drain: only the receiving side.  Any thread, does
 * not block.
 */
void nbd_session_kill(struct nbd_session *session, bool drain);
/* weft_grant.fence: cuts the connection off.  Any thread, does not block. */
void nbd_session_fence(void *session);
/*
 * The session was granted by an alias.  Its client may say nothing for hours, and counts as alive
 * as long as its kernel answers.  From now on the connection ends before a lease of silence is
 * over.
 */
void nbd_session_live_by_answers(struct nbd_session *session, uint32_t lease_ms);
/* The peer has hung up, or sent more. */
bool nbd_session_hung_up(const struct nbd_conn *conn);
/* When the peer's kernel last answered, about: weft_now_ns(). */
uint64_t nbd_session_answered_ns(const struct nbd_session *session);
/* The peer was kept out: it is counted, and the log may say so. */
void nbd_session_kept_out(struct nbd_session *session, const struct weft_error *why);
/* Gives back what it has, its grant too.  Neither its thread nor a list has it any more. */
void nbd_session_free(struct nbd_session *session);

/* Before and after a grant: -EBUSY if there are too many, unless the donor knows the attachment. */
int nbd_session_count(struct nbd_session *session, bool known, struct weft_error *err);
void nbd_session_uncount(struct nbd_session *session);
/*
 * Around a listing of all regions, of which there are a few at a time: 0, or -EBUSY after some
 * seconds.
 */
int nbd_session_begin_list(struct nbd_session *session);
void nbd_session_end_list(struct nbd_session *session);

#endif
