/*
 * A connection's life, and its bytes in and out.
 * Owned by the connection's thread; only nbd_conn_kill() may come from another.
 *
 * One recvmsg(2) takes what is there, the rest of a payload straight into its buffer; one sendmsg(2)
 * sends all replies that are queued, payloads straight from theirs.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/util.h"

enum { LOCAL_SEND_BYTES = 512 << 10 };

/* A payload of 1 MiB leaves in fewer pieces, with fewer wake-ups.  TCP tunes its buffers itself. */
static bool tune_local(int fd)
{
	const int bytes = LOCAL_SEND_BYTES;
	int domain = 0;
	socklen_t len = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
		return false;
	/* Without the privilege: up to wmem_max, which is what it is anyway. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	return true;
}

static struct nbd_conn *conn_new(int fd, const struct nbd_service *service, void *user)
{
	/* Not from the heap, which would keep the pages for itself when a crowd of connections has left. */
	struct nbd_conn *conn = mmap(NULL, sizeof(*conn), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (conn == MAP_FAILED) {
		close(fd);
		return NULL;
	}
	conn->fd = fd;
	conn->local = tune_local(fd);
	conn->service = service;
	conn->user = user;
	conn->done_tail = &conn->done;
	for (unsigned i = NBD_CONN_REQUESTS; i-- > 0;) {
		conn->requests[i].conn = conn;
		conn->requests[i].next = conn->free;
		conn->free = &conn->requests[i];
	}
	return conn;
}

int nbd_conn_new(int fd, const struct nbd_service *service, void *user, struct nbd_conn **ret)
{
	struct nbd_conn *conn = conn_new(fd, service, user);

	if (!conn)
		return -ENOMEM;
	if (nbd_handshake_start(conn) < 0) {
		munmap(conn, sizeof(*conn));
		close(fd);
		return -ENOMEM;
	}
	*ret = conn;
	return 0;
}

int nbd_greet(int fd)
{
	uint8_t greeting[NBD_HANDSHAKE_BYTES];
	ssize_t sent;

	nbd_pack_handshake(greeting, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	sent = send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	return sent == sizeof(greeting) ? 0 : -EPIPE; /* a fresh socket has room for it */
}

int nbd_conn_new_greeted(int fd, const struct nbd_service *service, void *user, struct nbd_conn **ret)
{
	struct nbd_conn *conn = conn_new(fd, service, user);

	if (!conn)
		return -ENOMEM;
	*ret = conn;
	return 0;
}

int nbd_conn_new_open(int fd, const struct nbd_service *service, void *user, const struct nbd_export *export,
	struct nbd_conn **ret)
{
	struct nbd_conn *conn = conn_new(fd, service, user);

	if (!conn)
		return -ENOMEM;
	conn->export = *export;
	conn->opened = true;
	conn->phase = NBD_REQUEST;
	*ret = conn;
	return 0;
}

void nbd_conn_finish(struct nbd_conn *conn)
{
	if (conn->nr_submitted > 0)
		return;
	if (conn->opened)
		conn->service->close(conn, conn->clean);
	/* Only now: whoever said goodbye, and sees the end of the stream, has been let go of. */
	if (conn->fd >= 0)
		close(conn->fd);
	free(conn->tx);
	munmap(conn, sizeof(*conn));
}

void nbd_conn_free(struct nbd_conn *conn)
{
	if (!conn)
		return;
	assert(!conn->freed && !conn->parsing);
	conn->clean = conn->goodbye && conn->nr_requests == 0;
	conn->freed = true;
	if (conn->current) {
		nbd_request_put(conn->current);
		conn->current = NULL;
	}
	while (conn->done || conn->behind) {
		struct nbd_request **first = conn->done ? &conn->done : &conn->behind, *rq = *first;

		*first = rq->next;
		nbd_request_put(rq);
	}
	if (conn->nr_submitted > 0) {
		close(conn->fd);
		conn->fd = -1;
	}
	nbd_conn_finish(conn);
}

void *nbd_conn_user(const struct nbd_conn *conn)
{
	return conn->user;
}

int nbd_conn_fd(const struct nbd_conn *conn)
{
	return conn->fd;
}

bool nbd_conn_in_transmission(const struct nbd_conn *conn)
{
	return conn->opened && conn->phase >= NBD_REQUEST;
}

unsigned nbd_conn_nr_requests(const struct nbd_conn *conn)
{
	return conn->nr_requests;
}

void nbd_conn_kill(struct nbd_conn *conn, bool drain)
{
	shutdown(conn->fd, drain ? SHUT_RD : SHUT_RDWR);
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
		r = conn->phase >= NBD_REQUEST ? nbd_transmission_step(conn) : nbd_handshake_step(conn);
	while (r > 0);
	conn->parsing = false;
	if (r < 0)
		conn->error = r;
	return r;
}

static bool sending(const struct nbd_conn *conn)
{
	return conn->done || conn->tx_len > 0;
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

int nbd_conn_receive(struct nbd_conn *conn, bool wait)
{
	struct msghdr msg = { 0 };
	struct iovec iov[2];
	size_t room = NBD_RX_BYTES;
	size_t direct = 0;
	ssize_t got;

	if (conn->error)
		return conn->error;
	if (conn->phase == NBD_CLOSING)
		return 0;
	if (!may_receive(conn))
		return -EAGAIN;
	if (conn->rx_start > 0) {
		memmove(conn->rx, nbd_rx(conn), nbd_rx_len(conn));
		conn->rx_end -= conn->rx_start;
		conn->rx_start = 0;
	}
	msg.msg_iov = iov;
	if (conn->phase == NBD_PAYLOAD) {
		struct nbd_request *rq = conn->current;

		direct = conn->left;
		iov[msg.msg_iovlen++] = (struct iovec){
			.iov_base = (uint8_t *)rq->buf + (rq->len - conn->left),
			.iov_len = direct,
		};
	}
	/* After a big WRITE the next is probably big too: what would be received of it here, beyond its
	 * header, would have to be copied. */
	if (conn->big_writes && conn->phase != NBD_DRAIN) {
		room = NBD_REQUEST_BYTES;
		if (conn->phase == NBD_PIECE) {
			struct nbd_request *rq = conn->current;

			direct = conn->left;
			iov[msg.msg_iovlen++] = (struct iovec){
				.iov_base = (uint8_t *)rq->buf + (rq->piece - conn->left),
				.iov_len = direct,
			};
		}
	}
	iov[msg.msg_iovlen++] = (struct iovec){
		.iov_base = conn->rx + conn->rx_end,
		.iov_len = room - conn->rx_end,
	};
	got = recvmsg(conn->fd, &msg, wait ? 0 : MSG_DONTWAIT);
	if (got < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return -EAGAIN;
		return conn->error = -errno;
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

/* ---- replies ---- */

/* What is queued, from where sending stopped; returns the number of entries. */
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
			iov[n++] = (struct iovec){ (uint8_t *)rq->payload + skip, rq->payload_len - skip };
		bytes += (size_t)rq->head_len + rq->payload_len;
		skip = 0;
	}
	*ret_bytes = bytes - conn->done_sent;
	return n;
}

/* Takes sent bytes off the queue; requests whose reply has left wholly are given back. */
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

int nbd_conn_send(struct nbd_conn *conn)
{
	struct iovec iov[1 + 2 * NBD_CONN_REQUESTS];

	while (sending(conn)) {
		struct msghdr msg = { .msg_iov = iov };
		size_t bytes;
		ssize_t sent;

		msg.msg_iovlen = gather(conn, iov, &bytes);
		sent = sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				return -EAGAIN;
			return conn->error = -errno;
		}
		account(conn, (size_t)sent);
		if ((size_t)sent < bytes)
			return -EAGAIN;
		if (conn->held_back && !conn->error)
			parse(conn);
	}
	if (conn->error)
		return conn->error;
	return conn->phase == NBD_CLOSING && conn->nr_requests == 0 ? -ESHUTDOWN : 0;
}

int nbd_conn_events(const struct nbd_conn *conn)
{
	return (may_receive(conn) ? POLLIN : 0) | (sending(conn) ? POLLOUT : 0);
}
