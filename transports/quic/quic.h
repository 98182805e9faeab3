/* SPDX-License-Identifier: MIT */
/*
 * A QUIC connection (RFC 9000), of either side, without a socket: datagrams go in and come out, and
 * streams are pipes (fabric/nbd/stream.h) between the two.  The one file that knows ngtcp2, whose
 * interface changes from version to version, is quic.c; borrower and donor are written against this
 * page.
 *
 * Both ends prove who they are by TLS 1.3 (fabric/nbd/tls-bare.h), and there is no early data: a GO
 * that somebody sends again would claim a region again.  The borrower opens all QUIC_STREAMS
 * streams; each is held up by the loss of its own packets alone.
 *
 * Threads: a connection belongs to one thread at a time.  ngtcp2 allocates for packets in flight,
 * and for those that come out of order.
 */
#ifndef WEFT_TRANSPORTS_QUIC_QUIC_H
#define WEFT_TRANSPORTS_QUIC_QUIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "fabric/base/error.h"
#include "fabric/nbd/stream.h"
#include "transports/quic/ring.h"

enum {
	QUIC_STREAMS = 16,
	QUIC_CID_BYTES = 16,      /* of connection ids of ours */
	QUIC_CID_MAX_BYTES = 20,  /* of anybody's (RFC 9000, 17.2) */
	QUIC_LEAST_BYTES = 1200,  /* a datagram that every path carries (RFC 9000, 14) */
	QUIC_MOST_BYTES = 8952, /* that we send: a frame of 9000, without IPv6's head and UDP's */
	QUIC_TOKEN_BYTES = 256,
	QUIC_REASON_BYTES = 200,
	QUIC_BATCH_BYTES = 64000, /* that one system call sends */
	QUIC_BATCH_PACKETS = 64,  /* UDP_MAX_SEGMENTS of older kernels */
	QUIC_SECRET_BYTES = 32,
};

/* Why an end closes a connection: the application's codes of weft (weft-protocol(7)). */
enum {
	QUIC_OVER = 0,   /* goodbye was said, or the server stops; nothing was cut off */
	QUIC_CUT = 1,    /* the session was fenced, or has to make room */
	QUIC_BROKEN = 2, /* the peer broke the protocol that streams carry */
};

struct quic_path {
	struct sockaddr_storage local, remote;
	socklen_t local_len, remote_len;
};

struct quic_conn;
struct nbd_tls_credentials;
struct ngtcp2_conn;
struct nbd_tls_bare;

struct quic_stream {
	struct nbd_pipe pipe; /* bytes that it takes are kept until the peer has them */
	struct quic_conn *conn;
	bool is_open;
	bool ended; /* no more bytes come */
	uint64_t sent;       /* the offset up to which tx was sent */
	uint64_t waits_ns;   /* since when tx.head has not moved; 0: nothing is on its way */
	struct quic_ring rx, tx;
};

/* What a connection tells its owner, on its thread; each may be NULL. */
struct quic_owner {
	/* The peer may send to this id from now on, until it is dropped.  False: refused. */
	bool (*new_cid)(struct quic_conn *conn, const uint8_t *cid);
	void (*drop_cid)(struct quic_conn *conn, const uint8_t *cid);
};

struct quic_conn {
	struct ngtcp2_conn *ngtcp2;
	struct nbd_tls_bare *tls;
	const struct quic_owner *owner;
	void *user; /* the owner's */
	struct quic_path path; /* the one in use */
	/* Where a server's peer has proved to be; of no family: it was looked at, by the owner. */
	struct sockaddr_storage proved;
	bool is_server, is_closed;
	bool moved_too_often; /* a server's peer */
	uint16_t port, stay, next_stay; /* a server's: datagrams.c */
	uint32_t readable; /* a bit a stream: bytes came, or the end; the owner clears them */
	uint32_t writable; /* likewise: there is room again */
	uint64_t kept;     /* bytes of all streams that have not arrived */
	int error; /* of a connection that is over: -errno */
	int ngtcp2_error; /* the same of ngtcp2 */
	struct weft_error why;
	uint8_t secret[QUIC_SECRET_BYTES]; /* of stateless resets */
	uint64_t idle_ns, now_ns;
	size_t packet_bytes, most_packet_bytes; /* datagrams that are sent now; at most */
	uint64_t grow_ns; /* when larger ones are tried again; 0: they are the largest */
	/* Whether one of packet_bytes has arrived; until then, what such a one carried last. */
	bool size_works;
	struct quic_stream *trial; /* NULL: none was sent */
	uint64_t trial_end; /* an offset in the stream */
	unsigned next_stream;
	size_t turn_bytes; /* sent of next_stream */
	size_t carry_at, carry_len; /* a datagram that was made and belongs to the next batch */
	struct quic_path carry_path;
	struct quic_stream streams[QUIC_STREAMS];
};

struct quic_config {
	struct nbd_tls_credentials *credentials;
	const struct quic_owner *owner;
	void *user;
	struct quic_path path;
	uint32_t idle_ms;      /* a peer that is silent for so long is gone */
	uint32_t handshake_ms; /* for the handshake */
	size_t route_bytes;    /* the largest datagram that leaves this machine on the path */
};

/* A datagram that begins a connection, as a server sees it. */
struct quic_initial {
	uint32_t version;
	uint8_t dcid[QUIC_CID_MAX_BYTES], scid[QUIC_CID_MAX_BYTES];
	size_t dcid_len, scid_len;
	const uint8_t *token; /* within the datagram */
	size_t token_len;
	/* After quic_check_token(): the id by which the client began, before its Retry. */
	bool validated;
	uint8_t first_dcid[QUIC_CID_MAX_BYTES];
	size_t first_dcid_len;
};

/* What a datagram is to who has no connection for it. */
enum quic_kind {
	QUIC_JUNK,      /* nothing to answer */
	QUIC_INITIAL,   /* *ret is filled */
	QUIC_OTHER,     /* of a connection: its id is in ret->dcid */
	QUIC_VERSION,   /* of a version that we do not speak; *ret is filled as far as it goes */
};

enum quic_kind quic_look(const uint8_t *datagram, size_t len, struct quic_initial *ret);
/* Whether the token, of a Retry of ours to this address, is good: then initial is validated. */
bool quic_check_token(struct quic_initial *initial, const uint8_t *secret,
	const struct quic_path *path, uint64_t now_ns);
/* Answers to it, into buf of len bytes, at least QUIC_LEAST_BYTES; how many bytes, 0: none. */
size_t quic_make_version(const struct quic_initial *initial, uint8_t *buf, size_t len);
size_t quic_make_retry(const struct quic_initial *initial, const uint8_t *secret,
	const struct quic_path *path, uint64_t now_ns, uint8_t *buf, size_t len);
/* A refusal before there is a connection. */
size_t quic_make_refusal(const struct quic_initial *initial, uint8_t *buf, size_t len);
/* Tells the peer of a connection that is not known here, which sent `len_seen` bytes, to end it. */
size_t quic_make_reset(const uint8_t *cid, const uint8_t *secret, size_t len_seen, uint8_t *buf,
	size_t len);

/* A client's; its first datagram comes from quic_fill().  0, -ENOMEM or -EIO. */
int quic_client_new(const struct quic_config *config, struct quic_conn **ret);
/*
 * A server's, for a first datagram that quic_receive() gets next.  secret: of stateless resets.
 * 0, -ENOMEM or -EIO.
 */
int quic_server_new(const struct quic_config *config, const struct quic_initial *initial,
	const uint8_t *secret, struct quic_conn **ret);
/* Sends nothing: quic_close() does.  Takes NULL. */
void quic_free(struct quic_conn *conn);

/*
 * Takes a datagram in.  0; -errno with conn->error and why: the connection is over, and if
 * is_closed is not set, the peer has to be told (quic_close()).
 */
int quic_receive(struct quic_conn *conn, const struct quic_path *path, const uint8_t *datagram,
	size_t len, uint64_t now_ns);
/* What is due at quic_due_ns().  As quic_receive(). */
int quic_expire(struct quic_conn *conn, uint64_t now_ns);
/* UINT64_MAX: never. */
uint64_t quic_due_ns(const struct quic_conn *conn);

/* Datagrams for one path, all of segment bytes but for the last, which may be shorter. */
struct quic_batch {
	size_t len, segment;
	size_t sent; /* of len; the owner's, while it is not all */
	struct quic_path path;
	uint8_t bytes[QUIC_BATCH_BYTES + 2 * QUIC_MOST_BYTES];
};

/*
 * Fills the batch with what may be sent now, whose last one has left.  Its length, 0: nothing; or
 * as quic_receive().
 */
ssize_t quic_fill(struct quic_conn *conn, struct quic_batch *batch, uint64_t now_ns);
/* Datagrams as large as those do not leave this machine, or do not arrive: smaller ones now. */
void quic_shrink(struct quic_conn *conn, uint64_t now_ns);
/* Whether bytes wait in streams that were not handed out by quic_fill(). */
bool quic_has_to_send(const struct quic_conn *conn);
/* Whether every byte that streams took has arrived. */
bool quic_all_arrived(const struct quic_conn *conn);
/*
 * The connection ends; the batch tells the peer, if it is to be told.  code: QUIC_OVER, …, where no
 * error of its own has ended it.  reason: for people, may be NULL.
 */
void quic_close(struct quic_conn *conn, unsigned code, const char *reason,
	struct quic_batch *batch, uint64_t now_ns);

/* Whether TLS's handshake is done. */
bool quic_is_shaken(const struct quic_conn *conn);
/* A client's, after the handshake: opens all streams.  0, or -errno: the server allows fewer. */
int quic_open_streams(struct quic_conn *conn);
/* Keeps the connection alive while it is idle. */
void quic_keep_alive(struct quic_conn *conn, uint32_t every_ms);
/* A client's local address has changed: goes on over the path.  0, or -errno. */
int quic_migrate(struct quic_conn *conn, const struct quic_path *path, uint64_t now_ns);
/* The smoothed round trip, in ns; 0: not known. */
uint64_t quic_rtt_ns(const struct quic_conn *conn);

#endif
