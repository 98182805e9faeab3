/* SPDX-License-Identifier: MIT */
/* Where a taker connects to for the bytes: fabric/move/pull-connect.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "fabric/move/pull-private.h"

/* An offer names the donor's address twice, as one of its own and as the one that is asked. */
static void a_place_is_tried_once(void **state)
{
	struct pull_tried tried = {0};
	char port[8];

	assert_true(pull_is_new_place(&tried, "10.0.0.1", "10809"));
	assert_false(pull_is_new_place(&tried, "10.0.0.1", "10809"));
	assert_true(pull_is_new_place(&tried, "10.0.0.1", "10810"));
	assert_true(pull_is_new_place(&tried, "10.0.0.2", "10809"));
	assert_false(pull_is_new_place(&tried, "10.0.0.1", "10810"));
	/* So many are enough. */
	for (unsigned i = tried.nr; i < PULL_PLACES_MAX; i++) {
		snprintf(port, sizeof(port), "%u", i);
		assert_true(pull_is_new_place(&tried, "10.0.0.3", port));
	}
	assert_false(pull_is_new_place(&tried, "10.0.0.4", "1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_place_is_tried_once)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
