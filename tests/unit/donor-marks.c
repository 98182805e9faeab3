/* SPDX-License-Identifier: MIT */
/* The marks of regions: who raises one, who sets one, and what others learn of it. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/donor-sessions.h"

#define INCARNATION (UINT64_C(1) << 32)

static int ask(const struct session *s, enum weft_mark_action action, uint64_t number,
	uint64_t *ret)
{
	uint8_t answer[WEFT_HASH_BYTES];
	struct weft_hashing hashing;
	struct weft_marked marked;

	weft_marking_pack(action, number, &hashing);
	int r = weft_donor_mark(donor, s->grant, &hashing, answer);
	if (r < 0)
		return r;
	weft_marked_unpack(answer, &marked);
	*ret = marked.number;
	return 0;
}

static uint64_t mark_now(const struct session *s)
{
	uint64_t number = 0;

	assert_int_equal(ask(s, WEFT_MARK_ASK, 0, &number), 0);
	return number;
}

/* By the writer. */
static uint64_t set_mark(const struct session *s)
{
	uint64_t raised = 0, set = 0;

	assert_int_equal(ask(s, WEFT_MARK_RAISE, 0, &raised), 0);
	assert_false(weft_is_marked(raised));
	assert_int_equal(ask(s, WEFT_MARK_SET, raised, &set), 0);
	assert_true(set == raised + 1 && weft_is_marked(set));
	return set;
}

static void a_mark_is_set_and_raised(void **state)
{
	struct session writer, follower;
	uint64_t number, before;

	assert_int_equal(grant(&writer, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant(&follower, 2, INCARNATION, WEFT_MODE_SHARED), 0);
	before = mark_now(&follower);
	assert_false(weft_is_marked(before));
	number = set_mark(&writer);
	assert_true(number > before && mark_now(&follower) == number);
	/* Raised at each asking, so that the answer to a lost question cannot be taken for ours. */
	assert_int_equal(ask(&writer, WEFT_MARK_RAISE, 0, &before), 0);
	assert_true(before == number + 1);
	assert_int_equal(ask(&writer, WEFT_MARK_RAISE, 0, &before), 0);
	assert_true(before == number + 3);
	release(&follower, true);
	release(&writer, true);
}

static void a_mark_is_not_set_from_another_number(void **state)
{
	struct session writer;
	uint64_t first = 0, second = 0, set = 0;

	assert_int_equal(grant(&writer, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_int_equal(ask(&writer, WEFT_MARK_RAISE, 0, &first), 0);
	assert_int_equal(ask(&writer, WEFT_MARK_RAISE, 0, &second), 0);
	assert_int_equal(ask(&writer, WEFT_MARK_SET, first, &set), -EBUSY);
	assert_int_equal(ask(&writer, WEFT_MARK_SET, second + 1, &set), -EBUSY);
	assert_int_equal(ask(&writer, WEFT_MARK_SET, second, &set), 0);
	/* The answer got lost. */
	assert_int_equal(ask(&writer, WEFT_MARK_SET, second, &set), 0);
	assert_true(set == second + 1);
	assert_int_equal(ask(&writer, (enum weft_mark_action)3, 0, &set), -EOPNOTSUPP);
	release(&writer, true);
}

static void who_reads_sets_nothing(void **state)
{
	struct session reader;
	uint64_t number;

	assert_int_equal(grant(&reader, 1, INCARNATION, WEFT_MODE_READ), 0);
	assert_int_equal(ask(&reader, WEFT_MARK_RAISE, 0, &number), -EPERM);
	assert_int_equal(ask(&reader, WEFT_MARK_SET, mark_now(&reader), &number), -EPERM);
	release(&reader, true);
}

static void another_writer_takes_the_mark_away(void **state)
{
	struct session writer, other, follower;
	uint64_t number;

	assert_int_equal(grant(&follower, 9, INCARNATION, WEFT_MODE_SHARED), 0);
	assert_int_equal(grant(&writer, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	number = set_mark(&writer);
	release(&writer, true);
	/* It left; what it marked is still there. */
	assert_true(mark_now(&follower) == number);
	assert_int_equal(grant(&other, 2, INCARNATION, WEFT_MODE_READ), 0);
	release(&other, true);
	assert_true(mark_now(&follower) == number);
	assert_int_equal(grant(&other, 2, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_false(weft_is_marked(mark_now(&follower)));
	release(&other, true);
	assert_int_equal(grant(&writer, 1, 2 * INCARNATION, WEFT_MODE_WRITE), 0);
	number = set_mark(&writer);
	release(&writer, true);
	assert_int_equal(grant_stock(&other), 0);
	assert_false(weft_is_marked(mark_now(&follower)));
	release(&other, true);
	release(&follower, true);
}

static void a_reconnection_keeps_it_and_another_process_does_not(void **state)
{
	struct session first, second, third, fourth;
	uint64_t number = 0, raised = 0;

	assert_int_equal(grant(&first, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	number = set_mark(&first);
	/* One session more, and a connection that was lost and made anew. */
	assert_int_equal(claim(&second, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	assert_true(mark_now(&second) == number);
	release(&first, false);
	release(&second, false);
	assert_int_equal(claim(&third, 1, INCARNATION + 1, WEFT_MODE_WRITE), 0);
	assert_true(mark_now(&third) == number);
	assert_int_equal(ask(&third, WEFT_MARK_RAISE, 0, &raised), 0);
	release(&third, false);
	assert_int_equal(claim(&third, 1, INCARNATION + 2, WEFT_MODE_WRITE), 0);
	number = set_mark(&third);
	release(&third, false);
	assert_int_equal(claim(&fourth, 1, 2 * INCARNATION, WEFT_MODE_WRITE), 0);
	assert_false(weft_is_marked(mark_now(&fourth)));
	release(&fourth, true);
}

static void a_donor_that_starts_anew_has_none_and_repeats_no_number(void **state)
{
	struct session writer;
	uint64_t number;

	assert_int_equal(grant(&writer, 1, INCARNATION, WEFT_MODE_WRITE), 0);
	number = set_mark(&writer);
	release(&writer, true);
	stop_donor();
	open_again();
	assert_int_equal(grant(&writer, 1, 2 * INCARNATION, WEFT_MODE_SHARED), 0);
	const uint64_t now = mark_now(&writer);
	assert_false(weft_is_marked(now));
	assert_true(now > number + 1000 || now + 1000 < number);
	release(&writer, true);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_mark_is_set_and_raised),
		TEST(a_mark_is_not_set_from_another_number),
		TEST(who_reads_sets_nothing),
		TEST(another_writer_takes_the_mark_away),
		TEST(a_reconnection_keeps_it_and_another_process_does_not),
		cmocka_unit_test_setup_teardown(
			a_donor_that_starts_anew_has_none_and_repeats_no_number, setup_file,
			teardown_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
