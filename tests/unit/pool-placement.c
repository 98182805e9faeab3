/* SPDX-License-Identifier: MIT */
/* Where a lease's copies go, and why not elsewhere. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/pool/placement.h"

#define G WEFT_GIB
#define DONOR(n, r, lent, used, nr)                                                                \
	{                                                                                          \
		.name = (n), .rack = (r), .lent_bytes = (lent), .used_bytes = (used),              \
		.nr_regions = (nr)                                                                 \
	}

static enum pool_why why(const struct pool_place *donor, const struct pool_wish *wish)
{
	return pool_why_not(donor, 1, 0, wish, NULL, 0);
}

static void the_donor_with_most_room_is_the_best(void **state)
{
	const struct pool_place donors[] = {
		DONOR("a", "", 8 * G, 7 * G, 1), DONOR("b", "", 64 * G, 60 * G, 3),
		DONOR("c", "", 16 * G, 10 * G, 9),
		DONOR("d", "", 2 * G, 3 * G, 1), /* it lends less than it did */
	};
	struct pool_wish wish = {.size_bytes = G, .copies = 3};
	size_t chosen[POOL_COPIES_MAX] = {9, 9, 9};

	assert_int_equal(pool_place(donors, 4, &wish, chosen), 0);
	assert_int_equal(chosen[0], 2);
	assert_int_equal(chosen[1], 1);
	assert_int_equal(chosen[2], 0);
	wish.size_bytes = 4 * G;
	assert_int_equal(pool_place(donors, 4, &wish, chosen), -ENOSPC);
	assert_int_equal(chosen[0], 2); /* untouched */
	wish.copies = 2;
	assert_int_equal(pool_place(donors, 4, &wish, chosen), 0);
	wish.size_bytes = 6 * G + 1;
	wish.copies = 1;
	assert_int_equal(pool_place(donors, 4, &wish, chosen), -ENOSPC);
	assert_int_equal(pool_place(donors, 0, &wish, chosen), -ENOSPC);
}

static void of_two_with_the_same_room_it_is_told_which(void **state)
{
	const struct pool_place donors[] = {
		DONOR("b", "", 8 * G, 4 * G, 2),
		DONOR("a", "", 8 * G, 4 * G, 2),
		DONOR("c", "", 4 * G, 0, 3),
	};
	const struct pool_wish wish = {.size_bytes = G, .copies = 2};
	size_t chosen[POOL_COPIES_MAX];

	assert_int_equal(pool_place(donors, 3, &wish, chosen), 0);
	assert_int_equal(chosen[0], 1);
	assert_int_equal(chosen[1], 0);
}

static void each_reason_keeps_a_donor_out(void **state)
{
	const struct pool_wish wish = {.size_bytes = G, .copies = 1};
	const struct pool_wish at = {.size_bytes = G, .copies = 1, .at = "b"};
	const struct pool_wish racks = {.size_bytes = G, .copies = 1, .spread_racks = true};
	struct pool_place d = DONOR("a", "r1", 8 * G, 0, 0);

	assert_int_equal(why(&d, &wish), POOL_FITS);
	assert_int_equal(why(&d, &at), POOL_IS_OTHER);
	d.name = "b";
	assert_int_equal(why(&d, &at), POOL_FITS);
	d.used_bytes = 7 * G + 1;
	assert_int_equal(why(&d, &wish), POOL_TOO_SMALL);
	d.nr_regions = POOL_REGIONS_MAX;
	assert_int_equal(why(&d, &wish), POOL_TOO_MANY);
	assert_int_equal(why(&d, &racks), POOL_TOO_MANY);
	d.rack = "";
	assert_int_equal(why(&d, &racks), POOL_NO_RACK);
	d.has_copy = true;
	assert_int_equal(why(&d, &racks), POOL_HAS_A_COPY);
	d.refused = true;
	assert_int_equal(why(&d, &wish), POOL_REFUSED);
	d.pressed = true;
	assert_int_equal(why(&d, &wish), POOL_IS_PRESSED);
	d.draining = true;
	assert_int_equal(why(&d, &wish), POOL_IS_DRAINING);
	d.cordoned = true;
	assert_int_equal(why(&d, &wish), POOL_IS_CORDONED);
	d.silent = true;
	assert_int_equal(why(&d, &wish), POOL_IS_SILENT);
	for (int i = 0; i < POOL_NR_WHYS; i++)
		assert_non_null(pool_why_text((enum pool_why)i));
}

static void copies_are_in_racks_of_their_own(void **state)
{
	struct pool_place donors[] = {
		DONOR("a", "r1", 90 * G, 0, 0),
		DONOR("b", "r1", 80 * G, 0, 0),
		DONOR("c", "r2", 8 * G, 0, 0),
		DONOR("d", "", 70 * G, 0, 0),
		DONOR("e", "r3", 4 * G, 0, 0),
	};
	struct pool_wish wish = {.size_bytes = G, .copies = 3, .spread_racks = true};
	size_t chosen[POOL_COPIES_MAX];

	assert_int_equal(pool_place(donors, 5, &wish, chosen), 0);
	assert_int_equal(chosen[0], 0);
	assert_int_equal(chosen[1], 2);
	assert_int_equal(chosen[2], 4);
	wish.copies = 1;
	/* Beside a copy that stays. */
	donors[0].has_copy = true;
	assert_int_equal(pool_place(donors, 5, &wish, chosen), 0);
	assert_int_equal(chosen[0], 2);
	wish.spread_racks = false;
	assert_int_equal(pool_place(donors, 5, &wish, chosen), 0);
	assert_int_equal(chosen[0], 1);
}

/* Whether copies can go to racks that differ, by trying all. */
static bool can_be(const struct pool_place *donors, size_t nr, const struct pool_wish *wish,
	size_t *chosen, size_t nr_chosen)
{
	if (nr_chosen == wish->copies)
		return true;
	for (size_t i = 0; i < nr; i++) {
		chosen[nr_chosen] = i;
		if (pool_why_not(donors, nr, i, wish, chosen, nr_chosen) == POOL_FITS &&
			can_be(donors, nr, wish, chosen, nr_chosen + 1))
			return true;
	}
	return false;
}

static void a_place_is_found_if_there_is_one(void **state)
{
	static const char *const racks[] = {"r1", "r2", "r3", ""};
	unsigned found = 0;

	srandom(18);
	for (int round = 0; round < 5000; round++) {
		struct pool_place donors[6];
		size_t chosen[POOL_COPIES_MAX], tried[POOL_COPIES_MAX];
		const struct pool_wish wish = {.size_bytes = G * (1 + (uint64_t)random() % 4),
			.copies = 1 + (unsigned)random() % POOL_COPIES_MAX,
			.spread_racks = random() % 2};

		for (size_t i = 0; i < 6; i++)
			donors[i] = (struct pool_place){.name = "x",
				.rack = racks[random() % 4],
				.lent_bytes = G * (uint64_t)(random() % 6),
				.used_bytes = G * (uint64_t)(random() % 6),
				.silent = random() % 4 == 0,
				.has_copy = random() % 8 == 0};
		int r = pool_place(donors, 6, &wish, chosen);
		assert_int_equal(r == 0, can_be(donors, 6, &wish, tried, 0));
		for (unsigned i = 0; r == 0 && i < wish.copies; i++)
			assert_int_equal(pool_why_not(donors, 6, chosen[i], &wish, chosen, i),
				POOL_FITS);
		found += r == 0;
	}
	assert_in_range(found, 500, 4500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_donor_with_most_room_is_the_best),
		cmocka_unit_test(of_two_with_the_same_room_it_is_told_which),
		cmocka_unit_test(each_reason_keeps_a_donor_out),
		cmocka_unit_test(copies_are_in_racks_of_their_own),
		cmocka_unit_test(a_place_is_found_if_there_is_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
