/* SPDX-License-Identifier: MIT */
/*
 * Private to fabric/nbd/: a server's connection, and what each of its files has for the others.  A
 * file uses only those before it in this list: conn.c, reply.c and option-reply.c, then pieces.c,
 * send.c, starttls.c, handshake.c and transmission.c, engine.c, serve.c.
 *
 * Invariants: bytes rx_start..rx_end of rx were received, and were not parsed yet.  A request slot
 * is either on the free list, or the one whose payload is awaited (conn->current), or the
 * service's, or on the reply queue.
 */
#ifndef WEFT_FABRIC_NBD_CONN_H
#define WEFT_FABRIC_NBD_CONN_H

#include <stdatomic.h>

#include "fabric/nbd/server.h"
#include "fabric/nbd/stream.h"

enum {
	/* an option of NBD_MAX_OPTION, or 16 writes of 4 KiB at once */
	NBD_RX_BYTES = 68 << 10,
	NBD_BIG_WRITE_BYTES = 16 << 10, /* from here on a payload is never copied */
	NBD_LONG_HASH_BYTES = 1 << 20, /* from here on hashes leave at once */
	/* per connection; a client that asks about each export sends six for each */
	NBD_MAX_OPTIONS = 64 << 10,
	NBD_MAX_OPTION_BYTES = 16 << 20, /* of all options of a connection */
	/* bytes of answer to one option that are kept: LIST of many exports */
	NBD_MAX_OPTION_REPLIES = 16 << 20,
	/* the same where a thread can wait for the peer to take them in */
	NBD_KEPT_OPTION_REPLIES = 64 << 10,
};

enum nbd_phase {
	NBD_CLIENT_FLAGS, /* waits for the client's 32 bits of flags */
	NBD_OPTION,       /* waits for an option's header, and for the last one's reply to leave */
	NBD_OPTION_DATA,  /* waits for the whole payload of conn->option */
	NBD_OPTION_SKIP,  /* waits for the end of a payload too long to read */
	NBD_TLS,          /* waits for STARTTLS's reply to leave, then for TLS's own handshake */
	NBD_REQUEST,      /* waits for a request's header, a free slot, a buffer from prepare() */
	NBD_PAYLOAD,      /* waits for the rest of the payload of conn->current */
	/* waits for the end of a payload that is refused (conn->current has the error) */
	NBD_DRAIN,
	/*
	 * waits for the rest of the piece of conn->current's payload that its buffer has room for
	 */
	NBD_PIECE,
	NBD_CLOSING,      /* nothing more is received; replies may still leave */
};

enum nbd_request_state {
	NBD_RQ_FREE,
	NBD_RQ_REFUSED, /* answered by the engine; the service never saw it */
	NBD_RQ_HELD,    /* the service saw it: it is to be released */
};

enum { NBD_CONTEXT_ALLOCATION = 1, NBD_CONTEXT_GRANT = 2 }; /* ids, and bits of conn->contexts */

struct nbd_conn {
	/* What each batch touches. */
	struct nbd_stream stream;
	uint8_t phase;
	/* the last request was a big WRITE: receive no more than the next header */
	bool big_writes;
	bool starved;    /* prepare() said -EAGAIN */
	bool held_back;  /* received bytes wait for something to be sent first */
	bool parsing;
	bool structured;
	bool local; /* a Unix socket */
	bool freed;
	bool says_bye; /* when freed: nothing was cut off, and TLS may say that this is the end */
	_Atomic bool draining; /* nbd_conn_kill(): the end of what comes is ours */
	uint8_t tls_events;    /* poll(2)'s, that TLS's handshake waits for */
	bool opened;  /* service->open() succeeded */
	bool goodbye; /* DISC or ABORT */
	bool clean;   /* when freed: goodbye, and everything was answered */
	uint8_t contexts; /* selected with SET_META_CONTEXT; at GO only if the name is the same */
	int error;        /* what ended it: -errno */
	size_t rx_start, rx_end;
	size_t received; /* by the last recvmsg(2) */
	bool filled;     /* the receive filled its buffers: there is probably more */
	uint64_t left; /* PAYLOAD, PIECE, DRAIN, OPTION_SKIP: bytes still to come */
	uint64_t now_ns;
	struct nbd_request *current;
	struct nbd_request *free;
	struct nbd_request *done, **done_tail; /* replies to send, in order */
	size_t done_sent;                      /* bytes of the first that were sent */
	struct nbd_request *pieces; /* the last of `done`, if its reply has more pieces; or NULL */
	struct nbd_request *behind; /* replies that wait behind that one, in order */
	unsigned nr_requests;                  /* slots in use */
	unsigned nr_submitted;                 /* of them the service's */
	const struct nbd_service *service;
	void *user;
	struct nbd_export export; /* its strings are not valid after open() */

	/* Handshake. */
	struct nbd_tls_credentials *credentials; /* NULL: no TLS */
	const char *wants_tls;                   /* what a peer without is told; NULL: it may */
	bool kept_out;                           /* and the service knows */
	uint8_t *tx; /* replies to options */
	size_t tx_len, tx_sent, tx_cap;
	size_t option_start; /* tx_len when this option's replies began */
	bool no_zeroes;
	bool have_hello;
	/* nbd_conn_serve(): the time for the peer to receive our bytes; 0: nobody waits */
	unsigned step_ms;
	struct nbd_option option;
	unsigned nr_steps; /* options that have begun */
	/* those that count, and their bytes: all but questions that were answered */
	unsigned nr_options;
	uint64_t option_bytes;
	struct weft_hello hello;
	char grant[WEFT_CONTEXT_MAX];       /* name of the selected weft context */
	char context_name[NBD_MAX_STRING + 1]; /* the export that contexts and hello are for */
	char name[NBD_MAX_STRING + 1];         /* the export asked for by this option */

	struct nbd_request requests[NBD_CONN_REQUESTS];
	uint8_t rx[NBD_RX_BYTES];
	/* a row a slot; untouched until used */
	struct nbd_extent extents[NBD_CONN_REQUESTS][NBD_MAX_EXTENTS];
};

static inline size_t nbd_rx_len(const struct nbd_conn *conn)
{
	return conn->rx_end - conn->rx_start;
}

static inline const uint8_t *nbd_rx(const struct nbd_conn *conn)
{
	return conn->rx + conn->rx_start;
}

/* conn.c */

/* Before its handshake; fd, or -1, is the connection's, also on failure.  NULL: no memory. */
struct nbd_conn *nbd_conn_make(int fd, const struct nbd_service *service, void *user);
/* Gives the request back, after its reply has left, or if it gets none. */
void nbd_request_put(struct nbd_request *rq);
/*
 * For a freed connection: tells the service and frees the memory, unless the service still holds
 * requests.
 */
void nbd_conn_finish(struct nbd_conn *conn);

/* reply.c: the header, and where the payload is.  error: 0 or -errno. */
void nbd_request_pack_reply(struct nbd_request *rq, int error);
void nbd_request_pack_error(struct nbd_request *rq, int error);

/* pieces.c */

/*
 * For a request whose buffer has room for `piece` bytes only: awaits its payload, or begins its
 * reply.
 */
void nbd_pieces_start(struct nbd_request *rq, uint32_t piece);
/*
 * The buffer of conn->current is full.  False: more of the payload is to come (or to be drained).
 */
bool nbd_pieces_received(struct nbd_conn *conn);
/*
 * The queued part of conn->pieces' reply has left.  True: the next part is queued; false:
 * conn->error is set.
 */
bool nbd_pieces_sent(struct nbd_conn *conn);

/* send.c */

static inline bool nbd_conn_has_to_send(const struct nbd_conn *conn)
{
	return conn->done || conn->tx_len > 0;
}

/* Like nbd_conn_send(), but returns 1 in place of looking at received bytes that had to wait. */
int nbd_conn_send_queue(struct nbd_conn *conn);
/*
 * For a connection with a thread of its own: waits for poll(2) events.  deadline_ns 0: no deadline.
 * 1: one of the events is there; 0: the time is over; or -errno.
 */
int nbd_conn_wait(struct nbd_conn *conn, int events, uint64_t deadline_ns);
/* Likewise: waits until the queue has left.  0, -ETIMEDOUT, or -errno. */
int nbd_conn_flush(struct nbd_conn *conn, unsigned timeout_ms);

/* option-reply.c; each: 0, or -ENOMEM. */

/* Room for n bytes at the end of what is queued, or NULL. */
uint8_t *nbd_tx_append(struct nbd_conn *conn, size_t n);
/* The head of a reply with len bytes of data, which the caller fills in at *ret_data. */
int nbd_option_reply_data(struct nbd_conn *conn, uint32_t type, uint32_t len, uint8_t **ret_data);
/* text (may be NULL): for people, on errors. */
int nbd_option_reply(struct nbd_conn *conn, uint32_t type, const char *text);
/* Replies with an error, and drops earlier replies of this option: an error stands alone. */
int nbd_option_error(struct nbd_conn *conn, uint32_t type, const char *text);
/* Replies with the service's refusal, in the protocol's terms. */
int nbd_option_refuse(struct nbd_conn *conn, int error, const struct weft_error *err);

/* handshake.c and transmission.c */

/*
 * Each parses received bytes.  1: call it again; 0: it needs more bytes, or to send first, or a
 * buffer; -errno: the stream is broken.
 */
int nbd_handshake_step(struct nbd_conn *conn);
int nbd_transmission_step(struct nbd_conn *conn);

/* The greeting.  0, or -ENOMEM. */
int nbd_handshake_start(struct nbd_conn *conn);

/*
 * starttls.c; the first two as nbd_handshake_step(): the option STARTTLS (its data is len bytes),
 * and what follows it until TLS's handshake begins.
 */
int nbd_option_starttls(struct nbd_conn *conn, size_t len);
int nbd_starttls_step(struct nbd_conn *conn);
/* TLS's handshake, as far as it goes.  1: it went on; -EAGAIN; or another -errno: broken. */
int nbd_starttls_handshake(struct nbd_conn *conn);
/* An option that may not be asked for without TLS, which has been read: as nbd_handshake_step(). */
int nbd_starttls_wanted(struct nbd_conn *conn);

#endif
