/* SPDX-License-Identifier: MIT */
/*
 * The work of weft bench over a store that lies on demand: every kind of wrong byte is noticed, and
 * an honest one is not accused.
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
#include "perf/bench/bench.h"

enum { SPAN = 4 << 20, SLICE_NS = 30000000 };

static struct store {
	struct bench_io io;
	uint8_t *data;
	struct bench_slot *flying[BENCH_MAX_DEPTH];
	unsigned nr_flying, most_flying;
	uint64_t nr_reads, nr_writes;
	/* Lies. */
	uint64_t lose_write, misplace_write, flip_read, fail_at;
	bool hang;
} store;
static struct bench_truth truth;
static struct bench_slice slice;
static struct weft_error err;

static int submit(struct bench_io *io, struct bench_slot **slots, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct bench_slot *s = slots[i];

		assert_true(s->off + s->len <= SPAN);
		for (unsigned k = 0; k < store.nr_flying; k++)
			assert_true(store.flying[k]->off != s->off);
		s->error = store.nr_reads + store.nr_writes + 1 == store.fail_at ? -EIO : 0;
		if (s->write) {
			store.nr_writes++;
			if (store.nr_writes == store.misplace_write)
				memcpy(store.data + (s->off + s->len) % SPAN, s->buf, s->len);
			else if (store.nr_writes != store.lose_write)
				memcpy(store.data + s->off, s->buf, s->len);
		} else {
			memcpy(s->buf, store.data + s->off, s->len);
			s->buf[0] ^= ++store.nr_reads == store.flip_read;
		}
		store.flying[store.nr_flying++] = s;
	}
	store.most_flying = (unsigned)weft_max(store.most_flying, store.nr_flying);
	return 0;
}

/* The last comes first. */
static int reap(struct bench_io *io, struct bench_slot **done, unsigned max)
{
	if (store.hang)
		return -ETIMEDOUT;
	assert_true(store.nr_flying > 0);
	done[0] = store.flying[--store.nr_flying];
	return 1;
}

static int set_up(void **state)
{
	memset(&store, 0, sizeof(store));
	memset(&err, 0, sizeof(err));
	store.data = calloc(1, SPAN);
	store.io = (struct bench_io){.size_bytes = SPAN,
		.max_io_bytes = 1 << 20,
		.max_depth = 64,
		.submit = submit,
		.reap = reap,
		.buf = bench_buf()};
	truth = (struct bench_truth){.words = calloc(SPAN / BENCH_BLOCK, 8), .span_bytes = SPAN};
	return 0;
}

static int tear_down(void **state)
{
	free(store.data);
	free(truth.words);
	return 0;
}

static int work(bool write, uint32_t len, unsigned depth, uint64_t slice_ns)
{
	const struct bench_cell cell = {.write = write, .len = len, .depth = depth};
	int r = bench_work(&store.io, &truth, &cell, slice_ns, &slice, &err);

	return r == 0 ? bench_read_back(&store.io, &truth, &cell, &slice, &err) : r;
}

static void fill(void)
{
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_FILL, &err), 0);
}

static void an_honest_store_passes(void **state)
{
	fill();
	assert_int_equal(work(false, 4096, 16, SLICE_NS), 0);
	assert_int_equal(store.most_flying, 16);
	assert_true(slice.nr_ops > 16 && slice.elapsed_ns >= SLICE_NS);
	assert_int_equal(slice.latency.total, slice.nr_ops);
	assert_int_equal(work(true, 4096, 16, SLICE_NS), 0);
	assert_int_equal(work(true, 1 << 20, 2, SLICE_NS), 0);
	assert_int_equal(work(false, 64 << 10, 8, SLICE_NS), 0);
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_CHECK, &err), 0);
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_CLEAR, &err), 0);
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_IS_EMPTY, &err), 0);
}

static void a_flipped_bit_is_noticed(void **state)
{
	fill();
	store.flip_read = 20;
	assert_int_equal(work(false, 4096, 4, SLICE_NS), -EILSEQ);
	assert_non_null(strstr(err.message, "wrong bytes: at offset"));
	assert_int_equal(store.nr_flying, 0);
}

static void a_lost_write_is_noticed(void **state)
{
	fill();
	store.lose_write = store.nr_writes + 3;
	assert_int_equal(work(true, 4096, 4, 0), -EILSEQ);
	assert_int_equal(slice.nr_ops, 4);
}

static void a_lost_write_that_was_not_read_back_is_noticed_in_the_end(void **state)
{
	fill();
	store.lose_write = store.nr_writes + 40; /* what comes last is done first */
	assert_int_equal(work(true, 4096, 40, 0), 0);
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_CHECK, &err), -EILSEQ);
}

static void the_last_write_is_read_back(void **state)
{
	const struct bench_cell cell = {.write = true, .len = 4096, .depth = 1};

	fill();
	assert_int_equal(bench_work(&store.io, &truth, &cell, SLICE_NS, &slice, &err), 0);
	memset(store.data + slice.recent[(slice.nr_recent - 1) % BENCH_NR_RECENT], 0, 4096);
	assert_int_equal(bench_read_back(&store.io, &truth, &cell, &slice, &err), -EILSEQ);
}

static void a_misplaced_write_is_noticed(void **state)
{
	fill();
	store.misplace_write = store.nr_writes + 3;
	assert_int_equal(work(true, 4096, 4, 0), -EILSEQ);
}

static void what_was_there_is_learnt(void **state)
{
	for (size_t i = 0; i < SPAN; i++)
		store.data[i] = (uint8_t)(i * 7 >> 3);
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_IS_EMPTY, &err), -ENOTEMPTY);
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_LEARN, &err), 0);
	assert_int_equal(work(false, 4096, 8, SLICE_NS), 0);
	assert_int_equal(store.nr_writes, 0);
	store.data[SPAN / 2] ^= 1;
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_CHECK, &err), -EILSEQ);
}

static void one_byte_makes_a_region_not_empty(void **state)
{
	store.data[SPAN - 1] = 1;
	assert_int_equal(bench_sweep(&store.io, &truth, BENCH_SWEEP_IS_EMPTY, &err), -ENOTEMPTY);
}

static void an_error_of_an_operation_is_told(void **state)
{
	fill();
	store.fail_at = store.nr_reads + store.nr_writes + 10;
	assert_int_equal(work(false, 4096, 4, SLICE_NS), -EIO);
	assert_non_null(strstr(err.message, "a read of 4096 bytes at offset"));
	assert_int_equal(store.nr_flying, 0);
}

static void a_store_that_hangs_is_told(void **state)
{
	fill();
	store.hang = true;
	assert_int_equal(work(true, 4096, 4, SLICE_NS), -ETIMEDOUT);
	assert_non_null(strstr(err.message, "no operation came back"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_honest_store_passes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_flipped_bit_is_noticed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_write_is_noticed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_lost_write_that_was_not_read_back_is_noticed_in_the_end, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(the_last_write_is_read_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_misplaced_write_is_noticed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_was_there_is_learnt, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_byte_makes_a_region_not_empty, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(an_error_of_an_operation_is_told, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(a_store_that_hangs_is_told, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
