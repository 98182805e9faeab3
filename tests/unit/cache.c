/* SPDX-License-Identifier: MIT */
/*
 * A managed bridge over the mem transport: what is answered without the donor, and what must never
 * be.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/cache/cache-private.h"
#include "tests/support/cache-bridge.h"

static void what_was_read_is_read_again_without_the_donor(void **state)
{
	start();
	assert_int_equal(read_got(0, 5000, 10000), 0);
	assert_memory_equal(got, old + 5000, 10000);
	atomic_store(&mem.hold, true);
	assert_int_equal(read_got(1, 5000, 10000), 0);
	assert_memory_equal(got, old + 5000, 10000);
}

static void a_write_to_an_absent_chunk_asks_nobody(void **state)
{
	start();
	uint64_t before = atomic_load(&mem.nr_ops);
	atomic_store(&mem.hold, true);
	assert_int_equal(do_write(0, 8192, new, 4096, 0), 0);
	assert_int_equal(read_got(1, 8192, 4096), 0);
	assert_memory_equal(got, new, 4096);
	assert_int_equal(atomic_load(&mem.nr_ops), before);
	assert_int_equal(cache_number("dirty_bytes"), 4096);
	/* What lies around it is the donor's. */
	atomic_store(&mem.hold, false);
	assert_int_equal(read_got(1, 0, CHUNK), 0);
	assert_memory_equal(got, old, 8192);
	assert_memory_equal(got + 8192, new, 4096);
	assert_memory_equal(got + 12288, old + 12288, CHUNK - 12288);
	assert_memory_equal(region + 8192, old + 8192, 4096);
}

static void a_part_of_a_block_keeps_the_rest_of_it(void **state)
{
	start();
	assert_int_equal(do_write(0, 4096 + 100, new, 5000, 0), 0);
	assert_int_equal(read_got(1, 4096, 8192), 0);
	assert_memory_equal(got, old + 4096, 100);
	assert_memory_equal(got + 100, new, 5000);
	assert_memory_equal(got + 5100, old + 4096 + 5100, 8192 - 5100);
}

static void a_flush_is_answered_when_the_donor_has_it_all(void **state)
{
	struct io io;

	start();
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(do_write(i % 2, i * CHUNK + 4096 * i, new + 4096 * i, 4096, 0), 0);
	uint64_t before = atomic_load(&mem.nr_ops);
	atomic_store(&mem.hold, true);
	start_io(&io, 1, TP_FLUSH, 0, 0, NULL, NULL);
	wait_for_ops(before + 8);
	assert_false(atomic_load(&io.finished));
	atomic_store(&mem.hold, false);
	assert_int_equal(io_wait(&io), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(region + i * CHUNK + 4096 * i, new + 4096 * i, 4096);
	assert_int_equal(cache_number("dirty_bytes"), 0);
}

/* The same block is written again while it is on its way, from another lane, over and over. */
static void an_update_during_write_back_is_not_lost(void **state)
{
	struct io flush, write;
	uint8_t block[4096];

	config.cache.push_interval_ms = 1;
	start();
	for (unsigned round = 0; round < 300; round++) {
		atomic_store(&mem.delay_ns, round % 3 * 300000);
		memset(block, (int)(2 * round), sizeof(block));
		assert_int_equal(do_write(0, 4096, block, 4096, 0), 0);
		start_io(&flush, 0, TP_FLUSH, 0, 0, NULL, NULL);
		memset(block, (int)(2 * round + 1), sizeof(block));
		start_io(&write, 1, TP_WRITE, 4096, 4096, block, NULL);
		assert_int_equal(io_wait(&write), 0);
		assert_int_equal(read_got(0, 4096, 4096), 0);
		assert_memory_equal(got, block, 4096);
		assert_int_equal(io_wait(&flush), 0);
		assert_int_equal(do_flush(1), 0);
		assert_memory_equal(region + 4096, block, 4096);
	}
}

static void a_stream_is_written_back_while_it_comes(void **state)
{
	config.cache.push_interval_ms = 1000;
	start();
	uint64_t before = atomic_load(&mem.nr_ops);
	/* Chunks that have a hole, or that nobody has left, stay. */
	assert_int_equal(do_write(0, 0, new, CHUNK - 4096, 0), 0);
	assert_int_equal(do_write(0, CHUNK, new + CHUNK, CHUNK, 0), 0);
	assert_int_equal(do_write(0, 3 * CHUNK, new, CHUNK, 0), 0);
	assert_int_equal(atomic_load(&mem.nr_ops), before);
	assert_int_equal(do_write(1, 2 * CHUNK, new + 2 * CHUNK, 4096, 0), 0);
	wait_for_ops(before + 1);
	while (cache_number("dirty_bytes") > 2 * CHUNK)
		usleep(1000);
	assert_memory_equal(region + CHUNK, new + CHUNK, CHUNK);
	assert_memory_equal(region, old, 4096);
	assert_memory_equal(region + 2 * CHUNK, old + 2 * CHUNK, 4096);
	assert_memory_equal(region + 3 * CHUNK, old + 3 * CHUNK, 4096);
}

/* Not by the interval: that is a minute here. */
static void a_flush_does_not_wait_for_anybody(void **state)
{
	config.cache.push_interval_ms = 60000;
	start();
	for (unsigned i = 0; i < 300; i++) {
		uint64_t from = weft_now_ns();

		for (unsigned k = 0; k < 1 + i % 3; k++)
			assert_int_equal(do_write(k % 2,
						 ((i * 13 + k * 7) % 60) * CHUNK + i % 8 * 4096,
						 new, 4096, 0),
				0);
		assert_int_equal(do_flush(i % 2), 0);
		assert_true(weft_now_ns() - from < 500 * UINT64_C(1000000));
	}
}

static void keep(struct bridge_request *rq, int error)
{
	struct io *io = weft_container_of(rq, struct io, rq);

	io->error = error;
	atomic_store(&io->finished, true);
}

static void read_and_keep(struct bridge_lane *lane, void *ctx)
{
	struct io *io = ctx;

	assert_int_equal(bridge_lane_buffer_get(lane, io->rq.len, &io->waiter, &io->rq.buf,
				 &io->rq.mem),
		0);
	io->rq.may_lend = true;
	io->rq.done = keep;
	bridge_lane_submit(lane, &io->rq);
}

static void give_back(struct bridge_lane *lane, void *ctx)
{
	struct io *io = ctx;

	bridge_lane_give_back(lane, &io->rq);
	bridge_lane_buffer_put(lane, io->rq.buf);
}

static void what_is_lent_keeps_all_from_being_dropped(void **state)
{
	static struct io io;

	config.cache.push_interval_ms = 60000;
	start();
	assert_int_equal(do_write(0, 0, new, 4096, 0), 0);
	assert_int_equal(do_write(0, 5 * CHUNK, new, 4096, 0), 0);
	io = (struct io){.rq = {.kind = TP_READ, .off = 5 * CHUNK, .len = 4096}};
	bridge_lane_run(bridge_lane(bridge, 0), read_and_keep, &io);
	assert_int_equal(io_wait(&io), 0);
	assert_non_null(io.rq.lent);
	uint64_t dirty = cache_number("dirty_bytes");
	assert_false(cache_clear(bridge->cache));
	assert_int_equal(cache_number("dirty_bytes"), dirty);
	bridge_lane_run(bridge_lane(bridge, 0), give_back, &io);
	assert_true(cache_clear(bridge->cache));
	assert_int_equal(cache_number("dirty_bytes"), 0);
}

/* READs of what is being fetched, while everything else is being driven out. */
static void nobody_reads_what_has_not_arrived(void **state)
{
	struct io ios[16];
	static uint8_t data[16][8192];

	config.cache.bytes = 16 * CHUNK;
	start();
	atomic_store(&mem.reorder, 99);
	for (unsigned round = 0; round < 200; round++) {
		atomic_store(&mem.delay_ns, round % 4 * 100000);
		for (unsigned i = 0; i < 16; i++) {
			uint64_t off = ((round * 7 + i * 5) % 60) * CHUNK + i * 1000;

			/* What the slot held before must not be seen. */
			memset(data[i], 0, sizeof(data[i]));
			start_io(&ios[i], i % 2, TP_READ, off, 8192, NULL, data[i]);
		}
		for (unsigned i = 0; i < 16; i++) {
			assert_int_equal(io_wait(&ios[i]), 0);
			assert_memory_equal(data[i], region + ios[i].rq.off, 8192);
		}
	}
}

static void a_failed_write_back_fails_the_flush_and_keeps_the_data(void **state)
{
	config.nr_lanes = 1; /* another would try again at once */
	start();
	assert_int_equal(do_write(0, 0, new, 4096, 0), 0);
	atomic_store(&mem.fail_error, ENOSPC);
	atomic_store(&mem.fail_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_flush(0), -ENOSPC);
	assert_int_equal(read_got(0, 0, 4096), 0);
	assert_memory_equal(got, new, 4096);
	assert_int_equal(do_flush(0), 0);
	assert_memory_equal(region, new, 4096);
}

static void a_failed_fetch_fails_its_request_alone(void **state)
{
	start();
	atomic_store(&mem.fail_error, EIO);
	atomic_store(&mem.fail_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(read_got(0, 0, 4096), -EIO);
	assert_int_equal(read_got(0, 0, 4096), 0);
	assert_memory_equal(got, old, 4096);
}

static void zeros_come_without_a_fetch_and_replace_what_is_dirty(void **state)
{
	static const uint8_t zeros[4 * CHUNK];

	start();
	assert_int_equal(do_write(0, CHUNK, new, 2 * CHUNK, 0), 0);
	assert_int_equal(do_range(1, TP_ZERO, 4096, 3 * CHUNK, 0), 0);
	assert_int_equal(read_got(0, 0, 4 * CHUNK), 0);
	assert_memory_equal(got, old, 4096);
	assert_memory_equal(got + 4096, zeros, 3 * CHUNK);
	assert_memory_equal(got + 4096 + 3 * CHUNK, old + 4096 + 3 * CHUNK, CHUNK - 4096);
	assert_int_equal(do_flush(0), 0);
	assert_memory_equal(region, got, 4 * CHUNK);
}

static void write_through_is_at_the_donor_when_it_is_answered(void **state)
{
	config.cache.write_through = true;
	start();
	assert_int_equal(do_write(0, 100, new, 10000, 0), 0);
	assert_memory_equal(region + 100, new, 10000);
	assert_int_equal(cache_number("dirty_bytes"), 0);
}

static void fua_is_at_the_donor_when_it_is_answered(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .flags = TP_FUA, .len = 4096}, .from = new};

	start();
	assert_int_equal(do_write(0, CHUNK, new, 4096, 0), 0);
	io_start(&io, 1);
	assert_int_equal(io_wait(&io), 0);
	assert_memory_equal(region, new, 4096);
	assert_int_equal(cache_number("dirty_bytes"), 4096); /* the other chunk is nobody's hurry */
}

static void writers_wait_when_too_much_is_dirty(void **state)
{
	struct io ios[20];
	unsigned nr_done = 0;

	config.cache.bytes = 16 * CHUNK;
	start();
	atomic_store(&mem.hold, true);
	for (unsigned i = 0; i < 20; i++)
		start_io(&ios[i], i % 2, TP_WRITE, i * CHUNK, 4096, new + i * 4096, NULL);
	for (unsigned i = 0; i < 20; i++)
		nr_done += atomic_load(&ios[i].finished);
	assert_in_range(nr_done, 1, 12);
	atomic_store(&mem.hold, false);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	assert_int_equal(do_flush(0), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_memory_equal(region + i * CHUNK, new + i * 4096, 4096);
}

static void stopping_writes_everything_back(void **state)
{
	start();
	assert_int_equal(do_write(0, 12345, new, 100000, 0), 0);
	assert_int_equal(bridge_stop(bridge, 5000, NULL), 0);
	assert_memory_equal(region + 12345, new, 100000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, cache_set_up, cache_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_read_is_read_again_without_the_donor),
		TEST(a_write_to_an_absent_chunk_asks_nobody),
		TEST(a_part_of_a_block_keeps_the_rest_of_it),
		TEST(a_flush_is_answered_when_the_donor_has_it_all),
		TEST(an_update_during_write_back_is_not_lost),
		TEST(a_stream_is_written_back_while_it_comes),
		TEST(a_flush_does_not_wait_for_anybody),
		TEST(what_is_lent_keeps_all_from_being_dropped),
		TEST(nobody_reads_what_has_not_arrived),
		TEST(a_failed_write_back_fails_the_flush_and_keeps_the_data),
		TEST(a_failed_fetch_fails_its_request_alone),
		TEST(zeros_come_without_a_fetch_and_replace_what_is_dirty),
		TEST(write_through_is_at_the_donor_when_it_is_answered),
		TEST(fua_is_at_the_donor_when_it_is_answered),
		TEST(writers_wait_when_too_much_is_dirty),
		TEST(stopping_writes_everything_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
