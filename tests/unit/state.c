/* What outlives a bridge: lanes note it in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nbd-bridge/lane.h"
#include "nbd-bridge/state.h"

static void what_comes_late_takes_nothing_back(void **state)
{
	struct bridge_state_donor donor = {0};

	bridge_state_note(&donor, 1, 5, false);
	assert_false(donor.wrote);
	bridge_state_note(&donor, 1, 5, true);
	/* Another lane's grant at the same generation, and one of before. */
	bridge_state_note(&donor, 1, 5, false);
	assert_true(donor.granted == 5 && donor.wrote);
	bridge_state_note(&donor, 1, 4, true);
	assert_true(donor.granted == 5 && donor.wrote);
	bridge_state_note(&donor, 2, 6, false);
	assert_true(donor.epoch == 2 && donor.granted == 6 && !donor.wrote);
	bridge_state_note(&donor, 1, 5, true);
	assert_true(donor.epoch == 2 && donor.granted == 6 && !donor.wrote);
}

static void a_late_write_of_a_lower_generation_hides_no_newer_one(void **state)
{
	struct bridge bridge = {0};
	struct bridge_donor donor = {.bridge = &bridge};

	assert_int_equal(donor_note_wrote(&donor, 5), 0);
	assert_int_equal(donor_note_wrote(&donor, 4), 0);
	assert_true(atomic_load(&donor.wrote_generation) == 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_comes_late_takes_nothing_back),
		cmocka_unit_test(a_late_write_of_a_lower_generation_hides_no_newer_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
