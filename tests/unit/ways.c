/* SPDX-License-Identifier: MIT */
/* When a way to a donor is left, and when it is returned to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/link/ways.h"

#define MS UINT64_C(1000000)

static uint64_t when;

static void one_way_is_never_left(void **state)
{
	struct bridge_ways ways;

	bridge_ways_init(&ways, 1, 0, 0, 0);
	bridge_ways_granted(&ways, 0, 1);
	assert_false(bridge_ways_refused(&ways));
	assert_false(bridge_ways_may_look(&ways, UINT64_MAX, &when));
	assert_int_equal(when, 0);
}

static void a_better_way_that_is_refused_is_left_and_one_that_works_is_not_looked_at(void **state)
{
	struct bridge_ways ways;

	bridge_ways_init(&ways, 2, 1, 1, 100);
	assert_false(bridge_ways_granted(&ways, 1, 1));
	assert_false(bridge_ways_may_look(&ways, 1000 * MS, &when));
	assert_int_equal(when, 0);
	assert_true(bridge_ways_refused(&ways));
	assert_int_equal(ways.now, 0);
	assert_true(bridge_ways_granted(&ways, 0, 1000 * MS));
	assert_int_equal(ways.nr_changes, 1);
	/* Another lane's grant is no change. */
	assert_false(bridge_ways_granted(&ways, 0, 1001 * MS));
	assert_false(bridge_ways_may_look(&ways, 1099 * MS, &when));
	assert_int_equal(when, 1100 * MS);
	assert_true(bridge_ways_may_look(&ways, 1100 * MS, &when));
	assert_int_equal(ways.better, 1);
}

static void where_nothing_works_all_are_tried_in_turn(void **state)
{
	struct bridge_ways ways;
	const unsigned turns[] = {0, 2, 0, 1, 0, 2};

	bridge_ways_init(&ways, 3, 2, 1, 100);
	bridge_ways_granted(&ways, 1, 1);
	ways.better = 2;
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(turns); i++) {
		assert_true(bridge_ways_refused(&ways));
		assert_int_equal(ways.now, turns[i]);
	}
}

static void a_look_that_fails_is_repeated_at_the_next_address(void **state)
{
	struct bridge_ways ways;

	bridge_ways_init(&ways, 3, 2, 0, 100);
	bridge_ways_granted(&ways, 0, 5 * MS);
	assert_int_equal(ways.better, 1);
	bridge_ways_look_failed(&ways, 200 * MS);
	assert_int_equal(ways.better, 2);
	assert_false(bridge_ways_may_look(&ways, 299 * MS, &when));
	assert_true(bridge_ways_may_look(&ways, 300 * MS, &when));
	bridge_ways_look_failed(&ways, 300 * MS);
	assert_int_equal(ways.better, 1);
}

static void the_wait_doubles_while_it_flaps_and_begins_anew_after_a_steady_time(void **state)
{
	struct bridge_ways ways;
	uint64_t now = MS;
	uint32_t waits[12];

	bridge_ways_init(&ways, 2, 1, 1, 1000);
	bridge_ways_granted(&ways, 1, now);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(waits); i++) {
		now += 3000 * MS;
		bridge_ways_granted(&ways, 0, now);
		assert_false(bridge_ways_may_look(&ways, now, &when));
		waits[i] = (uint32_t)((when - now) / MS);
		now = when;
		bridge_ways_granted(&ways, 1, now);
	}
	assert_int_equal(waits[0], 1000);
	for (unsigned i = 1; i < WEFT_ARRAY_LEN(waits); i++)
		assert_int_equal(waits[i], weft_min(2 * waits[i - 1], BRIDGE_RETURN_MAX_MS));
	assert_int_equal(waits[11], BRIDGE_RETURN_MAX_MS);
	now += BRIDGE_STEADY_MS * MS;
	bridge_ways_granted(&ways, 0, now);
	assert_false(bridge_ways_may_look(&ways, now, &when));
	assert_int_equal(when - now, 1000 * MS);
}

static void from_a_second_way_the_best_ones_alone_are_looked_at(void **state)
{
	struct bridge_ways ways;

	bridge_ways_init(&ways, 4, 2, 1, 100);
	bridge_ways_granted(&ways, 1, 1 * MS);
	assert_true(bridge_ways_refused(&ways));
	bridge_ways_granted(&ways, 0, 10 * MS);
	/* The fallback looks at all of them in turn. */
	for (unsigned i = 1; i <= 4; i++) {
		assert_int_equal(ways.better, (i - 1) % 3 + 1);
		bridge_ways_look_failed(&ways, 20 * MS);
	}
	assert_true(bridge_ways_granted(&ways, 3, 30 * MS));
	assert_false(bridge_ways_may_look(&ways, 129 * MS, &when));
	assert_int_equal(when, 130 * MS);
	assert_true(bridge_ways_may_look(&ways, 130 * MS, &when));
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(ways.better, i % 2 + 1);
		bridge_ways_look_failed(&ways, 200 * MS);
	}
	assert_true(bridge_ways_granted(&ways, 2, 400 * MS));
	assert_false(bridge_ways_may_look(&ways, UINT64_MAX, &when));
	assert_true(bridge_ways_is_worse(&ways, 3, 2));
	assert_true(bridge_ways_is_worse(&ways, 0, 3));
	assert_false(bridge_ways_is_worse(&ways, 1, 2));
}

static void a_second_way_that_is_lost_is_left_for_the_fallback(void **state)
{
	struct bridge_ways ways;

	/* It began with that. */
	bridge_ways_init(&ways, 3, 1, 2, 100);
	assert_false(bridge_ways_granted(&ways, 2, 1 * MS));
	assert_true(bridge_ways_may_look(&ways, 101 * MS, &when));
	assert_int_equal(ways.better, 1);
	assert_true(bridge_ways_refused(&ways));
	assert_int_equal(ways.now, 0);
	assert_true(bridge_ways_granted(&ways, 0, 200 * MS));
	bridge_ways_look_failed(&ways, 300 * MS);
	assert_int_equal(ways.better, 2);
	assert_true(bridge_ways_may_look(&ways, 400 * MS, &when));
}

static void where_one_transport_is_better_its_addresses_are_equal(void **state)
{
	struct bridge_ways ways;

	bridge_ways_init(&ways, 3, 2, 2, 100);
	bridge_ways_granted(&ways, 2, 1 * MS);
	assert_false(bridge_ways_may_look(&ways, UINT64_MAX, &when));
	assert_int_equal(when, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_way_is_never_left),
		cmocka_unit_test(
			a_better_way_that_is_refused_is_left_and_one_that_works_is_not_looked_at),
		cmocka_unit_test(where_nothing_works_all_are_tried_in_turn),
		cmocka_unit_test(a_look_that_fails_is_repeated_at_the_next_address),
		cmocka_unit_test(
			the_wait_doubles_while_it_flaps_and_begins_anew_after_a_steady_time),
		cmocka_unit_test(from_a_second_way_the_best_ones_alone_are_looked_at),
		cmocka_unit_test(a_second_way_that_is_lost_is_left_for_the_fallback),
		cmocka_unit_test(where_one_transport_is_better_its_addresses_are_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
