/* SPDX-License-Identifier: MIT */
/*
 * The messages of the verbs transport: what is packed is unpacked; what a peer could send is
 * refused or harmless.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "transports/verbs/messages.h"
#include "transports/verbs/proto.h"

static struct verbs_msg example(uint8_t type)
{
	struct verbs_msg msg = {.type = type};

	switch (type) {
	case VERBS_HELLO:
		memset(msg.hello.hello.id, 0x5a, WEFT_ID_BYTES);
		msg.hello.hello.generation = UINT64_C(0x123456789abcdef0);
		msg.hello.hello.mode = WEFT_MODE_WRITE;
		msg.hello.hello.epoch = 77;
		snprintf(msg.hello.hello.name, sizeof(msg.hello.hello.name), "alice");
		msg.hello.sealed[31] = 9;
		memset(msg.hello.region, 'r', VERBS_REGION_MAX);
		break;
	case VERBS_WAIT:
		msg.wait.done_bytes = 1;
		msg.wait.total_bytes = 2;
		break;
	case VERBS_GRANT:
		msg.grant.size_bytes = (UINT64_C(5) << 30) + 1;
		msg.grant.epoch = 3;
		msg.grant.generation = 4;
		msg.grant.lease_ms = 30000;
		msg.grant.flags = VERBS_GRANT_READ_ONLY;
		msg.grant.chunk_bytes = UINT64_C(1) << 29;
		msg.grant.nr_chunks = 11;
		msg.grant.epoch_word = (struct verbs_chunk){UINT64_C(0x7f0012345678), 0xdeadbeef};
		msg.grant.beat_word = (struct verbs_chunk){1, 2};
		memset(msg.grant.token, 7, sizeof(msg.grant.token));
		snprintf(msg.grant.offers, sizeof(msg.grant.offers), "tcp,rdma:20049");
		break;
	case VERBS_REFUSE:
		msg.refuse.error = -EBUSY;
		snprintf(msg.refuse.text, sizeof(msg.refuse.text), "region 'r' is held");
		break;
	case VERBS_GET_CHUNKS:
		msg.get_chunks.first = 12;
		break;
	case VERBS_CHUNKS:
		msg.chunks.first = 256;
		msg.chunks.nr = VERBS_CHUNKS_PER_MESSAGE;
		for (unsigned i = 0; i < msg.chunks.nr; i++)
			msg.chunks.chunk[i] = (struct verbs_chunk){UINT64_C(0x100000000) * i, i};
		break;
	case VERBS_REQUEST:
		msg.cookie = 5;
		msg.request.kind = VERBS_ZERO;
		msg.request.no_hole = true;
		msg.request.off = UINT64_MAX;
		msg.request.len = UINT64_MAX;
		break;
	case VERBS_BYE:
		msg.bye.changed = true;
		break;
	case VERBS_REPLY:
		msg.cookie = 5;
		msg.reply.error = -ENOSPC;
		break;
	case VERBS_START:
		msg.start.version = VERBS_PROOF_VERSION;
		memset(msg.start.nonce, 0x5b, sizeof(msg.start.nonce));
		memset(msg.start.identity, 'i', VERBS_IDENTITY_MAX);
		break;
	case VERBS_CHALLENGE:
		memset(msg.challenge.nonce, 0x5c, sizeof(msg.challenge.nonce));
		msg.challenge.session = UINT64_C(0x0123456789abcdef);
		break;
	default:
		break;
	}
	return msg;
}

static void every_message_survives_the_trip(void **state)
{
	for (uint8_t type = VERBS_HELLO; type <= VERBS_QUIET; type++) {
		uint8_t buf[VERBS_MSG_MAX], again[VERBS_MSG_MAX];
		struct verbs_msg msg = example(type), back = {0};
		size_t len = verbs_pack(&msg, buf);

		assert_in_range(len, 16, VERBS_MSG_MAX);
		assert_int_equal(verbs_unpack(buf, len, &back), 0);
		assert_int_equal(back.type, type);
		assert_int_equal(back.cookie, msg.cookie);
		assert_int_equal(verbs_pack(&back, again), len);
		assert_memory_equal(buf, again, len);
	}
}

static void fields_arrive_as_they_left(void **state)
{
	uint8_t buf[VERBS_MSG_MAX];
	struct verbs_msg msg = example(VERBS_GRANT), back;

	assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), 0);
	assert_int_equal(back.grant.size_bytes, msg.grant.size_bytes);
	assert_int_equal(back.grant.epoch_word.addr, msg.grant.epoch_word.addr);
	assert_int_equal(back.grant.epoch_word.rkey, 0xdeadbeef);
	assert_string_equal(back.grant.offers, "tcp,rdma:20049");
	msg = example(VERBS_HELLO);
	assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), 0);
	assert_int_equal(strlen(back.hello.region), VERBS_REGION_MAX);
	assert_int_equal(back.hello.hello.mode, WEFT_MODE_WRITE);
	assert_string_equal(back.hello.hello.name, "alice");
	msg = example(VERBS_REFUSE);
	assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), 0);
	assert_int_equal(back.refuse.error, -EBUSY);
	assert_string_equal(back.refuse.text, "region 'r' is held");
}

static void every_other_length_is_refused(void **state)
{
	for (uint8_t type = VERBS_HELLO; type <= VERBS_QUIET; type++) {
		uint8_t buf[VERBS_MSG_MAX + 1] = {0};
		struct verbs_msg msg = example(type), back;
		size_t len = verbs_pack(&msg, buf);

		for (size_t n = 0; n <= VERBS_MSG_MAX + 1; n++) {
			/* As it came, and with a head that claims the same. */
			if (n == len)
				continue;
			assert_int_equal(verbs_unpack(buf, n, &back), -EPROTO);
			if (n >= 16) {
				uint8_t claim[VERBS_MSG_MAX + 1];

				/* A REPLY with hashes is one, too. */
				if (type == VERBS_REPLY && n > len && (n - len) % 16 == 0 &&
					n - len <= sizeof(msg.reply.hashes))
					continue;
				memcpy(claim, buf, sizeof(claim));
				claim[6] = (uint8_t)(n >> 8);
				claim[7] = (uint8_t)n;
				assert_int_equal(verbs_unpack(claim, n, &back), -EPROTO);
			}
		}
	}
}

static void the_part_of_a_striped_device_is_a_field(void **state)
{
	static const struct weft_stripe bad[] = {{0, 2, 65536}, {3, 2, 65536}, {1, 2, 0},
		{1, 1, 65536}, {1, WEFT_STRIPE_MAX + 1, 1}};
	struct verbs_msg msg = example(VERBS_HELLO), back;
	struct weft_hello *hello = &msg.hello.hello;
	uint8_t buf[VERBS_MSG_MAX];

	msg.hello.region[4] = '\0';
	hello->epoch = 0;
	hello->stripe = (struct weft_stripe){2, 16, UINT64_C(1) << 40};
	hello->new_contents = true;
	size_t len = verbs_pack(&msg, buf);
	assert_int_equal(len, 148 + 4 + 4 + 16 + 4);
	/* As the manual has it. */
	static const uint8_t fields[] = {0, 5, 0, 16, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 1, 0, 0, 0, 0,
		0, 0, 6, 0, 0};
	assert_memory_equal(buf + 148 + 4, fields, sizeof(fields));
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_true(weft_stripe_equal(&back.hello.hello.stripe, &hello->stripe) &&
		back.hello.hello.new_contents);
	/* Whoever goes on with contents does not give them up. */
	hello->epoch = 77;
	assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), -EPROTO);
	hello->new_contents = false;
	assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), 0);
	assert_true(back.hello.hello.epoch == 77 && back.hello.hello.stripe.count == 16 &&
		!back.hello.hello.new_contents);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		hello->stripe = bad[i];
		assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), -EPROTO);
	}
	/* Without a part there is nothing to be set anew; version 0 has no fields. */
	hello->stripe = (struct weft_stripe){0};
	hello->new_contents = true;
	assert_int_equal(verbs_pack(&msg, buf), 148 + 4);
	hello->stripe = weft_stripe_whole;
	hello->version0 = true;
	assert_int_equal(verbs_pack(&msg, buf), 148 + 4);
}

static void who_follows_says_so(void **state)
{
	struct verbs_msg msg = example(VERBS_HELLO), back;
	uint8_t buf[VERBS_MSG_MAX];

	msg.hello.hello.follows = false;
	const size_t len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_false(back.hello.hello.follows);
	msg.hello.hello.follows = true;
	assert_int_equal(verbs_pack(&msg, buf), len + 4);
	static const uint8_t field[] = {0, 9, 0, 0};
	assert_memory_equal(buf + len, field, sizeof(field));
	assert_int_equal(verbs_unpack(buf, len + 4, &back), 0);
	assert_true(back.hello.hello.follows);
	/* Once is enough, and nothing is in it. */
	memcpy(buf + len + 4, field, sizeof(field));
	buf[6] = (uint8_t)((len + 8) >> 8);
	buf[7] = (uint8_t)(len + 8);
	assert_int_equal(verbs_unpack(buf, len + 8, &back), -EPROTO);
	msg.hello.hello.version0 = true;
	msg.hello.hello.epoch = 0;
	assert_int_equal(verbs_pack(&msg, buf), 148 + strlen(msg.hello.region));
}

static void who_reports_says_so(void **state)
{
	struct verbs_msg msg = example(VERBS_HELLO), back;
	uint8_t buf[VERBS_MSG_MAX];
	const size_t len = verbs_pack(&msg, buf);

	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_false(back.hello.reports);
	msg.hello.reports = true;
	assert_int_equal(verbs_pack(&msg, buf), len + 4);
	static const uint8_t field[] = {0, 11, 0, 0};
	assert_memory_equal(buf + len, field, sizeof(field));
	assert_int_equal(verbs_unpack(buf, len + 4, &back), 0);
	assert_true(back.hello.reports && back.hello.unknown == 0);
	memcpy(buf + len + 4, field, sizeof(field));
	buf[6] = (uint8_t)((len + 8) >> 8);
	buf[7] = (uint8_t)(len + 8);
	assert_int_equal(verbs_unpack(buf, len + 8, &back), -EPROTO);
}

/* The example with a field behind it, as it comes. */
static int unpack_with(uint16_t number, const void *value, uint16_t len, struct verbs_msg *ret)
{
	struct verbs_msg msg = example(VERBS_GRANT);
	uint8_t buf[VERBS_MSG_MAX];
	size_t n = verbs_pack(&msg, buf);
	const uint8_t head[4] = {(uint8_t)(number >> 8), (uint8_t)number, (uint8_t)(len >> 8),
		(uint8_t)len};

	memcpy(buf + n, head, sizeof(head));
	memcpy(buf + n + sizeof(head), value, len);
	n += sizeof(head) + len;
	buf[6] = (uint8_t)(n >> 8);
	buf[7] = (uint8_t)n;
	return verbs_unpack(buf, n, ret);
}

static void a_grant_of_a_region_on_its_way_says_where(void **state)
{
	static const uint8_t said[13] = {0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3};
	static const char place[] = "weft://b:1/r", bad[] = "weft://b:1/r r";
	char longest[WEFT_PLACE_MAX + 1];
	struct verbs_msg back;

	assert_int_equal(unpack_with(VERBS_FIELD_SAID, said, 12, &back), 0);
	assert_true(back.grant.has_said && back.grant.said.addr == 0x102 &&
		back.grant.said.rkey == 3 && !back.grant.moving[0]);
	assert_int_equal(unpack_with(VERBS_FIELD_SAID, said, 11, &back), -EPROTO);
	assert_int_equal(unpack_with(VERBS_FIELD_SAID, said, 13, &back), -EPROTO);
	assert_int_equal(unpack_with(VERBS_FIELD_MOVING, place, 12, &back), 0);
	assert_string_equal(back.grant.moving, place);
	assert_false(back.grant.has_said);
	/* An earlier message leaves nothing in one that does not have the fields. */
	assert_int_equal(unpack_with(VERBS_FIELD_RESTORABLE, "", 0, &back), 0);
	assert_true(!back.grant.has_said && !back.grant.moving[0]);
	assert_int_equal(unpack_with(VERBS_FIELD_MOVING, bad, 14, &back), -EPROTO);
	assert_int_equal(unpack_with(VERBS_FIELD_MOVING, place, 0, &back), -EPROTO);
	assert_int_equal(unpack_with(VERBS_FIELD_MOVING, "nbd://b/r", 9, &back), -EPROTO);
	memset(longest, 'x', sizeof(longest));
	memcpy(longest, place, 7);
	assert_int_equal(unpack_with(VERBS_FIELD_MOVING, longest, WEFT_PLACE_MAX - 1, &back), 0);
	assert_int_equal(strlen(back.grant.moving), WEFT_PLACE_MAX - 1);
	assert_int_equal(unpack_with(VERBS_FIELD_MOVING, longest, WEFT_PLACE_MAX, &back), -EPROTO);
}

static void version_0_has_no_fields(void **state)
{
	struct verbs_msg msg = example(VERBS_HELLO), back;
	uint8_t buf[VERBS_MSG_MAX];

	msg.hello.region[4] = '\0';
	msg.hello.hello.granted = 99;
	msg.hello.hello.wrote = true;
	size_t len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_true(back.hello.hello.granted == 99 && back.hello.hello.wrote &&
		!back.hello.hello.version0 && back.hello.unknown == 0);
	/* A field that nobody knows: skipped, or named. */
	for (unsigned must = 0; must <= 1; must++) {
		uint8_t more[] = {must ? 0x80 : 0, 200, 0, 3, 'a', 'b', 'c'};
		uint8_t longer[VERBS_MSG_MAX];
		size_t n = len + sizeof(more);

		memcpy(longer, buf, len);
		memcpy(longer + len, more, sizeof(more));
		longer[6] = (uint8_t)(n >> 8);
		longer[7] = (uint8_t)n;
		assert_int_equal(verbs_unpack(longer, n, &back), 0);
		assert_int_equal(back.hello.unknown, must ? 200 : 0);
		/* 0 is no number: that it is needed could not be told. */
		longer[len + 1] = 0;
		assert_true(verbs_unpack(longer, n, &back) < 0);
	}
	msg.hello.hello.version0 = true;
	assert_int_equal(verbs_pack(&msg, buf), 148 + 4);
	assert_int_equal(verbs_unpack(buf, 148 + 4, &back), 0);
	assert_true(back.hello.hello.version0 && back.hello.hello.granted == 0 &&
		back.hello.hello.epoch == 77);
	msg.hello.hello.epoch = 0;
	msg.hello.hello.expect = 5;
	len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_true(back.hello.hello.epoch == 5);
	msg.hello.hello.version0 = false;
	len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_true(back.hello.hello.epoch == 0 && back.hello.hello.expect == 5);

	msg = example(VERBS_GRANT);
	msg.grant.restorable = true;
	len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_true(back.grant.restorable);
	msg.grant.version0 = true;
	assert_int_equal(verbs_pack(&msg, buf), 164);

	msg = example(VERBS_REFUSE);
	msg.refuse.error = -WEFT_ESUPERSEDED;
	len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_int_equal(back.refuse.error, -WEFT_ESUPERSEDED);
	msg.refuse.version0 = true;
	len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_int_equal(back.refuse.error, -ESTALE);
}

static void another_version_is_said_to_be_one(void **state)
{
	uint8_t buf[VERBS_MSG_MAX];
	struct verbs_msg msg = example(VERBS_BYE), back;
	size_t len = verbs_pack(&msg, buf);

	buf[4] = VERBS_VERSION + 1;
	assert_int_equal(verbs_unpack(buf, len, &back), -EPROTONOSUPPORT);
}

static int unpack_grant_with(void (*spoil)(struct verbs_msg *msg))
{
	uint8_t buf[VERBS_MSG_MAX];
	struct verbs_msg msg = example(VERBS_GRANT), back;

	spoil(&msg);
	return verbs_unpack(buf, verbs_pack(&msg, buf), &back);
}

static void no_size(struct verbs_msg *msg) { msg->grant.size_bytes = 0; }
static void huge_size(struct verbs_msg *msg) { msg->grant.size_bytes = UINT64_MAX; }
static void no_chunk(struct verbs_msg *msg) { msg->grant.chunk_bytes = 0; }
static void few_chunks(struct verbs_msg *msg) { msg->grant.nr_chunks = 10; }
static void many_chunks(struct verbs_msg *msg) { msg->grant.nr_chunks = 12; }
static void flags(struct verbs_msg *msg) { msg->grant.flags = 1u << 31; }
static void offers(struct verbs_msg *msg) { msg->grant.offers[0] = '\x1b'; }
static void too_many(struct verbs_msg *msg)
{
	msg->grant.chunk_bytes = 4096;
	msg->grant.nr_chunks = VERBS_MAX_CHUNKS + 1;
	msg->grant.size_bytes = UINT64_C(4096) * msg->grant.nr_chunks;
}

static void a_grant_that_does_not_add_up_is_refused(void **state)
{
	assert_int_equal(unpack_grant_with(no_size), -EPROTO);
	assert_int_equal(unpack_grant_with(huge_size), -EPROTO);
	assert_int_equal(unpack_grant_with(no_chunk), -EPROTO);
	assert_int_equal(unpack_grant_with(few_chunks), -EPROTO);
	assert_int_equal(unpack_grant_with(many_chunks), -EPROTO);
	assert_int_equal(unpack_grant_with(too_many), -EPROTO);
	assert_int_equal(unpack_grant_with(flags), -EPROTO);
	assert_int_equal(unpack_grant_with(offers), -EPROTO);
}

static void hashes_are_whole_and_a_question_has_nothing_else(void **state)
{
	uint8_t buf[VERBS_MSG_MAX];
	struct verbs_msg msg = {.type = VERBS_REPLY}, back;

	msg.reply.nr_hashes = 2;
	memset(msg.reply.hashes, 7, 2 * WEFT_HASH_BYTES);
	size_t len = verbs_pack(&msg, buf);
	assert_int_equal(len, 20 + 2 * WEFT_HASH_BYTES);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_int_equal(back.reply.nr_hashes, 2);
	assert_memory_equal(back.reply.hashes, msg.reply.hashes, 2 * WEFT_HASH_BYTES);
	buf[19] = 3; /* hashes beside an error */
	assert_int_equal(verbs_unpack(buf, len, &back), -EPROTO);
	buf[19] = 0;
	buf[7]--; /* the head's length */
	assert_int_equal(verbs_unpack(buf, len - 1, &back), -EPROTO);
	len = 20 + (VERBS_HASHES_PER_MESSAGE + 1) * WEFT_HASH_BYTES;
	buf[6] = (uint8_t)(len >> 8);
	buf[7] = (uint8_t)len;
	assert_int_equal(verbs_unpack(buf, len, &back), -EPROTO);

	msg = (struct verbs_msg){.type = VERBS_REQUEST};
	msg.request.kind = VERBS_HASH;
	msg.request.hashing.scheme = 9;
	len = verbs_pack(&msg, buf);
	assert_int_equal(len, 80);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_int_equal(back.request.hashing.scheme, 9);
	for (unsigned at = 17; at < 24; at++) { /* no_hole, more, nr_ranges */
		if (at == 19)
			continue;
		buf[at] = 1;
		assert_int_equal(verbs_unpack(buf, len, &back), -EPROTO);
		buf[at] = 0;
	}
	buf[7]--;
	assert_int_equal(verbs_unpack(buf, len - 1, &back), -EPROTO);
}

static void ranges_belong_to_a_flush_and_are_counted(void **state)
{
	uint8_t buf[VERBS_MSG_MAX];
	struct verbs_msg msg = {.type = VERBS_REQUEST, .cookie = 3}, back;

	msg.request.kind = VERBS_FLUSH;
	msg.request.more = true;
	msg.request.nr_ranges = VERBS_RANGES_PER_MESSAGE;
	for (unsigned i = 0; i < VERBS_RANGES_PER_MESSAGE; i++)
		msg.request.range[i] = (struct verbs_range){.off = UINT64_MAX - i, .len = i};
	size_t len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_true(back.request.more);
	assert_int_equal(back.request.nr_ranges, VERBS_RANGES_PER_MESSAGE);
	for (unsigned i = 0; i < VERBS_RANGES_PER_MESSAGE; i++)
		assert_true(back.request.range[i].off == UINT64_MAX - i &&
			back.request.range[i].len == i);
	/* One more than there is, one less, and more than there may be. */
	uint32_t *nr = (uint32_t *)(buf + 20);
	assert_int_equal(be32toh(*nr), VERBS_RANGES_PER_MESSAGE);
	const uint32_t wrong[] = {VERBS_RANGES_PER_MESSAGE + 1, VERBS_RANGES_PER_MESSAGE - 1, 0,
		UINT32_MAX, 1u << 28};
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(wrong); i++) {
		*nr = htobe32(wrong[i]);
		assert_int_equal(verbs_unpack(buf, len, &back), -EPROTO);
	}
	msg.request.nr_ranges = 0;
	msg.request.kind = VERBS_ZERO;
	assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), -EPROTO);
}

static void a_refusal_cannot_drive_a_terminal(void **state)
{
	uint8_t buf[VERBS_MSG_MAX];
	struct verbs_msg msg = example(VERBS_REFUSE), back;

	snprintf(msg.refuse.text, sizeof(msg.refuse.text), "a\x1b[2Jb\nc");
	assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), 0);
	assert_string_equal(back.refuse.text, "a?[2Jb?c");
}

static void private_data_is_checked_and_may_be_padded(void **state)
{
	uint8_t token[VERBS_TOKEN_BYTES], buf[VERBS_PROVED_BYTES] = {0};
	struct verbs_private back;

	memset(token, 3, sizeof(token));
	verbs_pack_private(VERBS_DATA, token, buf);
	assert_int_equal(verbs_unpack_private(buf, sizeof(buf), &back), 0);
	assert_int_equal(back.purpose, VERBS_DATA);
	assert_memory_equal(token, back.token, sizeof(token));
	for (size_t n = 0; n < VERBS_PRIVATE_BYTES; n++)
		assert_int_equal(verbs_unpack_private(buf, n, &back), -EPROTO);
	assert_int_equal(verbs_unpack_private(NULL, 56, &back), -EPROTO);
	buf[5] = 9;
	assert_int_equal(verbs_unpack_private(buf, sizeof(buf), &back), -EPROTO);
	buf[4] = 9;
	assert_int_equal(verbs_unpack_private(buf, sizeof(buf), &back), -EPROTONOSUPPORT);
	/* A control connection has no token to give away. */
	verbs_pack_private(VERBS_CONTROL, token, buf);
	assert_int_equal(verbs_unpack_private(buf, sizeof(buf), &back), 0);
	for (size_t i = 0; i < sizeof(back.token); i++)
		assert_int_equal(back.token[i], 0);
}

static void a_proved_request_does_not_have_the_token(void **state)
{
	struct verbs_private wants = {.session = UINT64_C(0x0102030405060708),
		.counter = UINT64_C(0x1112131415161718)};
	struct verbs_private back = {0};
	uint8_t buf[VERBS_PROVED_BYTES];

	memset(wants.token, 0xee, sizeof(wants.token));
	memset(wants.mac, 0xdd, sizeof(wants.mac));
	verbs_pack_proved(&wants, buf);
	assert_int_equal(verbs_unpack_private(buf, sizeof(buf), &back), 0);
	assert_true(back.purpose == VERBS_PROVED && back.session == wants.session &&
		back.counter == wants.counter);
	assert_memory_equal(back.mac, wants.mac, sizeof(back.mac));
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_not_equal(buf[i], 0xee);
	for (size_t n = 0; n < sizeof(buf); n++)
		assert_int_equal(verbs_unpack_private(buf, n, &back), -EPROTO);
}

static void who_starts_has_a_name_that_can_be_shown(void **state)
{
	static const char *const bad[] = {" ", "a\n", "\x1b[2J", "\xff"};
	struct verbs_msg msg = example(VERBS_START), back;
	uint8_t buf[VERBS_MSG_MAX];

	size_t len = verbs_pack(&msg, buf);
	assert_int_equal(verbs_unpack(buf, len, &back), 0);
	assert_string_equal(back.start.identity, msg.start.identity);
	assert_true(back.start.version == VERBS_PROOF_VERSION && back.start.unknown == 0);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++) {
		strcpy(msg.start.identity, bad[i]);
		assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), -EPROTO);
	}
	/* None, and one that is longer than the message. */
	strcpy(msg.start.identity, "box-1");
	len = verbs_pack(&msg, buf);
	for (unsigned i = 0; i < 256; i++) {
		buf[49] = (uint8_t)i;
		assert_int_equal(verbs_unpack(buf, len, &back), i == 5 ? 0 : -EPROTO);
	}
}

/* Both may get fields: one that is not known is skipped, named, or ends the session. */
static void start_and_challenge_may_grow(void **state)
{
	for (uint8_t type = VERBS_START; type <= VERBS_CHALLENGE; type++) {
		for (unsigned must = 0; must <= 1; must++) {
			const uint8_t more[] = {must ? 0x80 : 0, 200, 0, 3, 'a', 'b', 'c'};
			struct verbs_msg msg = example(type), back;
			uint8_t buf[VERBS_MSG_MAX];
			size_t len = verbs_pack(&msg, buf);

			memcpy(buf + len, more, sizeof(more));
			len += sizeof(more);
			buf[6] = (uint8_t)(len >> 8);
			buf[7] = (uint8_t)len;
			int r = verbs_unpack(buf, len, &back);
			if (type == VERBS_CHALLENGE)
				assert_int_equal(r, must ? -EPROTONOSUPPORT : 0);
			else
				assert_true(r == 0 && back.start.unknown == (must ? 200 : 0));
		}
	}
}

static void rejections_carry_errors_and_nothing_else(void **state)
{
	uint8_t buf[VERBS_REJECT_BYTES];
	int error = 0;

	verbs_pack_reject(-EBUSY, buf);
	assert_int_equal(verbs_unpack_reject(buf, sizeof(buf), &error), 0);
	assert_int_equal(error, -EBUSY);
	/* One that does not travel arrives as EIO; success is no rejection. */
	verbs_pack_reject(-EXDEV, buf);
	assert_int_equal(verbs_unpack_reject(buf, sizeof(buf), &error), 0);
	assert_int_equal(error, -EIO);
	verbs_pack_reject(0, buf);
	assert_int_equal(verbs_unpack_reject(buf, sizeof(buf), &error), -EPROTO);
	assert_int_equal(verbs_unpack_reject(buf, 7, &error), -EPROTO);
}

static int error_of_rejection(int error)
{
	uint8_t buf[VERBS_REJECT_BYTES];
	const struct rdma_cm_event event = {
		.event = RDMA_CM_EVENT_REJECTED,
		.status = 28, /* by the consumer, that is by weft */
		.param.conn = {.private_data = buf, .private_data_len = sizeof(buf)},
	};
	struct weft_error err;

	verbs_pack_reject(error, buf);
	int r = verbs_event_errno(&event, "10.0.0.2:1", &err);
	assert_int_equal(r, -err.code);
	return r;
}

/* Anybody can reject, who has proved nothing: that ends one connection, never an attachment. */
static void rejections_decide_nothing_about_an_attachment(void **state)
{
	static const int believed[] = {-EPROTO, -EPROTONOSUPPORT, -EACCES, -EBUSY, -ESHUTDOWN};
	static const int others[] = {-ESTALE, -WEFT_EOVER, -WEFT_ESUPERSEDED, -ENOENT, -EROFS,
		-EPERM, -EINVAL, -EIO, -ENOMEM, -EAGAIN, -ETIMEDOUT};

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(believed); i++)
		assert_int_equal(error_of_rejection(believed[i]), believed[i]);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(others); i++)
		assert_int_equal(error_of_rejection(others[i]), -ECONNREFUSED);
}

/* Bytes changed at random: unpacked into something sound, or refused. */
static void spoilt_messages_are_refused_or_sound(void **state)
{
	unsigned seed = 20261122;
	unsigned nr_good = 0;

	for (int round = 0; round < 20000; round++) {
		uint8_t buf[VERBS_MSG_MAX];
		struct verbs_msg msg = example((uint8_t)(1 + round % VERBS_QUIET)), back;
		size_t len = verbs_pack(&msg, buf);

		for (int i = rand_r(&seed) % 4; i >= 0; i--)
			buf[6 + (size_t)rand_r(&seed) % (len - 6)] = (uint8_t)rand_r(&seed);
		if (verbs_unpack(buf, len, &back) < 0)
			continue;
		nr_good++;
		switch (back.type) {
		case VERBS_HELLO:
			assert_true(strlen(back.hello.region) <= VERBS_REGION_MAX);
			assert_true(weft_name_valid(back.hello.hello.name));
			break;
		case VERBS_GRANT:
			assert_true(back.grant.nr_chunks > 0 &&
				back.grant.nr_chunks <= VERBS_MAX_CHUNKS);
			assert_int_equal(verbs_nr_chunks(back.grant.size_bytes,
						 back.grant.chunk_bytes),
				back.grant.nr_chunks);
			break;
		case VERBS_CHUNKS:
			assert_in_range(back.chunks.nr, 1, VERBS_CHUNKS_PER_MESSAGE);
			break;
		case VERBS_REFUSE:
			assert_true(back.refuse.error < 0);
			break;
		default:
			assert_in_range(back.type, VERBS_HELLO, VERBS_QUIET);
		}
	}
	assert_true(nr_good > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_survives_the_trip),
		cmocka_unit_test(fields_arrive_as_they_left),
		cmocka_unit_test(every_other_length_is_refused),
		cmocka_unit_test(the_part_of_a_striped_device_is_a_field),
		cmocka_unit_test(who_follows_says_so),
		cmocka_unit_test(who_reports_says_so),
		cmocka_unit_test(a_grant_of_a_region_on_its_way_says_where),
		cmocka_unit_test(version_0_has_no_fields),
		cmocka_unit_test(another_version_is_said_to_be_one),
		cmocka_unit_test(a_grant_that_does_not_add_up_is_refused),
		cmocka_unit_test(hashes_are_whole_and_a_question_has_nothing_else),
		cmocka_unit_test(ranges_belong_to_a_flush_and_are_counted),
		cmocka_unit_test(a_refusal_cannot_drive_a_terminal),
		cmocka_unit_test(private_data_is_checked_and_may_be_padded),
		cmocka_unit_test(a_proved_request_does_not_have_the_token),
		cmocka_unit_test(who_starts_has_a_name_that_can_be_shown),
		cmocka_unit_test(start_and_challenge_may_grow),
		cmocka_unit_test(rejections_carry_errors_and_nothing_else),
		cmocka_unit_test(rejections_decide_nothing_about_an_attachment),
		cmocka_unit_test(spoilt_messages_are_refused_or_sound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
