/* SPDX-License-Identifier: MIT */
/*
 * A device of which several donors have a copy: what is where, one lost, one that comes back with
 * its memory or without, too few, and ends without a goodbye.
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
#include "tests/support/copies-world.h"

enum { CHUNK = 64 << 10 };

static uint8_t pattern[WORLD_REGION], got[WORLD_REGION];

static int set_up(void **state)
{
	fill_pattern(pattern, sizeof(pattern));
	return 0;
}

static int tear_down(void **state)
{
	world_end();
	return 0;
}

static void begin(unsigned copies, unsigned min)
{
	world_begin(1, copies, min);
	world_attach();
}

static uint64_t ops_of(unsigned donor)
{
	return atomic_load(&world.mems[donor].nr_ops);
}

/* ---- where requests go ---- */

static void a_write_is_at_each_copy_when_it_is_answered(void **state)
{
	begin(3, 2);
	assert_int_equal(do_write(0, 5, pattern, 3 * CHUNK, 0), 0);
	assert_int_equal(do_write(1, 1 << 20, pattern, 2 << 20, TP_FUA), 0);
	for (unsigned i = 0; i < 3; i++) {
		world_assert_holds(i, 5, pattern, 3 * CHUNK);
		world_assert_holds(i, 1 << 20, pattern, 2 << 20);
	}
	assert_int_equal(do_read(0, 5, got, 3 * CHUNK), 0);
	assert_memory_equal(got, pattern, 3 * CHUNK);
	assert_int_equal(bridge_info(bridge)->size_bytes, WORLD_REGION);
}

static void what_is_trimmed_is_the_same_at_each_copy(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, 4 * CHUNK, 0), 0);
	assert_int_equal(do_range(0, TP_TRIM, 1000, CHUNK, 0), 0);
	assert_int_equal(do_range(0, TP_ZERO, 3 * CHUNK, 100, 0), 0);
	assert_int_equal(do_read(0, 0, got, 4 * CHUNK), 0);
	world_assert_same();
	world_assert_holds(1, 0, got, 4 * CHUNK);
}

static void a_read_goes_to_one_copy_and_rather_to_the_faster(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	atomic_store(&world.mems[0].delay_ns, 40000000);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(do_read(0, 0, got, 4096), 0);
	uint64_t slow = ops_of(0), fast = ops_of(1);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(do_read(0, 0, got, 4096), 0);
	slow = ops_of(0) - slow;
	fast = ops_of(1) - fast;
	if (fast < 45 || slow > 20)
		fail_msg("%u at the fast copy, %u at the slow one", (unsigned)fast, (unsigned)slow);
}

static void reads_at_once_go_to_both(void **state)
{
	static struct io ios[16];

	begin(2, 1);
	for (unsigned i = 0; i < 2; i++)
		atomic_store(&world.mems[i].delay_ns, 50000000);
	uint64_t first = ops_of(0), second = ops_of(1);
	memset(ios, 0, sizeof(ios));
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++) {
		ios[i].rq = (struct bridge_request){.kind = TP_READ, .off = i * CHUNK,
			.len = CHUNK};
		io_start(&ios[i], 0);
	}
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	assert_true(ops_of(0) - first >= 5 && ops_of(1) - second >= 5);
}

static void a_read_that_fails_at_one_copy_is_read_at_another(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		atomic_store(&world.mems[i].fail_error, EIO);
		atomic_store(&world.mems[i].fail_at, ops_of(i) + 1);
		for (unsigned n = 0; n < 4; n++) {
			memset(got, 0, CHUNK);
			assert_int_equal(do_read(0, 0, got, CHUNK), 0);
			assert_memory_equal(got, pattern, CHUNK);
		}
		atomic_store(&world.mems[i].fail_at, 0);
	}
	assert_int_equal(world_state(0), BRIDGE_COPY_CURRENT);
	assert_int_equal(world_state(1), BRIDGE_COPY_CURRENT);
}

static void a_flush_goes_to_each_copy(void **state)
{
	begin(3, 1);
	assert_int_equal(do_write(0, 0, pattern, 10, 0), 0);
	uint64_t before[3];
	for (unsigned i = 0; i < 3; i++)
		before[i] = ops_of(i);
	assert_int_equal(do_flush(0), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ops_of(i) - before[i], 1);
}

static void overlapping_writes_come_in_one_order(void **state)
{
	static struct io ios[64];

	begin(2, 1);
	for (unsigned i = 0; i < 2; i++) {
		atomic_store(&world.mems[i].delay_ns, 200000);
		atomic_store(&world.mems[i].reorder, 77 + i);
	}
	for (unsigned round = 0; round < 10; round++) {
		memset(ios, 0, sizeof(ios));
		for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++) {
			ios[i].rq = (struct bridge_request){.kind = TP_WRITE,
				.off = (i * 3001) % 8192,
				.len = 9000};
			ios[i].from = pattern + i * 7919;
			io_start(&ios[i], i % 2);
		}
		for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++)
			assert_int_equal(io_wait(&ios[i]), 0);
		world_assert_same();
	}
}

static void copies_and_stripes(void **state)
{
	world_begin(2, 2, 1);
	world_attach();
	assert_int_equal(bridge_info(bridge)->size_bytes, 2 * WORLD_REGION);
	assert_int_equal(do_write(0, 1000, pattern, 5 * WORLD_UNIT + 3, 0), 0);
	for (unsigned i = 0; i < 2; i++)
		world_assert_holds(i, 1000, pattern, 5 * WORLD_UNIT + 3);
	/* One of each stripe is lost. */
	world_cut(0);
	world_cut(3);
	assert_int_equal(do_write(0, 2000, pattern, 5 * WORLD_UNIT + 3, 0), 0);
	world_wait_for(0, BRIDGE_COPY_LOST);
	world_wait_for(3, BRIDGE_COPY_LOST);
	assert_int_equal(do_read(1, 2000, got, 5 * WORLD_UNIT + 3), 0);
	assert_memory_equal(got, pattern, 5 * WORLD_UNIT + 3);
	world_heal(0);
	world_heal(3);
	world_wait_until_whole();
	world_assert_same();
	world_assert_holds(0, 2000, pattern, 5 * WORLD_UNIT + 3);
}

/* ---- losing one ---- */

static void a_lost_copy_is_left_behind_noted_and_caught_up(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION / 2, 0), 0);
	world_cut(1);
	assert_int_equal(do_write(0, 7 * CHUNK, pattern + 99, CHUNK, 0), 0);
	/* The one that is left knows that it is alone, before anybody learns of the write. */
	assert_int_equal(world.regions[0]->copies.members, 1);
	assert_int_equal(world.state[0].members, 1);
	assert_int_equal(world_state(1), BRIDGE_COPY_LOST);
	wait_for_state("ready");
	assert_int_equal(do_write(1, 20 * CHUNK + 5, pattern + 999, 10, 0), 0);
	assert_int_equal(do_read(1, 7 * CHUNK, got, CHUNK), 0);
	assert_memory_equal(got, pattern + 99, CHUNK);
	struct bridge_copy copy;
	bridge_copies_look(bridge, 1, &copy);
	assert_int_equal(copy.behind_bytes, 2 * CHUNK);
	assert_true(copy.since > 0 && copy.why.code);
	uint64_t before = ops_of(1);
	world_heal(1);
	world_wait_until_whole();
	/* Two windows, and a few questions and signs of life. */
	assert_true(ops_of(1) - before < 20);
	world_assert_same();
	assert_int_equal(world.regions[0]->copies.members, 3);
	assert_int_equal(world.regions[1]->copies.members, 3);
	assert_int_equal(world.state[0].members, 3);
}

static void a_silent_copy_is_left_behind(void **state)
{
	begin(2, 1);
	world_silence(0);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	assert_int_equal(do_read(1, 0, got, CHUNK), 0);
	assert_memory_equal(got, pattern, CHUNK);
	assert_int_equal(world_state(0), BRIDGE_COPY_LOST);
	assert_int_equal(world.regions[1]->copies.members, 2);
	world_heal(0);
	world_wait_until_whole();
	world_assert_same();
}

static void a_spare_to_which_no_way_leads_takes_no_place(void **state)
{
	const uint64_t end_ns = weft_now_ns() + UINT64_C(60000000000);
	struct bridge_copy copy = {.state = BRIDGE_COPY_LOST};

	world_begin(1, 2, 1);
	world.config.attach.copies.spares[0] = "weft://x/r";
	world.config.attach.copies.nr_spares = 1;
	world.config.attach.copies.spare_ms = 200;
	world_attach();
	const struct bridge_peer *peer = &bridge_attachment(bridge)->peers[1];
	const uint64_t generation = peer->generation;
	world_cut(1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	while (!strstr(copy.why.message, "spare weft://x/r cannot take its place")) {
		assert_true(weft_now_ns() < end_ns);
		bridge_copies_look(bridge, 1, &copy);
		usleep(1000);
	}
	/* And it keeps what it is connected by, though it is looked again. */
	usleep(1000000);
	assert_true(atomic_load(&peer->generation) - generation < 3);
	world_heal(1);
	world_wait_until_whole();
	world_assert_same();
}

static void a_short_cut_is_waited_for(void **state)
{
	world_begin(1, 2, 1);
	world.config.attach.copies.lost_ms = 4000;
	world_attach();
	unsigned notes = atomic_load(&world.nr_notes);
	for (unsigned i = 0; i < 5; i++) {
		atomic_fetch_add(&world.mems[i % 2].cut, 1);
		assert_int_equal(do_write(i % 2, i * CHUNK, pattern, CHUNK, 0), 0);
	}
	assert_int_equal(atomic_load(&world.nr_notes), notes);
	world_assert_same();
}

static void reads_need_not_wait_for_a_lost_copy(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		world_cut(i);
		for (unsigned n = 0; n < 8; n++) {
			assert_int_equal(do_read(n % 2, 0, got, CHUNK), 0);
			assert_memory_equal(got, pattern, CHUNK);
		}
		world_heal(i);
		world_wait_until_whole();
	}
}

static void a_copy_without_its_memory_gets_all_of_it(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	world_cut(0);
	world_forget(0);
	world_heal(0);
	assert_int_equal(do_write(0, 0, pattern + 1, CHUNK, 0), 0);
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	assert_memory_equal(got, pattern + 1, CHUNK);
	world_wait_until_whole();
	world_assert_same();
	/* And the other way round. */
	world_cut(1);
	world_forget(1);
	world_heal(1);
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	assert_memory_equal(got, pattern + 1, CHUNK);
	assert_int_equal(do_write(0, CHUNK, pattern, CHUNK, 0), 0);
	world_wait_until_whole();
	world_assert_same();
}

static void contents_that_are_gone_everywhere_are_an_error(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		world_cut(i);
		world_forget(i);
	}
	for (unsigned i = 0; i < 2; i++)
		world_heal(i);
	assert_int_equal(do_read(0, 0, got, CHUNK), -EIO);
	wait_for_state("stale");
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), -EIO);
}

static void a_region_that_somebody_else_used_is_left_alone(void **state)
{
	struct weft_error err;

	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_cut(1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_forget(1);
	/* Somebody has it for a moment. */
	const struct weft_peer peer = {.text = "a test", .transport = "mem", .local = true};
	struct weft_hello hello = {.generation = UINT64_C(1) << 32, .mode = WEFT_MODE_WRITE,
		.name = "else"};
	struct weft_grant *grant;
	weft_random(hello.id, sizeof(hello.id));
	assert_int_equal(weft_donor_grant(world.donors[1], world.regions[1], &hello, &peer, NULL,
				 NULL, &grant, &err),
		0);
	memset(world.regions[1]->map, 0x77, 100);
	weft_grant_release(grant, true);
	world_heal(1);
	world_wait_for(1, BRIDGE_COPY_OTHERS);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	assert_int_equal(((uint8_t *)world.regions[1]->map)[5], 0x77);
}

static void a_copy_that_fails_a_write_is_left_behind(void **state)
{
	begin(2, 1);
	atomic_store(&world.mems[1].fail_error, EIO);
	atomic_store(&world.mems[1].fail_at, ops_of(1) + 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	assert_int_equal(world_state(1), BRIDGE_COPY_LOST);
	assert_int_equal(world.regions[0]->copies.members, 1);
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	assert_memory_equal(got, pattern, CHUNK);
	world_wait_until_whole();
	world_assert_same();
}

static void many_requests_outlast_a_loss(void **state)
{
	static struct io ios[1200];

	begin(2, 1);
	memset(ios, 0, sizeof(ios));
	atomic_store(&world.mems[1].delay_ns, 500000);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++) {
		ios[i].rq = (struct bridge_request){.kind = i % 3 ? TP_WRITE : TP_READ,
			.off = i * 3000, .len = 3000};
		ios[i].from = i % 3 ? pattern + i * 3000 : NULL;
		io_start(&ios[i], i % 2);
		if (i == 300)
			world_cut(1);
	}
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++)
		if (i % 3)
			world_assert_holds(0, i * 3000, pattern + i * 3000, 3000);
	world_heal(1);
	world_wait_until_whole();
	world_assert_same();
}

/* As if another connection, of the same generation, had found it so a moment before. */
static void find_other_contents(struct bridge_lane *lane, void *ctx)
{
	struct weft_error why;

	weft_error_set(&why, ESTALE, "told to");
	peer_set_stale(lane_link(lane, 1)->peer, &why);
}

static void connections_to_other_contents_end(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	atomic_store(&world.mems[1].refuse, ECONNREFUSED);
	bridge_lane_run(bridge_lane(bridge, 1), find_other_contents, NULL);
	assert_int_equal(do_write(0, 0, pattern + 1, CHUNK, 0), 0);
	world_wait_for(1, BRIDGE_COPY_LOST);
	usleep(300000);
	const uint64_t before = atomic_load(&world.mems[1].nr_connects);
	world_heal(1);
	for (unsigned i = 0; atomic_load(&world.mems[1].nr_connects) < before + 2; i++) {
		assert_in_range(i, 0, 30000);
		usleep(1000);
	}
	world_wait_until_whole();
	world_assert_same();
	world_assert_holds(1, 0, pattern + 1, CHUNK);
}

static void writes_go_on_while_a_copy_catches_up(void **state)
{
	begin(2, 1);
	world_cut(1);
	world_forget(1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	for (unsigned i = 0; i < 2; i++)
		atomic_store(&world.mems[i].delay_ns, 1000000);
	world_heal(1);
	for (unsigned i = 0; i < 400; i++)
		assert_int_equal(do_write(i % 2, (i * 37) % 60 * CHUNK + i, pattern + i, 5000, 0),
			0);
	world_wait_until_whole();
	world_assert_same();
}

static void bytes_that_are_always_written_are_copied_too(void **state)
{
	static struct io ios[16];

	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	world_cut(1);
	world_forget(1);
	for (unsigned i = 0; i < 2; i++)
		atomic_store(&world.mems[i].delay_ns, 1000000);
	world_heal(1);
	const uint64_t end_ns = weft_now_ns() + UINT64_C(60000000000);
	memset(ios, 0, sizeof(ios));
	/* At any time some wait for others that have the same bytes. */
	for (unsigned n = 0; n < 50 || world_state(1) != BRIDGE_COPY_CURRENT; n++) {
		struct io *io = &ios[n % WEFT_ARRAY_LEN(ios)];

		assert_true(weft_now_ns() < end_ns);
		if (io->rq.len)
			assert_int_equal(io_wait(io), 0);
		*io = (struct io){.rq = {.kind = TP_WRITE, .off = n % 3 * 4096, .len = 3 * 4096},
			.from = pattern + n % 100};
		io_start(io, n % 2);
	}
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	world_wait_until_whole();
	world_assert_same();
}

static void a_copy_that_comes_back_may_hash_less_at_once(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	world_cut(1);
	world_forget(1);
	assert_int_equal(do_write(0, CHUNK, pattern, CHUNK, 0), 0);
	world.mems[1].max_hash_blocks = 7;
	world_heal(1);
	world_wait_until_whole();
	world_assert_same();
	world_assert_holds(1, CHUNK, pattern, CHUNK);
}

static _Atomic unsigned nr_asked;

static void count_note(void)
{
	atomic_fetch_add(&nr_asked, 1);
}

static void a_copy_is_not_read_before_it_is_noted(void **state)
{
	begin(2, 1);
	world.at_note = count_note;
	world_cut(1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	atomic_store(&world.note_fails, true);
	unsigned before = atomic_load(&nr_asked);
	world_heal(1);
	/* It has all, and is about to be a member. */
	while (atomic_load(&nr_asked) == before)
		usleep(1000);
	atomic_store(&world.mems[0].delay_ns, 2000000);
	uint64_t ops = ops_of(1);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(do_read(i % 2, 0, got, CHUNK), 0);
	if (ops_of(1) - ops > 20)
		fail_msg("%u READs went there", (unsigned)(ops_of(1) - ops));
	atomic_store(&world.note_fails, false);
	world_wait_until_whole();
	world_assert_same();
}

/*
 * While a write waits for the slowest copy, a window that it is about waits to be copied, and the
 * copy that was to be the source fails the write.
 */
static void what_is_copied_comes_from_a_copy_that_has_it(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .off = 1 << 20, .len = CHUNK}, .from = pattern};

	world_begin(1, 3, 1);
	world.config.attach.copies.lost_ms = 4000;
	world_attach();
	assert_int_equal(do_write(0, 0, pattern + 1, WORLD_REGION - 1, 0), 0);
	atomic_store(&world.mems[2].delay_ns, 100000000);
	world_cut(2);
	world_forget(2);
	world_heal(2);
	world_wait_for(2, BRIDGE_COPY_SYNCING);
	usleep(50000);
	/* The first window is on its way. */
	uint64_t before = ops_of(1);
	atomic_store(&world.mems[0].delay_ns, 1000000000);
	atomic_store(&world.mems[1].delay_ns, 2000000000);
	atomic_store(&world.mems[0].fail_error, EIO);
	io_start(&io, 1);
	while (ops_of(1) == before)
		usleep(100);
	atomic_store(&world.mems[0].fail_at, ops_of(0));
	for (unsigned i = 0; i < 3; i++)
		atomic_store(&world.mems[i].delay_ns, i < 2 ? 0 : 10000000);
	assert_int_equal(io_wait(&io), 0);
	world_wait_for(2, BRIDGE_COPY_CURRENT);
	world_assert_holds(2, 1 << 20, pattern, CHUNK);
	world_assert_holds(1, 1 << 20, pattern, CHUNK);
}

/* ---- too few ---- */

static void with_too_few_requests_wait_then_fail_and_nothing_differs(void **state)
{
	world_begin(1, 2, 2);
	world.config.attach.dead_timeout_ms = 400;
	world_attach();
	assert_int_equal(do_write(0, 0, pattern, 4 * CHUNK, 0), 0);
	world_cut(1);
	assert_int_equal(do_write(0, 0, pattern + 9, CHUNK, 0), -EIO);
	assert_int_equal(world_state(1), BRIDGE_COPY_CURRENT);
	assert_int_equal(do_write(0, 0, pattern + 9, CHUNK, 0), -EIO);
	wait_for_state("dead");
	world_heal(1);
	wait_for_state("ready");
	/* What was written to one of them only is not seen before it is at both. */
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	world_assert_same();
	world_assert_holds(0, 0, got, CHUNK);
	world_assert_holds(0, CHUNK, pattern + CHUNK, 3 * CHUNK);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_assert_same();
}

static void with_too_few_requests_go_on_when_it_comes_back(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .off = 0, .len = CHUNK}, .from = pattern};

	begin(2, 2);
	world_cut(1);
	io_start(&io, 0);
	usleep(3 * WORLD_LOST_MS * 1000);
	assert_false(atomic_load(&io.finished));
	world_heal(1);
	assert_int_equal(io_wait(&io), 0);
	world_assert_same();
	world_assert_holds(1, 0, pattern, CHUNK);
}

static void with_too_few_requests_fail_at_once_if_told_so(void **state)
{
	world_begin(1, 2, 2);
	world.config.attach.dead_timeout_ms = 60000;
	world.config.attach.copies.fails_on_too_few = true;
	world_attach();
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_cut(1);
	uint64_t begin_ns = weft_now_ns();
	assert_int_equal(do_write(0, 0, pattern + 9, CHUNK, 0), -EIO);
	assert_int_equal(do_write(1, 0, pattern + 9, CHUNK, 0), -EIO);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(20000000000));
	world_heal(1);
	uint64_t end_ns = weft_now_ns() + UINT64_C(20000000000);
	while (do_write(0, 0, pattern + 1, CHUNK, 0) < 0)
		assert_true(weft_now_ns() < end_ns);
	world_assert_same();
}

static void no_answer_before_the_state_has_it(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .off = 0, .len = CHUNK}, .from = pattern};

	begin(2, 1);
	atomic_store(&world.note_fails, true);
	world_cut(1);
	io_start(&io, 0);
	world_wait_for(1, BRIDGE_COPY_LOST);
	usleep(100000);
	assert_false(atomic_load(&io.finished));
	assert_int_equal(world.regions[0]->copies.members, 3);
	atomic_store(&world.note_fails, false);
	assert_int_equal(io_wait(&io), 0);
	assert_int_equal(world.regions[0]->copies.members, 1);
}

/* The state would have it for a member, with the contents that it has now. */
static void a_copy_begins_anew_once_the_state_is_without_it(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	atomic_store(&world.note_fails, true);
	world_cut(1);
	world_forget(1);
	world_heal(1);
	world_wait_for(1, BRIDGE_COPY_LOST);
	usleep(300000);
	assert_true(world.regions[1]->generations[0].generation == 0);
	atomic_store(&world.note_fails, false);
	world_wait_until_whole();
	world_assert_same();
}

/* ---- ends ---- */

static void after_a_goodbye_copies_are_the_same(void **state)
{
	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_detach();
	assert_true(world.regions[0]->copies.ended && world.regions[1]->copies.ended);
	world_attach();
	assert_true(world.was_same);
	assert_false(world.regions[0]->copies.ended || world.regions[1]->copies.ended);
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	assert_memory_equal(got, pattern, CHUNK);
}

static void after_a_kill_copies_are_made_the_same(void **state)
{
	for (unsigned takes_over = 0; takes_over < 2; takes_over++) {
		begin(3, 2);
		assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
		world_kill_bridge();
		/* What was on its way is at some. */
		memset(world_byte(1, 100), 0, 10);
		memset(world_byte(2, 50 * CHUNK), 1, 20000);
		world.takes_over = takes_over;
		world_attach();
		assert_false(world.was_same);
		world_assert_same();
		world_wait_until_whole();
		assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
		world_assert_holds(2, 0, pattern, WORLD_REGION);
		if (takes_over == 0)
			world_end();
	}
}

static void cut_the_last(void)
{
	world_cut(2);
	world.at_note = NULL;
}

static void a_copy_that_is_lost_while_all_are_made_the_same_is_behind(void **state)
{
	begin(3, 1);
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	world_kill_bridge();
	/* What was on its way is there alone. */
	memset(world_byte(2, 50 * CHUNK), 1, 20000);
	/* It has granted, and is lost before it is looked at. */
	world.at_note = cut_the_last;
	world_attach();
	assert_int_equal(world_state(2), BRIDGE_COPY_LOST);
	world_heal(2);
	world_wait_until_whole();
	world_assert_same();
}

static void a_copy_that_was_left_behind_is_not_taken_for_current(void **state)
{
	struct weft_error err;

	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_cut(1);
	assert_int_equal(do_write(0, 0, pattern + 7, CHUNK, 0), 0);
	world_kill_bridge();
	world_cut(0);
	world_heal(1);
	/* Alone it cannot be told from the current one. */
	world_cannot_attach(&err);
	world_heal(0);
	world_attach();
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	assert_memory_equal(got, pattern + 7, CHUNK);
	world_wait_until_whole();
	world_assert_same();
	world_assert_holds(1, 0, pattern + 7, CHUNK);
}

/* Somebody has put an older state back: it has a copy for current that was left behind since. */
static void a_state_that_is_older_than_the_notes_is_no_state(void **state)
{
	struct bridge_copies_known before;
	struct weft_error err;

	begin(2, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	before = world.state[0];
	world_cut(0);
	assert_int_equal(do_write(0, 0, pattern + 7, CHUNK, 0), 0);
	world_kill_bridge();
	world_heal(0);
	world.state[0] = before;
	world.takes_over = true;
	/* This settle() does not look, and yet the copy that is current is not written to. */
	assert_int_equal(world_cannot_attach(&err), -ESTALE);
	world_assert_holds(1, 0, pattern + 7, CHUNK);
}

static void it_begins_with_a_copy_that_is_not_there(void **state)
{
	begin(3, 2);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_detach();
	world_cut(2);
	world_attach();
	assert_int_equal(world_state(2), BRIDGE_COPY_LOST);
	assert_int_equal(do_write(0, CHUNK, pattern, CHUNK, 0), 0);
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	assert_memory_equal(got, pattern, CHUNK);
	world_heal(2);
	world_wait_until_whole();
	world_assert_same();
}

static void a_cache_in_front_of_copies(void **state)
{
	world_begin(1, 2, 1);
	world.config.cache.bytes = 1 << 20;
	world.config.cache.chunk_bytes = CHUNK;
	world.config.cache.push_interval_ms = 20;
	world_attach();
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION / 2, 0), 0);
	world_cut(1);
	assert_int_equal(do_write(0, CHUNK, pattern, WORLD_REGION / 2, 0), 0);
	assert_int_equal(do_flush(0), 0);
	world_assert_holds(0, CHUNK, pattern, WORLD_REGION / 2);
	world_heal(1);
	world_wait_until_whole();
	assert_int_equal(do_flush(0), 0);
	world_assert_same();
	assert_int_equal(do_read(1, CHUNK, got, WORLD_REGION / 2), 0);
	assert_memory_equal(got, pattern, WORLD_REGION / 2);
}

/* Its donor comes back without its memory while its bytes are on their way to another. */
static void a_source_that_lost_its_memory_is_no_source(void **state)
{
	enum { SLOW_NS = 300000000 };
	static const uint8_t none[4096];

	world_begin(1, 3, 1);
	world.config.attach.copies.lost_ms = 3000;
	world_attach();
	/* Every second block differs from a new one, so that there are many runs. */
	for (unsigned at = 0; at < WORLD_REGION; at += 2 * sizeof(none))
		memset(pattern + at, 0, sizeof(none));
	assert_int_equal(do_write(0, 0, pattern, WORLD_REGION, 0), 0);
	world_cut(1);
	world_forget(1);
	assert_int_equal(do_write(0, 0, pattern, sizeof(none), 0), 0);
	world_wait_for(1, BRIDGE_COPY_LOST);
	atomic_store(&world.mems[1].delay_ns, SLOW_NS);
	world_heal(1);
	world_wait_for(1, BRIDGE_COPY_SYNCING);
	usleep(4 * SLOW_NS / 1000);
	world_cut(0);
	world_forget(0);
	world_heal(0);
	usleep(5 * SLOW_NS / 1000);
	atomic_store(&world.mems[1].delay_ns, 0);
	world_wait_until_whole();
	for (unsigned copy = 0; copy < 3; copy++)
		world_assert_holds(copy, 0, pattern, WORLD_REGION);
}

/* What notes that needs none of the memory that they hold until then. */
static void writes_that_hold_all_memory_outlast_a_loss(void **state)
{
	struct io ios[5];

	begin(2, 1);
	world_silence(1);
	for (unsigned i = 0; i < 5; i++) {
		ios[i] = (struct io){.rq = {.kind = TP_WRITE,
			.off = (uint64_t)i % 4 << 20,
			.len = 1 << 20},
			.from = pattern};
		io_start(&ios[i], 0);
	}
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(io_wait(&ios[i]), 0);
	world_heal(1);
	world_wait_until_whole();
	world_assert_same();
}

static int repair(unsigned copy, uint64_t off, uint64_t len)
{
	struct weft_error err;
	int r;

	do
		r = bridge_copies_repair(bridge, 0, copy, off, len, &err);
	while (r == -EINPROGRESS);
	return r;
}

/* It has others to answer meanwhile. */
static void whoever_asks_for_a_repair_is_not_held_up(void **state)
{
	struct weft_error err;

	world_begin(1, 2, 1);
	world.config.attach.copies.lost_ms = 30000;
	world_attach();
	world_silence(1);
	const uint64_t start_ns = weft_now_ns();
	assert_int_equal(bridge_copies_repair(bridge, 0, 0, 0, 4096, &err), -EINPROGRESS);
	assert_true(weft_now_ns() - start_ns < UINT64_C(15000000000));
	assert_int_equal(bridge_copies_repair(bridge, 0, 0, 4096, 4096, &err), -EBUSY);
	world_cut(1);
	assert_true(repair(0, 0, 4096) < 0);
	world_heal(1);
	world_wait_until_whole();
	/* That was another one, for which both have to be there again. */
	int r = -EAGAIN;
	for (unsigned i = 0; r == -EAGAIN && i < 60000; i++) {
		r = repair(0, 0, 4096);
		usleep(1000);
	}
	assert_int_equal(r, 0);
}

static void what_is_repaired_is_the_same_at_a_copy_that_comes_back(void **state)
{
	begin(3, 1);
	assert_int_equal(do_write(0, 0, pattern, CHUNK, 0), 0);
	world_cut(2);
	assert_int_equal(do_write(0, 3 << 20, pattern, CHUNK, 0), 0);
	world_wait_for(2, BRIDGE_COPY_LOST);
	*world_byte(0, 100) ^= 1;
	assert_int_equal(repair(0, 0, 4096), 0);
	world_heal(2);
	world_wait_until_whole();
	assert_int_equal(*world_byte(2, 100), pattern[100] ^ 1);
	world_assert_same();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_write_is_at_each_copy_when_it_is_answered),
		TEST(what_is_trimmed_is_the_same_at_each_copy),
		TEST(a_read_goes_to_one_copy_and_rather_to_the_faster),
		TEST(reads_at_once_go_to_both),
		TEST(a_read_that_fails_at_one_copy_is_read_at_another),
		TEST(a_flush_goes_to_each_copy),
		TEST(overlapping_writes_come_in_one_order),
		TEST(copies_and_stripes),
		TEST(a_lost_copy_is_left_behind_noted_and_caught_up),
		TEST(a_silent_copy_is_left_behind),
		TEST(a_short_cut_is_waited_for),
		TEST(reads_need_not_wait_for_a_lost_copy),
		TEST(a_copy_without_its_memory_gets_all_of_it),
		TEST(connections_to_other_contents_end),
		TEST(contents_that_are_gone_everywhere_are_an_error),
		TEST(a_region_that_somebody_else_used_is_left_alone),
		TEST(a_copy_that_fails_a_write_is_left_behind),
		TEST(many_requests_outlast_a_loss),
		TEST(writes_go_on_while_a_copy_catches_up),
		TEST(bytes_that_are_always_written_are_copied_too),
		TEST(a_copy_that_comes_back_may_hash_less_at_once),
		TEST(a_copy_is_not_read_before_it_is_noted),
		TEST(what_is_copied_comes_from_a_copy_that_has_it),
		TEST(with_too_few_requests_wait_then_fail_and_nothing_differs),
		TEST(with_too_few_requests_go_on_when_it_comes_back),
		TEST(with_too_few_requests_fail_at_once_if_told_so),
		TEST(no_answer_before_the_state_has_it),
		TEST(a_copy_begins_anew_once_the_state_is_without_it),
		TEST(after_a_goodbye_copies_are_the_same),
		TEST(after_a_kill_copies_are_made_the_same),
		TEST(a_copy_that_is_lost_while_all_are_made_the_same_is_behind),
		TEST(a_copy_that_was_left_behind_is_not_taken_for_current),
		TEST(a_state_that_is_older_than_the_notes_is_no_state),
		TEST(it_begins_with_a_copy_that_is_not_there),
		TEST(a_cache_in_front_of_copies),
		TEST(a_source_that_lost_its_memory_is_no_source),
		TEST(writes_that_hold_all_memory_outlast_a_loss),
		TEST(what_is_repaired_is_the_same_at_a_copy_that_comes_back),
		TEST(whoever_asks_for_a_repair_is_not_held_up),
		TEST(a_spare_to_which_no_way_leads_takes_no_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
