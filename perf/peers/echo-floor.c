/* SPDX-License-Identifier: MIT */
/*
 * The floor: what the sockets and the memory alone cost.  A bare echo with a thread a connection:
 * 28 bytes in, 16 bytes and a payload out; for writes the payload comes in.  It looks at nothing
 * but sizes, the cookie, which it sends back, and the place, since a payload that always lies in
 * the cache would not be of the same kind as the servers'.  One receive and one send a batch,
 * unless the client asks for another way, so that the ways can be compared.  The listening socket
 * is descriptor 3.  Every client of one process must ask for the same span.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fabric/nbd/proto.h"
#include "fabric/base/util.h"
#include "perf/harness/nbd-client.h"
#include "perf/harness/wire.h"

enum { RX_BYTES = 256 << 10, LARGE_BYTES = 64 << 10, MAX_BATCH = 64, STACK_BYTES = 256 << 10 };

struct echo {
	int fd;
	struct perf_echo_hello hello;
	uint8_t *rx;
	size_t have;
	uint8_t *replies; /* MAX_BATCH or as many as fit in 1 MiB, header and payload each */
	unsigned batch;
	size_t reply_bytes;
};

static uint8_t *ram;
static pthread_mutex_t ram_lock = PTHREAD_MUTEX_INITIALIZER;

/* The place of a request, within RAM of span bytes. */
static uint8_t *place(const struct echo *e, const uint8_t *request)
{
	return ram + weft_get64(request + 16) % e->hello.span;
}

static ssize_t receive(struct echo *e)
{
	uint8_t *to = e->rx + e->have;
	size_t room = RX_BYTES - e->have;
	struct pollfd pfd = {.fd = e->fd, .events = POLLIN};
	uint64_t until;
	ssize_t n;

	if (e->hello.chunk && room > e->hello.chunk)
		room = e->hello.chunk;
	switch (e->hello.receive) {
	case PERF_RECEIVE_POLL:
		poll(&pfd, 1, -1);
		break;
	case PERF_RECEIVE_TRY:
	case PERF_RECEIVE_TRY_POLL:
		n = recv(e->fd, to, room, MSG_DONTWAIT);
		if (n >= 0 || errno != EAGAIN)
			return n;
		if (e->hello.receive == PERF_RECEIVE_TRY_POLL)
			poll(&pfd, 1, -1);
		break;
	case PERF_RECEIVE_SPIN:
		until = weft_now_ns() + e->hello.spin_ns;
		do {
			n = recv(e->fd, to, room, MSG_DONTWAIT);
			if (n >= 0 || errno != EAGAIN)
				return n;
		} while (weft_now_ns() < until);
		break;
	default:
		break;
	}
	return recv(e->fd, to, room, 0);
}

static int send_iov(struct echo *e, struct iovec *iov, unsigned nr, int flags)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = nr};

	while (msg.msg_iovlen) {
		ssize_t n = sendmsg(e->fd, &msg, MSG_NOSIGNAL | flags);

		if (n < 0)
			return -errno;
		wire_sent(&msg, (size_t)n);
	}
	return 0;
}

static int send_flat(struct echo *e, const uint8_t *data, size_t n, int flags)
{
	while (n) {
		size_t some = e->hello.chunk ? weft_min(n, e->hello.chunk) : n;
		ssize_t sent = send(e->fd, data, some, MSG_NOSIGNAL | flags);

		if (sent < 0)
			return -errno;
		data += sent;
		n -= (size_t)sent;
	}
	return 0;
}

static int reply_some(struct echo *e, const uint8_t *requests, size_t request_bytes, unsigned nr)
{
	struct iovec iov[2 * MAX_BATCH];
	unsigned nr_iov = 0;
	int r = 0;

	for (unsigned i = 0; i < nr; i++) {
		uint8_t *reply = e->replies + i * e->reply_bytes;

		/* Only the place of the cookie is NBD's; the rest of the header was made once. */
		memcpy(reply + 8, requests + i * request_bytes + 8, 8);
		if (e->hello.span && e->hello.send == PERF_SEND_IOVEC && !e->hello.write) {
			iov[nr_iov++] = (struct iovec){reply, NBD_SIMPLE_REPLY_BYTES};
			iov[nr_iov++] = (struct iovec){place(e, requests + i * request_bytes),
				e->hello.len};
			continue;
		}
		if (e->hello.span && !e->hello.write)
			memcpy(reply + NBD_SIMPLE_REPLY_BYTES,
				place(e, requests + i * request_bytes), e->hello.len);
		if (e->hello.send == PERF_SEND_IOVEC) {
			iov[nr_iov++] = (struct iovec){reply, NBD_SIMPLE_REPLY_BYTES};
			if (e->reply_bytes > NBD_SIMPLE_REPLY_BYTES)
				iov[nr_iov++] = (struct iovec){reply + NBD_SIMPLE_REPLY_BYTES,
					e->reply_bytes - NBD_SIMPLE_REPLY_BYTES};
		} else if (e->hello.send == PERF_SEND_EACH) {
			r = send_flat(e, reply, e->reply_bytes, 0);
		} else if (e->hello.send == PERF_SEND_MORE || e->hello.send == PERF_SEND_EARLY) {
			r = send_flat(e, reply, NBD_SIMPLE_REPLY_BYTES,
				e->hello.send == PERF_SEND_MORE ? MSG_MORE : 0);
			if (r == 0)
				r = send_flat(e, reply + NBD_SIMPLE_REPLY_BYTES,
					e->reply_bytes - NBD_SIMPLE_REPLY_BYTES, 0);
		}
		if (r < 0)
			return r;
	}
	if (e->hello.send == PERF_SEND_IOVEC)
		return send_iov(e, iov, nr_iov, 0);
	if (e->hello.send == PERF_SEND_FLAT)
		return send_flat(e, e->replies, nr * e->reply_bytes, 0);
	return 0;
}

/* Requests without payload: everything that came is answered with one send. */
static int serve_reads(struct echo *e)
{
	for (;;) {
		unsigned nr, done = 0;
		ssize_t n = receive(e);

		if (n <= 0)
			return 0;
		e->have += (size_t)n;
		nr = (unsigned)(e->have / NBD_REQUEST_BYTES);
		while (done < nr) {
			unsigned some = (unsigned)weft_min(nr - done, e->batch);

			if (reply_some(e, e->rx + done * NBD_REQUEST_BYTES, NBD_REQUEST_BYTES,
				    some) < 0)
				return 0;
			done += some;
		}
		e->have -= nr * NBD_REQUEST_BYTES;
		memmove(e->rx, e->rx + nr * NBD_REQUEST_BYTES, e->have);
	}
}

/* The rest of a large payload is received right where it belongs. */
static int take_large(struct echo *e, uint8_t *to, size_t *left)
{
	while (*left >= LARGE_BYTES) {
		ssize_t n = recv(e->fd, to + e->hello.len - *left, *left, 0);

		if (n <= 0)
			return -EPIPE;
		*left -= (size_t)n;
	}
	return 0;
}

/* Requests with payload, which is taken in; a reply each. */
static int serve_writes(struct echo *e)
{
	uint8_t headers[MAX_BATCH * NBD_REQUEST_BYTES];
	unsigned nr = 0;
	size_t left = 0; /* of the current payload */

	for (;;) {
		size_t pos = 0;
		ssize_t n = receive(e);

		if (n <= 0)
			return 0;
		e->have += (size_t)n;
		while (pos < e->have) {
			size_t some = weft_min(left, e->have - pos);

			if (some && e->hello.span)
				memcpy(place(e, headers + nr * NBD_REQUEST_BYTES) + e->hello.len -
						left,
					e->rx + pos, some);
			pos += some;
			left -= some;
			if (left)
				break;
			if (some)
				nr++;
			if (nr == MAX_BATCH) {
				if (reply_some(e, headers, NBD_REQUEST_BYTES, nr) < 0)
					return 0;
				nr = 0;
			}
			if (e->have - pos < NBD_REQUEST_BYTES)
				break;
			memcpy(headers + nr * NBD_REQUEST_BYTES, e->rx + pos, NBD_REQUEST_BYTES);
			pos += NBD_REQUEST_BYTES;
			left = e->hello.len;
		}
		/* The header of a payload still coming stays for later. */
		if (nr) {
			if (reply_some(e, headers, NBD_REQUEST_BYTES, nr) < 0)
				return 0;
			memcpy(headers, headers + nr * NBD_REQUEST_BYTES,
				left ? NBD_REQUEST_BYTES : 0);
			nr = 0;
		}
		e->have -= pos;
		memmove(e->rx, e->rx + pos, e->have);
		if (e->hello.span && !e->have && left >= LARGE_BYTES) {
			if (take_large(e, place(e, headers), &left) < 0)
				return 0;
			if (!left && reply_some(e, headers, NBD_REQUEST_BYTES, 1) < 0)
				return 0;
		}
	}
}

static int prepare(struct echo *e)
{
	int one = 1, bytes, us;

	if (weft_read_all(e->fd, &e->hello, sizeof(e->hello)) < 0)
		return -EPIPE;
	setsockopt(e->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	bytes = (int)e->hello.sndbuf;
	if (bytes) {
		setsockopt(e->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
		setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	}
	us = (int)e->hello.busy_us;
	if (us)
		setsockopt(e->fd, SOL_SOCKET, SO_BUSY_POLL, &us, sizeof(us));
	if (e->hello.span) {
		pthread_mutex_lock(&ram_lock);
		if (!ram) {
			/* Pages of one's own, not the page of zeros. */
			ram = mmap(NULL, e->hello.span, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (ram == MAP_FAILED)
				abort();
			memset(ram, 1, e->hello.span);
		}
		pthread_mutex_unlock(&ram_lock);
	}
	e->reply_bytes = NBD_SIMPLE_REPLY_BYTES + (e->hello.write ? 0 : e->hello.len);
	e->batch = (unsigned)weft_max(1, weft_min(MAX_BATCH, (1 << 20) / e->reply_bytes));
	e->rx = mmap(NULL, RX_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	e->replies = mmap(NULL, e->batch * e->reply_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (e->rx == MAP_FAILED || e->replies == MAP_FAILED)
		return -ENOMEM;
	for (unsigned i = 0; i < e->batch; i++)
		weft_put32(e->replies + i * e->reply_bytes, NBD_SIMPLE_REPLY_MAGIC);
	return 0;
}

static void *serve(void *arg)
{
	struct echo *e = arg;

	if (prepare(e) == 0) {
		if (e->hello.write)
			serve_writes(e);
		else
			serve_reads(e);
	}
	close(e->fd);
	if (e->rx && e->rx != MAP_FAILED)
		munmap(e->rx, RX_BYTES);
	if (e->replies && e->replies != MAP_FAILED)
		munmap(e->replies, e->batch * e->reply_bytes);
	free(e);
	return NULL;
}

int main(void)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	for (;;) {
		struct echo *e = calloc(1, sizeof(*e));
		pthread_t thread;

		if (!e)
			return 1;
		e->fd = accept(3, NULL, NULL);
		if (e->fd < 0) {
			perror("echo-floor: accept");
			return 1;
		}
		if (pthread_create(&thread, &attr, serve, e))
			return 1;
	}
}
