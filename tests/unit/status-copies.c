/* SPDX-License-Identifier: MIT */
/* The line that tells all of an attachment's copies, and its exit status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "nbd-bridge/main/status-copies.h"

static json_t *member(const char *donor, const char *state)
{
	return json_pack("{s:s, s:s, s:I, s:n, s:f, s:n, s:n}", "donor", donor, "state", state,
		"behind_bytes", (json_int_t)0, "since", "silent_s", 0.0, "eta_s", "why");
}

static json_t *copies_of(const char *state, int min, int current, json_t *a, json_t *b)
{
	return json_pack("{s:i, s:i, s:i, s:s, s:[o,o]}", "copies", 2, "min_copies", min,
		"current", current, "state", state, "members", a, b);
}

static void line_is(json_t *copies, const char *line, int code)
{
	char text[1024];

	assert_string_equal(status_copies_line(copies, text, sizeof(text)), line);
	assert_int_equal(status_copies_code(copies), code);
	/* What does not fit is left out. */
	for (size_t len = 1; len < 100; len++)
		assert_true(strlen(status_copies_line(copies, text, len)) < len);
	json_decref(copies);
}

static void a_whole_set_says_what_it_survives(void **state)
{
	line_is(copies_of("whole", 1, 2, member("a", "current"), member("b", "current")),
		"2 copies, all current; survives: 1 donor", 0);
	line_is(copies_of("whole", 2, 2, member("a", "current"), member("b", "current")),
		"2 copies, all current; survives: nothing", 0);
}

static void a_lost_copy_says_since_when_why_and_how_much(void **state)
{
	json_t *lost = member("b", "lost");

	setenv("TZ", "UTC", 1);
	json_object_set_new(lost, "behind_bytes", json_integer(3 << 20));
	json_object_set_new(lost, "since", json_integer(86400 + 14 * 3600 + 120));
	json_object_set_new(lost, "silent_s", json_real(31.2));
	line_is(copies_of("degraded", 1, 1, member("a", "current"), lost),
		"2 copies, 1 current, DEGRADED since 1970-01-02 14:02 (donor b: silent 31 s), "
		"behind 3 MiB, not syncing: no donor to sync with; survives: nothing",
		STATUS_DEGRADED);
}

static void of_today_the_time_is_enough(void **state)
{
	json_t *lost = member("b", "lost");
	const time_t now = time(NULL);
	char line[200], at[16];

	setenv("TZ", "UTC", 1);
	json_object_set_new(lost, "since", json_integer(now));
	json_object_set_new(lost, "why", json_string("connection refused"));
	strftime(at, sizeof(at), "%H:%M", gmtime(&now));
	snprintf(line, sizeof(line),
		"2 copies, 1 current, DEGRADED since %s (donor b: connection refused), behind 0 "
		"B, not syncing: no donor to sync with; survives: nothing",
		at);
	line_is(copies_of("degraded", 1, 1, member("a", "current"), lost), line, STATUS_DEGRADED);
}

static void a_copy_that_comes_back_says_when_it_is_whole(void **state)
{
	json_t *syncing = member("b", "syncing");

	json_object_set_new(syncing, "behind_bytes", json_integer(1 << 20));
	json_object_set_new(syncing, "eta_s", json_integer(40));
	line_is(copies_of("syncing", 1, 1, member("a", "current"), syncing),
		"2 copies, 1 current, DEGRADED (donor b: being made current), behind 1 MiB, whole "
		"again in about 40 s; survives: nothing",
		STATUS_DEGRADED);
}

static void too_few_says_how_many_it_needs(void **state)
{
	line_is(copies_of("too few", 2, 1, member("a", "current"), member("b", "lost")),
		"2 copies, 1 current, TOO FEW (donor b: lost), behind 0 B, not syncing: no donor "
		"to sync with; it needs 2",
		STATUS_TOO_FEW);
}

static void what_has_no_copies_is_well(void **state)
{
	assert_int_equal(status_copies_code(NULL), 0);
	json_t *none = json_null();
	assert_int_equal(status_copies_code(none), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_set_says_what_it_survives),
		cmocka_unit_test(a_lost_copy_says_since_when_why_and_how_much),
		cmocka_unit_test(of_today_the_time_is_enough),
		cmocka_unit_test(a_copy_that_comes_back_says_when_it_is_whole),
		cmocka_unit_test(too_few_says_how_many_it_needs),
		cmocka_unit_test(what_has_no_copies_is_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
