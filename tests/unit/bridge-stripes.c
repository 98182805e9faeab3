/* SPDX-License-Identifier: MIT */
/*
 * An attachment striped over several donors: where bytes lie, one lost, one that is not there, one
 * with other contents.
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
#include "nbd-bridge/link/map.h"
#include "tests/support/bridge-io.h"
#include "transports/mem/mem.h"

enum { NR = 3, REGION = 1 << 20, UNIT = 4096 };

static struct mem_config mems[NR];
static struct bridge_donor_config donors[NR];
static struct bridge_config config;
static uint8_t *regions[NR];
static uint8_t pattern[NR * REGION], got[NR * REGION];

static int set_up(void **state)
{
	static const char *const labels[NR] = {"weft://a/r", "weft://b/r", "weft://c/r"};

	memset(donors, 0, sizeof(donors));
	for (unsigned i = 0; i < NR; i++) {
		regions[i] = calloc(1, REGION + i * 10000);
		mem_config_init(&mems[i], regions[i], REGION + i * 10000);
		mems[i].epoch += i;
		donors[i] = (struct bridge_donor_config){
			.label = labels[i],
			.region = "r",
			.ways = {{.transport = &tp_mem_ops,
				.transport_config = &mems[i],
				.host = ""}},
			.nr_ways = 1,
			.generation = UINT64_C(1) << 32,
		};
		weft_random(donors[i].id, sizeof(donors[i].id));
	}
	config = bridge_config_for_tests(NULL);
	config.attach.donors = donors;
	config.attach.nr_donors = NR;
	config.attach.stripe_bytes = UNIT;
	fill_pattern(pattern, sizeof(pattern));
	return 0;
}

static int tear_down(void **state)
{
	bridge_free(bridge);
	bridge = NULL;
	for (unsigned i = 0; i < NR; i++)
		free(regions[i]);
	return 0;
}

static void start(void)
{
	bridge_begin(&config);
}

/* A byte of the whole, looked up where it must lie. */
static uint8_t *byte_at(uint64_t off)
{
	return &regions[off / UNIT % NR][off / UNIT / NR * UNIT + off % UNIT];
}

static void assert_holds(uint64_t off, const uint8_t *data, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (*byte_at(off + i) != data[i])
			fail_msg("byte %u is wrong", (unsigned)(off + i));
}

static void the_map_agrees_with_itself(void **state)
{
	const struct bridge_map map = {.nr = 3, .unit = 10, .part_bytes = 40};

	for (uint64_t off = 0; off < 120; off++) {
		for (uint64_t len = 0; off + len <= 120; len++) {
			uint64_t count[3] = {0}, least[3] = {UINT64_MAX, UINT64_MAX, UINT64_MAX};

			for (uint64_t at = off, left = len; left > 0;) {
				struct bridge_piece piece = bridge_map_first(&map, at, left);

				assert_int_equal(piece.donor, at / 10 % 3);
				assert_int_equal(piece.off, at / 30 * 10 + at % 10);
				assert_true(piece.len > 0 && piece.len <= 10);
				count[piece.donor] += piece.len;
				least[piece.donor] = weft_min(least[piece.donor], piece.off);
				at += piece.len;
				left -= piece.len;
			}
			for (unsigned d = 0; d < 3; d++) {
				struct bridge_piece part = bridge_map_part(&map, d, off, len);

				assert_int_equal(part.len, count[d]);
				if (part.len > 0)
					assert_int_equal(part.off, least[d]);
			}
		}
	}
}

static void the_size_is_that_of_equal_parts(void **state)
{
	mems[0].size_bytes = REGION - 100;
	start();
	assert_int_equal(bridge_info(bridge)->size_bytes, NR * (REGION - UNIT));
	assert_int_equal(attachment_bytes_cut_off(bridge_attachment(bridge)),
		(UNIT - 100) + (UNIT + 10000) + (UNIT + 20000));
}

static void bytes_lie_where_the_stripes_say(void **state)
{
	const uint64_t offs[] = {0, 1, UNIT - 1, UNIT, UNIT + 1, 3 * UNIT - 1, 100001};
	const uint64_t lens[] = {1, 2, UNIT - 1, UNIT, UNIT + 1, 3 * UNIT, 7 * UNIT + 3, 1000001};

	start();
	for (unsigned o = 0; o < WEFT_ARRAY_LEN(offs); o++) {
		for (unsigned l = 0; l < WEFT_ARRAY_LEN(lens); l++) {
			const uint8_t *data = pattern + o * 100 + l;

			assert_int_equal(do_write(l % 2, offs[o], data, lens[l], 0), 0);
			assert_holds(offs[o], data, lens[l]);
			assert_int_equal(do_read(o % 2, offs[o], got, lens[l]), 0);
			assert_memory_equal(got, data, lens[l]);
		}
	}
	/* The last byte, and none after it. */
	uint64_t size = bridge_info(bridge)->size_bytes;
	assert_int_equal(do_write(0, size - 10, pattern, 10, TP_FUA), 0);
	assert_holds(size - 10, pattern, 10);
	assert_int_equal(do_flush(1), 0);
}

static void a_long_range_is_one_operation_a_donor(void **state)
{
	start();
	assert_int_equal(do_write(0, 0, pattern, 1000000, 0), 0);
	uint64_t before[NR];
	for (unsigned i = 0; i < NR; i++)
		before[i] = mems[i].nr_ops;
	assert_int_equal(do_range(0, TP_ZERO, 5000, 900000, 0), 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(mems[i].nr_ops - before[i], 1);
	memset(got, 0, 900000);
	assert_holds(5000, got, 900000);
	assert_holds(0, pattern, 5000);
	assert_holds(905000, pattern + 905000, 95000);
}

static void a_flush_visits_each_donor(void **state)
{
	start();
	uint64_t before[NR];
	for (unsigned i = 0; i < NR; i++)
		before[i] = mems[i].nr_ops;
	assert_int_equal(do_flush(0), 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(mems[i].nr_ops - before[i], 1);
}

static void an_error_of_one_donor_is_the_requests(void **state)
{
	start();
	atomic_store(&mems[1].fail_error, ENOSPC);
	atomic_store(&mems[1].fail_at, atomic_load(&mems[1].nr_ops) + 2);
	assert_int_equal(do_write(0, 0, pattern, 20 * UNIT, 0), -ENOSPC);
	assert_int_equal(do_write(0, 0, pattern, 20 * UNIT, 0), 0);
}

static void a_lost_donor_is_waited_for_and_nothing_is_missing(void **state)
{
	struct io io = {.rq = {.kind = TP_WRITE, .off = 0, .len = 200 * UNIT}, .from = pattern};

	start();
	atomic_store(&mems[2].refuse, ECONNREFUSED);
	atomic_store(&mems[2].kill_at, atomic_load(&mems[2].nr_ops) + 5);
	io_start(&io, 0);
	wait_for_state("reconnecting");
	/* Others go on, many more than there are operations. */
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(do_write(0, (uint64_t)(3 * i % 300) * UNIT + 9, pattern + i, 512,
					 0),
			0);
	assert_false(atomic_load(&io.finished));
	atomic_store(&mems[2].refuse, 0);
	assert_int_equal(io_wait(&io), 0);
	for (uint64_t off = 2 * UNIT; off < 200 * UNIT; off += NR * UNIT)
		assert_holds(off, pattern + off, UNIT);
	wait_for_state("ready");
}

static void many_that_wait_for_one_donor_do_not_keep_others(void **state)
{
	static struct io ios[600];

	config.nr_lanes = 1;
	start();
	memset(ios, 0, sizeof(ios));
	atomic_store(&mems[2].refuse, ECONNREFUSED);
	atomic_store(&mems[2].kill_at, atomic_load(&mems[2].nr_ops) + 1);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++) {
		ios[i].rq = (struct bridge_request){.kind = TP_WRITE,
			.off = 2 * UNIT + i % 4 * 1000,
			.len = 100};
		ios[i].from = pattern;
		io_start(&ios[i], 0);
	}
	wait_for_state("reconnecting");
	assert_int_equal(do_write(0, 0, pattern, 2 * UNIT, 0), 0);
	assert_int_equal(do_read(0, UNIT, got, UNIT), 0);
	assert_memory_equal(got, pattern + UNIT, UNIT);
	atomic_store(&mems[2].refuse, 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(ios); i++)
		assert_int_equal(io_wait(&ios[i]), 0);
}

static void a_donor_gone_for_good_fails_what_touches_it_alone(void **state)
{
	char why[600];

	config.attach.dead_timeout_ms = 150;
	start();
	atomic_store(&mems[1].refuse, ECONNREFUSED);
	atomic_store(&mems[1].kill_at, atomic_load(&mems[1].nr_ops) + 1);
	/* Several stripes: the parts at the others do not save it. */
	assert_int_equal(do_write(0, 0, pattern, 3 * UNIT, 0), -EIO);
	wait_for_state("dead");
	assert_non_null(strstr(status_text("why", why, sizeof(why)), "weft://b/r: "));
	assert_int_equal(do_read(0, UNIT, got, 1), -EIO);
	assert_int_equal(do_flush(0), -EIO);
	assert_int_equal(do_range(0, TP_TRIM, 0, 2 * UNIT, 0), -EIO);
	assert_int_equal(do_write(0, 0, pattern, UNIT, 0), 0);
	assert_int_equal(do_read(0, 2 * UNIT, got, UNIT), 0);
	atomic_store(&mems[1].refuse, 0);
	wait_for_state("ready");
	assert_int_equal(do_read(0, UNIT, got, 1), 0);
}

static void other_contents_at_one_donor_fail_everything(void **state)
{
	start();
	mems[1].epoch = 99;
	atomic_store(&mems[1].kill_at, atomic_load(&mems[1].nr_ops) + 1);
	assert_int_equal(do_read(0, UNIT, got, 1), -EIO);
	wait_for_state("stale");
	assert_int_equal(do_read(1, 0, got, 1), -EIO);
}

static void one_that_refuses_means_none(void **state)
{
	struct weft_error err = {0};

	atomic_store(&mems[2].refuse, EBUSY);
	assert_int_equal(bridge_new(&config, &bridge, &err), 0);
	assert_int_equal(bridge_start(bridge, &err), -EBUSY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/*
 * What was kept from being written back by the loss of one donor is written back when it returns,
 * not an interval later.
 */
static void a_flush_goes_on_when_a_donor_comes_back(void **state)
{
	struct io read = {.rq = {.kind = TP_READ, .off = UNIT, .len = 4096}, .to = got},
		  flush = {.rq = {.kind = TP_FLUSH}};

	config.cache.bytes = 8 << 20;
	config.cache.chunk_bytes = 64 << 10;
	config.cache.push_interval_ms = 3600000;
	config.nr_lanes = 1;
	start();
	atomic_store(&mems[1].refuse, ECONNREFUSED);
	atomic_store(&mems[1].kill_at, atomic_load(&mems[1].nr_ops) + 1);
	io_start(&read, 0);
	wait_for_state("reconnecting");
	assert_int_equal(do_write(0, UNIT + NR * 64 * UNIT, pattern, 4096, 0), 0);
	io_start(&flush, 0);
	wait_for_connects(&mems[1], 2);
	assert_false(atomic_load(&flush.finished));
	atomic_store(&mems[1].refuse, 0);
	assert_int_equal(io_wait(&flush), 0);
	assert_int_equal(io_wait(&read), 0);
	assert_holds(UNIT + NR * 64 * UNIT, pattern, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_map_agrees_with_itself),
		TEST(the_size_is_that_of_equal_parts),
		TEST(bytes_lie_where_the_stripes_say),
		TEST(a_long_range_is_one_operation_a_donor),
		TEST(a_flush_visits_each_donor),
		TEST(an_error_of_one_donor_is_the_requests),
		TEST(a_lost_donor_is_waited_for_and_nothing_is_missing),
		TEST(many_that_wait_for_one_donor_do_not_keep_others),
		TEST(a_donor_gone_for_good_fails_what_touches_it_alone),
		TEST(other_contents_at_one_donor_fail_everything),
		TEST(one_that_refuses_means_none),
		TEST(a_flush_goes_on_when_a_donor_comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
