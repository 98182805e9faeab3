/*
 * Private to transports/nbd/: one connection of the donor's listener.
 *
 * Threads: the loop's until the peer has said something, then the connection's own; fence() and the listener may end it from others,
 * under alive_lock.
 */
#ifndef WEFT_TRANSPORTS_NBD_DONOR_SESSION_H
#define WEFT_TRANSPORTS_NBD_DONOR_SESSION_H

#include <pthread.h>
#include <stdatomic.h>

#include "fabric/donor/donor.h"
#include "fabric/base/loop.h"
#include "fabric/nbd/server.h"
#include "fabric/donor/strangers.h"

enum {
	/* A file region's requests get their buffers from here, one after another; all are given back once the
	 * replies have left.  A request that is longer goes through it in pieces: so a peer that takes in no replies, or ends no
	 * payload, keeps no more than this. */
	NBD_ARENA_BYTES = 256 << 10,
};

/* Written by the session's thread alone, read by others. */
struct nbd_counters {
	_Atomic uint64_t requests, read_bytes, written_bytes, errors;
};

struct nbd_session {
	struct nbd_listener *listener;
	struct weft_donor *donor;
	struct nbd_session *next, **prev; /* under the listener's lock; while it is silent, the loop's thread's */
	struct weft_stranger stranger;
	struct weft_watch watch;  /* for its first bytes */
	uint64_t deadline_ns;     /* for them */
	bool silent;              /* no thread yet, and no conn */
	bool counted;             /* among those with a grant */
	struct nbd_conn *conn;
	pthread_mutex_t alive_lock;
	bool alive; /* conn may be killed */
	uint32_t handshake_ms;

	struct weft_grant *grant;
	struct weft_region *region; /* the grant's */
	struct weft_region *asked;  /* whose strings the engine may still read */
	uint64_t asked_tenure;      /* of NAME@TENURE; 0: NAME */

	uint8_t *arena;
	size_t arena_used;
	unsigned arena_users;

	struct nbd_counters counters;
	char peer[64];
};

/* user of nbd_conn_new(): the session */
extern const struct nbd_service nbd_donor_service;

/*
 * Before and after a grant: -EBUSY if there are too many, unless the donor knows the attachment.
 */
int nbd_session_count(struct nbd_session *session, bool known, struct weft_error *err);
void nbd_session_uncount(struct nbd_session *session);
/* Around a listing of all regions, of which there are a few at a time: 0, or -EBUSY after some seconds. */
int nbd_session_begin_list(struct nbd_session *session);
void nbd_session_end_list(struct nbd_session *session);

/* weft_grant.fence: cuts the connection off.  Any thread, does not block. */
void nbd_session_fence(void *session);

#endif
