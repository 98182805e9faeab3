/* SPDX-License-Identifier: MIT */
#include "tests/support/nbd-raw.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/nbd/stream.h"

enum { BOUND_MS = 30000 };

void nbd_raw_pair(struct nbd_raw *raw, const struct nbd_service *service, void *user)
{
	int fds[2];

	*raw = (struct nbd_raw){ .server_result = 1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		abort();
	raw->fd = fds[0];
	if (nbd_conn_new(fds[1], service, user, &raw->server) < 0)
		abort();
}

void nbd_raw_close(struct nbd_raw *raw)
{
	nbd_conn_free(raw->server);
	nbd_tls_free(raw->tls);
	raw->tls = NULL;
	if (raw->fd >= 0)
		close(raw->fd);
	raw->server = NULL;
	raw->fd = -1;
}

void nbd_raw_pump(struct nbd_raw *raw)
{
	bool busy = raw->server;

	while (busy) {
		int s = nbd_conn_send(raw->server);
		int r = raw->server_result > 0 ? nbd_conn_receive(raw->server, false) : -EAGAIN;

		busy = r > 0;
		if (r == 0 || (r < 0 && r != -EAGAIN)) {
			raw->server_result = r;
			nbd_conn_send(raw->server);
			shutdown(nbd_conn_fd(raw->server), SHUT_RDWR);
		}
		if (s < 0 && s != -EAGAIN && raw->server_result > 0) {
			raw->server_result = s == -ESHUTDOWN ? 0 : s;
			shutdown(nbd_conn_fd(raw->server), SHUT_RDWR);
		}
	}
}

/* Gives the other side a chance to go on.  False: it had none in time. */
static bool let_run(struct nbd_raw *raw, short events)
{
	struct pollfd pfd = { .fd = raw->fd, .events = events };

	nbd_raw_pump(raw);
	return poll(&pfd, 1, raw->server ? 0 : BOUND_MS) > 0;
}

int nbd_raw_send(struct nbd_raw *raw, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n > 0) {
		size_t part = raw->step ? weft_min(raw->step, n) : n;
		const struct nbd_stream stream = { .fd = raw->fd, .tls = raw->tls };
		struct iovec iov = { (void *)p, part };
		ssize_t put = nbd_stream_write(&stream, &iov, 1);

		if (put < 0 && put != -EAGAIN)
			return -ECONNRESET;
		if (put < 0 && !let_run(raw, POLLOUT))
			return -ETIMEDOUT;
		if (put > 0) {
			p += put;
			n -= (size_t)put;
			if (raw->step)
				nbd_raw_pump(raw);
		}
	}
	return 0;
}

int nbd_raw_recv(struct nbd_raw *raw, void *data, size_t n)
{
	uint8_t *p = data;

	while (n > 0) {
		const struct nbd_stream stream = { .fd = raw->fd, .tls = raw->tls };
		struct iovec iov = { p, n };
		ssize_t got = nbd_stream_read(&stream, &iov, 1, false);

		if (got == 0 || (got < 0 && got != -EAGAIN))
			return -ECONNRESET;
		if (got < 0 && !let_run(raw, POLLIN))
			return -ETIMEDOUT;
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
	return 0;
}

bool nbd_raw_ended(struct nbd_raw *raw)
{
	uint8_t byte;

	return nbd_raw_recv(raw, &byte, 1) == -ECONNRESET;
}

int nbd_raw_starttls(struct nbd_raw *raw, struct nbd_tls_credentials *credentials)
{
	int events = 0;
	int r = nbd_raw_option(raw, NBD_OPT_STARTTLS, NULL, 0);

	if (r == 0 && nbd_raw_final(raw, NBD_OPT_STARTTLS) != NBD_REP_ACK)
		r = -EPROTO;
	if (r == 0)
		r = nbd_tls_new(raw->fd, credentials, &raw->tls);
	while (r == 0 && (r = nbd_tls_handshake(raw->tls, &events, NULL)) == -EAGAIN)
		r = let_run(raw, (short)events) ? 0 : -ETIMEDOUT;
	nbd_raw_pump(raw);
	return r;
}

int nbd_raw_hello(struct nbd_raw *raw, uint32_t flags)
{
	uint8_t p[NBD_HANDSHAKE_BYTES];
	int r;

	r = nbd_raw_recv(raw, p, sizeof(p));
	if (r < 0)
		return r;
	if (weft_get64(p) != NBD_MAGIC || weft_get64(p + 8) != NBD_OPTS_MAGIC)
		return -EPROTO;
	weft_put32(p, flags);
	return nbd_raw_send(raw, p, 4);
}

int nbd_raw_option(struct nbd_raw *raw, uint32_t option, const void *data, uint32_t n)
{
	uint8_t p[NBD_OPTION_BYTES];
	int r;

	weft_put64(p, NBD_OPTS_MAGIC);
	weft_put32(p + 8, option);
	weft_put32(p + 12, n);
	r = nbd_raw_send(raw, p, sizeof(p));
	return r < 0 || n == 0 ? r : nbd_raw_send(raw, data, n);
}

uint32_t nbd_raw_reply(struct nbd_raw *raw, uint32_t option, void *data, uint32_t cap,
	uint32_t *ret_len)
{
	uint8_t p[NBD_OPTION_REPLY_BYTES], rest[256];
	uint32_t len, keep;

	if (nbd_raw_recv(raw, p, sizeof(p)) < 0)
		return 0;
	if (weft_get64(p) != NBD_REP_MAGIC || weft_get32(p + 8) != option)
		abort();
	len = weft_get32(p + 16);
	keep = (uint32_t)weft_min(len, cap);
	if (keep > 0 && nbd_raw_recv(raw, data, keep) < 0)
		return 0;
	for (uint32_t left = len - keep; left > 0;) {
		uint32_t n = (uint32_t)weft_min(left, sizeof(rest));

		if (nbd_raw_recv(raw, rest, n) < 0)
			return 0;
		left -= n;
	}
	if (ret_len)
		*ret_len = len;
	return weft_get32(p + 12);
}

uint32_t nbd_raw_final(struct nbd_raw *raw, uint32_t option)
{
	uint32_t type;

	do
		type = nbd_raw_reply(raw, option, NULL, 0, NULL);
	while (type > NBD_REP_ACK && type < NBD_REP_ERR_UNSUP);
	return type;
}

uint32_t nbd_raw_info_data(uint8_t *p, const char *name, const uint16_t *infos, unsigned n)
{
	const uint32_t len = (uint32_t)strlen(name);

	weft_put32(p, len);
	memcpy(p + 4, name, len);
	weft_put16(p + 4 + len, (uint16_t)n);
	for (unsigned i = 0; i < n; i++)
		weft_put16(p + 6 + len + 2 * i, infos[i]);
	return 6 + len + 2 * n;
}

uint32_t nbd_raw_context_data(uint8_t *p, const char *name, const char *const *queries, unsigned n)
{
	uint32_t at, len = (uint32_t)strlen(name);

	weft_put32(p, len);
	memcpy(p + 4, name, len);
	at = 4 + len;
	weft_put32(p + at, n);
	at += 4;
	for (unsigned i = 0; i < n; i++) {
		len = (uint32_t)strlen(queries[i]);
		weft_put32(p + at, len);
		memcpy(p + at + 4, queries[i], len);
		at += 4 + len;
	}
	return at;
}

int nbd_raw_go(struct nbd_raw *raw, const char *name, bool structured)
{
	uint8_t data[NBD_MAX_STRING + 64];
	int r;

	r = nbd_raw_hello(raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	if (r < 0)
		return r;
	if (structured) {
		nbd_raw_option(raw, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		if (nbd_raw_final(raw, NBD_OPT_STRUCTURED_REPLY) != NBD_REP_ACK)
			return -EPROTO;
		nbd_raw_option(raw, NBD_OPT_SET_META_CONTEXT, data,
			nbd_raw_context_data(data, name, (const char *[]){ "base:allocation" }, 1));
		if (nbd_raw_final(raw, NBD_OPT_SET_META_CONTEXT) != NBD_REP_ACK)
			return -EPROTO;
	}
	nbd_raw_option(raw, NBD_OPT_GO, data, nbd_raw_info_data(data, name, NULL, 0));
	return nbd_raw_final(raw, NBD_OPT_GO) == NBD_REP_ACK ? 0 : -EPROTO;
}

int nbd_raw_request(struct nbd_raw *raw, uint16_t flags, uint16_t type, uint64_t cookie,
	uint64_t off, uint32_t len)
{
	const struct nbd_request_header h = { flags, type, cookie, off, len };
	uint8_t p[NBD_REQUEST_BYTES];

	nbd_pack_request(p, &h);
	return nbd_raw_send(raw, p, sizeof(p));
}

static int answer_chunk(struct nbd_raw *raw, uint8_t *p, struct nbd_raw_answer *ret, void *data,
	uint32_t data_len)
{
	struct nbd_chunk chunk;
	uint8_t fixed[8];
	int r;

	r = nbd_raw_recv(raw, p + NBD_SIMPLE_REPLY_BYTES, NBD_CHUNK_BYTES - NBD_SIMPLE_REPLY_BYTES);
	if (r < 0)
		return r;
	nbd_unpack_chunk(p, &chunk);
	*ret = (struct nbd_raw_answer){
		.cookie = chunk.cookie,
		.type = chunk.type,
		.len = chunk.len,
		.done = chunk.flags & NBD_REPLY_FLAG_DONE,
	};
	switch (chunk.type) {
	case NBD_REPLY_TYPE_ERROR:
		if (chunk.len != 6)
			return -EPROTO;
		r = nbd_raw_recv(raw, fixed, 6);
		ret->error = weft_get32(fixed);
		return r;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		if (ret->done ? chunk.len != 8 + data_len
			      : chunk.len <= 8 || chunk.len >= 8 + data_len)
			return -EPROTO;
		r = nbd_raw_recv(raw, fixed, 8);
		ret->off = weft_get64(fixed);
		return r < 0 ? r : nbd_raw_recv(raw, data, chunk.len - 8);
	case NBD_REPLY_TYPE_BLOCK_STATUS:
	case NBD_REPLY_TYPE_HASHES:
		return chunk.len > data_len ? -EPROTO : nbd_raw_recv(raw, data, chunk.len);
	default:
		return -EPROTO;
	}
}

int nbd_raw_answer(struct nbd_raw *raw, struct nbd_raw_answer *ret, void *data, uint32_t data_len)
{
	uint8_t p[NBD_CHUNK_BYTES];
	int r;

	r = nbd_raw_recv(raw, p, NBD_SIMPLE_REPLY_BYTES);
	if (r < 0)
		return r;
	if (weft_get32(p) == NBD_STRUCTURED_REPLY_MAGIC)
		return answer_chunk(raw, p, ret, data, data_len);
	if (weft_get32(p) != NBD_SIMPLE_REPLY_MAGIC)
		return -EPROTO;
	*ret = (struct nbd_raw_answer){ .done = true };
	nbd_unpack_simple_reply(p, &ret->error, &ret->cookie);
	return ret->error || data_len == 0 ? 0 : nbd_raw_recv(raw, data, data_len);
}

int nbd_raw_command(struct nbd_raw *raw, uint16_t flags, uint16_t type, uint64_t off, uint32_t len,
	void *data)
{
	static uint64_t cookie = 0x7766554433221100;
	struct nbd_raw_answer answer;
	int r;

	r = nbd_raw_request(raw, flags, type, ++cookie, off, len);
	if (r == 0 && type == NBD_CMD_WRITE)
		r = nbd_raw_send(raw, data, len);
	uint32_t got = 0;
	do {
		if (r == 0)
			r = nbd_raw_answer(raw, &answer, (uint8_t *)data + got,
				type == NBD_CMD_READ ? len - got : 0);
		if (r == 0 && answer.type == NBD_REPLY_TYPE_OFFSET_DATA) {
			if (answer.off != off + got)
				return -EPROTO;
			got += answer.len - 8;
		}
	} while (r == 0 && !answer.done);
	if (r < 0)
		return r;
	return answer.cookie == cookie && answer.done ? (int)answer.error : -EPROTO;
}
