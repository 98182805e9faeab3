/* SPDX-License-Identifier: MIT */
/*
 * The NBD engine, client side: the handshake, from the connected socket to the transmission phase,
 * or to the end of a question.  A state machine that takes and makes bytes; the stream's owner
 * waits, and keeps the time (proto, "Handshake phase").
 *
 * To a weft donor, options leave without waiting for the greeting or for earlier answers, which
 * takes one round trip.  A borrower whose hello was refused must not get a grant.  So such a GO
 * names no region, but WEFT_EXPORT_SESSION (hello.h): that means the hello's region if the hello
 * was accepted, and nothing otherwise.  Other servers are asked one option at a time, as the
 * protocol wants it.
 *
 * Threads: the owner's.  Nothing waits, and nothing is allocated: the struct bounds the length of a
 * server's answers, and a count their number.  No byte of the server is trusted.  Invariant:
 * answers come in the order of `asked`; a state of NBD_TALK_TLS or NBD_TALK_OVER means that every
 * byte that came was looked at.
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
	/* it succeeded: the transmission phase, the question's end, or (only_greet) the options */
	NBD_TALK_OVER,
};

enum {
	/* An option's answer: a name, or a text, and the fields before it. */
	NBD_TALK_ANSWER_BYTES = NBD_MAX_STRING + 64,
	/* A server may send so many answers; a handshake has a dozen. */
	NBD_TALK_MAX_ANSWERS = 128,
	NBD_TALK_MAX_ASKED = 4,
	NBD_TALK_TEXT = 512, /* a refusal may begin with a place */
	NBD_TALK_OUT_BYTES =
		4 + 4 * NBD_OPTION_BYTES + 2 * NBD_MAX_STRING + WEFT_CONTEXT_MAX + 64,
};

/* The server's final answer to an option. */
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
	bool simple;   /* no structured replies are asked for; only where hello is anonymous */
	/* nothing is asked for but TLS: the owner asks (client-question.h).  hello is anonymous */
	bool only_greet;
};

struct nbd_talk {
	enum nbd_talk_state state;
	/*
	 * The results.  info: once it is over, unless it was only a question; info.moving also with
	 * the errors that name a place.
	 */
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
/* Wipes the secrets. */
void nbd_talk_end(struct nbd_talk *talk);

/*
 * Sends and receives what is possible without waiting.  1: the state is NBD_TALK_TLS or
 * NBD_TALK_OVER; 0: *ret_events of poll(2) are waited for; -errno with talk->error set: as
 * tp_connect() says, -ECONNRESET: the server hung up.
 */
int nbd_talk_move(struct nbd_talk *talk, struct nbd_stream *stream, short *ret_events);
/* TLS's handshake is done: forgets all that was agreed on before, and goes on. */
void nbd_talk_secured(struct nbd_talk *talk);

/*
 * Handles n bytes of the server as nbd_talk_move() does; for tests.  Returns as above; 0: more
 * bytes are needed.
 */
int nbd_talk_take(struct nbd_talk *talk, const uint8_t *bytes, size_t n);

/*
 * Checks a server's sizes and stores them in info; min, preferred and max are 0 if the server did
 * not say them.  0; with err set -EPROTO: they are impossible; -ENODATA: the region is empty.
 */
int nbd_talk_sizes(struct tp_info *info, const char *region, uint64_t size_bytes, uint32_t min,
	uint32_t preferred, uint32_t max, struct weft_error *err);

#endif
