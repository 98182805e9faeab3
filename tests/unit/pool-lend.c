/* SPDX-License-Identifier: MIT */
/* How much a donor lends of what is idle, and when it wants some back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/pool/lend.h"

#define G WEFT_GIB

static void all_but_the_reserve_is_lent(void **state)
{
	struct pool_machine m = {.available_bytes = 64 * G, .reserve_bytes = 8 * G};
	struct pool_lending l = pool_lend_idle(&m);

	assert_int_equal(l.lent_bytes, 56 * G);
	assert_int_equal(l.give_back_bytes, 0);
	assert_false(l.pressed);
	/* What is lent is not available any more, and counts. */
	m.available_bytes = 24 * G;
	m.lent_bytes = 40 * G;
	assert_int_equal(pool_lend_idle(&m).lent_bytes, 56 * G);
	m.making_bytes = 10 * G;
	assert_int_equal(pool_lend_idle(&m).lent_bytes, 46 * G);
	m.making_bytes = 30 * G;
	assert_int_equal(pool_lend_idle(&m).lent_bytes, 40 * G);
}

static void less_than_the_reserve_is_wanted_back(void **state)
{
	struct pool_machine m = {.available_bytes = 7 * G,
		.reserve_bytes = 8 * G,
		.lent_bytes = 40 * G};
	struct pool_lending l = pool_lend_idle(&m);

	assert_true(l.pressed);
	assert_int_equal(l.give_back_bytes, G);
	assert_int_equal(l.lent_bytes, 40 * G);
	/* No more than there is. */
	m.lent_bytes = G / 2;
	assert_int_equal(pool_lend_idle(&m).give_back_bytes, G / 2);
	m.lent_bytes = 0;
	l = pool_lend_idle(&m);
	assert_int_equal(l.give_back_bytes, 0);
	assert_true(l.pressed);
}

static void it_is_over_when_there_is_a_little_more(void **state)
{
	struct pool_machine m = {.available_bytes = 8 * G + G / 4,
		.reserve_bytes = 8 * G,
		.was_pressed = true};

	assert_true(pool_lend_idle(&m).pressed);
	assert_int_equal(pool_lend_idle(&m).give_back_bytes, 0);
	m.available_bytes = 8 * G + G / 2;
	assert_false(pool_lend_idle(&m).pressed);
}

static void who_waits_for_memory_is_pressed(void **state)
{
	const struct pool_machine m = {.available_bytes = 64 * G,
		.reserve_bytes = 8 * G,
		.lent_bytes = G,
		.stalled_percent = 12.5};
	const struct pool_lending l = pool_lend_idle(&m);

	assert_true(l.pressed);
	assert_int_equal(l.lent_bytes, G);
	assert_int_equal(l.give_back_bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_but_the_reserve_is_lent),
		cmocka_unit_test(less_than_the_reserve_is_wanted_back),
		cmocka_unit_test(it_is_over_when_there_is_a_little_more),
		cmocka_unit_test(who_waits_for_memory_is_pressed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
