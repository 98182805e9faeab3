/* SPDX-License-Identifier: MIT */
/*
 * A server's bytes after GO: the first byte says whether structured replies were agreed on, the
 * second is a piece's length.
 */
#include "fabric/nbd/client-reply.c"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SLOTS = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct {
		uint16_t type;
		uint32_t len;
	} requests[SLOTS] = {{NBD_CMD_READ, 1}, {NBD_CMD_READ, 100}, {NBD_CMD_READ, 20000},
		{NBD_CMD_WRITE, 100}, {NBD_CMD_FLUSH, 0}, {NBD_CMD_READ, 100}};
	static struct nbd_client c;
	static struct tp_conn conn;
	struct nbd_slot slots[SLOTS] = {0};
	struct tp_op ops[SLOTS] = {0}, *done[SLOTS];
	unsigned total = 0;
	size_t piece;
	int r = 0;

	if (size < 2)
		return 0;
	memset(&c, 0, sizeof(c));
	memset(&conn, 0, sizeof(conn));
	conn.state = TP_READY;
	c.conn = &conn;
	c.structured = data[0] & 1;
	piece = data[1] ? data[1] : NBD_CLIENT_RX_BYTES;
	data += 2, size -= 2;
	c.depth = SLOTS;
	c.slots = slots;
	c.tx_head = 5; /* the last has not left yet */
	c.rx.need = 4;
	for (uint32_t i = 0; i < SLOTS; i++) {
		slots[i] = (struct nbd_slot){.op = &ops[i],
			.generation = 1,
			.type = requests[i].type,
			.off = 1000,
			.len = requests[i].len,
			.tx_pos = i};
		/* what is beyond it is poisoned */
		slots[i].buf = malloc(slots[i].len ? slots[i].len : 1);
		ops[i].status = 77;
		if (slots[i].type == NBD_CMD_READ) {
			c.nr_reads++;
			c.read_bytes += slots[i].len;
		}
	}
	while (r >= 0 && (size > 0 || r == 1)) {
		unsigned nr = 0;
		uint32_t window = nbd_rx_window(&c);
		uint32_t have = c.rx.tail - c.rx.head;

		assert(window > 0 && have + window <= NBD_CLIENT_RX_BYTES);
		if (!c.rx.stopped) {
			memmove(c.rx.buf, c.rx.buf + c.rx.head, have);
			c.rx.head = 0;
			size_t n = weft_min(weft_min(piece, size), window);
			memcpy(c.rx.buf + have, data, n);
			c.rx.tail = have + (uint32_t)n;
			data += n, size -= n;
		}
		c.rx.stopped = false;
		r = nbd_rx_parse(&c, done, 2, &nr);
		assert(nr <= 2 && c.rx.head <= c.rx.tail);
		assert((r < 0) == (conn.state == TP_FAILED));
		for (unsigned i = 0; i < nr; i++)
			assert(done[i]->status <= 0 && done[i] != &ops[SLOTS - 1]);
		total += nr;
		if (r == 1 && !c.rx.stopped && size == 0)
			break;
	}
	assert(total < SLOTS);
	for (uint32_t i = 0; i < SLOTS; i++)
		free(slots[i].buf);
	return 0;
}
