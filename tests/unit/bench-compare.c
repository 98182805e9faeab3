/* SPDX-License-Identifier: MIT */
/*
 * weft bench --compare: a real difference is found, the same thing twice is none, and a machine
 * that became slower is no regression.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "tests/support/seed.h"

enum { ROUNDS = 9, CELLS = 30 };

static uint64_t seed;

static int set_up(void **state)
{
	seed = seed_or(20261125);
	return 0;
}

static double noisy(double middle, double sigma)
{
	double sum = 0;

	for (int i = 0; i < 12; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		sum += (double)(seed >> 11) / 9007199254740992.0;
	}
	return middle * exp(sigma * (sum - 6));
}

static json_t *figure(double middle, double sigma)
{
	json_t *rounds = json_array();

	for (int i = 0; i < ROUNDS; i++)
		json_array_append_new(rounds, json_real(noisy(middle, sigma)));
	return json_pack("{s:o}", "rounds", rounds);
}

/* pace: of the machine.  faster: of the first cell only. */
static json_t *new_run(double pace, double faster, double sigma)
{
	json_t *cells = json_array();

	for (int i = 0; i < CELLS; i++) {
		double speed = pace * (i == 0 ? faster : 1) * (1000 + 100 * i);

		json_array_append_new(cells,
			json_pack("{s:s, s:s, s:i, s:i, s:o, s:{s:o}}", "path", "tcp direct", "op",
				"read", "block_bytes", 4096, "depth", i + 1, "ops_s",
				figure(speed, sigma), "cpu_us", "all",
				figure(1e6 / speed, sigma / 4)));
	}
	return json_pack("{s:i, s:s, s:o, s:o}", "weft_bench", 1, "when", "now", "control_ops_s",
		figure(pace * 50000, sigma / 2), "cells", cells);
}

/* Rows with that verdict. */
static unsigned count(const json_t *comparison, const char *verdict)
{
	const json_t *row;
	unsigned n = 0;
	size_t i;

	json_array_foreach(json_object_get(comparison, "rows"), i, row)
		n += strcmp(json_string_value(json_object_get(row, "verdict")), verdict) == 0;
	return n;
}

static json_t *compare(json_t *a, json_t *b, unsigned *ret_worse)
{
	json_t *comparison = bench_compare(a, b, ret_worse);

	json_decref(a);
	json_decref(b);
	return comparison;
}

static void the_same_thing_twice_is_no_difference(void **state)
{
	unsigned worse, alarms = 0;

	for (int i = 0; i < 60; i++) {
		json_t *c = compare(new_run(1, 1, 0.3), new_run(1, 1, 0.3), &worse);

		alarms += count(c, "better") + worse > 0;
		json_decref(c);
	}
	assert_in_range(alarms, 0, 2);
}

static void a_run_compared_with_itself_is_no_difference(void **state)
{
	json_t *a = new_run(1, 1, 0.3);
	unsigned worse;
	json_t *c = bench_compare(a, a, &worse);

	assert_int_equal(worse, 0);
	assert_int_equal(count(c, "same"), 2 * CELLS);
	json_decref(c);
	json_decref(a);
}

static void a_real_difference_is_found(void **state)
{
	unsigned worse, found = 0;

	for (int i = 0; i < 20; i++) {
		json_t *c = compare(new_run(1, 1, 0.1), new_run(1, 0.5, 0.1), &worse);

		found += worse == 2; /* its throughput and its cost */
		assert_int_equal(count(c, "better"), 0);
		json_decref(c);
		c = compare(new_run(1, 0.5, 0.1), new_run(1, 1, 0.1), &worse);
		assert_int_equal(worse, 0);
		found += count(c, "better") == 2;
		json_decref(c);
	}
	assert_in_range(found, 38, 40);
}

static void a_slower_machine_is_no_regression(void **state)
{
	unsigned worse;
	json_t *c = compare(new_run(1, 1, 0.05), new_run(0.7, 1, 0.05), &worse);

	assert_int_equal(worse, 0);
	json_decref(c);
	/* … but does not hide a greater one. */
	c = compare(new_run(1, 1, 0.05), new_run(0.7, 0.3, 0.05), &worse);
	assert_true(worse >= 1);
	json_decref(c);
}

static void other_cells_are_named_not_compared(void **state)
{
	json_t *a = new_run(1, 1, 0.1), *b = new_run(1, 1, 0.1);
	unsigned worse;

	json_object_set_new(json_array_get(json_object_get(b, "cells"), 3), "path",
		json_string("rdma direct"));
	json_t *c = compare(a, b, &worse);
	assert_int_equal(json_array_size(json_object_get(c, "rows")), 2 * (CELLS - 1));
	assert_int_equal(json_array_size(json_object_get(c, "only_a")), 1);
	assert_string_equal(json_string_value(json_array_get(json_object_get(c, "only_b"), 0)),
		"rdma direct");
	json_decref(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_thing_twice_is_no_difference),
		cmocka_unit_test(a_run_compared_with_itself_is_no_difference),
		cmocka_unit_test(a_real_difference_is_found),
		cmocka_unit_test(a_slower_machine_is_no_regression),
		cmocka_unit_test(other_cells_are_named_not_compared),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
