/* SPDX-License-Identifier: MIT */
/* Sets of ranges of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "nbd-bridge/lane/ranges.h"

enum { BYTES = 1000 * 16 + 5, SHIFT = 4, BITS = 1001 };

static struct ranges ranges;

static int set_up(void **state)
{
	return ranges_init(&ranges, BYTES, SHIFT);
}

static int tear_down(void **state)
{
	ranges_fini(&ranges);
	return 0;
}

static void a_range_sets_each_bit_that_it_touches(void **state)
{
	ranges_set(&ranges, 15, 2);
	assert_int_equal(ranges.nr_set, 2);
	ranges_set(&ranges, 0, BYTES);
	assert_int_equal(ranges.nr_set, BITS);
	ranges_clear(&ranges, 16, 16);
	assert_int_equal(ranges.nr_set, BITS - 1);
	assert_false(ranges_has_any(&ranges, 16, 16));
	assert_true(ranges_has_any(&ranges, 16, 17));
	assert_true(ranges_has_any(&ranges, 15, 1));
}

static void runs_are_found_and_cut_off(void **state)
{
	uint64_t off, len;

	assert_false(ranges_next(&ranges, 0, BYTES, BYTES, &off, &len));
	ranges_set(&ranges, 16 * 3, 16 * 200);
	ranges_set(&ranges, 16 * 1000, 5);
	assert_true(ranges_next(&ranges, 0, BYTES, BYTES, &off, &len));
	assert_int_equal(off, 16 * 3);
	assert_int_equal(len, 16 * 200);
	assert_true(ranges_next(&ranges, 16 * 100, 16 * 7, BYTES, &off, &len));
	assert_int_equal(off, 16 * 100);
	assert_int_equal(len, 16 * 7);
	assert_true(ranges_next(&ranges, 16 * 203, 16 * 7, BYTES, &off, &len));
	assert_int_equal(off, 16 * 1000);
	assert_int_equal(len, 5);
	assert_false(ranges_next(&ranges, 16 * 1001, 16 * 7, BYTES, &off, &len));
}

static void what_is_taken_cannot_be_taken(void **state)
{
	assert_true(ranges_take(&ranges, 16 * 500, 16));
	/* Nothing of the attempt is left. */
	assert_false(ranges_take(&ranges, 16 * 5, 16 * 600));
	assert_true(ranges_take(&ranges, 0, 16 * 500));
	assert_false(ranges_take(&ranges, 16 * 500 + 15, 1));
	ranges_give(&ranges, 16 * 500, 16);
	assert_true(ranges_take(&ranges, 16 * 500, 16 * 501 - 11));
}

static void at_random_as_an_array(void **state)
{
	static bool want[BITS];
	uint64_t nr = 0;

	srand(7);
	for (unsigned n = 0; n < 20000; n++) {
		uint64_t off = (uint64_t)rand() % BYTES, len = 1 + (uint64_t)rand() % (BYTES - off);
		bool set = rand() % 2, any = false;

		for (uint64_t bit = off >> SHIFT; bit <= (off + len - 1) >> SHIFT; bit++)
			any |= want[bit];
		assert_int_equal(ranges_has_any(&ranges, off, len), any);
		if (set)
			ranges_set(&ranges, off, len);
		else
			ranges_clear(&ranges, off, len);
		for (uint64_t bit = off >> SHIFT; bit <= (off + len - 1) >> SHIFT; bit++)
			want[bit] = set;
		nr = 0;
		for (unsigned bit = 0; bit < BITS; bit++)
			nr += want[bit];
		assert_int_equal(ranges.nr_set, nr);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_range_sets_each_bit_that_it_touches),
		TEST(runs_are_found_and_cut_off),
		TEST(what_is_taken_cannot_be_taken),
		TEST(at_random_as_an_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
