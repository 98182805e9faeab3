/* SPDX-License-Identifier: MIT */
/* The torture's checker finds what it is there for, and nothing else (torture/history.h). */
#include "tests/torture/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static uint8_t bytes[HISTORY_BLOCK_BYTES];
static char why[HISTORY_WHY];
static struct history history;
static struct view mine, other;

static int setup(void **state)
{
	history_init(&history, 1);
	view_begin(&mine, &history, "mine", false, false);
	why[0] = '\0';
	return 0;
}

/* An answered write. */
static uint64_t write_block(struct view *v, unsigned block)
{
	uint64_t mark = view_write(v, block, bytes);

	assert_int_equal(view_write_answered(v, block, mark, mark, why), 0);
	return mark;
}

static int read_mark(struct view *v, unsigned block, uint64_t mark)
{
	uint64_t at, at_least = view_read(v, block, &at);

	memset(bytes, 0, sizeof(bytes));
	if (mark)
		history_bytes(&history, block, mark, bytes);
	return view_read_answered(v, block, at_least, at, bytes, why);
}

static int flush(struct view *v)
{
	struct snapshot s;

	view_flush(v, &s);
	return view_flush_answered(v, &s, why);
}

static void assert_found(int r, const char *what)
{
	assert_int_equal(r, -1);
	assert_memory_equal(why, what, strlen(what));
}

static void what_is_right_passes(void **state)
{
	assert_int_equal(read_mark(&mine, 3, 0), 0);
	uint64_t mark = write_block(&mine, 3);
	assert_int_equal(read_mark(&mine, 3, mark), 0);
	assert_int_equal(flush(&mine), 0);
	view_begin(&other, &history, "other", false, false);
	assert_int_equal(read_mark(&other, 3, mark), 0);
	mark = write_block(&other, 3);
	assert_int_equal(view_told(&mine, why), 0);
	view_begin(&mine, &history, "mine", true, true);
	assert_int_equal(read_mark(&mine, 3, mark), 0);
	write_block(&mine, 3);
	assert_int_equal(flush(&mine), 0);
}

static void an_older_block_is_found(void **state)
{
	uint64_t first = write_block(&mine, 3);

	write_block(&mine, 3);
	assert_found(read_mark(&mine, 3, first), "S2");
	view_begin(&other, &history, "other", false, false);
	assert_found(read_mark(&other, 3, first), "S2");
}

static void zeros_and_foreign_bytes_are_found(void **state)
{
	uint64_t mark = write_block(&mine, 3), at, at_least;

	assert_found(read_mark(&mine, 3, 0), "zeros");
	at_least = view_read(&mine, 3, &at);
	history_bytes(&history, 4, mark, bytes);
	assert_found(view_read_answered(&mine, 3, at_least, at, bytes, why), "foreign");
	history_bytes(&history, 3, mark, bytes);
	bytes[HISTORY_BLOCK_BYTES - 1] ^= 1;
	assert_found(view_read_answered(&mine, 3, at_least, at, bytes, why), "foreign");
}

static void a_write_of_an_older_view_is_found(void **state)
{
	uint64_t sent_again = view_write(&mine, 3, bytes);

	view_begin(&other, &history, "other", false, false);
	write_block(&other, 3);
	assert_found(view_write_answered(&mine, 3, sent_again, ++history.now, why), "S1");
}

static void an_answer_that_was_on_its_way_passes(void **state)
{
	uint64_t mark = view_write(&mine, 3, bytes);

	view_begin(&other, &history, "other", false, false);
	write_block(&other, 4);
	assert_int_equal(view_write_answered(&mine, 3, mark, mark, why), 0);
}

static void a_flush_of_an_older_view_is_found(void **state)
{
	view_begin(&mine, &history, "mine", true, true);
	write_block(&mine, 3);
	view_begin(&other, &history, "other", false, false);
	write_block(&other, 4);
	write_block(&mine, 3);
	assert_found(flush(&mine), "S1");
}

static void a_remembered_block_of_an_older_view_is_found(void **state)
{
	view_begin(&mine, &history, "mine", true, true);
	uint64_t mark = write_block(&mine, 3);
	assert_int_equal(read_mark(&mine, 3, mark), 0);
	view_begin(&other, &history, "other", false, false);
	write_block(&other, 3);
	assert_found(read_mark(&mine, 3, mark), "S2");
}

static void what_was_not_flushed_may_go_with_the_bridge(void **state)
{
	view_begin(&mine, &history, "mine", true, true);
	uint64_t flushed = write_block(&mine, 3);
	assert_int_equal(flush(&mine), 0);
	write_block(&mine, 3);
	assert_found(read_mark(&mine, 3, flushed), "S2");
	view_lost_cache(&mine);
	assert_int_equal(read_mark(&mine, 3, flushed), 0);
	assert_found(read_mark(&mine, 3, 0), "zeros");
}

static void contents_that_were_lost_or_put_back_need_a_new_view(void **state)
{
	struct snapshot copy;
	uint64_t copied = write_block(&mine, 3);

	history_copy(&history, &copy);
	uint64_t later = write_block(&mine, 3);
	history_replaced(&history, &copy);
	assert_found(read_mark(&mine, 3, copied), "S1");
	uint64_t mark = view_write(&mine, 4, bytes);
	assert_found(view_write_answered(&mine, 4, mark, mark, why), "S1");
	view_begin(&mine, &history, "mine", true, true);
	assert_int_equal(read_mark(&mine, 3, copied), 0);
	assert_found(read_mark(&mine, 3, later), "S3");
	history_replaced(&history, NULL);
	view_begin(&mine, &history, "mine", true, true);
	assert_int_equal(read_mark(&mine, 3, 0), 0);
	assert_found(read_mark(&mine, 3, copied), "S3");
}

static void stale_without_a_cause_is_found(void **state)
{
	write_block(&mine, 3);
	assert_found(view_told(&mine, why), "L");
	history_new_epoch(&history);
	assert_int_equal(view_told(&mine, why), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_is_right_passes, setup),
		cmocka_unit_test_setup(an_older_block_is_found, setup),
		cmocka_unit_test_setup(zeros_and_foreign_bytes_are_found, setup),
		cmocka_unit_test_setup(a_write_of_an_older_view_is_found, setup),
		cmocka_unit_test_setup(an_answer_that_was_on_its_way_passes, setup),
		cmocka_unit_test_setup(a_flush_of_an_older_view_is_found, setup),
		cmocka_unit_test_setup(a_remembered_block_of_an_older_view_is_found, setup),
		cmocka_unit_test_setup(what_was_not_flushed_may_go_with_the_bridge, setup),
		cmocka_unit_test_setup(contents_that_were_lost_or_put_back_need_a_new_view, setup),
		cmocka_unit_test_setup(stale_without_a_cause_is_found, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
