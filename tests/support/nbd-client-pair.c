/* SPDX-License-Identifier: MIT */
/* An NBD client's connection over a socketpair; single-threaded. */
#include "tests/support/nbd-client-pair.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "transports/nbd/borrower/client-private.h"

void client_pair_open(struct client_pair *pair, bool structured)
{
	static const struct nbd_client_config config = {.depth = PAIR_DEPTH};
	const struct tp_info info = {
		.size_bytes = PAIR_REGION_BYTES,
		.max_io_bytes = 4 << 20,
		.min_block_bytes = 1,
		.preferred_block_bytes = 4096,
		.can_flush = true,
		.can_fua = true,
		.can_trim = true,
		.can_zero = true,
		.can_fast_zero = true,
		.can_cache = true,
		.max_hash_blocks = WEFT_HASH_MAX_BLOCKS,
		.transport = "tcp",
		.path = "a socketpair",
	};
	struct nbd_tp_conn *c = calloc(1, sizeof(*c));
	int fds[2], r;

	assert(c);
	*pair = (struct client_pair){.structured = structured};
	r = tp_open(&tp_nbd_ops, &config, &pair->tp, NULL);
	assert(r == 0);
	pair->buf = mmap(NULL, PAIR_BUF_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	assert(pair->buf != MAP_FAILED);
	r = tp_register(pair->tp, pair->buf, PAIR_BUF_BYTES, &pair->mem, NULL);
	assert(r == 0);
	r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds);
	assert(r == 0);
	pair->fd = fds[1];
	r = nbd_client_begin(&c->client, &c->conn, &(struct nbd_stream){.fd = fds[0]}, structured,
		&info, PAIR_DEPTH);
	assert(r == 0);
	c->conn.tp = pair->tp;
	c->conn.state = TP_READY;
	pair->tp->nr_conns++;
	pair->conn = &c->conn;
}

void client_pair_close(struct client_pair *pair)
{
	tp_shutdown(pair->conn);
	while (pair->conn->nr_outstanding > 0)
		client_pair_progress(pair);
	tp_disconnect(pair->conn);
	tp_deregister(pair->mem);
	/* A server that does not end the connection would be waited for. */
	if (pair->fd >= 0 && !pair->fd_stays)
		close(pair->fd);
	tp_close(pair->tp);
	munmap(pair->buf, PAIR_BUF_BYTES);
}

unsigned client_pair_progress(struct client_pair *pair)
{
	unsigned total = 0, idle = 0;

	/*
	 * Empty answers: bytes that complete nothing, then the spared look at a socket that was
	 * just drained.
	 */
	while (idle < 3) {
		struct tp_op *done[4];
		int n = tp_progress(pair->conn, done, 4);

		total += (unsigned)n;
		idle = n == 0 ? idle + 1 : 0;
	}
	return total;
}

void client_pair_payload(struct client_pair *pair, void *data, size_t n)
{
	uint64_t end = weft_now_ns() + 1000000000;
	uint8_t *p = data;

	while (n > 0) {
		ssize_t got = recv(pair->fd, p, n, 0);

		assert(got != 0 && weft_now_ns() < end);
		if (got < 0) {
			assert(errno == EAGAIN);
			client_pair_progress(pair); /* the rest of it may still have to be sent */
			continue;
		}
		p += got;
		n -= (size_t)got;
	}
}

void client_pair_request(struct client_pair *pair, struct nbd_request_header *ret)
{
	uint8_t p[NBD_REQUEST_BYTES];

	client_pair_payload(pair, p, sizeof(p));
	int r = nbd_unpack_request(p, ret);
	assert(r == 0);
}

void client_pair_send(struct client_pair *pair, const void *data, size_t n)
{
	uint64_t end = weft_now_ns() + 1000000000;
	const uint8_t *p = data;

	while (n > 0) {
		ssize_t put = send(pair->fd, p, n, MSG_NOSIGNAL);

		if (put < 0 && (errno == EPIPE || errno == ECONNRESET))
			return; /* it has had enough */
		assert(weft_now_ns() < end);
		if (put < 0) {
			assert(errno == EAGAIN);
			client_pair_progress(pair);
			if (tp_state(pair->conn) == TP_FAILED)
				return;
			continue;
		}
		p += put;
		n -= (size_t)put;
	}
}

void client_pair_simple(struct client_pair *pair, uint64_t cookie, uint32_t error)
{
	uint8_t p[NBD_SIMPLE_REPLY_BYTES];

	nbd_pack_simple_reply(p, error, cookie);
	client_pair_send(pair, p, sizeof(p));
}

void client_pair_chunk(struct client_pair *pair, uint64_t cookie, uint16_t flags, uint16_t type,
	const void *payload, uint32_t len)
{
	const struct nbd_chunk chunk = {.flags = flags, .type = type, .cookie = cookie, .len = len};
	uint8_t p[NBD_CHUNK_BYTES];

	nbd_pack_chunk(p, &chunk);
	client_pair_send(pair, p, sizeof(p));
	if (payload)
		client_pair_send(pair, payload, len);
}

void client_pair_data(struct client_pair *pair, uint64_t cookie, uint16_t flags, uint64_t off,
	const void *data, uint32_t len)
{
	uint8_t p[NBD_DATA_CHUNK_BYTES];

	nbd_pack_data_chunk(p, flags, cookie, off, len);
	client_pair_send(pair, p, sizeof(p));
	client_pair_send(pair, data, len);
}

void client_pair_error(struct client_pair *pair, uint64_t cookie, uint16_t flags, uint32_t error,
	const char *text)
{
	uint8_t p[6 + 4096];
	size_t len = strlen(text);

	weft_put32(p, error);
	weft_put16(p + 4, (uint16_t)len);
	memcpy(p + 6, text, len);
	client_pair_chunk(pair, cookie, flags, NBD_REPLY_TYPE_ERROR, p, (uint32_t)(6 + len));
}
