/* SPDX-License-Identifier: MIT */
/*
 * A client's bytes after GO: the first byte says what was negotiated, the second is a piece's
 * length.
 */
#include "fabric/nbd/transmission.c"
#include "tests/fuzz/feed.h"
#include "tests/support/nbd-memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE = 10000 }; /* no multiple of anything */

/* Every byte of the replies is looked at, as sending does. */
static void send_all(struct nbd_conn *conn)
{
	uint32_t sum = 0;

	for (struct nbd_request *rq; (rq = conn->done) != NULL;) {
		assert(rq->head_len <= sizeof(rq->head));
		for (uint32_t i = 0; i < rq->payload_len; i++)
			sum += ((uint8_t *)rq->payload)[i];
		conn->done = rq->next;
		nbd_request_put(rq);
	}
	conn->done_tail = &conn->done;
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
	m.nr_buffers = how & 1 ? 2 : 0;
	memset(&conn, 0, offsetof(struct nbd_conn, rx));
	conn.service = &m.service;
	conn.user = &m;
	conn.phase = NBD_REQUEST;
	conn.structured = how & 2;
	conn.contexts = how & 2 ? how >> 2 & 3 : 0;
	conn.export = (struct nbd_export){.size_bytes = SIZE,
		.flags = m.flags | (how & 16 ? NBD_FLAG_READ_ONLY : 0),
		.min_block_bytes = how & 32 ? 512 : 1,
		.max_block_bytes = how & 64 ? 5000 : NBD_MAX_PAYLOAD};
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
		} while (r == 0 && (conn.starved || conn.held_back));
	}
	if (conn.current)
		nbd_request_put(conn.current);
	assert(conn.nr_requests == 0 && conn.nr_submitted == 0 && m.nr_in_use == 0);
	free(mem);
	return 0;
}
