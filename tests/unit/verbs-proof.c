/* SPDX-License-Identifier: MIT */
/*
 * The proof of a key on the control connection, both sides of it without a network: what is right
 * is granted; bits that were flipped, messages that were replayed, reflected, left out or made with
 * another key are not.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "transports/verbs/proof.h"

static const struct weft_key box = {.identity = "box-1",
	.secret_bytes = 32,
	.secret = "0123456789abcdef0123456789abcdef"};
static const struct verbs_ends ends = {.borrower = {1}, .donor = {2}, .donor_port = 10809};

/* A message as it travels. */
struct sent {
	uint8_t bytes[VERBS_MSG_MAX];
	size_t len;
};

static struct sent send_msg(struct verbs_proof *proof, const struct verbs_msg *msg)
{
	struct sent ret;
	int r = verbs_proof_mark(proof, ret.bytes, verbs_pack(msg, ret.bytes));

	assert_true(r > 0);
	ret.len = (size_t)r;
	return ret;
}

static int receive(struct verbs_proof *proof, const struct sent *sent, struct verbs_msg *ret)
{
	return verbs_proof_unpack(proof, sent->bytes, sent->len, ret);
}

static const uint8_t the_id[WEFT_ID_BYTES] = "sixteen bytes i";

static struct verbs_msg hello_msg(void)
{
	struct verbs_msg msg = {.type = VERBS_HELLO};
	struct weft_hello *hello = &msg.hello.hello;

	memcpy(hello->id, the_id, WEFT_ID_BYTES);
	hello->generation = UINT64_C(1) << 32;
	hello->mode = WEFT_MODE_WRITE;
	hello->epoch = 77;
	hello->granted = 78;
	hello->wrote = true;
	hello->stripe = (struct weft_stripe){1, 2, 65536};
	snprintf(hello->name, sizeof(hello->name), "box");
	snprintf(msg.hello.region, sizeof(msg.hello.region), "r");
	return msg;
}

static struct verbs_msg grant_msg(void)
{
	struct verbs_msg msg = {.type = VERBS_GRANT};

	msg.grant.size_bytes = 1 << 20;
	msg.grant.epoch = 77;
	msg.grant.generation = UINT64_C(1) << 32;
	msg.grant.lease_ms = 30000;
	msg.grant.chunk_bytes = 1 << 20;
	msg.grant.nr_chunks = 1;
	msg.grant.epoch_word = (struct verbs_chunk){1, 2};
	msg.grant.beat_word = (struct verbs_chunk){3, 4};
	memset(msg.grant.token, 5, sizeof(msg.grant.token));
	msg.grant.restorable = true;
	snprintf(msg.grant.offers, sizeof(msg.grant.offers), "tcp");
	return msg;
}

/* Both sides, and what each has sent. */
struct talk {
	struct verbs_proof borrower, donor;
	struct weft_key here, there;
	struct verbs_ends ends_there;
	struct sent start, challenge, hello, grant;
	struct verbs_msg got; /* what the donor got as a hello, the borrower as a grant */
};

static struct talk talk(void)
{
	return (struct talk){.here = box, .there = box, .ends_there = ends};
}

static int do_start(struct talk *t)
{
	struct verbs_msg msg;

	verbs_proof_start(&t->borrower, &t->here, &msg);
	t->start = send_msg(&t->borrower, &msg);
	return 0;
}

static int do_challenge(struct talk *t)
{
	struct verbs_msg msg;
	int r = receive(&t->donor, &t->start, &msg);

	if (r < 0 || msg.type != VERBS_START || msg.start.version != VERBS_PROOF_VERSION ||
		strcmp(msg.start.identity, t->there.identity) != 0)
		return -EPROTO;
	assert_int_equal(verbs_proof_challenge(&t->donor, &t->there, &t->ends_there, &msg), 0);
	t->challenge = send_msg(&t->donor, &msg);
	return 0;
}

static int do_hello(struct talk *t)
{
	struct verbs_msg msg;
	int r = verbs_proof_answered(&t->borrower, &t->here, &ends, t->challenge.bytes,
		t->challenge.len, &msg);

	if (r < 0 || msg.type != VERBS_CHALLENGE)
		return -EACCES;
	msg = hello_msg();
	assert_int_equal(verbs_proof_seal(&t->borrower, &msg), 0);
	t->hello = send_msg(&t->borrower, &msg);
	return 0;
}

static int do_grant(struct talk *t)
{
	int r = receive(&t->donor, &t->hello, &t->got);

	if (r < 0 || t->got.type != VERBS_HELLO || verbs_proof_open(&t->donor, &t->got) < 0)
		return -EACCES;
	struct verbs_msg msg = grant_msg();
	t->grant = send_msg(&t->donor, &msg);
	return 0;
}

static int do_end(struct talk *t)
{
	int r = receive(&t->borrower, &t->grant, &t->got);

	return r < 0 || t->got.type != VERBS_GRANT ? -EACCES : 0;
}

static int (*const steps[])(struct talk *t) = {do_start, do_challenge, do_hello, do_grant, do_end};
enum { START, CHALLENGE, HELLO, GRANT, END };

/* Up to the step, itself not. */
static struct talk talk_until(unsigned step)
{
	struct talk t = talk();

	for (unsigned i = 0; i < step; i++)
		assert_int_equal(steps[i](&t), 0);
	return t;
}

/* From the step on: whether it comes to a grant. */
static bool goes_on(struct talk *t, unsigned step)
{
	for (; step <= END; step++)
		if (steps[step](t) < 0)
			return false;
	return true;
}

static void both_who_have_the_key_come_to_a_grant(void **state)
{
	struct talk t = talk_until(END);
	struct verbs_msg want = hello_msg();

	assert_memory_equal(t.got.hello.hello.id, the_id, WEFT_ID_BYTES);
	assert_string_equal(t.got.hello.region, "r");
	assert_int_equal(t.got.hello.hello.generation, want.hello.hello.generation);
	/* The id is nowhere on the wire. */
	assert_null(memmem(t.hello.bytes, t.hello.len, the_id, WEFT_ID_BYTES));
	assert_int_equal(do_end(&t), 0);
	assert_int_equal(t.got.grant.epoch_word.rkey, 2);
	assert_int_equal(t.borrower.session, t.donor.session);
	/* And on, both ways. */
	struct verbs_msg msg = {.type = VERBS_GET_CHUNKS};
	for (unsigned i = 0; i < 3; i++) {
		struct sent sent = send_msg(&t.borrower, &msg);
		assert_int_equal(receive(&t.donor, &sent, &t.got), 0);
	}
}

static void a_bit_that_is_flipped_in_any_message_ends_it(void **state)
{
	const size_t of[] = {offsetof(struct talk, start), offsetof(struct talk, challenge),
		offsetof(struct talk, hello), offsetof(struct talk, grant)};

	for (unsigned step = START; step < END; step++) {
		const struct talk before = talk_until(step + 1);
		const struct sent *sent = (const void *)((const uint8_t *)&before + of[step]);

		for (size_t bit = 0; bit < 8 * sent->len; bit++) {
			struct talk t = before;
			struct sent *flipped = (void *)((uint8_t *)&t + of[step]);

			flipped->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
			if (goes_on(&t, step + 1))
				fail_msg("message %u: bit %zu was not missed", step, bit);
		}
		/* Cut short, or longer. */
		for (size_t len = 0; len <= sent->len + 1; len++) {
			struct talk t = before;
			struct sent *cut = (void *)((uint8_t *)&t + of[step]);

			cut->len = len;
			assert_int_equal(goes_on(&t, step + 1), len == sent->len);
		}
	}
}

static void another_secret_is_none(void **state)
{
	struct talk t = talk();

	t.there.secret[31] ^= 1;
	assert_int_equal(do_start(&t), 0);
	assert_int_equal(do_challenge(&t), 0);
	/* An honest borrower goes no further. */
	struct talk honest = t;
	assert_int_equal(do_hello(&honest), -EACCES);
	/* One that does, with its own secret or with none, is granted nothing. */
	struct verbs_msg msg = hello_msg();
	struct talk none = t;
	none.hello = send_msg(&none.borrower, &msg);
	assert_true(do_grant(&none) < 0);
	assert_int_equal(verbs_proof_seal(&honest.borrower, &msg), 0);
	t.hello = send_msg(&honest.borrower, &msg);
	assert_int_equal(do_grant(&t), -EACCES);
}

static void other_ends_are_another_connection(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		struct talk t = talk();

		if (i == 0)
			t.ends_there.borrower[15] ^= 1;
		else if (i == 1)
			t.ends_there.donor[15] ^= 1;
		else
			t.ends_there.donor_port ^= 1;
		assert_false(goes_on(&t, START));
	}
}

static void what_was_recorded_is_of_no_use(void **state)
{
	const struct talk was = talk_until(END);
	struct talk t = talk_until(HELLO);

	/* The donor's, to a borrower that begins anew. */
	t.challenge = was.challenge;
	assert_int_equal(do_hello(&t), -EACCES);
	/* The borrower's, to the donor. */
	t = talk_until(CHALLENGE);
	t.start = was.start;
	assert_int_equal(do_challenge(&t), 0);
	t.hello = was.hello;
	assert_int_equal(do_grant(&t), -EACCES);
	/* A grant of another session, and twice the same hello. */
	t = talk_until(END);
	t.grant = was.grant;
	assert_int_equal(do_end(&t), -EACCES);
	t = talk_until(END);
	assert_int_equal(do_grant(&t), -EACCES);
}

static void what_is_reflected_is_of_no_use(void **state)
{
	struct talk t = talk_until(HELLO);
	struct verbs_msg msg;

	/* Its own START is no answer, nor its own HELLO. */
	assert_true(verbs_proof_answered(&t.borrower, &t.here, &ends, t.start.bytes, t.start.len,
			    &msg) < 0);
	t = talk_until(GRANT);
	assert_int_equal(receive(&t.borrower, &t.hello, &msg), -EACCES);
	/* The donor's CHALLENGE is nothing that it takes. */
	t = talk_until(HELLO);
	assert_int_equal(receive(&t.donor, &t.challenge, &msg), -EACCES);
}

static void a_tag_that_is_missing_is_wrong(void **state)
{
	struct talk t = talk_until(HELLO);
	struct verbs_msg msg;

	t.challenge.len -= VERBS_TAG_BYTES;
	assert_int_equal(do_hello(&t), -EACCES);
	t = talk_until(GRANT);
	t.hello.len -= VERBS_TAG_BYTES;
	assert_int_equal(do_grant(&t), -EACCES);
	t = talk_until(END);
	t.grant.len -= VERBS_TAG_BYTES;
	assert_int_equal(do_end(&t), -EACCES);
	/* So is that of a refusal once there are tags. */
	t = talk_until(END);
	t.grant.len = verbs_pack(&(struct verbs_msg){.type = VERBS_REFUSE,
					 .refuse = {.error = -ESTALE, .text = "gone"}},
		t.grant.bytes);
	assert_true(receive(&t.borrower, &t.grant, &msg) < 0);
	/* Before that it proves nothing: the borrower is told that it is one. */
	t = talk_until(HELLO);
	size_t len = verbs_pack(&(struct verbs_msg){.type = VERBS_REFUSE,
					.refuse = {.error = -ESTALE, .text = "gone"}},
		t.challenge.bytes);
	assert_int_equal(verbs_proof_answered(&t.borrower, &t.here, &ends, t.challenge.bytes, len,
				 &msg),
		0);
	assert_int_equal(msg.type, VERBS_REFUSE);
	assert_false(t.borrower.on);
}

static void a_token_is_proved_and_not_said(void **state)
{
	struct talk t = talk_until(END);
	const uint8_t token[VERBS_TOKEN_BYTES] = {1, 2, 3}, other[VERBS_TOKEN_BYTES] = {1, 2, 4};
	struct verbs_private wants = {.session = t.borrower.session, .counter = 1};

	assert_int_equal(verbs_proof_request(&t.borrower.keys, token, &wants), 0);
	assert_true(verbs_proof_of_request(&t.donor.keys, token, &wants));
	assert_false(verbs_proof_of_request(&t.donor.keys, other, &wants));
	wants.counter++;
	assert_false(verbs_proof_of_request(&t.donor.keys, token, &wants));
	wants.counter--;
	wants.session++;
	assert_false(verbs_proof_of_request(&t.donor.keys, token, &wants));
	wants.session--;
	for (unsigned bit = 0; bit < 8 * sizeof(wants.mac); bit++) {
		wants.mac[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(verbs_proof_of_request(&t.donor.keys, token, &wants));
		wants.mac[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	/* Whoever overheard the token has no key. */
	struct talk elsewhere = talk_until(END);
	assert_int_equal(verbs_proof_request(&elsewhere.borrower.keys, token, &wants), 0);
	assert_false(verbs_proof_of_request(&t.donor.keys, token, &wants));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_who_have_the_key_come_to_a_grant),
		cmocka_unit_test(a_bit_that_is_flipped_in_any_message_ends_it),
		cmocka_unit_test(another_secret_is_none),
		cmocka_unit_test(other_ends_are_another_connection),
		cmocka_unit_test(what_was_recorded_is_of_no_use),
		cmocka_unit_test(what_is_reflected_is_of_no_use),
		cmocka_unit_test(a_tag_that_is_missing_is_wrong),
		cmocka_unit_test(a_token_is_proved_and_not_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
