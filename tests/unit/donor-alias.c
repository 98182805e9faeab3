/* SPDX-License-Identifier: MIT */
/* A session's alias: who may come by it, at which generation, and until when. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "tests/support/donor-sessions.h"

enum { ALIAS = 0x5a };

static int grant_with_alias(struct session *s, uint8_t who, uint64_t generation,
	enum weft_mode mode)
{
	struct weft_hello hello = hello_of(who, generation, mode);

	hello.has_alias = true;
	memset(hello.alias, ALIAS, sizeof(hello.alias));
	return grant_hello(s, &hello);
}

static int come_by(struct session *s, uint8_t alias)
{
	struct weft_hello hello = {.anonymous = true, .has_alias = true};

	memset(hello.alias, alias, sizeof(hello.alias));
	return grant_hello(s, &hello);
}

static void one_session_more_of_the_same_attachment(void **state)
{
	struct session control, kernel, second, reader;

	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&kernel, ALIAS), 0);
	assert_true(kernel.grant->writable);
	assert_ptr_equal(kernel.grant->attachment, control.grant->attachment);
	assert_false(control.fenced);
	assert_int_equal(grant(&second, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	assert_int_equal(grant_stock(&second), -EBUSY);
	release(&kernel, true);
	release(&control, true);
	assert_int_equal(grant_with_alias(&reader, 3, 1, WEFT_MODE_READ), 0);
	assert_int_equal(come_by(&kernel, ALIAS), 0);
	assert_false(kernel.grant->writable);
	release(&kernel, true);
	release(&reader, true);
}

static void who_guesses_gets_nothing(void **state)
{
	struct session control, other;

	assert_int_equal(come_by(&other, ALIAS), -ENOENT);
	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&other, ALIAS + 1), -ENOENT);
	/* A session without an alias has not that of all zeros. */
	release(&control, true);
	assert_int_equal(grant(&control, 1, 8, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&other, 0), -ENOENT);
	release(&control, true);
}

static void another_key_cannot_use_it(void **state)
{
	const struct weft_peer host = {
		.text = "h", .transport = "srp", .local = true, .host = "host-b"};
	struct weft_hello hello = {.anonymous = true, .has_alias = true};
	struct session control, other;

	memset(hello.alias, ALIAS, sizeof(hello.alias));
	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(grant_to(&other, &host, &hello), -ENOENT);
	release(&control, true);
}

static void a_higher_generation_fences_it_first(void **state)
{
	struct session control, kernel, next;

	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&kernel, ALIAS), 0);
	start_copier(&control);
	start_copier(&kernel);
	assert_int_equal(claim(&next, 1, 8, WEFT_MODE_WRITE), 0);
	assert_true(kernel.fenced && atomic_load(&kernel.released));
	pthread_join(control.thread, NULL);
	pthread_join(kernel.thread, NULL);
	/* The alias was the old session's. */
	assert_int_equal(come_by(&kernel, ALIAS), -ENOENT);
	release(&next, true);
}

static void a_goodbye_ends_it_before_the_region_is_free(void **state)
{
	struct session control, kernel, second;

	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&kernel, ALIAS), 0);
	start_copier(&kernel);
	release(&control, true);
	assert_true(atomic_load(&kernel.released));
	pthread_join(kernel.thread, NULL);
	assert_int_equal(grant(&second, 2, 1, WEFT_MODE_WRITE), 0);
	release(&second, true);
}

static void its_own_goodbye_does_not_free_the_region(void **state)
{
	struct session control, kernel, second;

	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&kernel, ALIAS), 0);
	release(&control, false);
	release(&kernel, true);
	assert_int_equal(grant(&second, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	tick_in(LEASE_MS + 100);
	assert_int_equal(grant(&second, 2, 1, WEFT_MODE_WRITE), 0);
	release(&second, true);
}

/* The control process was killed: the kernel goes on, and is alive as long as it answers. */
static void it_outlives_its_session_and_keeps_the_lease(void **state)
{
	struct session control, kernel, second, other;

	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&kernel, ALIAS), 0);
	weft_grant_touch(kernel.grant, UINT64_MAX);
	release(&control, false);
	tick_in(10 * LEASE_MS);
	assert_false(kernel.fenced);
	assert_int_equal(grant(&second, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	/* Nobody else comes by it. */
	assert_int_equal(come_by(&other, ALIAS), -ENOENT);
	/* Its connection has ended: silent since its kernel answered last. */
	weft_grant_touch(kernel.grant, weft_now_ns());
	release(&kernel, false);
	assert_int_equal(grant(&second, 2, 1, WEFT_MODE_WRITE), -EBUSY);
	tick_in(LEASE_MS + 100);
	assert_int_equal(grant(&second, 2, 1, WEFT_MODE_WRITE), 0);
	release(&second, true);
	/* Whoever remembers is told that another could write. */
	assert_int_equal(claim(&control, 1, 8, WEFT_MODE_WRITE), -ESTALE);
}

static void a_lapse_fences_it(void **state)
{
	struct session control, kernel;

	assert_int_equal(grant_with_alias(&control, 1, 7, WEFT_MODE_WRITE), 0);
	assert_int_equal(come_by(&kernel, ALIAS), 0);
	tick_in(LEASE_MS + 100);
	assert_true(control.fenced && kernel.fenced);
	release(&kernel, false);
	release(&control, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(one_session_more_of_the_same_attachment),
		TEST(who_guesses_gets_nothing),
		TEST(another_key_cannot_use_it),
		TEST(a_higher_generation_fences_it_first),
		TEST(a_goodbye_ends_it_before_the_region_is_free),
		TEST(its_own_goodbye_does_not_free_the_region),
		TEST(it_outlives_its_session_and_keeps_the_lease),
		TEST(a_lapse_fences_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
