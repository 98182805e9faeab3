/* SPDX-License-Identifier: MIT */
/*
 * The NBD engine, server side: one implementation for the donor (over TCP, a thread a connection)
 * and the bridge (over Unix sockets, many connections on a lane's loop).
 *
 * A connection is a state machine over one stream socket.  It does not wait by itself:
 * nbd_conn_receive() and nbd_conn_send() each make at most one system call that moves data, and
 * nbd_conn_events() says what to wait for.  nbd_conn_serve() is the waiting driver for threads that
 * own one connection.
 *
 * A `struct nbd_service` is behind the exports.  Requests may complete at once, inside submit(), or
 * later and in any order.
 *
 * Threads: a connection belongs to one thread.  Only nbd_conn_kill() may come from another.
 * Memory: all of it is allocated by nbd_conn_new(); nothing on the I/O path allocates.
 */
#ifndef WEFT_FABRIC_NBD_SERVER_H
#define WEFT_FABRIC_NBD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/hello.h"
#include "fabric/nbd/proto.h"

struct nbd_conn;
struct nbd_pipe;
struct weft_key;
struct nbd_tls_credentials;

enum {
	/* in flight per connection; beyond that none are received (nbd.ko has 128 tags) */
	NBD_CONN_REQUESTS = 128,
	NBD_MAX_EXTENTS = 64,    /* per BLOCK_STATUS reply */
	NBD_HANDSHAKE_STEPS = 60,
};

/*
 * What INFO and GO tell of an export.  Strings are borrowed until the call that filled this struct
 * returns to the engine.
 */
struct nbd_export {
	uint64_t size_bytes;
	/* NBD_FLAG_…; HAS_FLAGS is added by the engine, SEND_DF where structured replies are on */
	uint16_t flags;
	/* READ and WRITE; max <= NBD_MAX_PAYLOAD */
	uint32_t min_block_bytes, preferred_block_bytes, max_block_bytes;
	const char *name;        /* canonical; NULL: as asked */
	const char *description; /* NULL: none */
};

struct nbd_extent {
	uint64_t len;
	uint32_t flags; /* NBD_STATE_… */
};

/* One validated request: off and len lie inside the export, flags are known and allowed. */
struct nbd_request {
	struct nbd_conn *conn;
	uint16_t type;  /* NBD_CMD_…, never DISC */
	uint16_t flags; /* NBD_CMD_FLAG_… */
	uint64_t off;
	uint32_t len;   /* FLUSH: 0, else > 0 */
	/* READ, WRITE: len bytes (or what prepare() said); HASH: the hashes; set by prepare() */
	void *buf;
	struct weft_hashing hashing; /* HASH: what is asked, weft_hashing_valid() */
	/* BLOCK_STATUS of base:allocation: filled by submit(), nr_extents > 0, len from off on.
	 * NULL otherwise; room for NBD_MAX_EXTENTS (1 with REQ_ONE). */
	struct nbd_extent *extents;
	unsigned nr_extents, max_extents;
	/* The service's. */
	void *user;
	uint64_t priv[6];
	/* The engine's. */
	struct nbd_request *next;
	uint64_t cookie;
	/* when its header was received, weft_now_ns(); 0 unless the service asked for times */
	uint64_t start_ns;
	void *payload; /* of the reply */
	uint32_t payload_len;
	int error;
	uint32_t piece, rest; /* see pieces.c */
	uint8_t state;
	uint8_t head_len;
	uint8_t head[46]; /* reply header */
};

struct nbd_service {
	/* Handshake; may block only where the connection has a thread of its own. */

	/*
	 * Calls emit for each export; stops at its first non-zero return and returns that.  0 when
	 * done; -E2BIG: there are more; or as info().
	 */
	int (*list)(struct nbd_conn *conn,
		int (*emit)(void *ctx, const char *name, const char *description), void *ctx,
		struct weft_error *err);
	/*
	 * INFO: describes the export, and grants nothing.  name is NUL-terminated and otherwise a
	 * peer's bytes. -ENOENT: unknown; -EPERM, -EBUSY, …: refused, err->message goes to the
	 * client.
	 */
	int (*info)(struct nbd_conn *conn, const char *name, struct nbd_export *ret,
		struct weft_error *err);
	/* GO and EXPORT_NAME: grants.  hello: what the client said with SET_META_CONTEXT for this
	 * export, or anonymous.  Errors as info(). After success close() follows once. */
	int (*open)(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
		struct nbd_export *ret, struct weft_error *err);
	/* The answer to a valid hello, asked by LIST_ or SET_META_CONTEXT: 0, or -ENOENT.
	 * NULL: the service knows nothing of attachments. */
	int (*welcome)(struct nbd_conn *conn, const char *name, const struct weft_hello *hello,
		struct weft_welcome *ret);
	/* The TLS handshake is done, the peer is nbd_conn_identity(): what it said before it is
	 * forgotten.  NULL: not wanted. */
	void (*secured)(struct nbd_conn *conn);
	/* The peer is kept out, at most once: it failed in the TLS handshake, or asks without TLS
	 * for what needs it.  NULL: not wanted. */
	void (*kept_out)(struct nbd_conn *conn, const struct weft_error *why);
	/* The export's tenure (fabric/donor/donor.h); 0: it has none.  NULL: none has. */
	uint64_t (*tenure)(struct nbd_conn *conn, const char *name);
	/*
	 * NBD_OPT_WEFT_ASK: a question to the server itself, len bytes of a peer's, without a NUL
	 * behind them.  0 with the answer, a text that the engine frees; -ENOSYS: it does not know
	 * such a question, which is as if it did not know the option; or as info().  May take long.
	 * NULL: no questions are answered.
	 */
	int (*question)(struct nbd_conn *conn, const char *json, size_t len, char **ret_answer,
		struct weft_error *err);

	/* Transmission; on the I/O path: no allocation, no log. */

	/*
	 * Gives a READ, WRITE or HASH its buf.  0; a positive number: buf has room for so many
	 * bytes only, and take() is called in place of submit() (for a WRITE, before it); -EAGAIN:
	 * no buffer is free (or a request already goes in pieces), and the connection receives no
	 * more until nbd_conn_resume(); another -errno is the reply.  NULL is not allowed.
	 */
	int (*prepare)(struct nbd_request *rq);
	/*
	 * Handles a piece: of a READ, fills buf; of a WRITE, takes the payload from buf.  off: in
	 * the export.  0, or -errno.  NULL where prepare() never returns a positive number.
	 */
	int (*take)(struct nbd_request *rq, uint64_t off, uint32_t len);
	/*
	 * Carries the request out; ends in nbd_request_complete(), at once or later. For a WRITE
	 * buf holds the payload, unless take() was given all of it: then only FUA is left to do.
	 */
	void (*submit)(struct nbd_request *rq);
	/* The reply has left (or the connection died): buf is the service's again.  Called once for
	 * each request whose prepare() said 0, and for each other request that was submitted. */
	void (*release)(struct nbd_request *rq);

	/* The connection ends.  clean: the client said DISC (or ABORT) and everything was answered.
	 * Called once, from nbd_conn_free() or when the last request completed after it, if open()
	 * had succeeded. */
	void (*close)(struct nbd_conn *conn, bool clean);

	/*
	 * After GO: called once for each nbd_conn_receive() that brought bytes, before its requests
	 * are submitted.  For signs of life.  NULL: not wanted.
	 */
	void (*received)(struct nbd_conn *conn, uint64_t now_ns);

	/* A session with a hello may ask for hashes; prepare() has to give HASH a whole buf. */
	bool hashes;
	bool want_times; /* stamp requests with start_ns, once a batch */
};

/*
 * Takes a connected stream socket (fd becomes the connection's, also on failure).  The greeting is
 * queued.  user: for the service, see nbd_conn_user().  0, or -ENOMEM.
 */
int nbd_conn_new(int fd, const struct nbd_service *service, void *user, struct nbd_conn **ret);
/*
 * The same in two steps, for a server that keeps no memory for a silent peer: first the greeting is
 * sent over a fresh socket, and the connection is made once the peer has answered.  nbd_greet(): 0,
 * or -errno.
 */
int nbd_greet(int fd);
int nbd_conn_new_greeted(int fd, const struct nbd_service *service, void *user,
	struct nbd_conn **ret);
/*
 * The same for a peer that knows the export already, as the kernel's nbd driver does: there is no
 * handshake, and requests come at once and get simple replies.  open() is not called, close() is.
 */
int nbd_conn_new_open(int fd, const struct nbd_service *service, void *user,
	const struct nbd_export *export, struct nbd_conn **ret);
/*
 * Over a pipe (stream.h), which stays its owner's and outlives the connection; nbd_conn_move()
 * drives it.  The greeting is queued.  0, or -ENOMEM.
 */
int nbd_conn_new_over(struct nbd_pipe *pipe, const struct nbd_service *service, void *user,
	struct nbd_conn **ret);
/*
 * The same for one more pipe of a peer that is granted an export over the first, which is in its
 * transmission phase: requests come at once, on what the first has agreed.  open() is not called,
 * close() is.
 */
int nbd_conn_new_beside(struct nbd_pipe *pipe, const struct nbd_conn *first, void *user,
	struct nbd_conn **ret);
/*
 * The peer may start TLS with these credentials, of which the connection keeps a reference; before
 * it has received anything.  required, static: it has to, and this is what it is told if it asks
 * for anything else; NULL: it need not.
 */
void nbd_conn_offer_tls(struct nbd_conn *conn, struct nbd_tls_credentials *credentials,
	const char *required);
/*
 * Ends the connection: closes the socket.  Requests that the service still holds complete without a
 * reply, and the memory is freed with the last one.  Takes NULL.
 */
void nbd_conn_free(struct nbd_conn *conn);

void *nbd_conn_user(const struct nbd_conn *conn);
int nbd_conn_fd(const struct nbd_conn *conn);
/* Who the peer has proved to be with TLS; "": it has not. */
const char *nbd_conn_identity(const struct nbd_conn *conn);
/* Of its key: nbd_tls_life(); 0: it has shown none. */
uint64_t nbd_conn_key_life(const struct nbd_conn *conn);
/* When its certificate expires (nbd_tls_expires()); 0: it has shown none. */
int64_t nbd_conn_expires(const struct nbd_conn *conn);
/* The TLS session's: as nbd_tls_pass(); -EOPNOTSUPP without TLS. */
int nbd_conn_pass(const struct nbd_conn *conn, struct weft_key *ret);
/* "TLS1.3 AES-128-GCM", for people; NULL: bytes are as they are. */
const char *nbd_conn_cipher(const struct nbd_conn *conn);
/* With TLS: the kernel makes and opens its records. */
bool nbd_conn_in_kernel(const struct nbd_conn *conn);
/* True once GO or EXPORT_NAME succeeded. */
bool nbd_conn_in_transmission(const struct nbd_conn *conn);
/* Requests parsed and not yet answered. */
unsigned nbd_conn_nr_requests(const struct nbd_conn *conn);

/*
 * One recvmsg(2) of whatever is there, then everything that it completes: options, requests.  wait:
 * block until something comes.  Returns > 0 when something came, -EAGAIN when nothing was there or
 * nothing may be received now (see nbd_conn_events()), 0 at a clean end (DISC, ABORT or end of
 * stream between requests; queued replies may still want nbd_conn_send()), -errno when the peer
 * broke the protocol or the socket died: then free the connection.
 */
int nbd_conn_receive(struct nbd_conn *conn, bool wait);
/*
 * Sends the queue, in one sendmsg(2) if the socket takes it; then looks at received bytes that had
 * to wait for that.  0: all is sent; -EAGAIN: wait for POLLOUT; -ESHUTDOWN: the peer said goodbye
 * (or hung up between requests) and everything is answered, or another -errno: it is broken.  After
 * these free the connection.
 */
int nbd_conn_send(struct nbd_conn *conn);
/*
 * The poll(2) events that the connection waits for now: POLLIN while it may receive, POLLOUT while
 * replies are queued.  Not of one with TLS, which nbd_conn_serve() drives.
 */
int nbd_conn_events(const struct nbd_conn *conn);
/* prepare() may succeed again.  Parses what had been received already. */
int nbd_conn_resume(struct nbd_conn *conn);

/*
 * Serves until the end, blocking; does not free.  0: a clean end, or -errno.  handshake_ms: time
 * for each step of the handshake (an option, and taking in its answer; all of TLS's); the whole has
 * NBD_HANDSHAKE_STEPS times that until GO.
 */
int nbd_conn_serve(struct nbd_conn *conn, unsigned handshake_ms);

/*
 * Receives and answers as far as it goes without waiting, for connections over pipes.  1: call it
 * again when the pipe has bytes, or room; 0: a clean end, and all was answered; or -errno: it is
 * broken.  After these two free the connection.
 */
int nbd_conn_move(struct nbd_conn *conn);

/*
 * Any thread, while the connection is not freed: shuts the socket down, so that its thread ends
 * soon. drain: only the receiving side.
 */
void nbd_conn_kill(struct nbd_conn *conn, bool drain);

/*
 * The service's answer: error 0 or -errno.  On the connection's thread.  The reply is queued;
 * nbd_conn_send() sends it.
 */
void nbd_request_complete(struct nbd_request *rq, int error);

#endif
