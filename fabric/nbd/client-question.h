/* SPDX-License-Identifier: MIT */
/*
 * The NBD engine, client side: a question to a server of weft's, NBD_OPT_WEFT_ASK, over a
 * connection whose greeting is done (wish.only_greet of client-handshake.h).  A state machine that
 * takes and makes bytes; the stream's owner waits, and keeps the time (weft-protocol(7),
 * "QUESTIONS").  One question at a time.
 *
 * Threads: the owner's.  Nothing waits.  Memory is taken for the question, and for as much of the
 * answer as has come.  No byte of the server is trusted.  Invariant: once it is over, every byte
 * that came was looked at, and the connection is good for the next question.
 */
#ifndef WEFT_FABRIC_NBD_CLIENT_QUESTION_H
#define WEFT_FABRIC_NBD_CLIENT_QUESTION_H

#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/nbd/proto.h"
#include "fabric/nbd/stream.h"

struct nbd_question {
	/* Once it is over: why the server refuses it; code 0: it has answered. */
	struct weft_error error;
	char *answer; /* as it came, and a NUL behind it; NULL: nothing came */
	size_t answer_len;

	/* The machine's own. */
	size_t answer_room;
	uint8_t *out;
	size_t out_len, out_sent, in_len;
	uint8_t in[NBD_OPTION_REPLY_BYTES + NBD_MAX_ANSWER_PIECE];
};

/*
 * 0, or with question->error set -EMSGSIZE: it is longer than NBD_MAX_OPTION; -ENOMEM.  The text
 * is copied.  nbd_question_end() in any case.
 */
int nbd_question_begin(struct nbd_question *question, const char *text, size_t len);
void nbd_question_end(struct nbd_question *question);

/*
 * Sends and receives what is possible without waiting.  1: it is over; 0: *ret_events of poll(2)
 * are waited for; -errno with question->error set, and the connection is of no use any more:
 * -ECONNRESET: the server hung up; -EPROTO; -ENOMEM; or what the socket said.
 *
 * Refusals of the server are question->error.code: ENOSYS: it does not know questions; ENOENT,
 * ESHUTDOWN, EACCES (it wants TLS), EINVAL, EMSGSIZE; or the error that its text begins with, EPERM
 * without one.  The message is the server's, fit for a terminal.
 */
int nbd_question_move(struct nbd_question *question, struct nbd_stream *stream, short *ret_events);
/* Handles n bytes of the server as nbd_question_move() does; for tests.  0: more are needed. */
int nbd_question_take(struct nbd_question *question, const uint8_t *bytes, size_t n);

#endif
