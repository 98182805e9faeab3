/* SPDX-License-Identifier: MIT */
/*
 * Lanes and links over the mem transport: data, splitting, FUA, losses, reconnection, epochs,
 * time-outs.
 */
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
#include "nbd-bridge/link/link.h"
#include "tests/support/bridge-io.h"
#include "transports/mem/mem.h"

enum { REGION = 8 << 20 };

static struct mem_config mem;
static struct bridge_config config;
static struct weft_region *lent;
static uint8_t *region;
static uint8_t pattern[2 << 20], got[2 << 20];

static int set_up(void **state)
{
	region = calloc(1, REGION);
	mem_config_init(&mem, region, REGION);
	config = bridge_config_for_tests(&mem);
	fill_pattern(pattern, sizeof(pattern));
	return 0;
}

static int tear_down(void **state)
{
	bridge_free(bridge);
	bridge = NULL;
	free(region);
	return 0;
}

static void start(void)
{
	bridge_begin(&config);
}

static void data_comes_back_at_odd_offsets_and_sizes(void **state)
{
	start();
	const uint64_t lens[] = {1, 511, 512, 4096, 4097, 65536, 1000001, 1 << 20, (1 << 20) + 1};
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(lens); i++) {
		uint64_t off = 12345 * i + 7;

		assert_int_equal(do_write(i % 2, off, pattern, lens[i], 0), 0);
		assert_memory_equal(region + off, pattern, lens[i]);
		assert_int_equal(do_read((i + 1) % 2, off, got, lens[i]), 0);
		assert_memory_equal(got, pattern, lens[i]);
	}
	assert_int_equal(bridge_stop(bridge, 1000, NULL), 0);
}

static void a_long_request_becomes_several_operations(void **state)
{
	mem.max_io_bytes = 8192;
	start();
	uint64_t before = atomic_load(&mem.nr_ops);
	assert_int_equal(do_write(0, 100, pattern, 2 << 20, 0), 0);
	assert_int_equal(atomic_load(&mem.nr_ops) - before, (2 << 20) / 8192);
	assert_memory_equal(region + 100, pattern, 2 << 20);
	atomic_store(&mem.reorder, 7);
	assert_int_equal(do_read(0, 100, got, 2 << 20), 0);
	assert_memory_equal(got, pattern, 2 << 20);
}

static void an_error_of_one_part_is_the_error_of_the_request(void **state)
{
	mem.max_io_bytes = 4096;
	start();
	atomic_store(&mem.fail_error, ENOSPC);
	atomic_store(&mem.fail_at, atomic_load(&mem.nr_ops) + 5);
	assert_int_equal(do_write(0, 0, pattern, 1 << 20, 0), -ENOSPC);
	assert_int_equal(do_write(0, 0, pattern, 1 << 20, 0), 0);
}

static void fua_is_a_flush_where_the_donor_has_none(void **state)
{
	mem.no_fua = true;
	start();
	uint64_t before = atomic_load(&mem.nr_ops);
	assert_int_equal(do_write(0, 0, pattern, 4096, TP_FUA), 0);
	assert_int_equal(atomic_load(&mem.nr_ops) - before, 2);
}

static void flush_without_the_donors_flush_is_done_at_once(void **state)
{
	mem.no_flush = true;
	start();
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(atomic_load(&mem.nr_ops), 0);
}

static void without_multi_conn_there_is_one_lane(void **state)
{
	mem.no_multi_conn = true;
	config.nr_lanes = 4;
	start();
	assert_int_equal(bridge_nr_lanes(bridge), 1);
}

static void a_region_that_is_not_there_is_an_error_at_once(void **state)
{
	struct weft_error err = {0};

	mem.region = "other";
	assert_int_equal(bridge_new(&config, &bridge, &err), 0);
	assert_int_equal(bridge_start(bridge, &err), -ENOENT);
	assert_non_null(strstr(err.message, "no region 'r'"));
}

static void a_lost_connection_is_made_again_and_nothing_is_missing(void **state)
{
	start();
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_write(0, 0, pattern, 1 << 20, 0), 0);
	assert_memory_equal(region, pattern, 1 << 20);
	assert_int_equal(attachment_generation(bridge_attachment(bridge)), (UINT64_C(1) << 32) + 1);
	wait_for_state("ready");
}

/* Writes nr pieces side by side, over all lanes, while connections break: they arrive at `at`. */
static void write_over_losses(const uint8_t *at, unsigned nr, uint64_t len, unsigned round)
{
	static struct io ios[64];

	memset(ios, 0, sizeof(ios));
	for (unsigned i = 0; i < nr; i++) {
		ios[i].rq = (struct bridge_request){.kind = TP_WRITE, .off = i * len, .len = len};
		ios[i].from = pattern + round * 1000 + i;
		io_start(&ios[i], i % config.nr_lanes);
	}
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	for (unsigned i = 0; i < nr; i++)
		assert_memory_equal(at + i * len, pattern + round * 1000 + i, len);
}

static void many_in_flight_survive_losses(void **state)
{
	start();
	atomic_store(&mem.delay_ns, 2000000);
	for (unsigned round = 0; round < 5; round++) {
		atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 20);
		write_over_losses(region, 64, 8192, round);
	}
}

static void requests_wait_for_a_donor_that_comes_back(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .off = 4096, .len = 4096}, .from = pattern};

	start();
	atomic_store(&mem.refuse, ECONNREFUSED);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	io_start(&io, 0);
	wait_for_state("reconnecting");
	assert_false(atomic_load(&io.finished));
	atomic_store(&mem.refuse, 0);
	assert_int_equal(io_wait(&io), 0);
	assert_memory_equal(region + 4096, pattern, 4096);
}

static void after_the_dead_timeout_requests_fail_until_it_is_back(void **state)
{
	config.attach.dead_timeout_ms = 100;
	start();
	atomic_store(&mem.refuse, ECONNREFUSED);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), -EIO);
	wait_for_state("dead");
	assert_int_equal(do_read(0, 0, got, 4096), -EIO);
	atomic_store(&mem.refuse, 0);
	wait_for_state("ready");
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
}

static void another_epoch_is_an_error_for_good(void **state)
{
	start();
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
	mem.epoch = 43; /* nothing connects meanwhile */
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_read(0, 0, got, 4096), -EIO);
	wait_for_state("stale");
	assert_int_equal(do_read(1, 0, got, 4096), -EIO);
	assert_int_equal(do_write(1, 0, pattern, 4096, 0), -EIO);
	struct weft_error err;
	assert_int_equal(bridge_stop(bridge, 1000, &err), -EIO);
	assert_int_equal(err.code, ESTALE);
}

static void a_foreign_server_that_was_lost_is_stale(void **state)
{
	mem.no_epoch = true;
	config.attach.foreign = true;
	start();
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_read(0, 0, got, 4096), -EIO);
	wait_for_state("stale");
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), -EIO);
	assert_int_equal(do_write(1, 0, pattern, 4096, 0), -EIO);
	assert_int_equal(do_flush(1), -EIO);
	assert_int_equal(do_read(0, 0, got, 4096), -EIO);
}

static void a_foreign_server_may_be_called_stable(void **state)
{
	mem.no_epoch = true;
	config.attach.foreign = config.attach.assume_stable = true;
	start();
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
	assert_int_equal(do_flush(0), 0);
}

static void no_answer_in_time_fails_the_connection_not_the_request(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .len = 4096}, .from = pattern};

	config.attach.timeout_ms = 200;
	start();
	atomic_store(&mem.hold, true);
	io_start(&io, 0);
	wait_for_state("reconnecting");
	atomic_store(&mem.hold, false);
	assert_int_equal(io_wait(&io), 0);
	assert_true(attachment_generation(bridge_attachment(bridge)) > UINT64_C(1) << 32);
}

static void a_donor_that_grants_and_never_answers_is_dead_too(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .len = 4096}, .from = pattern};
	uint64_t end = weft_now_ns() + UINT64_C(10000000000);

	config.nr_lanes = 1;
	config.attach.dead_timeout_ms = 2000; /* more than between two attempts */
	start();
	atomic_store(&mem.delay_ns, 100000000);
	io_start(&io, 0);
	while (!atomic_load(&io.finished) && weft_now_ns() < end) {
		/* What was posted last ends its connection. */
		atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops));
		usleep(1000);
	}
	atomic_store(&mem.kill_at, 0);
	atomic_store(&mem.delay_ns, 0);
	assert_true(weft_now_ns() < end);
	assert_int_equal(io_wait(&io), -EIO);
	wait_for_state("ready");
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
}

static void a_silent_link_is_probed_within_the_lease(void **state)
{
	mem.lease_ms = 200;
	start();
	uint64_t before = atomic_load(&mem.nr_ops), end = weft_now_ns() + UINT64_C(5000000000);
	while (atomic_load(&mem.nr_ops) < before + 4 && weft_now_ns() < end)
		usleep(1000);
	assert_true(atomic_load(&mem.nr_ops) >= before + 4);
}

static void lanes_without_a_connection_are_not_dealt_out(void **state)
{
	config.attach.dead_timeout_ms = 100;
	start();
	assert_ptr_not_equal(bridge_next_lane(bridge), bridge_next_lane(bridge));
	/* One of them loses its connection and gets no other, as from a donor that is full. */
	atomic_store(&mem.refuse, EBUSY);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_write(1, 0, pattern, 4096, 0), -EIO);
	for (unsigned i = 0; i < 4; i++)
		assert_ptr_equal(bridge_next_lane(bridge), bridge_lane(bridge, 0));
	/* The other may have to come anew as well. */
	uint64_t end = weft_now_ns() + UINT64_C(10000000000);
	atomic_store(&mem.refuse, 0);
	while (bridge_next_lane(bridge) == bridge_next_lane(bridge)) {
		assert_true(weft_now_ns() < end);
		usleep(1000);
	}
}

static void lend(uint32_t lease_ms)
{
	mem.donor = lend_memory(REGION, lease_ms, &lent);
}

static void stop_and_take_back(void)
{
	assert_int_equal(bridge_stop(bridge, 1000, NULL), 0);
	bridge_free(bridge);
	bridge = NULL;
	weft_donor_free(mem.donor);
	weft_region_put(lent);
}

static void a_takeover_supersedes_the_old_bridge_for_good(void **state)
{
	struct bridge *old;

	lend(0);
	start();
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
	old = bridge;
	config.attach.generation = UINT64_C(2) << 32;
	start();
	struct bridge *new = bridge;
	assert_int_equal(do_write(0, 0, pattern + 1, 4096, 0), 0);
	bridge = old;
	assert_int_equal(do_write(0, 0, pattern + 2, 4096, 0), -EIO);
	wait_for_state("stale");
	assert_int_equal(do_write(1, 0, pattern + 2, 4096, 0), -EIO);
	assert_memory_equal(lent->map, pattern + 1, 4096);
	bridge_free(old);
	bridge = new;
	stop_and_take_back();
}

static void end_at_once(void *ctx)
{
	weft_grant_release(*(struct weft_grant **)ctx, false);
}

/* The donor granted a reconnection, but the answer never came; then the lease ran out. */
static void a_lapsed_grant_that_was_never_heard_of_does_not_end_the_attachment(void **state)
{
	struct weft_hello hello = {.generation = (UINT64_C(1) << 32) + 1,
		.mode = WEFT_MODE_WRITE,
		.name = "test"};
	const struct weft_peer peer = {.transport = "mem", .local = true};
	struct weft_grant *unheard;

	lend(300);
	start();
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), 0);
	atomic_store(&mem.refuse, ECONNREFUSED);
	memcpy(hello.id, config.attach.id, sizeof(hello.id));
	assert_int_equal(weft_donor_grant(mem.donor, lent, &hello, &peer, end_at_once, &unheard,
				 &unheard, NULL),
		0);
	wait_for_state("reconnecting");
	weft_donor_tick(mem.donor, weft_now_ns() + UINT64_C(1000000000));
	atomic_store(&mem.refuse, 0);
	assert_int_equal(do_write(0, 0, pattern + 1, 4096, 0), 0);
	wait_for_state("ready");
	stop_and_take_back();
}

static void lanes_of_a_bridge_do_not_fence_one_another_out(void **state)
{
	lend(0);
	config.nr_lanes = 4;
	start();
	for (unsigned round = 0; round < 20; round++) {
		atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 10);
		write_over_losses(lent->map, 32, 4096, round);
	}
	wait_for_state("ready");
	stop_and_take_back();
}

static void what_happened_is_in_the_flight_recorder(void **state)
{
	start();
	assert_int_equal(do_write(0, 4096, pattern, 512, 0), 0);
	json_t *lanes = bridge_explain(bridge);
	json_t *lane = json_array_get(lanes, 0);
	json_t *last = json_array_get(lane, json_array_size(lane) - 1);
	assert_string_equal(json_string_value(json_object_get(last, "kind")), "write");
	assert_int_equal(json_integer_value(json_object_get(last, "offset_bytes")), 4096);
	assert_int_equal(json_integer_value(json_object_get(last, "length_bytes")), 512);
	json_decref(lanes);
}

/* A donor that knows of a connection's writes by that connection alone. */
static void start_flushing_each(void)
{
	mem.flush_each_conn = mem.no_fua = true;
	config.nr_lanes = 4;
	start();
}

static void a_flush_visits_the_lanes_that_wrote_and_no_others(void **state)
{
	start_flushing_each();
	for (unsigned lane = 0; lane < 3; lane++)
		assert_int_equal(do_write(lane, lane * 4096, pattern, 4096, 0), 0);
	assert_int_equal(atomic_load(&mem.nr_unflushed), 3);
	uint64_t before = atomic_load(&mem.nr_ops);
	assert_int_equal(do_flush(3), 0);
	assert_int_equal(atomic_load(&mem.nr_unflushed), 0);
	assert_int_equal(atomic_load(&mem.nr_ops) - before, 4);
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(atomic_load(&mem.nr_ops) - before, 5);
	/* Durable by itself: its own lane is enough. */
	assert_int_equal(do_write(1, 0, pattern, 4096, 0), 0);
	assert_int_equal(do_write(2, 0, pattern, 4096, TP_FUA), 0);
	assert_int_equal(atomic_load(&mem.nr_unflushed), 1);
	assert_int_equal(do_flush(2), 0);
	assert_int_equal(bridge_stop(bridge, 1000, NULL), 0);
	assert_int_equal(atomic_load(&mem.nr_unflushed), 0);
}

static void a_flush_on_all_lanes_at_once_covers_all(void **state)
{
	start_flushing_each();
	atomic_store(&mem.delay_ns, 100000);
	for (unsigned round = 0; round < 200; round++) {
		struct io writes[4], flushes[4];

		memset(writes, 0, sizeof(writes));
		memset(flushes, 0, sizeof(flushes));
		for (unsigned i = 0; i < 4; i++) {
			writes[i].rq = (struct bridge_request){.kind = TP_WRITE,
				.off = i * 4096,
				.len = 4096};
			writes[i].from = pattern;
			io_start(&writes[i], i);
		}
		/* Whichever is first may not overtake the others' writes, which are waited for. */
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(io_wait(&writes[i]), 0);
		for (unsigned i = 0; i < 4; i++) {
			flushes[i].rq = (struct bridge_request){.kind = TP_FLUSH};
			io_start(&flushes[i], i);
		}
		assert_int_equal(io_wait(&flushes[round % 4]), 0);
		assert_int_equal(atomic_load(&mem.nr_unflushed), 0);
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(io_wait(&flushes[i]), 0);
	}
}

static void a_flush_fails_when_another_lane_cannot(void **state)
{
	start_flushing_each();
	assert_int_equal(do_write(1, 0, pattern, 4096, 0), 0);
	atomic_store(&mem.fail_error, ENOSPC);
	atomic_store(&mem.fail_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_flush(0), -ENOSPC);
	assert_int_equal(atomic_load(&mem.nr_unflushed), 1);
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(atomic_load(&mem.nr_unflushed), 0);
}

static void a_flush_survives_the_loss_of_a_lane_that_it_visits(void **state)
{
	start_flushing_each();
	assert_int_equal(do_write(1, 0, pattern, 4096, 0), 0);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(atomic_load(&mem.nr_unflushed), 0);
}

static void a_flush_that_waits_for_a_lane_ends_with_the_bridge(void **state)
{
	struct io io = {.rq = {.kind = TP_FLUSH}};

	start_flushing_each();
	assert_int_equal(do_write(1, 0, pattern, 4096, 0), 0);
	atomic_store(&mem.hold, true);
	io_start(&io, 0);
	assert_int_equal(bridge_stop(bridge, 100, NULL) < 0, true);
	assert_true(io_wait(&io) < 0);
}

/* What is in flight and the FLUSH share it. */
static void the_time_to_stop_is_one(void **state)
{
	struct io io = {.rq = {.kind = TP_FLUSH}};

	config.nr_lanes = 1;
	start();
	atomic_store(&mem.hold, true);
	io_start(&io, 0);
	uint64_t begin_ns = weft_now_ns();
	/* The FLUSH has a second of its own; with all of the time for each it would be 8 s. */
	assert_int_equal(bridge_stop(bridge, 4000, NULL), -ETIMEDOUT);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(7500000000));
	assert_true(io_wait(&io) < 0);
}

/* How many of so many requests of that length are on their way at once. */
static uint64_t on_their_way(uint64_t len, uint64_t expected)
{
	static struct io ios[2 * LINK_OPS];
	const uint64_t end_ns = weft_now_ns() + UINT64_C(10000000000);

	config.nr_lanes = 1;
	mem.depth = 4 * LINK_OPS;
	start();
	const uint64_t before = atomic_load(&mem.nr_ops);
	atomic_store(&mem.hold, true);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++) {
		ios[i] = (struct io){.rq = {.kind = TP_CACHE, .len = len}};
		io_start(&ios[i], 0);
	}
	while (atomic_load(&mem.nr_ops) - before < expected && weft_now_ns() < end_ns)
		usleep(1000);
	/* The lane has seen them all by then. */
	const uint64_t nr = atomic_load(&mem.nr_ops) - before;
	atomic_store(&mem.hold, false);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	return nr;
}

static void many_small_operations_are_on_their_way(void **state)
{
	assert_int_equal(on_their_way(LINK_SMALL_BYTES, LINK_OPS), LINK_OPS);
}

static void few_large_operations_are_on_their_way(void **state)
{
	assert_int_equal(on_their_way(1 << 20, LINK_FEW), LINK_FEW);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(data_comes_back_at_odd_offsets_and_sizes),
		TEST(a_long_request_becomes_several_operations),
		TEST(many_small_operations_are_on_their_way),
		TEST(few_large_operations_are_on_their_way),
		TEST(an_error_of_one_part_is_the_error_of_the_request),
		TEST(fua_is_a_flush_where_the_donor_has_none),
		TEST(flush_without_the_donors_flush_is_done_at_once),
		TEST(without_multi_conn_there_is_one_lane),
		TEST(a_region_that_is_not_there_is_an_error_at_once),
		TEST(a_lost_connection_is_made_again_and_nothing_is_missing),
		TEST(many_in_flight_survive_losses),
		TEST(requests_wait_for_a_donor_that_comes_back),
		TEST(after_the_dead_timeout_requests_fail_until_it_is_back),
		TEST(another_epoch_is_an_error_for_good),
		TEST(a_foreign_server_that_was_lost_is_stale),
		TEST(a_foreign_server_may_be_called_stable),
		TEST(no_answer_in_time_fails_the_connection_not_the_request),
		TEST(a_donor_that_grants_and_never_answers_is_dead_too),
		TEST(a_silent_link_is_probed_within_the_lease),
		TEST(lanes_without_a_connection_are_not_dealt_out),
		TEST(a_takeover_supersedes_the_old_bridge_for_good),
		TEST(a_lapsed_grant_that_was_never_heard_of_does_not_end_the_attachment),
		TEST(lanes_of_a_bridge_do_not_fence_one_another_out),
		TEST(a_flush_visits_the_lanes_that_wrote_and_no_others),
		TEST(a_flush_on_all_lanes_at_once_covers_all),
		TEST(a_flush_fails_when_another_lane_cannot),
		TEST(a_flush_survives_the_loss_of_a_lane_that_it_visits),
		TEST(a_flush_that_waits_for_a_lane_ends_with_the_bridge),
		TEST(the_time_to_stop_is_one),
		TEST(what_happened_is_in_the_flight_recorder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
