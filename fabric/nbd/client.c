/* SPDX-License-Identifier: MIT */
/*
 * The NBD engine, client side: sends requests and receives bytes, which client-reply.c interprets.
 * Threads and invariant: client.h says.
 */
#include "fabric/nbd/client.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/nbd/client-private.h"

enum {
	TX_IOVS = 64,
	RX_ROUNDS = 16, /* receives in one progress, so that other connections get their turn */
};

int nbd_client_begin(struct nbd_client *c, struct tp_conn *conn, const struct nbd_stream *stream,
	bool structured, const struct tp_info *info, uint32_t depth)
{
	assert(depth > 0 && depth <= NBD_CLIENT_MAX_DEPTH);
	c->depth = depth;
	c->scratch = malloc(info->min_block_bytes);
	c->tx_row = calloc(depth, sizeof(*c->tx_row));
	c->tx_headers = calloc(depth, sizeof(*c->tx_headers));
	c->slots = calloc(depth, sizeof(*c->slots));
	if (!c->scratch || !c->tx_row || !c->tx_headers || !c->slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < depth; i++)
		c->slots[i].next_free = (uint16_t)(i + 1);
	c->conn = conn;
	c->stream = *stream;
	c->structured = structured;
	c->rx.need = 4;
	conn->info = *info;
	conn->info.depth = depth;
	if (stream->fd >= 0)
		conn->info.rtt_us = nbd_stream_rtt_us(&c->stream);
	nbd_stream_may_go_far(&c->stream);
	return 0;
}

void nbd_client_end(struct nbd_client *c)
{
	nbd_tls_free(c->stream.tls);
	c->stream.tls = NULL;
	nbd_stream_goes_no_more(&c->stream);
	free(c->scratch);
	free(c->tx_row);
	free(c->tx_headers);
	free(c->slots);
}

/* What is sent behind a request's header. */
static uint32_t body_bytes(const struct nbd_slot *slot)
{
	return slot->type == NBD_CMD_WRITE ? slot->len
		: slot->type == NBD_CMD_HASH ? NBD_HASHING_BYTES : 0;
}

/* Takes n bytes that left off the row. */
static void sent(struct nbd_client *c, uint64_t n)
{
	c->tx_sent += n;
	while (c->tx_head != c->tx_tail) {
		const struct nbd_slot *slot = &c->slots[c->tx_row[c->tx_head % c->depth]];
		uint64_t total = NBD_REQUEST_BYTES + body_bytes(slot);

		if (c->tx_sent < total)
			return;
		c->tx_sent -= total;
		c->tx_head++;
	}
}

/* Extends the last vector if the bytes continue it, or appends a new one. */
static unsigned add_iov(struct iovec *iov, unsigned nr, void *base, size_t len)
{
	if (nr > 0 && (uint8_t *)iov[nr - 1].iov_base + iov[nr - 1].iov_len == (uint8_t *)base) {
		iov[nr - 1].iov_len += len;
		return nr;
	}
	iov[nr] = (struct iovec){base, len};
	return nr + 1;
}

/* Sends the row, as much as the socket takes. */
static void flush_row(struct nbd_client *c)
{
	while (c->tx_head != c->tx_tail) {
		struct iovec iov[TX_IOVS];
		uint64_t skip = c->tx_sent, total = 0;
		unsigned nr = 0;

		for (uint32_t pos = c->tx_head; pos != c->tx_tail && nr + 2 <= TX_IOVS; pos++) {
			struct nbd_slot *slot = &c->slots[c->tx_row[pos % c->depth]];
			uint8_t *header = c->tx_headers[pos % c->depth];

			if (skip < NBD_REQUEST_BYTES)
				nr = add_iov(iov, nr, header + skip, NBD_REQUEST_BYTES - skip);
			skip = skip > NBD_REQUEST_BYTES ? skip - NBD_REQUEST_BYTES : 0;
			if (slot->type == NBD_CMD_WRITE)
				nr = add_iov(iov, nr, slot->buf + skip, slot->len - skip);
			else if (slot->type == NBD_CMD_HASH)
				nr = add_iov(iov, nr, slot->hashing + skip,
					NBD_HASHING_BYTES - skip);
			skip = 0;
		}
		for (unsigned i = 0; i < nr; i++)
			total += iov[i].iov_len;
		ssize_t n = nbd_stream_write(&c->stream, iov, nr);
		if (n < 0) {
			if (n == -EINTR)
				continue;
			if (n != -EAGAIN)
				tp_conn_fail(c->conn, (int)-n, "%s: connection lost: %s",
					c->conn->info.path, strerror((int)-n));
			return;
		}
		sent(c, (uint64_t)n);
		if ((uint64_t)n < total)
			return; /* POLLOUT tells when there is room */
	}
}

static void fill_request(struct nbd_client *c, struct nbd_slot *slot,
	struct nbd_request_header *req)
{
	static const uint16_t types[TP_NR_KINDS] = {
		[TP_READ] = NBD_CMD_READ,
		[TP_WRITE] = NBD_CMD_WRITE,
		[TP_FLUSH] = NBD_CMD_FLUSH,
		[TP_TRIM] = NBD_CMD_TRIM,
		[TP_ZERO] = NBD_CMD_WRITE_ZEROES,
		[TP_CACHE] = NBD_CMD_CACHE,
		[TP_PROBE] = NBD_CMD_READ,
		[TP_HASH] = NBD_CMD_HASH,
	};
	const struct tp_op *op = slot->op;

	slot->generation++;
	slot->type = types[op->kind];
	slot->off = op->off;
	slot->len = (uint32_t)op->len;
	slot->buf = op->buf;
	slot->error = 0;
	slot->nr_spans = 0;
	if (op->kind == TP_PROBE) {
		slot->len = c->conn->info.min_block_bytes;
		slot->buf = c->scratch;
	}
	if (slot->type == NBD_CMD_HASH) {
		nbd_pack_hashing(slot->hashing, op->hashing);
		slot->hash_bytes = weft_hash_nr_blocks(op->len, op->hashing->block_bytes) *
			WEFT_HASH_BYTES;
	}
	if (slot->type == NBD_CMD_READ) {
		c->nr_reads++;
		c->read_bytes += slot->len;
	}
	*req = (struct nbd_request_header){
		.type = slot->type,
		.cookie = (uint64_t)slot->generation << 32 | (uint32_t)(slot - c->slots),
		.off = slot->off,
		.len = slot->len,
	};
	if (op->flags & TP_FUA)
		req->flags |= NBD_CMD_FLAG_FUA;
	if (op->flags & TP_NO_HOLE)
		req->flags |= NBD_CMD_FLAG_NO_HOLE;
	if (op->flags & TP_FAST_ZERO)
		req->flags |= NBD_CMD_FLAG_FAST_ZERO;
}

int nbd_client_post(struct nbd_client *c, struct tp_op *const *ops, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct nbd_request_header req;

		assert(c->first_free < c->depth);
		struct nbd_slot *slot = &c->slots[c->first_free];
		c->first_free = slot->next_free;
		slot->op = ops[i];
		fill_request(c, slot, &req);
		slot->tx_pos = c->tx_tail++;
		c->tx_row[slot->tx_pos % c->depth] = (uint16_t)(slot - c->slots);
		nbd_pack_request(c->tx_headers[slot->tx_pos % c->depth], &req);
	}
	flush_row(c);
	return (int)n;
}

/*
 * Receives once: the rest of the present payload into its place, later bytes into the buffer.
 * Returns how many, or -errno.
 */
static int fill(struct nbd_client *c)
{
	struct nbd_rx *rx = &c->rx;
	uint32_t window = nbd_rx_window(c);
	struct iovec iov[2];
	unsigned nr = 0;
	size_t asked;

	if (rx->head == rx->tail) {
		rx->head = rx->tail = 0;
	} else if (rx->tail + window > NBD_CLIENT_RX_BYTES) {
		memmove(rx->buf, rx->buf + rx->head, rx->tail - rx->head);
		rx->tail -= rx->head;
		rx->head = 0;
	}
	assert(rx->tail + window <= NBD_CLIENT_RX_BYTES && window > 0);
	/* During a payload the buffer is empty. */
	if (rx->state == RX_PAYLOAD)
		iov[nr++] = (struct iovec){rx->to, rx->rest};
	iov[nr++] = (struct iovec){rx->buf + rx->tail, window};
	asked = window + (rx->state == RX_PAYLOAD ? rx->rest : 0);
	ssize_t n = nbd_stream_read(&c->stream, iov, nr, false);
	if (n < 0)
		return (int)n;
	c->drained = (size_t)n < asked;
	size_t left = (size_t)n;
	if (rx->state == RX_PAYLOAD) {
		uint32_t placed = (uint32_t)weft_min(left, rx->rest);

		rx->to += placed;
		rx->rest -= placed;
		left -= placed;
	}
	rx->tail += (uint32_t)left;
	return n > 0 ? 1 : 0;
}

static unsigned receive(struct nbd_client *c, struct tp_op **done, unsigned max)
{
	unsigned nr = 0;

	/* The last receive took all there was: another one now would find nothing. */
	if (c->drained && !c->rx.stopped) {
		c->drained = false;
		return 0;
	}
	c->rx.stopped = false;
	for (int round = 0; round < RX_ROUNDS; round++) {
		if (nbd_rx_parse(c, done, max, &nr) != 0 || c->drained)
			return nr;
		int r = fill(c);
		if (r == -EINTR)
			continue;
		if (r == -EAGAIN)
			return nr;
		if (r == 0)
			tp_conn_fail(c->conn, ENOTCONN, "%s: the server closed the connection",
				c->conn->info.path);
		else if (r < 0)
			tp_conn_fail(c->conn, -r, "%s: connection lost: %s", c->conn->info.path,
				strerror(-r));
		if (r <= 0)
			return nr;
	}
	nbd_rx_parse(c, done, max, &nr);
	return nr;
}

unsigned nbd_client_progress(struct nbd_client *c, struct tp_op **done, unsigned max)
{
	struct tp_conn *conn = c->conn;
	unsigned nr = 0;

	if (conn->state == TP_READY && c->tx_head != c->tx_tail)
		flush_row(c);
	if (conn->state == TP_READY && max > 0)
		nr = receive(c, done, max);
	if (conn->state == TP_FAILED && conn->nr_outstanding > 0) {
		int status = tp_conn_op_status(conn);

		c->tx_head = c->tx_tail;
		for (uint32_t i = 0; i < c->depth && nr < max; i++)
			if (c->slots[i].op)
				done[nr++] = nbd_slot_complete(c, &c->slots[i], status);
	}
	return nr;
}

int nbd_client_arm(struct nbd_client *c)
{
	c->drained = false;
	if (c->rx.stopped || nbd_stream_pending(&c->stream))
		return 0;
	return c->tx_head != c->tx_tail ? POLLIN | POLLOUT : POLLIN;
}

bool nbd_client_say_goodbye(struct nbd_client *c)
{
	const struct nbd_request_header disc = {.type = NBD_CMD_DISC};
	uint8_t request[NBD_REQUEST_BYTES];

	nbd_pack_request(request, &disc);
	/* As good as a goodbye can be: the socket's buffer is empty, or the peer is gone. */
	bool left = nbd_stream_write(&c->stream, &(struct iovec){request, sizeof(request)}, 1) ==
		sizeof(request);
	if (c->stream.tls)
		nbd_tls_bye(c->stream.tls);
	return left;
}
