/* SPDX-License-Identifier: MIT */
/*
 * The NBD engine, client side: the handshake, from the connected socket to the transmission phase,
 * or to the end of a question.  A machine of states that bytes go into and come out of; whoever
 * owns the stream waits, and counts the time (proto, "Handshake phase").
 *
 * Of a weft donor, options leave without waiting for the greeting or for the answers before them:
 * one round trip.  A grant must not come to anybody whose hello was refused, so that such a GO
 * names no region, but WEFT_EXPORT_SESSION (hello.h), which means the hello's region where the
 * hello was accepted, and nothing anywhere else.  All others are asked one option at a time, as the
 * protocol wants it.
 *
 * Threads: the owner's.  Nothing waits, and nothing is allocated: what a server says is bounded by
 * the struct, how often it says something by a count.  It trusts nothing.
 * Invariant: answers come in the order of `asked`; a state of NBD_TALK_TLS or NBD_TALK_OVER means
 * that every byte that came was looked at.
 */
#ifndef WEFT_FABRIC_NBD_CLIENT_HANDSHAKE_H
#define WEFT_FABRIC_NBD_CLIENT_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/nbd/proto.h"
#include "fabric/nbd/stream.h"
#include "fabric/transport.h"

enum nbd_talk_state {
	NBD_TALK_GREETING, /* waits for the server's greeting */
	NBD_TALK_ANSWERS,  /* waits for answers to what was asked */
	NBD_TALK_TLS,      /* waits for the owner to do TLS's handshake: nbd_talk_secured() */
	NBD_TALK_OVER,     /* it succeeded: the transmission phase, or the question's end */
};

enum {
	/* An option's answer: a name, or a text, and what stands before it. */
	NBD_TALK_ANSWER_BYTES = NBD_MAX_STRING + 64,
	/* A server may send so many answers; a handshake has a dozen. */
	NBD_TALK_MAX_ANSWERS = 128,
	NBD_TALK_MAX_ASKED = 4,
	NBD_TALK_TEXT = 256,
	NBD_TALK_OUT_BYTES =
		4 + 4 * NBD_OPTION_BYTES + 2 * NBD_MAX_STRING + WEFT_CONTEXT_MAX + 64,
};

/* How the server answered an option at last. */
struct nbd_talk_answer {
	uint32_t type;            /* NBD_REP_…; 0: not yet */
	char text[NBD_TALK_TEXT]; /* an error's, for people: printable */
};

/* What a handshake is for. */
struct nbd_talk_wish {
	const char *region;      /* copied */
	struct weft_hello hello; /* anonymous: any server; otherwise a weft donor is expected */
	bool at_once; /* a donor's: options leave without waiting.  Not where a server has hung up
		       * on it: it may be another's */
	bool tls;     /* STARTTLS first: without it nothing is said or asked */
	bool only_ask; /* a donor's: its welcome alone; nothing is granted */
};

struct nbd_talk {
	enum nbd_talk_state state;
	/* What it found out; info when it is over, and not only asked. */
	struct weft_error error;
	struct tp_info info; /* all but transport and path */
	bool structured;     /* structured replies were agreed on */
	bool has_welcome;
	struct weft_welcome welcome;

	/* The machine's own. */
	struct nbd_talk_wish wish;
	bool secured, no_zeroes, has_export, has_sizes;
	bool went_by_session; /* GO named WEFT_EXPORT_SESSION */
	unsigned nr_welcomes, nr_answers;
	uint64_t size_bytes;
	uint16_t flags;
	uint32_t min, preferred, max; /* block sizes; 0: not told */
	struct nbd_talk_answer tls, structured_reply, context, go, inquiry;
	unsigned nr_asked;
	uint32_t asked[NBD_TALK_MAX_ASKED]; /* in flight, oldest first */
	char region[NBD_MAX_STRING + 1];
	size_t out_len, out_sent, in_len;
	uint8_t out[NBD_TALK_OUT_BYTES];
	uint8_t in[NBD_OPTION_REPLY_BYTES + NBD_TALK_ANSWER_BYTES];
};

/* 0, or -ENAMETOOLONG with talk->error set. */
int nbd_talk_begin(struct nbd_talk *talk, const struct nbd_talk_wish *wish);
/* Wipes what is secret. */
void nbd_talk_end(struct nbd_talk *talk);

/*
 * Sends and receives what is possible without waiting.  1: the state is NBD_TALK_TLS or
 * NBD_TALK_OVER; 0: *ret_events of poll(2) are waited for; -errno with talk->error set: as
 * tp_connect() says, -ECONNRESET: the server hung up.
 */
int nbd_talk_move(struct nbd_talk *talk, struct nbd_stream *stream, short *ret_events);
/* TLS's handshake is done: all that was agreed on before is forgotten, and it goes on. */
void nbd_talk_secured(struct nbd_talk *talk);

/*
 * Looks at n bytes that the server sent: what nbd_talk_move() does with them, for tests.  As above,
 * 0: more bytes are waited for.
 */
int nbd_talk_take(struct nbd_talk *talk, const uint8_t *bytes, size_t n);

/*
 * Sizes as a server names them, into info: min, preferred and max are 0 where it does not.  0;
 * -EPROTO: they cannot be; -ENODATA: the region is empty.  err is set.
 */
int nbd_talk_sizes(struct tp_info *info, const char *region, uint64_t size_bytes, uint32_t min,
	uint32_t preferred, uint32_t max, struct weft_error *err);

#endif
