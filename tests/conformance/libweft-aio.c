/* SPDX-License-Identifier: MIT */
/* The C API's asynchronous commands at a donor in this process: what its header promises. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { IO = 4096, DEPTH = 16, MANY = 2000 };

/* ---- results without completions ---- */

static void what_is_written_is_read(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t *out = test_malloc(CONF_REGION_BYTES), *in = test_malloc(CONF_REGION_BYTES);

	conf_fill(out, 0, CONF_REGION_BYTES, 1);
	int64_t cookie = weft_aio_pwrite(w, out, CONF_REGION_BYTES, 0, NULL);
	assert_true(cookie > 0);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	cookie = weft_aio_flush(w, NULL);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	cookie = weft_aio_pread(w, in, CONF_REGION_BYTES - 1, 1, NULL);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	assert_memory_equal(in, out + 1, CONF_REGION_BYTES - 1);
	/* Nothing is a command too. */
	cookie = weft_aio_pread(w, in, 0, CONF_REGION_BYTES, NULL);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	weft_close(w);
	test_free(out);
	test_free(in);
}

static void results_are_kept_until_somebody_asks(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t bufs[DEPTH][IO];
	int64_t cookies[DEPTH];
	uint64_t end = libweft_bound_ns();

	assert_int_equal(weft_aio_poll(w, -1), 0); /* nothing is in flight */
	for (unsigned i = 0; i < DEPTH; i++) {
		cookies[i] = weft_aio_pread(w, bufs[i], IO, i * IO, NULL);
		assert_true(cookies[i] > 0);
		for (unsigned j = 0; j < i; j++)
			assert_true(cookies[i] != cookies[j]);
	}
	unsigned nr = 0;
	while (nr < DEPTH) {
		int64_t cookie;

		assert_true(weft_now_ns() < end);
		assert_int_equal(weft_aio_poll(w, -1), 1);
		while ((cookie = weft_aio_next(w)) != 0) {
			assert_int_equal(weft_aio_result(w, cookie), 0);
			assert_int_equal(weft_aio_result(w, cookie), -ENOENT);
			nr++;
		}
	}
	assert_int_equal(weft_aio_in_flight(w), 0);
	assert_int_equal(weft_aio_poll(w, -1), 0);
	for (unsigned i = 0; i < DEPTH; i++)
		assert_int_equal(weft_aio_wait(w, cookies[i]), -ENOENT);
	weft_close(w);
}

static void cookies_that_nobody_gave_mean_nothing(void **state)
{
	static const int64_t wrong[] = {0, -1, 1, 65536, 65537, INT64_MAX, INT64_MIN};
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < WEFT_ARRAY_LEN(wrong); i++) {
			assert_int_equal(weft_aio_result(w, wrong[i]), -ENOENT);
			assert_int_equal(weft_aio_wait(w, wrong[i]), -ENOENT);
		}
		assert_int_equal(weft_aio_wait(w, weft_aio_pread(w, buf, IO, 0, NULL)), 0);
	}
	weft_close(w);
}

/* ---- completions ---- */

static void wait_told(struct libweft_told *told)
{
	uint64_t end = libweft_bound_ns();

	while (atomic_load(&told->nr_freed) == 0) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 1);
	}
}

static void a_completion_is_told_once_and_freed_after(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];

	for (int retire = 0; retire <= 1; retire++) {
		struct libweft_told told = {.retire = retire};
		const struct weft_completion completion = {libweft_tell, &told, libweft_tell_free};
		int64_t cookie = weft_aio_pread(w, buf, IO, 0, &completion);

		while (weft_aio_in_flight(w) > 0)
			assert_true(weft_aio_poll(w, -1) >= 0);
		assert_int_equal(atomic_load(&told.nr), 1);
		assert_int_equal(atomic_load(&told.nr_freed), 1);
		assert_false(atomic_load(&told.freed_first));
		assert_int_equal(atomic_load(&told.error), 0);
		assert_int_equal(weft_aio_result(w, cookie), retire ? -ENOENT : 0);
	}
	/* Whoever waits for one that retires itself gets the result too, or comes late. */
	struct libweft_told told = {.retire = 1};
	const struct weft_completion completion = {libweft_tell, &told, NULL};
	int r = weft_aio_wait(w, weft_aio_pread(w, buf, IO, 0, &completion));
	assert_true(r == 0 || r == -ENOENT);
	assert_int_equal(atomic_load(&told.nr), 1);
	weft_close(w);
}

static void nobody_needs_to_wait(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];

	for (unsigned i = 0; i < 20; i++) {
		struct libweft_told told = {.retire = 1};
		const struct weft_completion completion = {libweft_tell, &told, libweft_tell_free};

		assert_true(weft_aio_pread(w, buf, IO, 0, &completion) > 0);
		wait_told(&told);
		assert_int_equal(atomic_load(&told.nr), 1);
	}
	weft_close(w);
}

static void what_is_refused_is_freed_and_not_told(void **state)
{
	struct weft *w = libweft_open(libweft_uri, WEFT_OPEN_READ_ONLY);
	struct libweft_told told = {0};
	const struct weft_completion completion = {libweft_tell, &told, libweft_tell_free};
	uint8_t buf[IO] = {0};

	assert_int_equal(weft_aio_pread(w, buf, IO, CONF_REGION_BYTES, &completion), -ENOSPC);
	assert_int_equal(weft_aio_pwrite(w, buf, IO, UINT64_MAX, &completion), -ENOSPC);
	assert_int_equal(weft_aio_pwrite(w, buf, IO, 0, &completion), -EPERM);
	assert_int_equal(atomic_load(&told.nr_freed), 3);
	assert_int_equal(atomic_load(&told.nr), 0);
	assert_int_equal(weft_aio_in_flight(w), 0);
	weft_close(w);
}

/* Reads one block after the other, from inside of its completions. */
struct chain {
	struct weft *w;
	uint8_t buf[IO];
	uint64_t off;
	unsigned left;
	bool wrong;
	_Atomic bool over;
};

static int go_on(void *user, int error)
{
	struct chain *chain = user;
	const struct weft_completion completion = {.fn = go_on, .user = chain};
	uint8_t right[IO];

	conf_fill(right, chain->off, IO, 7);
	chain->wrong |= error < 0 || memcmp(chain->buf, right, IO) != 0;
	chain->off = (chain->off + DEPTH * IO) % CONF_REGION_BYTES;
	if (--chain->left == 0 ||
		weft_aio_pread(chain->w, chain->buf, IO, chain->off, &completion) < 0)
		atomic_store(&chain->over, true);
	return 1;
}

static void fill_region(struct weft *w, uint64_t stamp)
{
	uint8_t *all = test_malloc(CONF_REGION_BYTES);

	conf_fill(all, 0, CONF_REGION_BYTES, stamp);
	assert_int_equal(weft_pwrite(w, all, CONF_REGION_BYTES, 0), 0);
	test_free(all);
}

static void begin_chains(struct weft *w, struct chain *chains)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		const struct weft_completion completion = {.fn = go_on, .user = &chains[i]};

		chains[i].w = w;
		chains[i].off = i * IO;
		chains[i].left = MANY / DEPTH;
		assert_true(weft_aio_pread(w, chains[i].buf, IO, chains[i].off, &completion) > 0);
	}
}

static void check_chains(const struct chain *chains)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		assert_true(atomic_load(&chains[i].over));
		assert_int_equal(chains[i].left, 0);
		assert_false(chains[i].wrong);
	}
}

static void completions_begin_commands(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct chain *chains = test_calloc(DEPTH, sizeof(*chains));
	uint64_t end = libweft_bound_ns();

	fill_region(w, 7);
	begin_chains(w, chains);
	while (weft_aio_in_flight(w) > 0) {
		assert_true(weft_now_ns() < end);
		assert_true(weft_aio_poll(w, 1000) >= 0);
	}
	check_chains(chains);
	weft_close(w);
	test_free(chains);
}

static void a_callers_own_loop_polls_the_descriptor(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct chain *chains = test_calloc(DEPTH, sizeof(*chains));
	int fd = weft_aio_fd(w);

	assert_true(fd >= 0);
	assert_int_equal(weft_aio_fd(w), fd);
	fill_region(w, 7);
	begin_chains(w, chains);
	while (weft_aio_in_flight(w) > 0) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		assert_int_equal(poll(&p, 1, CONF_BOUND_MS), 1);
		assert_true(weft_aio_poll(w, 0) >= 0);
	}
	check_chains(chains);
	weft_close(w);
	test_free(chains);
}

static void a_loop_that_is_late_finds_results_all_the_same(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct pollfd p = {.fd = weft_aio_fd(w), .events = POLLIN};
	uint8_t buf[IO];
	uint64_t end = libweft_bound_ns();

	int64_t cookie = weft_aio_pread(w, buf, IO, 0, NULL);
	/* Somebody takes the answer meanwhile: the library. */
	while (weft_aio_in_flight(w) > 0) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 1);
	}
	assert_int_equal(poll(&p, 1, CONF_BOUND_MS), 1);
	assert_int_equal(weft_aio_poll(w, 0), 1);
	assert_int_equal(weft_aio_next(w), cookie);
	assert_int_equal(weft_aio_result(w, cookie), 0);
	weft_close(w);
}

static void a_descriptor_tells_of_what_ended_before_it_was_asked_for(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];
	uint64_t end = libweft_bound_ns();

	int64_t cookie = weft_aio_pread(w, buf, IO, 0, NULL);
	while (weft_aio_in_flight(w) > 0) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 1);
	}
	struct pollfd p = {.fd = weft_aio_fd(w), .events = POLLIN};
	/* At once: later on the next sign of life would do it. */
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_int_equal(weft_aio_poll(w, 0), 1);
	assert_int_equal(weft_aio_result(w, cookie), 0);
	weft_close(w);
}

struct forbidden {
	struct weft *w;
	int results[6];
};

static int try_to_block(void *user, int error)
{
	struct forbidden *f = user;
	struct weft *other;
	char byte = 0;

	f->results[0] = weft_pread(f->w, &byte, 1, 0);
	f->results[1] = weft_pwrite(f->w, &byte, 1, 0);
	f->results[2] = weft_flush(f->w);
	f->results[3] = weft_aio_wait(f->w, 1);
	f->results[4] = weft_aio_poll(f->w, -1);
	f->results[5] = weft_open(libweft_uri, 0, &other, NULL, 0);
	return 0;
}

static void a_completion_does_not_block(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct forbidden f = {.w = w};
	const struct weft_completion completion = {.fn = try_to_block, .user = &f};
	char byte;

	assert_int_equal(weft_aio_wait(w, weft_aio_pread(w, &byte, 1, 0, &completion)), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(f.results); i++)
		assert_int_equal(f.results[i], -EDEADLK);
	/* And others may, afterwards. */
	assert_int_equal(weft_pread(w, &byte, 1, 0), 0);
	weft_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		libweft_both_cases(what_is_written_is_read),
		libweft_case(results_are_kept_until_somebody_asks),
		libweft_case(cookies_that_nobody_gave_mean_nothing),
		libweft_case(a_completion_is_told_once_and_freed_after),
		libweft_case(nobody_needs_to_wait),
		libweft_case(what_is_refused_is_freed_and_not_told),
		libweft_both_cases(completions_begin_commands),
		libweft_case(a_callers_own_loop_polls_the_descriptor),
		libweft_case(a_loop_that_is_late_finds_results_all_the_same),
		libweft_case(a_descriptor_tells_of_what_ended_before_it_was_asked_for),
		libweft_case(a_completion_does_not_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
