/* SPDX-License-Identifier: MIT */
/*
 * A client's bytes after GO: the first byte says what was negotiated, the second is a piece's
 * length.
 */
#include "fabric/nbd/transmission.c"
#include "tests/fuzz/feed.h"
#include "tests/support/nbd-memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE = 10000, PIECE = 700 }; /* no multiples of anything */

/* What the first byte says. */
enum {
	FEW_BUFFERS = 1,
	STRUCTURED = 2,
	CONTEXTS = 4 | 8,
	READ_ONLY = 16,
	BLOCKS_OF_512 = 32,
	BLOCKS_UP_TO_5000 = 64,
	PIECES = 128,
};

/* A service with one buffer, which is smaller than what may be asked for. */
static uint8_t *piece_buffer;
static bool piece_in_use;

static int prepare_piece(struct nbd_request *rq)
{
	if (piece_in_use)
		return -EAGAIN;
	piece_in_use = true;
	rq->buf = piece_buffer;
	return rq->len > PIECE ? PIECE : 0;
}

static int take_one(struct nbd_request *rq, uint64_t off, uint32_t len)
{
	assert(len <= PIECE && off >= rq->off && off + len <= rq->off + rq->len);
	return off <= 4200 && off + len > 4200 ? -EIO : 0; /* a byte that is broken */
}

static void release_piece(struct nbd_request *rq)
{
	piece_in_use = piece_in_use && !rq->buf;
}

/* Every byte of the replies is looked at, as sending does. */
static void send_all(struct nbd_conn *conn)
{
	uint32_t sum = 0;

	for (struct nbd_request *rq; (rq = conn->done) != NULL;) {
		assert(rq->head_len <= sizeof(rq->head));
		for (uint32_t i = 0; i < rq->payload_len; i++)
			sum += ((uint8_t *)rq->payload)[i];
		conn->done = rq->next;
		if (!conn->done) {
			conn->done_tail = &conn->done;
			if (conn->pieces && nbd_pieces_sent(conn))
				continue;
		}
		nbd_request_put(rq);
	}
	/* The compiler is not to know that nobody cares. */
	__asm__ volatile("" : : "r"(sum));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nbd_conn conn;
	uint8_t *mem, how;
	struct nbd_memory m;
	size_t piece;
	int r = 0;

	if (size < 2)
		return 0;
	how = data[0];
	piece = data[1] ? data[1] : NBD_RX_BYTES;
	data += 2, size -= 2;
	mem = calloc(1, SIZE); /* what is beyond it is poisoned */
	nbd_memory_init(&m, mem, SIZE);
	m.zero_extents = true;
	m.nr_buffers = how & FEW_BUFFERS ? 2 : 0;
	if (how & PIECES) {
		piece_buffer = calloc(1, PIECE);
		piece_in_use = false;
		m.service.prepare = prepare_piece;
		m.service.take = take_one;
		m.service.release = release_piece;
	}
	if (how & READ_ONLY)
		m.flags = NBD_FLAG_SEND_FLUSH | NBD_FLAG_READ_ONLY;
	memset(&conn, 0, offsetof(struct nbd_conn, rx));
	conn.service = &m.service;
	conn.user = &m;
	conn.phase = NBD_REQUEST;
	conn.structured = how & STRUCTURED;
	conn.contexts = how & STRUCTURED ? (how & CONTEXTS) >> 2 : 0;
	conn.export = (struct nbd_export){.size_bytes = SIZE,
		.flags = m.flags,
		.min_block_bytes = how & BLOCKS_OF_512 ? 512 : 1,
		.max_block_bytes = how & BLOCKS_UP_TO_5000 ? 5000 : NBD_MAX_PAYLOAD};
	conn.done_tail = &conn.done;
	for (unsigned i = 0; i < NBD_CONN_REQUESTS; i++) {
		conn.requests[i].conn = &conn;
		conn.requests[i].next = conn.free;
		conn.free = &conn.requests[i];
	}
	while (r == 0 && size > 0 && conn.phase != NBD_CLOSING) {
		size_t n = feed(&conn, data, size, piece);
		data += n;
		size -= n;
		do {
			conn.starved = conn.held_back = false;
			while ((r = nbd_transmission_step(&conn)) > 0)
				assert(conn.rx_start <= conn.rx_end);
			send_all(&conn);
			r = r == 0 ? conn.error : r;
		} while (r == 0 && (conn.starved || conn.held_back));
	}
	if (conn.current)
		nbd_request_put(conn.current);
	for (struct nbd_request *rq; (rq = conn.behind) != NULL; nbd_request_put(rq))
		conn.behind = rq->next;
	assert(conn.nr_requests == 0 && conn.nr_submitted == 0 && m.nr_in_use == 0);
	free(mem);
	free(piece_buffer);
	piece_buffer = NULL;
	return 0;
}
