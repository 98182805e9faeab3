/* SPDX-License-Identifier: MIT */
/*
 * weft bench --methods: a wrong byte is found wherever it is, and the table of decisions names what
 * the figures say.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "perf/methods/methods.h"

enum { PAGES = 64 };

static struct methods_contents contents;

static int set_up(void **state)
{
	return methods_contents_new(&contents, 7, PAGES * METHODS_PAGE);
}

static int tear_down(void **state)
{
	methods_contents_free(&contents);
	return 0;
}

static void what_was_made_is_right(void **state)
{
	static uint8_t buf[PAGES * METHODS_PAGE];

	methods_contents_make(&contents, buf, sizeof(buf), 0);
	assert_int_equal(methods_contents_check(&contents, buf, sizeof(buf), 0, NULL), 0);
	/* Any part of it, too. */
	assert_int_equal(methods_contents_check(&contents, buf + 3 * METHODS_PAGE, METHODS_PAGE,
				 3 * METHODS_PAGE, NULL),
		0);
	assert_memory_not_equal(buf, buf + METHODS_PAGE, METHODS_PAGE);
}

static void one_wrong_bit_is_found(void **state)
{
	static uint8_t buf[2 * METHODS_PAGE];
	struct weft_error err;

	for (size_t at = 0; at < sizeof(buf); at += 61) {
		methods_contents_make(&contents, buf, sizeof(buf), 0);
		buf[at] ^= 1;
		assert_int_equal(methods_contents_check(&contents, buf, sizeof(buf), 0, &err),
			-EILSEQ);
	}
}

static void old_bytes_and_those_of_another_place_are_wrong(void **state)
{
	static uint8_t buf[METHODS_PAGE];

	methods_contents_make(&contents, buf, sizeof(buf), 0);
	assert_int_equal(methods_contents_check(
				 &contents, buf, sizeof(buf), METHODS_PAGE, NULL),
		-EILSEQ);
	methods_contents_change(&contents, 0, METHODS_PAGE);
	assert_int_equal(methods_contents_check(&contents, buf, sizeof(buf), 0, NULL), -EILSEQ);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(methods_contents_check(&contents, buf, sizeof(buf), 0, NULL), -EILSEQ);
}

static json_t *cell(const char *method, const char *mode, bool peer, double MB_s, double p50_us)
{
	return json_pack("{s:f, s:s, s:s, s:s, s:b, s:f, s:{s:{s:f}, s:{s:f}}}", "rtt_ms", 5.0,
		"method", method, "mode", mode, "transport", "tcp", "peer", peer, "first_ms", 6.0,
		"works", "read", "MB_s", MB_s, "random_read", "p50_us", p50_us);
}

static const json_t *decision(const json_t *all, const char *head)
{
	const json_t *one;
	size_t i;

	json_array_foreach(all, i, one)
		if (strstr(json_string_value(json_object_get(one, "situation")), head))
			return one;
	return NULL;
}

static void decisions_are_the_figures(void **state)
{
	json_t *run = json_pack("{s:i, s:[o, o, o, o]}", "weft_bench_methods", 1, "cells",
		cell("library", "managed", false, 900, 5000),
		cell("socket", "managed", false, 800, 5200), cell("map", "paged", false, 100, 6000),
		cell("nbdkit", "cache", true, 5000, 1));
	json_t *all = methods_decide(run);
	const json_t *much = decision(all, "read much"), *small = decision(all, "look up"), *good;

	assert_true(methods_is_run(run));
	assert_string_equal(json_string_value(json_object_get(much, "best")), "library managed");
	good = json_object_get(much, "as_good");
	assert_int_equal(json_array_size(good), 1);
	assert_string_equal(json_string_value(json_array_get(good, 0)), "socket managed");
	/* Less is better, and 6000 is within a fifth. */
	assert_string_equal(json_string_value(json_object_get(small, "best")), "library managed");
	assert_int_equal(json_array_size(json_object_get(small, "as_good")), 2);
	/* What nobody measured is not decided. */
	assert_null(decision(all, "give all of it"));
	json_decref(all);
	json_decref(run);
}

static void names_say_the_transport_where_it_is_another(void **state)
{
	json_t *one = json_pack("{s:s, s:s, s:s}", "method", "library", "mode", "direct",
		"transport", "quic");
	char name[64];

	assert_string_equal(methods_name(one, name), "library direct over quic");
	json_object_set_new(one, "transport", json_string("tcp"));
	assert_string_equal(methods_name(one, name), "library direct");
	json_decref(one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_made_is_right),
		cmocka_unit_test(one_wrong_bit_is_found),
		cmocka_unit_test(old_bytes_and_those_of_another_place_are_wrong),
		cmocka_unit_test(decisions_are_the_figures),
		cmocka_unit_test(names_say_the_transport_where_it_is_another),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
