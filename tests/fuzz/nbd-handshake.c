/* SPDX-License-Identifier: MIT */
/* A client's bytes up to GO: the first byte is a piece's length, the rest is what it sends. */
#include "fabric/nbd/handshake.c"
#include "tests/fuzz/feed.h"
#include "tests/support/nbd-memory.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nbd_conn conn;
	static uint8_t mem[4096];
	struct nbd_memory m;
	size_t piece;
	int r = 0;

	if (size < 1)
		return 0;
	piece = data[0] ? data[0] : NBD_RX_BYTES;
	data++, size--;
	nbd_memory_init(&m, mem, sizeof(mem));
	m.names[1] = "m";
	m.description = "memory";
	memset(&conn, 0, offsetof(struct nbd_conn, rx));
	conn.service = &m.service;
	conn.user = &m;
	while (r == 0 && size > 0 && conn.phase < NBD_REQUEST) {
		size_t n = feed(&conn, data, size, piece);
		data += n;
		size -= n;
		do {
			conn.held_back = false;
			while ((r = nbd_handshake_step(&conn)) > 0)
				assert(conn.rx_start <= conn.rx_end && conn.tx_len <= conn.tx_cap);
			conn.tx_len = 0; /* sent */
		} while (r == 0 && conn.held_back);
	}
	assert(conn.phase < NBD_REQUEST || conn.goodbye ||
		(conn.opened && conn.export.size_bytes > 0));
	free(conn.tx);
	return 0;
}
