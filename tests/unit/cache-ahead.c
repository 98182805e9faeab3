/* SPDX-License-Identifier: MIT */
/* What a cache fetches before anybody asks: ahead of a stream, and all of a region in an order. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/cache/cache-private.h"
#include "nbd-bridge/cache/pull-order.h"
#include "tests/support/cache-bridge.h"

static void a_stream_is_fetched_ahead_and_strays_are_not(void **state)
{
	start();
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(read_got(0, i * 8192, 8192), 0);
	assert_true(cache_number("misses") < 16);
	assert_true(cache_number_of("ahead", "used_bytes") > 30 * 8192);
	/* In no order: nothing that was not asked for. */
	uint64_t seed = 12345;
	for (unsigned i = 0; i < 40; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		read_got(1, (seed >> 33) % 500 * 8192, 4096);
	}
	uint64_t before = atomic_load(&mem.nr_ops);
	for (unsigned i = 0; i < 40; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		read_got(1, (seed >> 33) % 500 * 8192, 4096);
	}
	assert_true(atomic_load(&mem.nr_ops) - before <= 45);
}

/* Who begins a region and goes on is read ahead of from the second READ. */
static void reading_on_is_a_stream_at_once(void **state)
{
	start();
	assert_int_equal(read_got(0, 0, 8192), 0);
	assert_int_equal(read_got(0, 8192, 8192), 0);
	uint64_t end = weft_now_ns() + UINT64_C(10000000000);
	while (cache_number("valid_bytes") < 2 * CHUNK && weft_now_ns() < end)
		usleep(1000);
	atomic_store(&mem.hold, true);
	assert_int_equal(read_got(1, CHUNK, 8192), 0);
	assert_memory_equal(got, old + CHUNK, 8192);
}

static uint64_t fetched_by(unsigned lane)
{
	return atomic_load(&bridge_cache(bridge)->of_lane[lane]->counters.fetched_bytes);
}

/*
 * The first bytes again and more, and then READs that get longer: each stays in the sequence, and
 * is here before it is asked for.
 */
static void a_sequence_is_one_whatever_its_lengths_are(void **state)
{
	uint64_t off, end = weft_now_ns() + UINT64_C(10000000000);

	config.cache.bytes = REGION;
	start();
	assert_int_equal(read_got(0, 0, 4096), 0);
	assert_int_equal(read_got(0, 0, 16384), 0);
	while (cache_number("valid_bytes") < 2 * CHUNK && weft_now_ns() < end)
		usleep(1000);
	assert_true(cache_number("valid_bytes") >= 2 * CHUNK);
	/* With another distance, reading ahead would begin anew. */
	const struct cache_trend *trend = &bridge_cache(bridge)->of_lane[0]->trend;
	const int64_t delta = trend->delta;
	off = 16384;
	for (uint64_t len = 16384; len <= 2 * CHUNK; off += len, len += 8192) {
		assert_int_equal(read_got(0, off, len), 0);
		assert_int_equal(trend->delta, delta);
	}
}

static void all_is_pulled(void)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (cache_number_of("pull", "fetched_bytes") < config.cache.bytes &&
		weft_now_ns() < end)
		usleep(1000);
}

/* Where chunks come after a round trip each, more of them are asked for, over all lanes. */
static void a_pull_fills_the_way(void **state)
{
	atomic_store(&mem.delay_ns, 100000000); /* much more than the machine adds */
	config.cache.pull = true;
	config.cache.pull_workers = 0;
	start();
	all_is_pulled();
	assert_true(atomic_load(&bridge_cache(bridge)->pull_workers) > 8);
	assert_true(fetched_by(0) > 4 * CHUNK);
	assert_true(fetched_by(1) > 4 * CHUNK);
}

static void a_pull_has_as_many_workers_as_it_is_told(void **state)
{
	atomic_store(&mem.delay_ns, 5000000);
	config.cache.pull = true;
	config.cache.pull_workers = 3;
	start();
	all_is_pulled();
	assert_int_equal(atomic_load(&bridge_cache(bridge)->pull_workers), 3);
}

/* What the order names is pulled first; where was read most is what is recorded. */
static void a_pull_has_an_order_that_can_be_recorded(void **state)
{
	char path[] = "/tmp/weft-order.XXXXXX", want[256];
	struct weft_error err;
	struct pull_order order;
	struct io io;
	uint32_t *chunks;
	int fd = mkstemp(path);

	assert_int_equal(dprintf(fd, "# order\n\n%d 10\n%d\n18446744073709551615 1\n%d %d\n",
				 5 * CHUNK, 5 * CHUNK + 7, 9 * CHUNK - 1, 2) > 0,
		1);
	assert_int_equal(pull_order_read(path, &order, &err), 0);
	assert_int_equal(order.nr, 4);
	assert_int_equal(pull_order_chunks(&order, 11, __builtin_ctz(CHUNK), &chunks), 0);
	assert_memory_equal(chunks, ((const uint32_t[]){5, 8, 9, 0, 1, 2, 3, 4, 6, 7, 10}),
		11 * sizeof(*chunks));
	free(chunks);
	/* One chunk, and the next in ten seconds. */
	config.cache.pull = true;
	config.cache.pull_rate = CHUNK / 10;
	config.cache.pull_order = &order;
	start();
	pull_order_free(&order);
	uint64_t end = weft_now_ns() + UINT64_C(10000000000);
	while (cache_number_of("pull", "fetched_bytes") < CHUNK && weft_now_ns() < end)
		usleep(1000);
	atomic_store(&mem.hold, true);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(read_got(i % 2, 5 * CHUNK + i * 4096, 4096), 0);
	start_io(&io, 0, TP_READ, 0, 4096, NULL, got);
	usleep(20000);
	assert_false(atomic_load(&io.finished));
	atomic_store(&mem.hold, false);
	assert_int_equal(io_wait(&io), 0);
	assert_int_equal(bridge_stop(bridge, 5000, NULL), 0);
	assert_int_equal(cache_save_pull_order(bridge_cache(bridge), path, &err), 0);
	close(fd);
	FILE *in = fopen(path, "r");
	assert_non_null(fgets(want, sizeof(want), in)); /* what it is */
	assert_non_null(fgets(want, sizeof(want), in));
	assert_int_equal(strtoull(want, NULL, 10), 5 * CHUNK);
	assert_non_null(fgets(want, sizeof(want), in));
	assert_int_equal(strtoull(want, NULL, 10), 0);
	assert_null(fgets(want, sizeof(want), in));
	fclose(in);
	for (unsigned i = 0; i < 4; i++) {
		static const char *const bad[] = {"-1 5\n", "5 x\n", "1 2 3\n",
			"99999999999999999999\n"};

		in = fopen(path, "w");
		fputs("0 4096\n", in);
		fputs(bad[i], in);
		fclose(in);
		assert_int_equal(pull_order_read(path, &order, &err), -EINVAL);
		assert_non_null(strstr(err.message, "line 2"));
	}
	unlink(path);
	assert_int_equal(pull_order_read(path, &order, &err), -ENOENT);
}

static void a_pull_brings_everything_that_fits(void **state)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	config.cache.bytes = 2 * REGION;
	config.cache.pull = true;
	start();
	for (;;) {
		json_t *status = bridge_status(bridge);
		json_t *cache = json_object_get(status, "cache");
		bool done = json_integer_value(json_object_get(cache, "valid_bytes")) == REGION &&
			strcmp(json_string_value(
				       json_object_get(json_object_get(cache, "pull"), "state")),
				"done") == 0;

		json_decref(status);
		if (done)
			break;
		assert_true(weft_now_ns() < end);
		usleep(1000);
	}
	atomic_store(&mem.hold, true);
	for (unsigned i = 0; i < REGION / CHUNK; i++) {
		assert_int_equal(read_got(i % 2, i * CHUNK, CHUNK), 0);
		assert_memory_equal(got, region + i * CHUNK, CHUNK);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, cache_set_up, cache_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_stream_is_fetched_ahead_and_strays_are_not),
		TEST(reading_on_is_a_stream_at_once),
		TEST(a_sequence_is_one_whatever_its_lengths_are),
		TEST(a_pull_fills_the_way),
		TEST(a_pull_has_as_many_workers_as_it_is_told),
		TEST(a_pull_has_an_order_that_can_be_recorded),
		TEST(a_pull_brings_everything_that_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
