/* SPDX-License-Identifier: MIT */
/* A connection's bytes come in pieces. */
#ifndef WEFT_TESTS_FUZZ_FEED_H
#define WEFT_TESTS_FUZZ_FEED_H

#include <assert.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/nbd/conn.h"

/* Receives at most `piece` bytes of `size`: at least one, as long as there is room.  How many. */
static inline size_t feed(struct nbd_conn *conn, const uint8_t *data, size_t size, size_t piece)
{
	memmove(conn->rx, conn->rx + conn->rx_start, nbd_rx_len(conn));
	conn->rx_end -= conn->rx_start;
	conn->rx_start = 0;
	size_t n = weft_min(weft_min(piece, size), sizeof(conn->rx) - conn->rx_end);
	assert(n > 0);
	memcpy(conn->rx + conn->rx_end, data, n);
	conn->rx_end += n;
	return n;
}

#endif
