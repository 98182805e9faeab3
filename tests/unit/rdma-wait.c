/* SPDX-License-Identifier: MIT */
/* How long it is worth looking for completions (transports/rdma/wait.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transports/rdma/wait.h"

/* Looks once, until it is over: how many times it looked. */
static unsigned look_in_vain(struct weft_rdma_spin *spin)
{
	unsigned nr = 1;

	if (!weft_rdma_spin_begin(spin))
		return 0;
	while (weft_rdma_spin_goes_on(spin))
		nr++;
	return nr;
}

static void looking_in_vain_gets_shorter_and_ends(void **state)
{
	struct weft_rdma_spin spin = {0};
	uint64_t before;
	unsigned nr = 0;

	weft_rdma_spin_init(&spin, 0);
	assert_int_equal(spin.ns, WEFT_RDMA_SPIN_US * 1000);
	while (spin.ns > 0) {
		before = spin.ns;
		assert_true(look_in_vain(&spin) > 0);
		assert_true(spin.ns < before);
		assert_true(++nr < 16);
	}
	assert_true(nr > 2);
	assert_int_equal(look_in_vain(&spin), 0);
}

static void looking_is_tried_again_after_many_sleeps(void **state)
{
	struct weft_rdma_spin spin = {0};
	unsigned nr_sleeps = 0;

	weft_rdma_spin_init(&spin, 5);
	while (spin.ns > 0)
		look_in_vain(&spin);
	while (look_in_vain(&spin) == 0)
		assert_true(++nr_sleeps < WEFT_RDMA_SPIN_AGAIN);
	assert_int_equal(nr_sleeps, WEFT_RDMA_SPIN_AGAIN - 1);
	assert_true(spin.ns > 0);
}

static void what_was_found_is_worth_all_of_the_time(void **state)
{
	struct weft_rdma_spin spin = {0};

	weft_rdma_spin_init(&spin, 40);
	look_in_vain(&spin);
	assert_true(spin.ns < 40000);
	assert_true(weft_rdma_spin_begin(&spin));
	weft_rdma_spin_found(&spin);
	assert_int_equal(spin.ns, 40000);
}

static void whoever_wants_none_never_looks(void **state)
{
	struct weft_rdma_spin spin = {0};

	weft_rdma_spin_init(&spin, UINT32_MAX);
	for (unsigned i = 0; i < 2 * WEFT_RDMA_SPIN_AGAIN; i++)
		assert_false(weft_rdma_spin_begin(&spin));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(looking_in_vain_gets_shorter_and_ends),
		cmocka_unit_test(looking_is_tried_again_after_many_sleeps),
		cmocka_unit_test(what_was_found_is_worth_all_of_the_time),
		cmocka_unit_test(whoever_wants_none_never_looks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
