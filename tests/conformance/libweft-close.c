/* SPDX-License-Identifier: MIT */
/* The end of a handle of the C API: it is closed, or its donor is gone, with commands in flight. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { IO = 4096, DEPTH = 16 };

static void closing_ends_what_is_in_flight(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct libweft_told told[DEPTH] = {0};
	uint8_t bufs[DEPTH][IO] = {0};

	/* Without its donor nothing is answered. */
	libweft_stop(state);
	for (unsigned i = 0; i < DEPTH; i++) {
		const struct weft_completion completion =
			{libweft_tell, &told[i], libweft_tell_free};

		told[i].retire = 1;
		if (i % 2)
			assert_true(weft_aio_pwrite(w, bufs[i], IO, 0, &completion) > 0);
		else
			assert_true(weft_aio_pread(w, bufs[i], IO, 0, &completion) > 0);
	}
	assert_true(weft_aio_flush(w, NULL) > 0);
	weft_close(w);
	for (unsigned i = 0; i < DEPTH; i++) {
		assert_int_equal(atomic_load(&told[i].nr), 1);
		assert_int_equal(atomic_load(&told[i].nr_freed), 1);
		assert_int_equal(atomic_load(&told[i].error), -ECANCELED);
	}
}

/* Begins the same command again and again, until it is refused. */
struct again {
	struct weft *w;
	uint8_t buf[IO];
	int64_t refused;
	_Atomic unsigned nr;
};

static int begin_again(void *user, int error)
{
	struct again *again = user;
	const struct weft_completion completion = {.fn = begin_again, .user = again};

	atomic_fetch_add(&again->nr, 1);
	int64_t r = weft_aio_pread(again->w, again->buf, IO, 0, &completion);
	if (r < 0)
		again->refused = r;
	return 1;
}

static void closing_refuses_what_completions_begin(void **state)
{
	struct again again = {.w = libweft_open_write_back(1)};
	uint8_t out[IO], in[IO];
	uint64_t end = libweft_bound_ns();

	conf_fill(out, 0, IO, 5);
	assert_int_equal(weft_pwrite(again.w, out, IO, IO), 0);
	begin_again(&again, 0);
	while (atomic_load(&again.nr) < 100) {
		assert_true(weft_now_ns() < end);
		weft_aio_poll(again.w, 10);
	}
	uint64_t begin_ns = weft_now_ns();
	weft_close(again.w);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(20000000000));
	assert_int_equal(again.refused, -ECANCELED);
	struct weft *w = libweft_open_when_free(libweft_uri, 0);
	assert_int_equal(weft_pread(w, in, IO, IO), 0);
	assert_memory_equal(in, out, IO);
	weft_close(w);
}

/* A write that ends well while the handle is closed is at the donor. */
static void closing_loses_nothing_that_was_done(void **state)
{
	uint8_t *out = test_malloc(CONF_REGION_BYTES), *in = test_malloc(CONF_REGION_BYTES);

	for (unsigned i = 0; i < 20; i++) {
		weft_close(libweft_open_when_free(libweft_uri, 0));
		weft_close(libweft_open_when_free(libweft_uri, 0));
		struct weft *w = libweft_open_write_back(2);
		struct libweft_told told = {.retire = 1};
		const struct weft_completion completion = {libweft_tell, &told, libweft_tell_free};

		conf_fill(out, 0, CONF_REGION_BYTES, 100 + i);
		assert_true(weft_aio_pwrite(w, out, CONF_REGION_BYTES, 0, &completion) > 0);
		weft_close(w);
		int error = atomic_load(&told.error);
		assert_int_equal(atomic_load(&told.nr), 1);
		assert_true(error == 0 || error == -ECANCELED);
		if (error < 0)
			continue;
		w = libweft_open_when_free(libweft_uri, 0);
		assert_int_equal(weft_pread(w, in, CONF_REGION_BYTES, 0), 0);
		assert_memory_equal(in, out, CONF_REGION_BYTES);
		weft_close(w);
	}
	test_free(out);
	test_free(in);
}

/*
 * Keeps its connection, on the library's thread, until the handle is being closed: the one that
 * closes has left its calls.
 */
static int hold_until_closing(void *user, int error)
{
	struct libweft_hold *hold = user;
	const struct weft_completion completion = {.fn = hold_until_closing, .user = hold};

	if (pthread_equal(pthread_self(), hold->thread)) {
		weft_aio_pread(hold->w, &hold->byte, 1, 0, &completion);
		return 1;
	}
	sem_post(&hold->held);
	while (weft_aio_flush(hold->w, NULL) > 0)
		poll(NULL, 0, 1);
	return 1;
}

static void closing_waits_for_no_more_of_a_command_than_is_in_flight(void **state)
{
	struct libweft_hold hold = {.w = libweft_open_write_back(1), .thread = pthread_self()};
	const struct weft_completion holds = {.fn = hold_until_closing, .user = &hold};
	uint8_t *buf = test_calloc(1, CONF_REGION_BYTES);
	struct libweft_told told = {.retire = 1};
	const struct weft_completion completion = {libweft_tell, &told, NULL};

	sem_init(&hold.held, 0, 0);
	assert_true(weft_aio_pread(hold.w, &hold.byte, 1, 0, &holds) > 0);
	sem_wait(&hold.held);
	assert_true(weft_aio_pread(hold.w, buf, CONF_REGION_BYTES, 0, &completion) > 0);
	weft_close(hold.w);
	assert_int_equal(atomic_load(&told.error), -ECANCELED);
	test_free(buf);
}

static void a_donor_that_is_gone_is_told_in_time(void **state)
{
	const struct weft_options options = {.size = sizeof(options), .dead_timeout_ms = 500};
	struct weft *w = libweft_open_with(&options);
	uint8_t buf[IO] = {0};

	libweft_stop(state);
	uint64_t begin_ns = weft_now_ns();
	assert_int_equal(weft_pread(w, buf, IO, 0), -ENOTCONN);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(10000000000));
	/* At once from then on. */
	assert_int_equal(weft_pwrite(w, buf, IO, 0), -ENOTCONN);
	assert_int_equal(weft_flush(w), -ENOTCONN);
	assert_int_equal(weft_aio_wait(w, weft_aio_pread(w, buf, IO, 0, NULL)), -ENOTCONN);
	weft_close(w);
}

static void a_stock_server_that_is_gone_loses_the_handle(void **state)
{
	char stock[128];
	uint8_t buf[IO];

	snprintf(stock, sizeof(stock), "nbd+unix:///r?socket=%s", libweft_conf->target.host);
	struct weft *w = libweft_open(stock, 0);
	libweft_stop(state);
	assert_int_equal(weft_pread(w, buf, IO, 0), -ENOTCONN);
	assert_int_equal(weft_pread(w, buf, IO, 0), -ENOTCONN);
	weft_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		libweft_both_cases(closing_ends_what_is_in_flight),
		libweft_both_cases(closing_refuses_what_completions_begin),
		libweft_both_cases(closing_loses_nothing_that_was_done),
		libweft_buffered_case(closing_waits_for_no_more_of_a_command_than_is_in_flight),
		libweft_case(a_donor_that_is_gone_is_told_in_time),
		libweft_case(a_stock_server_that_is_gone_loses_the_handle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
