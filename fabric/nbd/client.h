/* SPDX-License-Identifier: MIT */
/*
 * The NBD engine, client side: a connection in its transmission phase, as a part of a transport's
 * connection.  Operations become requests, many in flight; replies, simple or structured, end them.
 * The transport has done the handshake, owns the socket and says when to look at it.
 *
 * Threads: those of the transport's connection, one at a time.  Nothing waits; memory is taken by
 * nbd_client_begin() alone.  Invariant: an operation holds a slot from post to completion.  The row
 * of requests to be sent ([tx_head, tx_tail)) is a subset of the slots in use, and only a request
 * that has left whole can be answered.
 */
#ifndef WEFT_FABRIC_NBD_CLIENT_H
#define WEFT_FABRIC_NBD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/nbd/proto.h"
#include "fabric/nbd/stream.h"
#include "fabric/transport.h"

enum {
	NBD_CLIENT_MAX_DEPTH = 1024,
	NBD_CLIENT_RX_BYTES = 64 << 10,
	NBD_CLIENT_MAX_SPANS = 16, /* pieces of a READ's reply that do not touch each other */
};

/* Part of a READ that arrived: [start, end) of its buffer. */
struct nbd_span {
	uint32_t start, end;
};

/* A request from post to completion.  Its cookie is its generation and its index. */
struct nbd_slot {
	struct tp_op *op; /* NULL: free */
	uint32_t generation;
	uint16_t type; /* NBD_CMD_… */
	uint16_t nr_spans;
	uint64_t off;
	uint32_t len;
	uint32_t tx_pos; /* where it stands in the row to be sent */
	uint8_t *buf;    /* READ, WRITE, HASH */
	int error;       /* the first that the server reported, positive */
	uint16_t next_free;
	struct nbd_span spans[NBD_CLIENT_MAX_SPANS]; /* READ: sorted, apart */
	uint32_t hash_bytes;                /* HASH: of the answer */
	uint8_t hashing[NBD_HASHING_BYTES]; /* HASH: what stands behind the header */
};

enum nbd_rx_state {
	RX_HEADER,  /* a reply's or chunk's header */
	RX_OFFSET,  /* an OFFSET_DATA chunk's offset */
	RX_HOLE,    /* an OFFSET_HOLE chunk's body */
	RX_ERROR,   /* an error chunk's body */
	RX_PAYLOAD, /* bytes of a READ, or hashes */
};

/* The receiving half: what came, and what is expected next. */
struct nbd_rx {
	enum nbd_rx_state state;
	bool stopped; /* the caller had no room for more completions */
	bool done;    /* the chunk at hand is the last of its reply */
	uint32_t need; /* bytes that the state waits for */
	uint32_t chunk_len;
	uint16_t chunk_type;
	struct nbd_slot *slot; /* of the chunk at hand */
	uint8_t *to;           /* RX_PAYLOAD: where the rest goes */
	uint32_t rest;
	uint32_t head, tail; /* bytes in buf */
	uint8_t buf[NBD_CLIENT_RX_BYTES];
};

struct nbd_client {
	struct tp_conn *conn; /* the connection that this is a part of */
	struct nbd_stream stream; /* the transport's; fd -1: none yet */
	bool structured;
	bool drained; /* the last receive took all there was */
	uint32_t depth;
	uint16_t first_free;
	uint32_t nr_reads; /* in flight, and the bytes they still bring */
	uint64_t read_bytes;
	uint8_t *scratch; /* PROBE reads into it */
	/*
	 * The row of requests to be sent: positions count up, slots are at position modulo depth.
	 */
	uint32_t tx_head, tx_tail;
	uint64_t tx_sent; /* bytes of the head that left */
	uint16_t *tx_row;
	uint8_t (*tx_headers)[NBD_REQUEST_BYTES];
	struct nbd_slot *slots;
	struct nbd_rx rx;
};

/*
 * Takes a non-blocking stream in the transmission phase: the TLS session becomes c's, the socket
 * stays the transport's to close.  c is zeros but for stream.fd.  info: what the handshake has
 * learnt; copied to conn.  structured: structured replies were agreed on.  depth: operations in
 * flight, 1 to NBD_CLIENT_MAX_DEPTH.  0, or -ENOMEM; then the stream is not taken, and
 * nbd_client_end() has to be called all the same.
 */
int nbd_client_begin(struct nbd_client *c, struct tp_conn *conn, const struct nbd_stream *stream,
	bool structured, const struct tp_info *info, uint32_t depth);
/* Frees what nbd_client_begin() took.  Nothing is in flight, and the socket is still open. */
void nbd_client_end(struct nbd_client *c);

/* As tp_ops.post of a connection that is READY: takes all n, and sends what the socket takes. */
int nbd_client_post(struct nbd_client *c, struct tp_op *const *ops, unsigned n);
/*
 * As tp_ops.progress: sends, receives, completes.  Gives everything back if the connection FAILED.
 */
unsigned nbd_client_progress(struct nbd_client *c, struct tp_op **done, unsigned max);
/* The poll(2) events that a READY connection waits for; 0: progress has something to do. */
int nbd_client_arm(struct nbd_client *c);
/* Sends DISC, with nothing in flight.  False: DISC did not leave. */
bool nbd_client_say_goodbye(struct nbd_client *c);

#endif
