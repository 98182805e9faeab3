/* SPDX-License-Identifier: MIT */
/*
 * An attachment with two ways to its donor, both the mem transport: moving away, back, and nothing
 * lost on the way.
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
#include "tests/support/bridge-io.h"
#include "transports/mem/mem.h"

enum { REGION = 8 << 20, NR_LANES = 3, NR_IOS = 48, PLAIN = 0, BETTER = 1 };

static struct mem_config mems[2]; /* the fallback, the better way */
static struct bridge_donor_config to;
static struct bridge_config config;
static struct weft_region *lent;
static struct weft_donor *donor;
static uint8_t pattern[1 << 20], got[1 << 20];

static int set_up(void **state)
{
	donor = lend_memory(REGION, 0, &lent);
	memset(mems, 0, sizeof(mems));
	memset(&to, 0, sizeof(to));
	for (unsigned i = 0; i < 2; i++) {
		mems[i].donor = donor;
		to.ways[i] = (struct bridge_way){.transport = &tp_mem_ops,
			.transport_config = &mems[i],
			.host = ""};
	}
	/* as verbs */
	mems[BETTER].no_fua = mems[BETTER].no_cache = mems[BETTER].no_fast_zero = true;
	to.nr_ways = 2;
	to.first_way = BETTER;
	to.region = "r";
	to.generation = UINT64_C(1) << 32;
	weft_random(to.id, sizeof(to.id));
	config = bridge_config_for_tests(NULL);
	config.attach.donors = &to;
	config.attach.nr_donors = 1;
	config.attach.return_ms = 50;
	config.attach.settle_ms = 120;
	config.nr_lanes = NR_LANES;
	fill_pattern(pattern, sizeof(pattern));
	return 0;
}

static int tear_down(void **state)
{
	bridge_free(bridge);
	bridge = NULL;
	weft_donor_free(donor);
	weft_region_put(lent);
	return 0;
}

static void start(void)
{
	bridge_begin(&config);
}

static uint64_t nr_changes(void)
{
	struct bridge_way_now now;

	peer_way_now(&bridge_attachment(bridge)->peers[0], &now);
	return now.nr_changes;
}

static void wait_for_changes(uint64_t nr)
{
	uint64_t end_ns = weft_now_ns() + UINT64_C(20000000000);

	while (nr_changes() < nr) {
		if (weft_now_ns() > end_ns)
			fail_msg("waited for change %u, there were %u", (unsigned)nr,
				(unsigned)nr_changes());
		usleep(1000);
	}
	wait_for_state("ready");
}

/* That a lane's requests take the way. */
static void assert_way(unsigned lane, unsigned way)
{
	uint64_t before[2] = {mems[0].nr_ops, mems[1].nr_ops};

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(do_write(lane, 4096 * i, pattern + i, 4096, 0), 0);
	assert_true(mems[way].nr_ops >= before[way] + 4);
	assert_true(mems[!way].nr_ops < before[!way] + 4);
}

static void assert_all_way(unsigned way)
{
	for (unsigned lane = 0; lane < NR_LANES; lane++)
		assert_way(lane, way);
}

static void lose(unsigned way, unsigned lane)
{
	atomic_store(&mems[way].kill_at, atomic_load(&mems[way].nr_ops) + 1);
	assert_int_equal(do_write(lane, 0, pattern, 4096, 0), 0);
}

static void a_way_that_comes_back_at_once_is_kept(void **state)
{
	start();
	assert_all_way(BETTER);
	lose(BETTER, 1);
	wait_for_state("ready");
	assert_int_equal(nr_changes(), 0);
	assert_all_way(BETTER);
}

static void all_lanes_leave_together_and_return_together(void **state)
{
	struct bridge_way_now now;

	start();
	atomic_store(&mems[BETTER].refuse, EHOSTUNREACH);
	lose(BETTER, 1);
	wait_for_changes(1);
	assert_all_way(PLAIN);
	peer_way_now(&bridge_attachment(bridge)->peers[0], &now);
	assert_non_null(strstr(now.why, "was lost: told to refuse"));
	/* It stays away as long as it does not work. */
	wait_for_connects(&mems[BETTER], 4);
	assert_int_equal(nr_changes(), 1);
	assert_all_way(PLAIN);
	uint64_t generation = attachment_generation(bridge_attachment(bridge));
	atomic_store(&mems[BETTER].refuse, 0);
	wait_for_changes(2);
	assert_all_way(BETTER);
	assert_true(attachment_generation(bridge_attachment(bridge)) > generation);
	peer_way_now(&bridge_attachment(bridge)->peers[0], &now);
	assert_non_null(strstr(now.why, "works again"));
	assert_int_equal(bridge_stop(bridge, 2000, NULL), 0);
}

static void a_look_disturbs_nobody_and_a_failing_one_changes_nothing(void **state)
{
	to.first_way = PLAIN;
	atomic_store(&mems[BETTER].kill_each, true);
	start();
	uint64_t generation = attachment_generation(bridge_attachment(bridge));
	json_t *status;

	/* Each look is granted, and its first probe ends it. */
	for (unsigned i = 0; i < 5; i++) {
		uint64_t before = atomic_load(&mems[BETTER].nr_ops),
			 end_ns = weft_now_ns() + UINT64_C(10000000000);

		while (atomic_load(&mems[BETTER].nr_ops) == before && weft_now_ns() < end_ns)
			assert_int_equal(do_write(i % NR_LANES, 0, pattern, 4096, 0), 0);
		assert_true(atomic_load(&mems[BETTER].nr_ops) > before);
	}
	assert_int_equal(attachment_generation(bridge_attachment(bridge)), generation);
	assert_int_equal(nr_changes(), 0);
	status = bridge_status(bridge);
	assert_int_equal(json_integer_value(json_object_get(status, "reconnects")), 0);
	json_decref(status);
	/* With nothing in the way it moves. */
	atomic_store(&mems[BETTER].kill_each, false);
	wait_for_changes(1);
	assert_all_way(BETTER);
}

static void where_both_ways_fail_requests_wait_for_either(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .off = 4096, .len = 4096}, .from = pattern};

	for (unsigned way = 0; way < 2; way++) {
		memset(&io, 0, sizeof(io));
		io.rq = (struct bridge_request){.kind = TP_WRITE, .off = 4096, .len = 4096};
		io.from = pattern + way;
		if (!bridge)
			start();
		atomic_store(&mems[0].refuse, ECONNREFUSED);
		atomic_store(&mems[1].refuse, ECONNREFUSED);
		atomic_store(&mems[0].kill_at, atomic_load(&mems[0].nr_ops) + 1);
		atomic_store(&mems[1].kill_at, atomic_load(&mems[1].nr_ops) + 1);
		io_start(&io, 0);
		wait_for_state("reconnecting");
		wait_for_connects(&mems[0], 2);
		wait_for_connects(&mems[1], 2);
		assert_false(atomic_load(&io.finished));
		atomic_store(&mems[way].refuse, 0);
		assert_int_equal(io_wait(&io), 0);
		assert_memory_equal(lent->map + 4096, pattern + way, 4096);
		atomic_store(&mems[0].refuse, 0);
		atomic_store(&mems[1].refuse, 0);
		wait_for_state("ready");
	}
}

static void with_one_way_nobody_moves(void **state)
{
	to.ways[0] = to.ways[BETTER];
	to.nr_ways = 1;
	to.first_way = 0;
	config.attach.dead_timeout_ms = 200;
	start();
	atomic_store(&mems[BETTER].refuse, EHOSTUNREACH);
	atomic_store(&mems[BETTER].kill_at, atomic_load(&mems[BETTER].nr_ops) + 1);
	assert_int_equal(do_write(0, 0, pattern, 4096, 0), -EIO);
	assert_int_equal(mems[PLAIN].nr_ops, 0);
}

/*
 * It is asked for at the start what either can do: FUA is a FLUSH, and FAST_ZERO is refused, over
 * the one that has both too.
 */
static void promises_are_what_both_can_keep(void **state)
{
	to.first_way = PLAIN;
	config.attach.return_ms = 60000;
	start();
	assert_false(bridge_info(bridge)->can_fua || bridge_info(bridge)->can_fast_zero);
	uint64_t before = mems[PLAIN].nr_ops;
	assert_int_equal(do_write(0, 0, pattern, 4096, TP_FUA), 0);
	assert_int_equal(mems[PLAIN].nr_ops - before, 2);
	assert_int_equal(do_range(0, TP_ZERO, 0, 4096, TP_FAST_ZERO), -EOPNOTSUPP);
	assert_int_equal(do_range(0, TP_ZERO, 0, 4096, 0), 0);
	assert_int_equal(do_range(0, TP_CACHE, 0, 4096, 0), 0);
}

static void a_way_that_can_do_less_is_not_taken(void **state)
{
	to.first_way = PLAIN;
	mems[BETTER].no_zero = true;
	start();
	wait_for_connects(&mems[BETTER], 4);
	assert_int_equal(nr_changes(), 0);
	wait_for_state("ready");
	assert_all_way(PLAIN);
}

static void another_epoch_over_another_way_is_an_error_for_good(void **state)
{
	struct mem_config lone = {.base = got, .size_bytes = REGION, .epoch = 4711};

	mems[PLAIN] = lone;
	start();
	atomic_store(&mems[BETTER].refuse, EHOSTUNREACH);
	atomic_store(&mems[BETTER].kill_at, atomic_load(&mems[BETTER].nr_ops) + 1);
	assert_int_equal(do_read(0, 0, got, 4096), -EIO);
	wait_for_state("stale");
}

/* Writes in flight all the time, over the moves there and back. */
static void what_is_in_flight_survives_moves(void **state)
{
	static struct io ios[NR_IOS];
	uint64_t changes = 0;

	start();
	atomic_store(&mems[0].delay_ns, 500000);
	atomic_store(&mems[1].delay_ns, 500000);
	for (unsigned round = 0; round < 60; round++) {
		memset(ios, 0, sizeof(ios));
		if (round % 10 == 3) {
			atomic_store(&mems[BETTER].refuse, EHOSTUNREACH);
			atomic_store(&mems[BETTER].kill_at, atomic_load(&mems[BETTER].nr_ops) + 7);
		}
		if (round % 10 == 6)
			atomic_store(&mems[BETTER].refuse, 0);
		for (unsigned i = 0; i < NR_IOS; i++) {
			ios[i].rq = (struct bridge_request){.kind = TP_WRITE,
				.off = i * 8192,
				.len = 8192};
			ios[i].from = pattern + round * 100 + i;
			io_start(&ios[i], i % NR_LANES);
		}
		for (unsigned i = 0; i < NR_IOS; i++)
			assert_int_equal(io_wait(&ios[i]), 0);
		for (unsigned i = 0; i < NR_IOS; i++)
			assert_memory_equal(lent->map + i * 8192, pattern + round * 100 + i, 8192);
		if (round % 10 == 9) {
			/* Both directions, before the next round of them. */
			changes = nr_changes();
			wait_for_changes(changes + changes % 2);
		}
	}
	assert_true(nr_changes() >= 8);
	wait_for_state("ready");
	assert_int_equal(bridge_stop(bridge, 2000, NULL), 0);
}

static void ending_in_the_middle_of_a_look_or_a_move_ends(void **state)
{
	config.attach.settle_ms = 30;
	config.attach.return_ms = 1;
	to.first_way = PLAIN;
	for (unsigned i = 0; i < 30; i++) {
		start();
		usleep(i * 4000); /* this moment is what is tried, not a wait */
		assert_int_equal(bridge_stop(bridge, 2000, NULL), 0);
		bridge_free(bridge);
		bridge = NULL;
		to.generation += UINT64_C(1) << 32;
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_way_that_comes_back_at_once_is_kept),
		TEST(all_lanes_leave_together_and_return_together),
		TEST(a_look_disturbs_nobody_and_a_failing_one_changes_nothing),
		TEST(where_both_ways_fail_requests_wait_for_either),
		TEST(with_one_way_nobody_moves),
		TEST(promises_are_what_both_can_keep),
		TEST(a_way_that_can_do_less_is_not_taken),
		TEST(another_epoch_over_another_way_is_an_error_for_good),
		TEST(what_is_in_flight_survives_moves),
		TEST(ending_in_the_middle_of_a_look_or_a_move_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
