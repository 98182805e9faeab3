/* SPDX-License-Identifier: MIT */
/*
 * Which connection ids payloads of QUIC give, and whether they tell the peer to retire others,
 * wherever that stands in them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "transports/quic/frames.h"

#define ID(retire_prior_to) "\x18\x09" retire_prior_to "\x08" "id bytes" "of 16 bytes....."

struct bytes {
	const char *at;
	size_t len;
};
#define BYTES(text) {text, sizeof(text) - 1}

/* Frames of each kind, whole. */
static const struct bytes frames[] = {
	BYTES(""),
	BYTES("\x00\x00\x00"),                             /* PADDING */
	BYTES("\x01"),                                     /* PING */
	BYTES("\x02\x40\x80\x00\x02\x01\x02\x03\x04\x05"), /* ACK, of three ranges */
	BYTES("\x03\x05\x00\x00\x01\x18\x00\x18"),         /* … with ECN */
	BYTES("\x04\x00\x18\x18"),                         /* RESET_STREAM */
	BYTES("\x05\x04\x18"),                             /* STOP_SENDING */
	BYTES("\x06\x80\x00\x00\x00\x02\x18\x18"),         /* CRYPTO */
	BYTES("\x07\x01\x18"),                             /* NEW_TOKEN */
	BYTES("\x0a\x04\x02\x18\x09"),                     /* STREAM, with its length */
	BYTES("\x0f\x04\xc0\x00\x00\x00\x00\x00\x00\x18\x01\x18"), /* … offset, and the end */
	BYTES("\x10\x18"),                                 /* MAX_DATA */
	BYTES("\x11\x04\x18"),                             /* MAX_STREAM_DATA */
	BYTES("\x12\x18\x13\x18"),                         /* MAX_STREAMS */
	BYTES("\x14\x18"),                                 /* DATA_BLOCKED */
	BYTES("\x15\x04\x18"),                             /* STREAM_DATA_BLOCKED */
	BYTES("\x16\x18\x17\x18"),                         /* STREAMS_BLOCKED */
	BYTES(ID("\x00")),                                 /* NEW_CONNECTION_ID */
	BYTES("\x19\x18"),                                 /* RETIRE_CONNECTION_ID */
	BYTES("\x1a" "question"),                           /* PATH_CHALLENGE */
	BYTES("\x1b" "response"),                           /* PATH_RESPONSE */
	BYTES("\x1c\x0a\x18\x02\x18\x18"),                 /* CONNECTION_CLOSE */
	BYTES("\x1d\x0a\x01\x18"),                         /* … of the application */
	BYTES("\x1e"),                                     /* HANDSHAKE_DONE */
};

/* In memory of its own, so that a byte too many is found. */
static struct quic_frames_ids ids_of(const struct bytes *first, const struct bytes *then,
	size_t less)
{
	const size_t len = first->len + then->len - less;
	uint8_t *payload = malloc(len + 1), *at = payload + 1;

	assert_non_null(payload);
	for (size_t i = 0; i < len; i++)
		at[i] = (uint8_t)(i < first->len ? first->at[i] : then->at[i - first->len]);
	const struct quic_frames_ids ids = quic_frames_ids(at, len);
	free(payload);
	return ids;
}

static bool retires(const struct bytes *first, const struct bytes *then, size_t less)
{
	return ids_of(first, then, less).retire;
}

static void ids_are_retired_behind_frames_of_each_kind(void **state)
{
	static const struct bytes keeps = BYTES(ID("\x00")), some = BYTES(ID("\x01")),
				  many = BYTES(ID("\x40\x09")),
				  high = BYTES("\x18\x52\x34\x00\x08" "id bytes"
					       "of 16 bytes.....");

	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		assert_false(retires(&frames[i], &keeps, 0));
		assert_true(retires(&frames[i], &some, 0));
		assert_true(retires(&frames[i], &many, 0));
		assert_int_equal(ids_of(&frames[i], &keeps, 0).highest, 9);
		assert_int_equal(ids_of(&frames[i], &high, 0).highest, 0x1234);
		assert_int_equal(ids_of(&high, &keeps, 0).highest, 0x1234);
		for (size_t less = 1; less <= frames[i].len + keeps.len; less++)
			assert_false(retires(&frames[i], &keeps, less));
	}
}

static void bytes_of_a_stream_are_no_frames(void **state)
{
	static const struct bytes to_the_end = BYTES("\x08\x04"), id = BYTES(ID("\x09"));
	static const struct bytes within = BYTES("\x0a\x04\x1c" ID("\x09")), nothing = BYTES("");

	assert_false(retires(&to_the_end, &id, 0));
	assert_false(retires(&within, &nothing, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_are_retired_behind_frames_of_each_kind),
		cmocka_unit_test(bytes_of_a_stream_are_no_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
