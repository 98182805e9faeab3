/* SPDX-License-Identifier: MIT */
/*
 * Frames of QUIC (RFC 9000, 19), as far as their lengths go; see frames.h.  What is malformed ends
 * the walk: ngtcp2 refuses it, and what stands behind it.
 */
#include "transports/quic/frames.h"

#include "fabric/base/util.h"

enum { /* types that are more than a row of fields */
	PADDING = 0x00,
	ACK = 0x02,
	ACK_ECN = 0x03,
	STREAM = 0x08, /* with the bits below */
	STREAM_LEN = 0x02,
	STREAM_OFF = 0x04,
	NEW_CONNECTION_ID = 0x18,
	TOKEN_BYTES = 16,
};

/* The others: n: a number; b: a number, and so many bytes; 8: eight bytes. */
static const char *const fields[] = {
	[0x01] = "",    /* PING */
	[0x04] = "nnn", /* RESET_STREAM */
	[0x05] = "nn",  /* STOP_SENDING */
	[0x06] = "nb",  /* CRYPTO */
	[0x07] = "b",   /* NEW_TOKEN */
	[0x10] = "n",   /* MAX_DATA */
	[0x11] = "nn",  /* MAX_STREAM_DATA */
	[0x12] = "n",   /* MAX_STREAMS, … */
	[0x13] = "n",   /* … and of one direction */
	[0x14] = "n",   /* DATA_BLOCKED */
	[0x15] = "nn",  /* STREAM_DATA_BLOCKED */
	[0x16] = "n",   /* STREAMS_BLOCKED, … */
	[0x17] = "n",   /* … and of one direction */
	[0x19] = "n",   /* RETIRE_CONNECTION_ID */
	[0x1a] = "8",   /* PATH_CHALLENGE */
	[0x1b] = "8",   /* PATH_RESPONSE */
	[0x1c] = "nnb", /* CONNECTION_CLOSE, … */
	[0x1d] = "nb",  /* … and the application's */
	[0x1e] = "",    /* HANDSHAKE_DONE */
};

struct reader {
	const uint8_t *at, *end; /* the same: it is over */
};

static void skip(struct reader *r, uint64_t len)
{
	r->at = len > (uint64_t)(r->end - r->at) ? r->end : r->at + len;
}

/* A variable-length integer (RFC 9000, 16); cut short: 0, and it is over. */
static uint64_t number(struct reader *r)
{
	uint64_t n = 0;

	if (r->at == r->end)
		return 0;
	const unsigned len = 1U << (r->at[0] >> 6);
	if (len > r->end - r->at) {
		r->at = r->end;
		return 0;
	}
	n = r->at[0] & 0x3f;
	for (unsigned i = 1; i < len; i++)
		n = n << 8 | r->at[i];
	r->at += len;
	return n;
}

static void skip_ack(struct reader *r, bool ecn)
{
	number(r);
	number(r);
	const uint64_t ranges = number(r);
	number(r);
	for (uint64_t i = 0; i < ranges && r->at < r->end; i++) {
		number(r);
		number(r);
	}
	for (unsigned i = 0; i < 3 && ecn; i++)
		number(r);
}

static void skip_stream(struct reader *r, uint8_t type)
{
	number(r);
	if (type & STREAM_OFF)
		number(r);
	skip(r, type & STREAM_LEN ? number(r) : UINT64_MAX);
}

static void skip_fields(struct reader *r, const char *field)
{
	for (; *field; field++)
		if (*field == 'n')
			number(r);
		else
			skip(r, *field == 'b' ? number(r) : 8);
}

static void read_new_id(struct reader *r, struct quic_frames_ids *io)
{
	const uint64_t nr = number(r), retire_prior_to = number(r);

	io->highest = weft_max(io->highest, nr);
	io->retire = io->retire || retire_prior_to > 0;
	skip(r, (r->at < r->end ? 1U + r->at[0] : 0U) + TOKEN_BYTES);
}

struct quic_frames_ids quic_frames_ids(const uint8_t *payload, size_t len)
{
	struct reader r = {payload, payload + len};
	struct quic_frames_ids ret = {0};

	while (r.at < r.end) {
		const uint8_t type = *r.at++;

		if (type == PADDING)
			continue;
		if (type == ACK || type == ACK_ECN)
			skip_ack(&r, type == ACK_ECN);
		else if (type == NEW_CONNECTION_ID)
			read_new_id(&r, &ret);
		else if (type < WEFT_ARRAY_LEN(fields) && fields[type])
			skip_fields(&r, fields[type]);
		else if (type & STREAM) /* as ngtcp2 0.12 has it, more than 0x08 to 0x0f */
			skip_stream(&r, type);
		else
			break;
	}
	return ret;
}
