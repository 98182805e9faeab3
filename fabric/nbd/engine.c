/* SPDX-License-Identifier: MIT */
/*
 * The engine: what was received goes to the handshake or to the transmission phase, as far as it
 * goes.  Owned by the connection's thread.
 *
 * One recvmsg(2) takes what is there, the rest of a payload straight into its buffer.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/util.h"

int nbd_conn_new(int fd, const struct nbd_service *service, void *user, struct nbd_conn **ret)
{
	struct nbd_conn *conn;
	int r = nbd_conn_new_greeted(fd, service, user, &conn);

	if (r < 0)
		return r;
	r = nbd_handshake_start(conn);
	if (r < 0) {
		nbd_conn_free(conn);
		return r;
	}
	*ret = conn;
	return 0;
}

int nbd_conn_new_over(struct nbd_pipe *pipe, const struct nbd_service *service, void *user,
	struct nbd_conn **ret)
{
	struct nbd_conn *conn = nbd_conn_make(-1, service, user);

	if (!conn)
		return -ENOMEM;
	conn->stream.pipe = pipe;
	int r = nbd_handshake_start(conn);
	if (r < 0) {
		nbd_conn_free(conn);
		return r;
	}
	*ret = conn;
	return 0;
}

/* Looks at all that was received, as far as it goes. */
static int parse(struct nbd_conn *conn)
{
	int r;

	/* The service may call nbd_conn_resume() out of submit() or release(). */
	if (conn->parsing)
		return 0;
	conn->parsing = true;
	conn->held_back = false;
	do
		r = conn->phase >= NBD_REQUEST ? nbd_transmission_step(conn)
					       : nbd_handshake_step(conn);
	while (r > 0);
	conn->parsing = false;
	if (r < 0)
		conn->error = r;
	return r;
}

static bool may_receive(const struct nbd_conn *conn)
{
	return conn->phase != NBD_CLOSING && !conn->starved && !conn->held_back && !conn->error;
}

/* Between two messages the peer may hang up. */
static bool between_messages(const struct nbd_conn *conn)
{
	return nbd_rx_len(conn) == 0 &&
		(conn->phase == NBD_REQUEST || conn->phase == NBD_OPTION ||
			conn->phase == NBD_CLIENT_FLAGS);
}

/* As nbd_conn_receive(), where no message of NBD may come. */
static int receive_nothing(struct nbd_conn *conn)
{
	if (conn->error)
		return conn->error;
	if (conn->phase == NBD_TLS)
		return nbd_starttls_handshake(conn);
	return conn->phase == NBD_CLOSING ? 0 : -EAGAIN;
}

int nbd_conn_receive(struct nbd_conn *conn, bool wait)
{
	struct iovec iov[2];
	unsigned nr_iov = 0;
	size_t room = NBD_RX_BYTES;
	size_t direct = 0;
	ssize_t got;

	if (!may_receive(conn))
		return receive_nothing(conn);
	if (conn->rx_start == conn->rx_end) {
		conn->rx_start = conn->rx_end = 0;
	} else if (conn->rx_start > 0) {
		memmove(conn->rx, nbd_rx(conn), nbd_rx_len(conn));
		conn->rx_end -= conn->rx_start;
		conn->rx_start = 0;
	}
	if (conn->phase == NBD_PAYLOAD) {
		struct nbd_request *rq = conn->current;

		direct = conn->left;
		iov[nr_iov++] = (struct iovec){
			.iov_base = (uint8_t *)rq->buf + (rq->len - conn->left),
			.iov_len = direct,
		};
	}
	/* After a big WRITE the next is probably big too: what would be received of it here, beyond
	 * its header, would have to be copied. */
	if (conn->big_writes && conn->phase != NBD_DRAIN) {
		room = NBD_REQUEST_BYTES;
		if (conn->phase == NBD_PIECE) {
			struct nbd_request *rq = conn->current;

			direct = conn->left;
			iov[nr_iov++] = (struct iovec){
				.iov_base = (uint8_t *)rq->buf + (rq->piece - conn->left),
				.iov_len = direct,
			};
		}
	}
	iov[nr_iov++] = (struct iovec){
		.iov_base = conn->rx + conn->rx_end,
		.iov_len = room - conn->rx_end,
	};
	got = nbd_stream_read(&conn->stream, iov, nr_iov, wait);
	if (got < 0) {
		if (got == -EAGAIN || got == -EINTR)
			return -EAGAIN;
		if (got != -ECONNRESET || !atomic_load(&conn->draining))
			return conn->error = (int)got;
		got = 0;
	}
	if (got == 0) {
		if (!between_messages(conn))
			return conn->error = -ECONNRESET;
		conn->phase = NBD_CLOSING;
		return 0;
	}
	conn->received = (size_t)got;
	conn->filled = conn->received == direct + room - conn->rx_end;
	direct = weft_min(direct, (size_t)got);
	conn->left -= direct;
	conn->rx_end += (size_t)got - direct;
	if (conn->service->want_times || (conn->service->received && conn->opened))
		conn->now_ns = weft_now_ns();
	if (conn->service->received && conn->opened)
		conn->service->received(conn, conn->now_ns);
	parse(conn);
	if (conn->error)
		return conn->error;
	return conn->phase == NBD_CLOSING ? 0 : 1;
}

int nbd_conn_resume(struct nbd_conn *conn)
{
	conn->starved = false;
	if (conn->error)
		return conn->error;
	return parse(conn);
}

/*
 * Looks at what was held back for the queue, and sends what came of it.  Rare, and so not inline.
 */
static int __attribute__((noinline)) go_on(struct nbd_conn *conn)
{
	int r;

	do {
		parse(conn);
		r = nbd_conn_send_queue(conn);
	} while (r > 0);
	return r;
}

int nbd_conn_send(struct nbd_conn *conn)
{
	int r = nbd_conn_send_queue(conn);

	return r > 0 ? go_on(conn) : r;
}

int nbd_conn_events(const struct nbd_conn *conn)
{
	return (may_receive(conn) ? POLLIN : 0) | (nbd_conn_has_to_send(conn) ? POLLOUT : 0);
}
