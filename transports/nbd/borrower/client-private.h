/* What the files of the NBD client share; see client.h. */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_PRIVATE_H
#define WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/nbd/proto.h"
#include "transports/nbd/borrower/client.h"

enum {
	CLIENT_DEPTH = 128,
	CLIENT_MAX_DEPTH = 1024,
	CLIENT_RX_BYTES = 64 << 10,
	CLIENT_MAX_SPANS = 16, /* pieces of a READ's reply that do not touch each other */
	CLIENT_MAX_ERROR_CHUNK = 2 * NBD_MAX_STRING,
	/* Reads from this size on are worth a system call more to be spared a copy. */
	CLIENT_DIRECT_BYTES = 16 << 10,
};

/* A handshake.  The thread's until `done`; afterwards, all of it is the owner's. */
struct nbd_client_handshake {
	struct nbd_client_handshake *next;
	pthread_t thread;
	char *host, *port, *region;
	struct weft_hello hello;
	uint32_t timeout_ms, dead_ms;
	int cancel_fd; /* eventfd: the owner gives up */
	int done_fd;   /* eventfd: done was set */
	_Atomic bool done;
	bool orphan; /* its connection is gone; the owner's */
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
int nbd_client_handshake_start(const struct tp_target *target, struct nbd_client_handshake **ret, struct weft_error *err);
/* Does not wait. */
void nbd_client_handshake_cancel(struct nbd_client_handshake *hs);
/* Waits for the thread and frees. */
void nbd_client_handshake_finish(struct nbd_client_handshake *hs);

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
	uint8_t *buf;    /* READ, WRITE */
	int error;       /* the first that the server reported, positive */
	uint16_t next_free;
	struct nbd_span spans[CLIENT_MAX_SPANS]; /* READ: sorted, apart */
};

enum nbd_rx_state {
	RX_HEADER,  /* a reply's or chunk's header */
	RX_OFFSET,  /* an OFFSET_DATA chunk's offset */
	RX_HOLE,    /* an OFFSET_HOLE chunk's body */
	RX_ERROR,   /* an error chunk's body */
	RX_PAYLOAD, /* bytes of a READ */
};

/* The receiving half: what came, and what is expected next. */
struct nbd_rx {
	enum nbd_rx_state state;
	bool stopped; /* completions were left over, the caller took no more */
	bool done;    /* the chunk at hand is the last of its reply */
	uint32_t need; /* bytes that the state waits for */
	uint32_t chunk_len;
	uint16_t chunk_type;
	struct nbd_slot *slot; /* of the chunk at hand */
	uint8_t *to;           /* RX_PAYLOAD: where the rest goes */
	uint32_t rest;
	uint32_t head, tail; /* bytes in buf */
	uint8_t buf[CLIENT_RX_BYTES];
};

struct nbd_client {
	struct tp_conn conn;
	struct nbd_client_handshake *hs; /* until it is joined */
	int fd;
	bool structured;
	bool drained; /* the last receive took all there was */
	bool leaving; /* it said goodbye: the peer ends the connection when it has let go */
	uint64_t leave_ns; /* when that is not waited for any more */
	struct nbd_client *next_leaving;
	uint32_t depth;
	uint16_t first_free;
	uint32_t nr_reads; /* in flight, and the bytes they still bring */
	uint64_t read_bytes;
	uint8_t *scratch; /* PROBE reads into it */
	/* The row of requests to be sent: positions count up, slots are at position modulo depth. */
	uint32_t tx_head, tx_tail;
	uint64_t tx_sent; /* bytes of the head that left */
	uint16_t *tx_row;
	uint8_t (*tx_headers)[NBD_REQUEST_BYTES];
	struct nbd_slot *slots;
	struct nbd_rx rx;
};

struct nbd_tp {
	struct tp tp;
	uint32_t depth;
	struct nbd_client_handshake *orphans; /* given up, not joined yet */
	struct nbd_client *leaving;
};

/* Takes a socket in the transmission phase: slots, rings and scratch as info says.  0, or -ENOMEM. */
int nbd_client_begin(struct nbd_client *c, int fd, bool structured, const struct tp_info *info);
/* Frees what nbd_client_begin() took. */
void nbd_client_end(struct nbd_client *c);

static inline struct nbd_client *nbd_client_of(struct tp_conn *conn)
{
	return (struct nbd_client *)conn;
}

/*
 * Interprets what was received, up to max completions (*nr counts).  0: wants more bytes; 1: done[] is full;
 * -EPROTO: the connection failed.  It trusts nothing.
 */
int nbd_rx_parse(struct nbd_client *c, struct tp_op **done, unsigned max, unsigned *nr);
/* How many bytes beyond the payload at hand should be received. */
uint32_t nbd_rx_window(const struct nbd_client *c);

/* Gives the slot back and says how its operation ended. */
struct tp_op *nbd_slot_complete(struct nbd_client *c, struct nbd_slot *slot, int status);

#endif
