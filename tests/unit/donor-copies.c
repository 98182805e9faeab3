/* SPDX-License-Identifier: MIT */
/*
 * What a donor notes of a region that is a copy: what it takes, from whom, and who is let in
 * (tests/model/copies.pml).
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/copying.h"
#include "fabric/donor/moving.h"
#include "tests/support/donor-sessions.h"

#define INCARNATION (UINT64_C(1) << 32)

static const struct weft_copy_of first_of_two = {.set = 7, .index = 1, .count = 2, .min = 1};

static int try(const struct session *s, const struct weft_copies_asked *asked,
	struct weft_copies_answer *ret)
{
	uint8_t bytes[WEFT_COPIES_BYTES];
	struct weft_hashing hashing;

	weft_copies_ask_pack(asked, &hashing);
	assert_true(weft_hashing_valid(&hashing, 12288) && weft_hashing_valid(&hashing, 8193));
	assert_false(weft_hashing_valid(&hashing, 8192) || weft_hashing_valid(&hashing, 12289));
	int r = weft_donor_copies(donor, s->grant, &hashing, bytes);
	if (r == 0)
		assert_true(weft_copies_answer_unpack(bytes, ret));
	return r;
}

/* What is noted in the end. */
static struct weft_copies_answer ask(const struct session *s,
	const struct weft_copies_asked *asked)
{
	struct weft_copies_answer answer;

	assert_int_equal(try(s, asked, &answer), 0);
	return answer;
}

static struct weft_copies_answer look(const struct session *s)
{
	return ask(s, &(struct weft_copies_asked){.action = WEFT_COPIES_ASK});
}

static struct weft_copies_answer claim_term(const struct session *s, uint64_t term)
{
	return ask(s, &(struct weft_copies_asked){.action = WEFT_COPIES_CLAIM, .term = term});
}

static struct weft_copies_answer make(const struct session *s, uint64_t term)
{
	return ask(s, &(struct weft_copies_asked){
		.action = WEFT_COPIES_MAKE, .of = first_of_two, .term = term});
}

static struct weft_copies_asked noting(uint64_t term, uint32_t change, uint16_t members)
{
	return (struct weft_copies_asked){.action = WEFT_COPIES_NOTE,
		.of = first_of_two,
		.term = term,
		.change = change,
		.members = members};
}

static struct weft_copies_answer note(const struct session *s, uint64_t term, uint32_t change,
	uint16_t members)
{
	const struct weft_copies_asked asked = noting(term, change, members);

	return ask(s, &asked);
}

static struct weft_copies_answer end(const struct session *s, uint64_t term, uint32_t change)
{
	return ask(s, &(struct weft_copies_asked){.action = WEFT_COPIES_END,
		.of = first_of_two,
		.term = term,
		.change = change});
}

static bool is_at(const struct weft_copies_answer *a, uint64_t term, uint32_t change,
	uint16_t members)
{
	return a->term == term && a->change == change && a->members == members;
}

/* A borrower of copies, who remembers the contents if it comes back. */
static void come(struct session *s, uint8_t who, uint64_t generation, bool back)
{
	struct weft_hello hello = hello_of(who, generation, WEFT_MODE_WRITE);

	hello.copies = true;
	hello.epoch = back ? region->epoch : 0;
	assert_int_equal(grant_hello(s, &hello), 0);
}

static void a_set_is_made_changed_and_ended(void **state)
{
	struct weft_copies_answer a;
	struct session s;

	come(&s, 1, INCARNATION, false);
	a = look(&s);
	assert_true(!a.of.set && !a.claimed && !a.mine && is_at(&a, 0, 0, 0));
	assert_true(!a.used && !a.foreign);
	a = claim_term(&s, 1);
	assert_true(a.claimed == 1 && a.mine && !a.of.set);
	a = make(&s, 1);
	assert_true(a.of.set == 7 && a.of.index == 1 && a.of.count == 2 && a.of.min == 1);
	assert_true(is_at(&a, 0, WEFT_COPIES_MAKING, 3));
	a = note(&s, 1, 0, 3);
	assert_true(is_at(&a, 1, 0, 3) && !a.ended);
	a = note(&s, 1, 1, 1);
	assert_true(is_at(&a, 1, 1, 1));
	/* The answer got lost. */
	a = note(&s, 1, 1, 1);
	assert_true(is_at(&a, 1, 1, 1));
	a = end(&s, 1, 0);
	assert_false(a.ended);
	/* One that is no member notes who is. */
	a = note(&s, 1, 2, 2);
	assert_true(is_at(&a, 1, 2, 2));
	a = end(&s, 1, 1);
	assert_false(a.ended);
	a = end(&s, 1, 2);
	assert_true(a.ended && is_at(&a, 1, 2, 2));
	a = note(&s, 1, 3, 3);
	assert_true(!a.ended && is_at(&a, 1, 3, 3));
	release(&s, true);
}

static void what_is_older_is_not_taken(void **state)
{
	struct weft_copies_answer a;
	struct session one, other;

	come(&one, 1, INCARNATION, false);
	claim_term(&one, 3);
	make(&one, 3);
	note(&one, 3, 5, 3);
	a = note(&one, 3, 4, 1);
	assert_true(is_at(&a, 3, 5, 3));
	a = note(&one, 2, 9, 1);
	assert_true(is_at(&a, 3, 5, 3));
	/* The same generation has the same members. */
	a = note(&one, 3, 5, 1);
	assert_true(is_at(&a, 3, 5, 3));
	a = make(&one, 3);
	assert_true(is_at(&a, 3, 5, 3));
	a = claim_term(&one, 2);
	assert_int_equal(a.claimed, 3);
	release(&one, true);

	/* The term is the first one's. */
	come(&other, 2, INCARNATION, false);
	a = look(&other);
	assert_true(a.claimed == 3 && !a.mine && a.used && !a.foreign);
	a = claim_term(&other, 3);
	assert_true(a.claimed == 3 && !a.mine);
	a = note(&other, 3, 6, 1);
	assert_true(is_at(&a, 3, 5, 3));
	a = end(&other, 3, 5);
	assert_false(a.ended);
	/* To note is to claim. */
	a = note(&other, 4, 0, 1);
	assert_true(is_at(&a, 4, 0, 1) && a.claimed == 4 && a.mine);
	release(&other, true);

	come(&one, 1, 2 * INCARNATION, false);
	a = note(&one, 3, 6, 3);
	assert_true(is_at(&a, 4, 0, 1) && !a.mine);
	release(&one, true);
}

/* One claims a term at this donor alone, another the same at all others, and notes under it. */
static void a_claim_that_came_to_nothing_keeps_no_copy_out(void **state)
{
	struct weft_copies_answer a;
	struct session one, other;

	come(&one, 1, INCARNATION, false);
	claim_term(&one, 2);
	release(&one, true);
	come(&other, 2, INCARNATION, false);
	a = claim_term(&other, 2);
	assert_true(a.claimed == 2 && !a.mine);
	a = note(&other, 2, 1, 3);
	assert_true(is_at(&a, 2, 1, 3) && a.claimed == 2 && a.mine);
	release(&other, true);
	/* Who claimed it at first has to claim another. */
	come(&one, 1, 2 * INCARNATION, false);
	a = note(&one, 2, 2, 1);
	assert_true(is_at(&a, 2, 1, 3) && !a.mine);
	release(&one, true);
}

static void a_region_that_moves_becomes_no_copy(void **state)
{
	const struct weft_moving moving = {.number = 42, .to = "weft://b:7/r"};
	const struct weft_copies_asked what = noting(1, 1, 3);
	struct weft_hello hello = hello_of(1, INCARNATION, WEFT_MODE_WRITE);
	struct weft_copies_answer a;
	struct session s;

	assert_int_equal(weft_donor_track(donor, region, &moving, false, &err), 0);
	hello.copies = hello.follows = true;
	assert_int_equal(grant_hello(&s, &hello), 0);
	assert_int_equal(try(&s, &what, &a), -EBUSY);
	assert_int_equal(weft_donor_unfreeze(donor, region, moving.number, &err), 0);
	assert_int_equal(try(&s, &what, &a), 0);
	release(&s, true);
}

static void a_blank_copy_joins_and_that_of_another_set_does_not(void **state)
{
	struct weft_copies_asked asked = noting(2, 1, 3);
	struct weft_copies_answer a;
	struct session s;

	come(&s, 1, INCARNATION, false);
	a = ask(&s, &asked);
	assert_true(a.of.set == 7 && is_at(&a, 2, 1, 3) && a.claimed == 2 && a.mine);
	asked.of.set = 8;
	asked.term = 3;
	a = ask(&s, &asked);
	assert_true(a.of.set == 7 && is_at(&a, 2, 1, 3) && a.claimed == 2);
	asked.of = first_of_two;
	asked.of.index = 2;
	a = ask(&s, &asked);
	assert_true(a.of.index == 1 && is_at(&a, 2, 1, 3));
	release(&s, true);
}

static void what_makes_no_sense_is_refused(void **state)
{
	const struct weft_copies_asked wrong[] = {
		{.action = WEFT_COPIES_CLAIM},
		{.action = WEFT_COPIES_MAKE, .term = 1},
		{.action = WEFT_COPIES_MAKE, .term = 1, .of = {7, 3, 2, 1}},
		{.action = WEFT_COPIES_MAKE, .term = 1, .of = {7, 0, 2, 1}},
		{.action = WEFT_COPIES_MAKE, .term = 1, .of = {7, 1, 1, 1}},
		{.action = WEFT_COPIES_MAKE, .term = 1, .of = {7, 1, 17, 1}},
		{.action = WEFT_COPIES_MAKE, .term = 1, .of = {7, 1, 2, 0}},
		{.action = WEFT_COPIES_MAKE, .term = 1, .of = {7, 1, 2, 3}},
		noting(0, 1, 3),  /* no term */
		noting(1, 1, 0),  /* nobody */
		noting(1, 1, 7),  /* more than there are */
		{.action = WEFT_COPIES_NOTE, .of = {7, 1, 3, 2}, .term = 1, .members = 1},
	};
	struct weft_copies_asked what = noting(1, 1, 3);
	struct weft_copies_answer a;
	struct session s, reader;

	come(&s, 1, INCARNATION, false);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(try(&s, &wrong[i], &a), -EINVAL);
	what.action = 5;
	assert_int_equal(try(&s, &what, &a), -EOPNOTSUPP);
	what.action = WEFT_COPIES_NOTE;
	struct weft_hello hello = hello_of(2, INCARNATION, WEFT_MODE_SHARED);
	hello.copies = true;
	assert_int_equal(grant_hello(&reader, &hello), 0);
	assert_int_equal(try(&reader, &what, &a), -EPERM);
	a = look(&reader);
	assert_true(!a.of.set && !a.claimed);
	release(&reader, true);
	release(&s, true);
}

static void who_does_not_know_of_copies_is_not_let_in(void **state)
{
	struct weft_hello hello;
	struct session s;

	come(&s, 1, INCARNATION, false);
	claim_term(&s, 1);
	make(&s, 1);
	release(&s, true);
	for (enum weft_mode mode = WEFT_MODE_READ; mode <= WEFT_MODE_WRITE; mode++)
		assert_int_equal(grant(&s, 2, INCARNATION, mode), -EINVAL);
	assert_non_null(strstr(err.message, "is copy 1 of 2 of a device"));
	assert_int_equal(grant_stock(&s), -EINVAL);
	/* A set is no more than notes on what is given up. */
	hello = hello_of(2, INCARNATION, WEFT_MODE_WRITE);
	hello.stripe = weft_stripe_whole;
	hello.new_contents = true;
	assert_int_equal(grant_hello(&s, &hello), 0);
	const struct weft_copies_answer a = look(&s);
	assert_true(!a.of.set && !a.claimed);
	release(&s, true);
	assert_int_equal(grant(&s, 3, INCARNATION, WEFT_MODE_WRITE), 0);
	release(&s, true);
}

static void who_wrote_without_knowing_of_copies_is_remembered(void **state)
{
	struct weft_copies_answer a;
	struct weft_hello hello;
	struct session s;

	assert_int_equal(grant_stock(&s), 0);
	release(&s, true);
	for (unsigned i = 0; i < 2 * WEFT_NR_GENERATIONS; i++) {
		come(&s, (uint8_t)(i + 1), INCARNATION, false);
		a = look(&s);
		assert_true(a.used && a.foreign && !a.of.set);
		release(&s, true);
	}
	/* Until somebody gives up what is there. */
	hello = hello_of(2, INCARNATION + 1, WEFT_MODE_WRITE);
	hello.stripe = weft_stripe_whole;
	hello.new_contents = hello.copies = true;
	assert_int_equal(grant_hello(&s, &hello), 0);
	a = look(&s);
	assert_true(a.used && !a.foreign);
	release(&s, true);
	/* Who only reads leaves it at that. */
	assert_int_equal(grant(&s, 3, INCARNATION, WEFT_MODE_READ), 0);
	release(&s, true);
	come(&s, 4, INCARNATION, false);
	a = look(&s);
	assert_false(a.foreign);
	release(&s, true);
	assert_int_equal(grant(&s, 3, INCARNATION + 1, WEFT_MODE_WRITE), 0);
	release(&s, true);
	come(&s, 4, INCARNATION + 1, false);
	a = look(&s);
	assert_true(a.foreign);
	release(&s, true);
}

static void a_fenced_session_notes_nothing(void **state)
{
	const struct weft_copies_asked asked = noting(1, 1, 3);
	struct weft_copies_answer a;
	struct session first, second;

	come(&first, 1, INCARNATION, false);
	start_copier(&first);
	come(&second, 1, INCARNATION + 1, true);
	assert_int_equal(try(&second, &asked, &a), 0);
	assert_int_equal(pthread_join(first.thread, NULL), 0);
	/* The next process of the same attachment goes on with its term. */
	release(&second, false);
	come(&second, 1, 2 * INCARNATION, true);
	a = note(&second, 1, 2, 1);
	assert_true(is_at(&a, 1, 2, 1) && a.mine);
	release(&second, true);
}

static void files_have_no_copies(void **state)
{
	const struct weft_copies_asked asked = {.action = WEFT_COPIES_ASK};
	struct weft_copies_answer a;
	struct session s;

	come(&s, 1, INCARNATION, false);
	assert_int_equal(try(&s, &asked, &a), -EOPNOTSUPP);
	release(&s, true);
}

static void an_answer_that_makes_no_sense_is_none(void **state)
{
	const struct weft_copies_answer good = {
		.of = first_of_two,
		.claimed = 4,
		.term = 3,
		.change = 9,
		.members = 1,
		.ended = true,
		.foreign = true,
	};
	struct weft_copies_answer back;
	uint8_t bytes[WEFT_COPIES_BYTES];

	weft_copies_answer_pack(&good, bytes);
	assert_true(weft_copies_answer_unpack(bytes, &back));
	assert_true(back.of.set == 7 && back.of.index == 1);
	assert_true(back.of.count == 2 && back.of.min == 1);
	assert_true(is_at(&back, 3, 9, 1) && back.claimed == 4);
	assert_true(back.ended && back.foreign && !back.mine && !back.used);
	for (size_t at = 28; at < 33; at++) {
		const uint8_t was = bytes[at];

		bytes[at] = 0xff;
		assert_false(weft_copies_answer_unpack(bytes, &back));
		bytes[at] = was;
	}
	/* It would be of a higher term than any that was claimed. */
	bytes[8 + 7] = 2;
	assert_false(weft_copies_answer_unpack(bytes, &back));
	/* No set, and yet members. */
	bytes[8 + 7] = 4;
	memset(bytes, 0, 8);
	assert_false(weft_copies_answer_unpack(bytes, &back));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_set_is_made_changed_and_ended),
		TEST(what_is_older_is_not_taken),
		TEST(a_claim_that_came_to_nothing_keeps_no_copy_out),
		TEST(a_region_that_moves_becomes_no_copy),
		TEST(a_blank_copy_joins_and_that_of_another_set_does_not),
		TEST(what_makes_no_sense_is_refused),
		TEST(who_does_not_know_of_copies_is_not_let_in),
		TEST(who_wrote_without_knowing_of_copies_is_remembered),
		TEST(a_fenced_session_notes_nothing),
		cmocka_unit_test_setup_teardown(files_have_no_copies, setup_file, teardown_file),
		cmocka_unit_test(an_answer_that_makes_no_sense_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
