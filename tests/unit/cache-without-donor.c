/* SPDX-License-Identifier: MIT */
/*
 * What a cache answers while its donor is away, past the lease, and when the donor comes back with
 * other contents.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/cache-bridge.h"

enum { LEASE_MS = 400 };

static void a_lost_connection_costs_the_cache_nothing(void **state)
{
	start();
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	assert_int_equal(do_write(0, 0, new, 4096, 0), 0);
	atomic_store(&mem.refuse, ECONNREFUSED);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	struct io io;
	start_io(&io, 0, TP_READ, 10 * CHUNK, 4096, NULL, got);
	wait_for_state("reconnecting");
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	assert_memory_equal(got, new, 4096);
	assert_int_equal(do_write(0, 4096, new + 4096, 4096, 0), 0);
	atomic_store(&mem.refuse, 0);
	assert_int_equal(io_wait(&io), 0);
	assert_int_equal(do_flush(0), 0);
	assert_memory_equal(region, new, 8192);
}

static bool still_waits(struct io *io, unsigned ms)
{
	usleep(ms * 1000);
	return !atomic_load(&io->finished);
}

/* The donor is away, and has been for longer than the lease. */
static void outlive_the_lease(struct io *asks)
{
	atomic_store(&mem.refuse, ECONNREFUSED);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	start_io(asks, 0, TP_READ, 10 * CHUNK, 4096, NULL, old);
	wait_for_state("reconnecting");
	usleep((LEASE_MS + 100) * 1000);
}

static void after_its_lease_hits_wait_for_the_donors_word(void **state)
{
	struct io asks, read, write;
	uint8_t first[4096];

	memcpy(first, old, sizeof(first));
	mem.lease_ms = LEASE_MS;
	config.nr_lanes = 1; /* another's connection would keep the lease alive */
	start();
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	/* While the donor answers the lease goes on, with requests or without. */
	usleep(3 * LEASE_MS * 1000);
	atomic_store(&mem.hold, true);
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	atomic_store(&mem.hold, false);
	outlive_the_lease(&asks);
	/* Another may have been granted the region, and have written. */
	start_io(&read, 0, TP_READ, 0, 4096, NULL, got);
	start_io(&write, 0, TP_WRITE, 4096, 4096, new + 4096, NULL);
	assert_true(still_waits(&read, 200) && still_waits(&write, 1));
	atomic_store(&mem.refuse, 0);
	assert_int_equal(io_wait(&read), 0);
	assert_memory_equal(got, first, 4096);
	assert_int_equal(io_wait(&write), 0);
	assert_int_equal(io_wait(&asks), 0);
	assert_int_equal(do_flush(0), 0);
	assert_memory_equal(region + 4096, new + 4096, 4096);
}

static void after_its_lease_hits_fail_when_the_contents_are_others(void **state)
{
	struct io asks, read;

	mem.lease_ms = LEASE_MS;
	config.nr_lanes = 1; /* another's connection would keep the lease alive */
	start();
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	outlive_the_lease(&asks);
	start_io(&read, 0, TP_READ, 0, 4096, NULL, got);
	assert_true(still_waits(&read, 100));
	mem.epoch = 43;
	atomic_store(&mem.refuse, 0);
	assert_int_equal(io_wait(&read), -EIO);
	assert_int_equal(io_wait(&asks), -EIO);
	wait_for_state("stale");
}

static void after_its_lease_hits_wait_no_longer_than_misses(void **state)
{
	struct io asks, read;

	mem.lease_ms = LEASE_MS;
	config.nr_lanes = 1; /* another's connection would keep the lease alive */
	config.attach.dead_timeout_ms = 1500;
	start();
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	outlive_the_lease(&asks);
	start_io(&read, 0, TP_READ, 0, 4096, NULL, got);
	assert_int_equal(io_wait(&read), -EIO);
	assert_int_equal(io_wait(&asks), -EIO);
	assert_int_equal(read_got(0, 0, 4096), -EIO);
	atomic_store(&mem.refuse, 0);
	wait_for_state("ready");
	assert_int_equal(read_got(0, 0, 4096), 0);
}

static void shared_readers_have_no_lease_to_wait_for(void **state)
{
	struct io asks;

	mem.lease_ms = LEASE_MS;
	config.nr_lanes = 1; /* another's connection would keep the lease alive */
	config.attach.mode = WEFT_MODE_SHARED;
	start();
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	outlive_the_lease(&asks);
	assert_int_equal(read_got(0, 0, 4096), 0);
	atomic_store(&mem.refuse, 0);
	assert_int_equal(io_wait(&asks), 0);
}

static void another_epoch_fails_everything_and_keeps_what_is_dirty(void **state)
{
	start();
	assert_int_equal(read_got(0, 0, CHUNK), 0);
	assert_int_equal(do_write(0, 0, new, 8192, 0), 0);
	mem.epoch = 43; /* nothing connects meanwhile */
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(read_got(1, 10 * CHUNK, 4096), -EIO);
	wait_for_state("stale");
	assert_int_equal(read_got(0, 0, 4096), -EIO);
	assert_int_equal(do_write(1, 0, old, 4096, 0), -EIO);
	assert_int_equal(do_flush(0), -EIO);
	assert_int_equal(cache_number("dirty_bytes"), 8192);
	struct weft_error err;
	assert_int_equal(bridge_stop(bridge, 1000, &err), -EIO);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, cache_set_up, cache_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_lost_connection_costs_the_cache_nothing),
		TEST(after_its_lease_hits_wait_for_the_donors_word),
		TEST(after_its_lease_hits_fail_when_the_contents_are_others),
		TEST(after_its_lease_hits_wait_no_longer_than_misses),
		TEST(shared_readers_have_no_lease_to_wait_for),
		TEST(another_epoch_fails_everything_and_keeps_what_is_dirty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
