/* SPDX-License-Identifier: MIT */
/* A question to a server of weft's; see client-question.h. */
#include "fabric/nbd/client-question.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/hello.h"

enum { FIRST_ROOM = 4096, LAST_ERRNO = 133 };

int nbd_question_begin(struct nbd_question *q, const char *text, size_t len)
{
	memset(q, 0, sizeof(*q));
	if (len > NBD_MAX_OPTION)
		return weft_error_set(&q->error, EMSGSIZE, "a question has at most %d bytes",
			NBD_MAX_OPTION);
	q->out = malloc(NBD_OPTION_BYTES + len);
	if (!q->out)
		return weft_error_set(&q->error, ENOMEM, "no memory for the question");
	nbd_pack_option(q->out, NBD_OPT_WEFT_ASK, (uint32_t)len);
	memcpy(q->out + NBD_OPTION_BYTES, text, len);
	q->out_len = NBD_OPTION_BYTES + len;
	return 0;
}

void nbd_question_end(struct nbd_question *q)
{
	free(q->out);
	free(q->answer);
	q->out = NULL;
	q->answer = NULL;
}

/* ---- what the server says ---- */

static int malformed(struct nbd_question *q, const char *what)
{
	return weft_error_set(&q->error, EPROTO, "the answer is not one: %s", what);
}

/* Room for n bytes more, and a NUL. */
static int make_room(struct nbd_question *q, size_t n)
{
	size_t room = weft_max(q->answer_room, FIRST_ROOM);

	if (q->answer_len + n < q->answer_room)
		return 0;
	while (room <= q->answer_len + n)
		room *= 2;
	char *answer = realloc(q->answer, room);
	if (!answer)
		return weft_error_set(&q->error, ENOMEM, "no memory for the answer");
	q->answer = answer;
	q->answer_room = room;
	return 0;
}

static int take_piece(struct nbd_question *q, const uint8_t *data, uint32_t len)
{
	/* Without that a server could go on for ever. */
	if (len == 0)
		return malformed(q, "a piece of it is empty");
	if (q->answer_len + len > NBD_MAX_ANSWER)
		return malformed(q, "it is too long");
	int r = make_room(q, len);
	if (r < 0)
		return r;
	memcpy(q->answer + q->answer_len, data, len);
	q->answer_len += len;
	q->answer[q->answer_len] = '\0';
	return 0;
}

/* The errno > 0 with whose name and ": " the text begins, with *ret_rest behind them; or 0. */
static int error_of(const char *text, const char **ret_rest)
{
	int code = weft_refusal_parse(text, ret_rest);

	for (int i = 1; i <= LAST_ERRNO && !code; i++) {
		const char *name = strerrorname_np(i);
		const size_t n = name ? strlen(name) : 0;

		if (n > 0 && strncmp(text, name, n) == 0 && strncmp(text + n, ": ", 2) == 0) {
			*ret_rest = text + n + 2;
			code = i;
		}
	}
	return code;
}

static void refuse(struct nbd_question *q, uint32_t type, const char *text)
{
	static const struct {
		uint32_t type;
		int code;
		const char *text;
	} errors[] = {
		{NBD_REP_ERR_UNSUP, ENOSYS, "the server answers no questions"},
		{NBD_REP_ERR_INVALID, EINVAL, "the server takes it for malformed"},
		{NBD_REP_ERR_TLS_REQD, EACCES, "the server wants TLS"},
		{NBD_REP_ERR_UNKNOWN, ENOENT, "the server has no such region"},
		{NBD_REP_ERR_SHUTDOWN, ESHUTDOWN, "the server is stopping"},
		{NBD_REP_ERR_TOO_BIG, EMSGSIZE, "the answer would be too long"},
	};
	const char *rest = text, *otherwise = "the server does not allow it";
	int code = 0;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(errors) && !code; i++)
		if (errors[i].type == type) {
			code = errors[i].code;
			otherwise = errors[i].text;
		}
	if (!code)
		code = error_of(text, &rest);
	weft_error_set(&q->error, code ? code : EPERM, "%s", rest[0] ? rest : otherwise);
}

static int take_reply(struct nbd_question *q)
{
	const uint32_t type = weft_get32(q->in + 12), len = weft_get32(q->in + 16);
	uint8_t *data = q->in + NBD_OPTION_REPLY_BYTES;
	char text[sizeof(q->error.message)];

	if (type == NBD_REP_WEFT_ANSWER)
		return take_piece(q, data, len);
	if (type == NBD_REP_ACK)
		return len == 0 && q->answer ? 1 : malformed(q, "its end is not one");
	if (!(type & NBD_REP_FLAG_ERROR))
		return malformed(q, "it is of another type");
	const size_t n = weft_min(len, sizeof(text) - 1);
	for (size_t i = 0; i < n; i++)
		text[i] = data[i] ? (char)data[i] : '?';
	text[n] = '\0';
	refuse(q, type, weft_printable(text));
	return 1;
}

/* How many bytes of what is at hand are wanted before it is looked at; -errno: it cannot be. */
static ssize_t wanted(struct nbd_question *q)
{
	if (q->in_len < NBD_OPTION_REPLY_BYTES)
		return NBD_OPTION_REPLY_BYTES;
	const uint32_t len = weft_get32(q->in + 16);

	if (weft_get64(q->in) != NBD_REP_MAGIC)
		return malformed(q, "something else came");
	if (weft_get32(q->in + 8) != NBD_OPT_WEFT_ASK)
		return malformed(q, "it answers something else");
	if (len > NBD_MAX_ANSWER_PIECE)
		return malformed(q, "a piece of it is too long");
	return NBD_OPTION_REPLY_BYTES + (ssize_t)len;
}

int nbd_question_take(struct nbd_question *q, const uint8_t *bytes, size_t n)
{
	for (;;) {
		const ssize_t want = wanted(q);

		if (want < 0)
			return (int)want;
		const size_t part = weft_min((size_t)want - q->in_len, n);

		memcpy(q->in + q->in_len, bytes, part);
		q->in_len += part;
		bytes += part;
		n -= part;
		if (q->in_len < (size_t)want)
			return 0;
		/* The head alone: how long is all of it? */
		if (wanted(q) != want)
			continue;
		int r = take_reply(q);
		q->in_len = 0;
		if (r > 0 && (n > 0 || q->out_sent < q->out_len))
			r = malformed(q, n > 0 ? "bytes came behind it"
					       : "it came before the question had left");
		if (r != 0)
			return r;
	}
}

static int broken(struct nbd_question *q, int code)
{
	if (code == EPIPE || code == ECONNRESET)
		return weft_error_set(&q->error, ECONNRESET, "the server hung up");
	return weft_error_set(&q->error, code, "the connection failed: %s",
		code == EKEYREJECTED ? "the server does not accept our certificate"
				     : strerror(code));
}

/* 0, or -errno. */
static int send_some(struct nbd_question *q, struct nbd_stream *stream)
{
	while (q->out_sent < q->out_len) {
		struct iovec iov = {q->out + q->out_sent, q->out_len - q->out_sent};
		ssize_t n = nbd_stream_write(stream, &iov, 1);

		if (n == -EAGAIN)
			return 0;
		if (n < 0 && n != -EINTR)
			return (int)n;
		q->out_sent += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int nbd_question_move(struct nbd_question *q, struct nbd_stream *stream, short *ret_events)
{
	uint8_t bytes[8192];

	for (;;) {
		int sent = send_some(q, stream);
		struct iovec iov = {bytes, sizeof(bytes)};
		ssize_t n = nbd_stream_read(stream, &iov, 1, false);

		/* What it said before it hung up tells more. */
		if (n > 0) {
			int r = nbd_question_take(q, bytes, (size_t)n);

			if (r != 0)
				return r;
			continue;
		}
		if (sent < 0 || n == 0)
			return broken(q, n == 0 ? ECONNRESET : -sent);
		if (n == -EINTR)
			continue;
		if (n != -EAGAIN)
			return broken(q, (int)-n);
		*ret_events = POLLIN | (q->out_sent < q->out_len ? POLLOUT : 0);
		return 0;
	}
}
