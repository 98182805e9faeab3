/* SPDX-License-Identifier: MIT */
/* Questions in the option phase, to a donor that is asked several; see question.h. */
#include "transports/nbd/borrower/question.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/nbd/client-question.h"
#include "fabric/uri.h"
#include "transports/nbd/borrower/dial.h"

enum { DEAD_MS = 20000 };

/* A connection on which nothing was asked for but TLS. */
struct tp_talk {
	struct nbd_stream stream;
};

void nbd_hang_up(struct tp_talk *talk)
{
	if (!talk)
		return;
	nbd_tls_free(talk->stream.tls);
	weft_close_fd(talk->stream.fd);
	free(talk);
}

static int greet(const struct nbd_dial *dial, struct nbd_stream *stream, struct weft_error *err)
{
	const struct nbd_talk_wish wish = {
		.region = "", .hello = {.anonymous = true}, .only_greet = true};
	struct nbd_talk *talk = malloc(sizeof(*talk));

	if (!talk)
		return weft_error_set(err, ENOMEM, "no memory");
	int r = nbd_dial_talk(dial, stream, talk, &wish);
	if (r < 0)
		weft_error_set(err, -r, "%s", talk->error.message);
	free(talk);
	return r;
}

static int begin(struct nbd_dial *dial, const struct weft_key *key, const char *certificates,
	struct tp_talk **ret, struct weft_error *err)
{
	struct tp_talk *talk = malloc(sizeof(*talk));

	if (!talk)
		return weft_error_set(err, ENOMEM, "no memory");
	*talk = (struct tp_talk){.stream = {.fd = -1}};
	/* What is said in plaintext could be anybody's word. */
	int r = nbd_dial_prove(dial, key, certificates, false, err);
	if (r == 0)
		r = talk->stream.fd = nbd_dial(dial, err);
	if (r >= 0)
		r = greet(dial, &talk->stream, err);
	nbd_tls_credentials_put(dial->credentials);
	dial->credentials = NULL;
	if (r < 0) {
		nbd_hang_up(talk);
		return r;
	}
	*ret = talk;
	return 0;
}

/* *ret_usable: the connection is good for another question. */
static int ask(const struct nbd_dial *dial, struct tp_talk *talk, struct nbd_question *q,
	const char *text, bool *ret_usable)
{
	int r = nbd_question_begin(q, text, strlen(text));

	*ret_usable = true;
	if (r < 0)
		return r;
	while (r == 0) {
		short events;

		r = nbd_question_move(q, &talk->stream, &events);
		if (r == 0)
			r = nbd_dial_wait(dial, talk->stream.fd, events, &events, &q->error);
	}
	*ret_usable = r > 0;
	return r < 0 ? r : -q->error.code;
}

static int read_answer(const struct nbd_question *q, json_t **ret, struct weft_error *err)
{
	json_t *json = json_loadb(q->answer, q->answer_len, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(json)) {
		json_decref(json);
		return weft_error_set(err, EPROTO, "the answer is no JSON object");
	}
	*ret = json;
	return 0;
}

static int ask_json(const struct nbd_dial *dial, struct tp_talk **io_talk, const json_t *question,
	json_t **ret, struct weft_error *err)
{
	struct nbd_question *q = malloc(sizeof(*q));
	WEFT_CLEANUP_FREE char *text = json_dumps(question, JSON_COMPACT);
	bool usable;

	if (!q || !text) {
		free(q);
		return weft_error_set(err, ENOMEM, "no memory");
	}
	int r = ask(dial, *io_talk, q, text, &usable);
	if (r < 0)
		weft_error_set(err, -r, "%s", q->error.message);
	else
		r = read_answer(q, ret, err);
	nbd_question_end(q);
	free(q);
	if (!usable) {
		nbd_hang_up(*io_talk);
		*io_talk = NULL;
	}
	return r;
}

int nbd_put_question(const struct weft_uri *uri, const struct weft_key *key,
	const char *certificates, uint32_t timeout_ms, int cancel_fd, struct tp_talk **io_talk,
	const json_t *question, json_t **ret_answer, struct weft_error *err)
{
	struct nbd_dial dial = {
		.host = uri->socket[0] ? uri->socket : uri->host,
		.port = uri->port,
		.timeout_ms = timeout_ms,
		.deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000),
		.dead_ms = DEAD_MS,
		.cancel_fd = cancel_fd,
	};
	int r = *io_talk ? 0 : begin(&dial, key, certificates, io_talk, err);

	return r < 0 ? r : ask_json(&dial, io_talk, question, ret_answer, err);
}
