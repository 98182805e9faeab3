/* SPDX-License-Identifier: MIT */
/*
 * A managed bridge over the mem transport: what is answered without the donor, and what must never
 * be.
 */
#include <errno.h>
#include <inttypes.h>
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
#include "nbd-bridge/cache/pull-order.h"
#include "transports/mem/mem.h"

enum { REGION = 4 << 20, CHUNK = 64 << 10, WAIT_MS = 20000, NEVER_MS = 3600000 };

static struct mem_config mem;
static struct bridge_config config;
static struct bridge *bridge;
static uint8_t *region;
static uint8_t old[4 * CHUNK], new[4 * CHUNK], got[4 * CHUNK];

struct io {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	const void *from;
	void *to;
	struct bridge_lane *lane;
	_Atomic bool finished;
	int error;
};

static void io_done(struct bridge_request *rq, int error)
{
	struct io *io = weft_container_of(rq, struct io, rq);

	if (io->to && error == 0)
		memcpy(io->to, rq->buf, rq->len);
	if (rq->buf)
		bridge_lane_buffer_put(io->lane, rq->buf);
	io->error = error;
	atomic_store(&io->finished, true);
}

static void io_submit(struct bridge_lane *lane, void *ctx)
{
	struct io *io = ctx;

	io->lane = lane;
	io->rq.done = io_done;
	if (io->from || io->to) {
		assert_int_equal(bridge_lane_buffer_get(lane, io->rq.len, &io->waiter, &io->rq.buf,
					 &io->rq.mem),
			0);
		if (io->from)
			memcpy(io->rq.buf, io->from, io->rq.len);
	}
	bridge_lane_submit(lane, &io->rq);
}

static void start_io(struct io *io, unsigned lane, uint8_t kind, uint64_t off, uint64_t len,
	const void *from, void *to)
{
	*io = (struct io){.rq = {.kind = kind, .off = off, .len = len}, .from = from, .to = to};
	bridge_lane_run(bridge_lane(bridge, lane), io_submit, io);
}

static int wait_io(struct io *io)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (!atomic_load(&io->finished)) {
		if (weft_now_ns() > end)
			fail_msg("a request was not answered");
		usleep(200);
	}
	return io->error;
}

static int run(unsigned lane, uint8_t kind, uint64_t off, uint64_t len, const void *from, void *to)
{
	struct io io;

	start_io(&io, lane, kind, off, len, from, to);
	return wait_io(&io);
}

static int do_read(unsigned lane, uint64_t off, uint64_t len)
{
	memset(got, 0xee, sizeof(got));
	return run(lane, TP_READ, off, len, NULL, got);
}

static int do_write(unsigned lane, uint64_t off, uint64_t len, const void *data)
{
	return run(lane, TP_WRITE, off, len, data, NULL);
}

static int do_flush(unsigned lane)
{
	return run(lane, TP_FLUSH, 0, 0, NULL, NULL);
}

static uint64_t dirty_bytes(void)
{
	json_t *status = bridge_status(bridge);
	uint64_t n = (uint64_t)json_integer_value(
		json_object_get(json_object_get(status, "cache"), "dirty_bytes"));

	json_decref(status);
	return n;
}

static void wait_for_state(const char *want)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (strcmp(bridge_state(bridge, NULL), want) != 0) {
		if (weft_now_ns() > end)
			fail_msg("waited for state '%s'", want);
		usleep(1000);
	}
}

/* The operation after those that there were is with the transport. */
static void wait_for_ops(uint64_t nr)
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (atomic_load(&mem.nr_ops) < nr) {
		if (weft_now_ns() > end)
			fail_msg("no operation was posted");
		usleep(200);
	}
}

static int set_up(void **state)
{
	memset(&mem, 0, sizeof(mem));
	region = malloc(REGION);
	for (size_t i = 0; i < REGION; i++)
		region[i] = (uint8_t)(i * 2654435761u >> 11);
	memcpy(old, region, sizeof(old));
	for (size_t i = 0; i < sizeof(new); i++)
		new[i] = (uint8_t)~old[i];
	mem.base = region;
	mem.size_bytes = REGION;
	mem.epoch = 42;
	memset(&config, 0, sizeof(config));
	config.attach.transport = &tp_mem_ops;
	config.attach.transport_config = &mem;
	config.attach.host = "";
	config.attach.region = "r";
	weft_random(config.attach.id, sizeof(config.attach.id));
	strcpy(config.attach.name, "test");
	config.attach.generation = UINT64_C(1) << 32;
	config.attach.mode = WEFT_MODE_WRITE;
	config.nr_lanes = 2;
	config.attach.timeout_ms = config.attach.dead_timeout_ms = 10000;
	config.attach.connect_timeout_ms = 5000;
	config.cache.bytes = 32 * CHUNK;
	config.cache.chunk_bytes = CHUNK;
	config.cache.push_interval_ms = NEVER_MS;
	config.cache.pull_workers = 4;
	return 0;
}

static int tear_down(void **state)
{
	atomic_store(&mem.hold, false);
	bridge_free(bridge);
	bridge = NULL;
	free(region);
	return 0;
}

static void start(void)
{
	struct weft_error err = {0};

	if (bridge_new(&config, &bridge, &err) < 0 || bridge_start(bridge, &err) < 0)
		fail_msg("cannot start: %s", err.message);
}

static void what_was_read_is_read_again_without_the_donor(void **state)
{
	start();
	assert_int_equal(do_read(0, 5000, 10000), 0);
	assert_memory_equal(got, old + 5000, 10000);
	atomic_store(&mem.hold, true);
	assert_int_equal(do_read(1, 5000, 10000), 0);
	assert_memory_equal(got, old + 5000, 10000);
}

static void a_write_to_an_absent_chunk_asks_nobody(void **state)
{
	start();
	uint64_t before = atomic_load(&mem.nr_ops);
	atomic_store(&mem.hold, true);
	assert_int_equal(do_write(0, 8192, 4096, new), 0);
	assert_int_equal(do_read(1, 8192, 4096), 0);
	assert_memory_equal(got, new, 4096);
	assert_int_equal(atomic_load(&mem.nr_ops), before);
	assert_int_equal(dirty_bytes(), 4096);
	/* What lies around it is the donor's. */
	atomic_store(&mem.hold, false);
	assert_int_equal(do_read(1, 0, CHUNK), 0);
	assert_memory_equal(got, old, 8192);
	assert_memory_equal(got + 8192, new, 4096);
	assert_memory_equal(got + 12288, old + 12288, CHUNK - 12288);
	assert_memory_equal(region + 8192, old + 8192, 4096);
}

static void a_part_of_a_block_keeps_the_rest_of_it(void **state)
{
	start();
	assert_int_equal(do_write(0, 4096 + 100, 5000, new), 0);
	assert_int_equal(do_read(1, 4096, 8192), 0);
	assert_memory_equal(got, old + 4096, 100);
	assert_memory_equal(got + 100, new, 5000);
	assert_memory_equal(got + 5100, old + 4096 + 5100, 8192 - 5100);
}

static void a_flush_is_answered_when_the_donor_has_it_all(void **state)
{
	struct io io;

	start();
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(do_write(i % 2, i * CHUNK + 4096 * i, 4096, new + 4096 * i), 0);
	uint64_t before = atomic_load(&mem.nr_ops);
	atomic_store(&mem.hold, true);
	start_io(&io, 1, TP_FLUSH, 0, 0, NULL, NULL);
	wait_for_ops(before + 8);
	assert_false(atomic_load(&io.finished));
	atomic_store(&mem.hold, false);
	assert_int_equal(wait_io(&io), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(region + i * CHUNK + 4096 * i, new + 4096 * i, 4096);
	assert_int_equal(dirty_bytes(), 0);
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
		assert_int_equal(do_write(0, 4096, 4096, block), 0);
		start_io(&flush, 0, TP_FLUSH, 0, 0, NULL, NULL);
		memset(block, (int)(2 * round + 1), sizeof(block));
		start_io(&write, 1, TP_WRITE, 4096, 4096, block, NULL);
		assert_int_equal(wait_io(&write), 0);
		assert_int_equal(do_read(0, 4096, 4096), 0);
		assert_memory_equal(got, block, 4096);
		assert_int_equal(wait_io(&flush), 0);
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
	assert_int_equal(do_write(0, 0, CHUNK - 4096, new), 0);
	assert_int_equal(do_write(0, CHUNK, CHUNK, new + CHUNK), 0);
	assert_int_equal(do_write(0, 3 * CHUNK, CHUNK, new), 0);
	assert_int_equal(atomic_load(&mem.nr_ops), before);
	assert_int_equal(do_write(1, 2 * CHUNK, 4096, new + 2 * CHUNK), 0);
	wait_for_ops(before + 1);
	while (dirty_bytes() > 2 * CHUNK)
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
						 4096, new),
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
	assert_int_equal(do_write(0, 0, 4096, new), 0);
	assert_int_equal(do_write(0, 5 * CHUNK, 4096, new), 0);
	io = (struct io){.rq = {.kind = TP_READ, .off = 5 * CHUNK, .len = 4096}};
	bridge_lane_run(bridge_lane(bridge, 0), read_and_keep, &io);
	assert_int_equal(wait_io(&io), 0);
	assert_non_null(io.rq.lent);
	uint64_t dirty = dirty_bytes();
	assert_false(cache_clear(bridge->cache));
	assert_int_equal(dirty_bytes(), dirty);
	bridge_lane_run(bridge_lane(bridge, 0), give_back, &io);
	assert_true(cache_clear(bridge->cache));
	assert_int_equal(dirty_bytes(), 0);
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
			assert_int_equal(wait_io(&ios[i]), 0);
			assert_memory_equal(data[i], region + ios[i].rq.off, 8192);
		}
	}
}

static void a_failed_write_back_fails_the_flush_and_keeps_the_data(void **state)
{
	config.nr_lanes = 1; /* another would try again at once */
	start();
	assert_int_equal(do_write(0, 0, 4096, new), 0);
	atomic_store(&mem.fail_error, ENOSPC);
	atomic_store(&mem.fail_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_flush(0), -ENOSPC);
	assert_int_equal(do_read(0, 0, 4096), 0);
	assert_memory_equal(got, new, 4096);
	assert_int_equal(do_flush(0), 0);
	assert_memory_equal(region, new, 4096);
}

static void a_failed_fetch_fails_its_request_alone(void **state)
{
	start();
	atomic_store(&mem.fail_error, EIO);
	atomic_store(&mem.fail_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_read(0, 0, 4096), -EIO);
	assert_int_equal(do_read(0, 0, 4096), 0);
	assert_memory_equal(got, old, 4096);
}

static void zeros_come_without_a_fetch_and_replace_what_is_dirty(void **state)
{
	static const uint8_t zeros[4 * CHUNK];

	start();
	assert_int_equal(do_write(0, CHUNK, 2 * CHUNK, new), 0);
	assert_int_equal(run(1, TP_ZERO, 4096, 3 * CHUNK, NULL, NULL), 0);
	assert_int_equal(do_read(0, 0, 4 * CHUNK), 0);
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
	assert_int_equal(do_write(0, 100, 10000, new), 0);
	assert_memory_equal(region + 100, new, 10000);
	assert_int_equal(dirty_bytes(), 0);
}

static void fua_is_at_the_donor_when_it_is_answered(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .flags = TP_FUA, .len = 4096}, .from = new};

	start();
	assert_int_equal(do_write(0, CHUNK, 4096, new), 0);
	bridge_lane_run(bridge_lane(bridge, 1), io_submit, &io);
	assert_int_equal(wait_io(&io), 0);
	assert_memory_equal(region, new, 4096);
	assert_int_equal(dirty_bytes(), 4096); /* the other chunk is nobody's hurry */
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
		assert_int_equal(wait_io(&ios[i]), 0);
	assert_int_equal(do_flush(0), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_memory_equal(region + i * CHUNK, new + i * 4096, 4096);
}

static void a_lost_connection_costs_the_cache_nothing(void **state)
{
	start();
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	assert_int_equal(do_write(0, 0, 4096, new), 0);
	atomic_store(&mem.refuse, ECONNREFUSED);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	struct io io;
	start_io(&io, 0, TP_READ, 10 * CHUNK, 4096, NULL, got);
	wait_for_state("reconnecting");
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	assert_memory_equal(got, new, 4096);
	assert_int_equal(do_write(0, 4096, 4096, new + 4096), 0);
	atomic_store(&mem.refuse, 0);
	assert_int_equal(wait_io(&io), 0);
	assert_int_equal(do_flush(0), 0);
	assert_memory_equal(region, new, 8192);
}

enum { LEASE_MS = 400 };

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
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	/* While the donor answers the lease goes on, with requests or without. */
	usleep(3 * LEASE_MS * 1000);
	atomic_store(&mem.hold, true);
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	atomic_store(&mem.hold, false);
	outlive_the_lease(&asks);
	/* Another may have been granted the region, and have written. */
	start_io(&read, 0, TP_READ, 0, 4096, NULL, got);
	start_io(&write, 0, TP_WRITE, 4096, 4096, new + 4096, NULL);
	assert_true(still_waits(&read, 200) && still_waits(&write, 1));
	atomic_store(&mem.refuse, 0);
	assert_int_equal(wait_io(&read), 0);
	assert_memory_equal(got, first, 4096);
	assert_int_equal(wait_io(&write), 0);
	assert_int_equal(wait_io(&asks), 0);
	assert_int_equal(do_flush(0), 0);
	assert_memory_equal(region + 4096, new + 4096, 4096);
}

static void after_its_lease_hits_fail_when_the_contents_are_others(void **state)
{
	struct io asks, read;

	mem.lease_ms = LEASE_MS;
	config.nr_lanes = 1; /* another's connection would keep the lease alive */
	start();
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	outlive_the_lease(&asks);
	start_io(&read, 0, TP_READ, 0, 4096, NULL, got);
	assert_true(still_waits(&read, 100));
	mem.epoch = 43;
	atomic_store(&mem.refuse, 0);
	assert_int_equal(wait_io(&read), -EIO);
	assert_int_equal(wait_io(&asks), -EIO);
	wait_for_state("stale");
}

static void after_its_lease_hits_wait_no_longer_than_misses(void **state)
{
	struct io asks, read;

	mem.lease_ms = LEASE_MS;
	config.nr_lanes = 1; /* another's connection would keep the lease alive */
	config.attach.dead_timeout_ms = 1500;
	start();
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	outlive_the_lease(&asks);
	start_io(&read, 0, TP_READ, 0, 4096, NULL, got);
	assert_int_equal(wait_io(&read), -EIO);
	assert_int_equal(wait_io(&asks), -EIO);
	assert_int_equal(do_read(0, 0, 4096), -EIO);
	atomic_store(&mem.refuse, 0);
	wait_for_state("ready");
	assert_int_equal(do_read(0, 0, 4096), 0);
}

static void shared_readers_have_no_lease_to_wait_for(void **state)
{
	struct io asks;

	mem.lease_ms = LEASE_MS;
	config.nr_lanes = 1; /* another's connection would keep the lease alive */
	config.attach.mode = WEFT_MODE_SHARED;
	start();
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	outlive_the_lease(&asks);
	assert_int_equal(do_read(0, 0, 4096), 0);
	atomic_store(&mem.refuse, 0);
	assert_int_equal(wait_io(&asks), 0);
}

static void another_epoch_fails_everything_and_keeps_what_is_dirty(void **state)
{
	start();
	assert_int_equal(do_read(0, 0, CHUNK), 0);
	assert_int_equal(do_write(0, 0, 8192, new), 0);
	mem.epoch = 43; /* nothing connects meanwhile */
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_read(1, 10 * CHUNK, 4096), -EIO);
	wait_for_state("stale");
	assert_int_equal(do_read(0, 0, 4096), -EIO);
	assert_int_equal(do_write(1, 0, 4096, old), -EIO);
	assert_int_equal(do_flush(0), -EIO);
	assert_int_equal(dirty_bytes(), 8192);
	struct weft_error err;
	assert_int_equal(bridge_stop(bridge, 1000, &err), -EIO);
}

static void a_stream_is_fetched_ahead_and_strays_are_not(void **state)
{
	start();
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(do_read(0, i * 8192, 8192), 0);
	json_t *status = bridge_status(bridge), *cache = json_object_get(status, "cache");
	assert_true(json_integer_value(json_object_get(cache, "misses")) < 16);
	assert_true(json_integer_value(json_object_get(json_object_get(cache, "ahead"),
			    "used_bytes")) > 30 * 8192);
	json_decref(status);
	/* In no order: nothing that was not asked for. */
	uint64_t seed = 12345;
	for (unsigned i = 0; i < 40; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		do_read(1, (seed >> 33) % 500 * 8192, 4096);
	}
	uint64_t before = atomic_load(&mem.nr_ops);
	for (unsigned i = 0; i < 40; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		do_read(1, (seed >> 33) % 500 * 8192, 4096);
	}
	assert_true(atomic_load(&mem.nr_ops) - before <= 45);
}

static uint64_t valid_bytes(void)
{
	json_t *status = bridge_status(bridge);
	uint64_t n = (uint64_t)json_integer_value(
		json_object_get(json_object_get(status, "cache"), "valid_bytes"));

	json_decref(status);
	return n;
}

/* Who begins a region and goes on is read ahead of from the second READ. */
static void reading_on_is_a_stream_at_once(void **state)
{
	start();
	assert_int_equal(do_read(0, 0, 8192), 0);
	assert_int_equal(do_read(0, 8192, 8192), 0);
	uint64_t end = weft_now_ns() + UINT64_C(10000000000);
	while (valid_bytes() < 2 * CHUNK && weft_now_ns() < end)
		usleep(1000);
	atomic_store(&mem.hold, true);
	assert_int_equal(do_read(1, CHUNK, 8192), 0);
	assert_memory_equal(got, old + CHUNK, 8192);
}

static uint64_t pulled_bytes(void)
{
	json_t *status = bridge_status(bridge);
	uint64_t n = (uint64_t)json_integer_value(
		json_object_get(json_object_get(json_object_get(status, "cache"), "pull"),
			"fetched_bytes"));

	json_decref(status);
	return n;
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
	while (pulled_bytes() < CHUNK && weft_now_ns() < end)
		usleep(1000);
	atomic_store(&mem.hold, true);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(do_read(i % 2, 5 * CHUNK + i * 4096, 4096), 0);
	start_io(&io, 0, TP_READ, 0, 4096, NULL, got);
	usleep(20000);
	assert_false(atomic_load(&io.finished));
	atomic_store(&mem.hold, false);
	assert_int_equal(wait_io(&io), 0);
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
		assert_int_equal(do_read(i % 2, i * CHUNK, CHUNK), 0);
		assert_memory_equal(got, region + i * CHUNK, CHUNK);
	}
}

static void stopping_writes_everything_back(void **state)
{
	start();
	assert_int_equal(do_write(0, 12345, 100000, new), 0);
	assert_int_equal(bridge_stop(bridge, 5000, NULL), 0);
	assert_memory_equal(region + 12345, new, 100000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

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
		TEST(a_lost_connection_costs_the_cache_nothing),
		TEST(after_its_lease_hits_wait_for_the_donors_word),
		TEST(after_its_lease_hits_fail_when_the_contents_are_others),
		TEST(after_its_lease_hits_wait_no_longer_than_misses),
		TEST(shared_readers_have_no_lease_to_wait_for),
		TEST(another_epoch_fails_everything_and_keeps_what_is_dirty),
		TEST(a_stream_is_fetched_ahead_and_strays_are_not),
		TEST(reading_on_is_a_stream_at_once),
		TEST(a_pull_has_an_order_that_can_be_recorded),
		TEST(a_pull_brings_everything_that_fits),
		TEST(stopping_writes_everything_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
