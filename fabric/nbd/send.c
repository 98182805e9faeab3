/* SPDX-License-Identifier: MIT */
/*
 * Sends a connection's replies to options and to requests. Owned by the connection's thread.
 *
 * One sendmsg(2) sends all that is queued, payloads straight from their buffers.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/util.h"

/* Gathers the queue from where sending stopped; returns the number of entries. */
static unsigned gather(const struct nbd_conn *conn, struct iovec *iov, size_t *ret_bytes)
{
	size_t skip = conn->done_sent, bytes = 0;
	unsigned n = 0;

	if (conn->tx_len > 0) {
		iov[n++] = (struct iovec){ conn->tx + conn->tx_sent, conn->tx_len - conn->tx_sent };
		bytes += conn->tx_len - conn->tx_sent;
	}
	for (const struct nbd_request *rq = conn->done; rq; rq = rq->next) {
		if (skip < rq->head_len) {
			iov[n++] = (struct iovec){ (void *)(rq->head + skip), rq->head_len - skip };
			skip = 0;
		} else {
			skip -= rq->head_len;
		}
		if (rq->payload_len > 0)
			iov[n++] = (struct iovec){(uint8_t *)rq->payload + skip,
				rq->payload_len - skip};
		bytes += (size_t)rq->head_len + rq->payload_len;
		skip = 0;
	}
	*ret_bytes = bytes - conn->done_sent;
	return n;
}

/* Takes sent bytes off the queue; requests whose reply has left whole are given back. */
static void account(struct nbd_conn *conn, size_t sent)
{
	if (conn->tx_len > 0) {
		const size_t n = weft_min(sent, conn->tx_len - conn->tx_sent);

		sent -= n;
		conn->tx_sent += n;
		if (conn->tx_sent < conn->tx_len)
			return;
		conn->tx_sent = conn->tx_len = 0;
		if (conn->phase >= NBD_REQUEST) {
			free(conn->tx);
			conn->tx = NULL;
			conn->tx_cap = 0;
		}
	}
	sent += conn->done_sent;
	for (struct nbd_request *rq; (rq = conn->done) != NULL;) {
		const size_t whole = (size_t)rq->head_len + rq->payload_len;

		if (sent < whole)
			break;
		sent -= whole;
		conn->done = rq->next;
		if (!conn->done) {
			conn->done_tail = &conn->done;
			if (conn->pieces && nbd_pieces_sent(conn))
				continue;
		}
		nbd_request_put(rq);
	}
	conn->done_sent = sent;
}

int nbd_conn_send_queue(struct nbd_conn *conn)
{
	struct iovec iov[1 + 2 * NBD_CONN_REQUESTS];

	while (nbd_conn_has_to_send(conn)) {
		size_t bytes;
		unsigned nr = gather(conn, iov, &bytes);
		ssize_t sent = nbd_stream_write(&conn->stream, iov, nr);

		if (sent < 0) {
			if (sent == -EINTR)
				continue;
			if (sent != -EAGAIN)
				conn->error = (int)sent;
			return (int)sent;
		}
		account(conn, (size_t)sent);
		if ((size_t)sent < bytes)
			return -EAGAIN;
		if (conn->held_back && !conn->error)
			return 1;
	}
	if (conn->error)
		return conn->error;
	return conn->phase == NBD_CLOSING && conn->nr_requests == 0 ? -ESHUTDOWN : 0;
}

int nbd_conn_wait(struct nbd_conn *conn, int events, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = conn->stream.fd, .events = (short)events };
	int timeout_ms = -1;
	int r;

	if ((events & POLLIN) && nbd_stream_pending(&conn->stream))
		return 1;
	if (deadline_ns) {
		const uint64_t now = weft_now_ns();

		if (now >= deadline_ns)
			return 0;
		timeout_ms = (int)weft_min((deadline_ns - now) / 1000000 + 1, INT_MAX);
	}
	r = poll(&pfd, 1, timeout_ms);
	if (r < 0)
		return errno == EINTR ? 1 : -errno;
	return r;
}

int nbd_conn_flush(struct nbd_conn *conn, unsigned timeout_ms)
{
	const uint64_t deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);
	int r;

	do {
		r = nbd_conn_send_queue(conn);
		if (r == -EAGAIN) {
			r = nbd_conn_wait(conn, POLLOUT, deadline_ns);
			if (r == 0)
				return -ETIMEDOUT;
		}
	} while (r > 0);
	return r == -ESHUTDOWN ? 0 : r;
}
