/* SPDX-License-Identifier: MIT */
/*
 * Units of a map that follow one another come, leave and go home together, in each mode; and what
 * cannot be had of one keeps no other.  Where the kernel cannot map, the cases are skipped with
 * what weft_map() says.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/weft.h"
#include "transports/mem/mem.h"

enum {
	UNIT = 64 << 10,
	UNITS = 128,
	MAPPED = UNITS * UNIT,
	LOCAL = 64 * UNIT,
	TOGETHER = 8, /* units of 64 KiB that are read at once */
	PATIENCE_S = 60,
};

static unsigned mode;
static struct weft *handle;
static struct weft_map *map;
static volatile uint8_t *base;

/*
 * tsan does not look here: a WRITE of what was written since may be under way, as it may with any
 * donor.
 */
static uint8_t __attribute__((no_sanitize("thread"))) at_home(uint64_t off)
{
	return ((volatile uint8_t *)mem_home.base)[off];
}

static uint8_t byte_of(uint64_t off)
{
	return (uint8_t)(off / 512 * 7 + off);
}

static int begin(void **state)
{
	const struct weft_map_options o = {.size = sizeof(o),
		.mode = mode,
		.unit_bytes = UNIT,
		.local_bytes = mode == WEFT_MAP_RESIDENT ? 0 : LOCAL};
	char why[256];

	if (weft_open("mem:///r", 0, &handle, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	for (uint64_t off = 0; off < MAPPED; off++)
		((uint8_t *)mem_home.base)[off] = byte_of(off);
	int r = weft_map(handle, 0, MAPPED, &o, &map, why, sizeof(why));
	if (r == -ENOTSUP || r == -ENOSYS) {
		printf("\nSKIP: %s\n", why);
		map = NULL;
		return 0;
	}
	if (r < 0)
		fail_msg("%s", why);
	base = weft_map_addr(map);
	return 0;
}

static int end(void **state)
{
	atomic_store(&mem_home.hold, false);
	atomic_store(&mem_home.fail_at, 0);
	assert_int_equal(weft_unmap(map, WEFT_UNMAP_DISCARD), 0);
	weft_close(handle);
	return 0;
}

static void need_map(void)
{
	if (!map)
		skip();
}

static struct weft_map_stats stats(void)
{
	struct weft_map_stats s = {.size = sizeof(s)};

	assert_int_equal(weft_map_stats(map, &s), 0);
	return s;
}

static void prefetch(unsigned first, unsigned nr)
{
	assert_int_equal(
		weft_map_prefetch(map, (void *)&base[first * UNIT], nr * UNIT, 0), 0);
}

static void wait_for(bool (*is_so)(uint64_t n), uint64_t n)
{
	const uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);

	while (!is_so(n)) {
		assert_true(weft_now_ns() < end_ns);
		usleep(500);
	}
}

static bool has_fetched(uint64_t units)
{
	return stats().fetched >= units;
}

static void assert_right(unsigned first, unsigned nr)
{
	for (uint64_t off = first * UNIT; off < (first + nr) * UNIT; off += 256)
		assert_int_equal(base[off], byte_of(off));
}

/* Nothing is fetched but what is asked for. */
static void need_plain_map(void)
{
	need_map();
	assert_int_equal(weft_map_advise(map, WEFT_MAP_RANDOM), 0);
}

static void what_follows_is_read_together(void **state)
{
	need_plain_map();
	const uint64_t before = atomic_load(&mem_home.nr_ops);
	prefetch(8, 4 * TOGETHER);
	wait_for(has_fetched, 4 * TOGETHER);
	/* Where the map is not registered, the transport is given 256 KiB at a time. */
	assert_in_range(atomic_load(&mem_home.nr_ops) - before, 4, 2 * TOGETHER);
	assert_right(8, 4 * TOGETHER);
	assert_int_equal(stats().fetched, 4 * TOGETHER);
}

static void what_is_here_is_not_read_again(void **state)
{
	need_plain_map();
	base[3 * UNIT] = 1;
	prefetch(0, TOGETHER);
	wait_for(has_fetched, TOGETHER);
	assert_int_equal(base[3 * UNIT], 1);
	assert_right(0, 3);
	assert_right(4, TOGETHER - 4);
	assert_int_equal(stats().fetched, TOGETHER);
}

static void all_of_it_is_right_again_and_again(void **state)
{
	need_map();
	for (unsigned round = 0; round < 4; round++)
		assert_right(0, UNITS);
	assert_true(mode == WEFT_MAP_RESIDENT || stats().evicted > 2 * UNITS);
	assert_int_equal(weft_map_sync(map, (void *)base, MAPPED, 0), 0);
	assert_int_equal(stats().written_bytes, 0);
}

static void what_is_written_in_passing_goes_home(void **state)
{
	need_map();
	for (unsigned round = 1; round < 4; round++) {
		for (uint64_t off = 0; off < MAPPED; off += UNIT / 4)
			base[off] = (uint8_t)(off / UNIT + round);
		assert_int_equal(weft_map_sync(map, (void *)base, MAPPED, 0), 0);
		for (uint64_t off = 0; off < MAPPED; off += UNIT / 4)
			assert_int_equal(at_home(off), (uint8_t)(off / UNIT + round));
		assert_int_equal(at_home(1), byte_of(1));
	}
}

/* ---- a thread that waits for one of them ---- */

static sigjmp_buf back;

static void on_bus(int signo)
{
	siglongjmp(back, 1);
}

struct reader {
	pthread_t thread;
	uint64_t off;
	int found; /* -1: SIGBUS */
};

static void *read_byte(void *ctx)
{
	struct reader *reader = ctx;

	reader->found = -1;
	if (sigsetjmp(back, 1) == 0)
		reader->found = base[reader->off];
	return NULL;
}

/* Whether the unit is on its way, and a thread waits for it. */
static bool is_coming(uint64_t unit, bool wanted)
{
	pthread_mutex_lock(&map->lock);
	const uint32_t frame = map_frame_of(map, unit);
	const struct map_frame *f = frame == MAP_NO_FRAME ? NULL : &map->frames[frame];
	const bool is = f && f->state == FRAME_FETCHING && f->wanted == wanted;
	pthread_mutex_unlock(&map->lock);
	return is;
}

static bool is_read_ahead(uint64_t unit)
{
	return is_coming(unit, false);
}

static bool is_wanted(uint64_t unit)
{
	return is_coming(unit, true);
}

/* The READ of all fails: the bytes that the thread waits for may still be had alone. */
static void a_read_that_fails_is_not_the_last_for_who_waits(void **state)
{
	struct reader reader = {.off = 5 * UNIT + 1};
	struct sigaction catch = {.sa_handler = on_bus}, old;

	need_plain_map();
	sigaction(SIGBUS, &catch, &old);
	atomic_store(&mem_home.hold, true);
	atomic_store(&mem_home.fail_error, EIO);
	atomic_store(&mem_home.fail_at, atomic_load(&mem_home.nr_ops) + 1);
	prefetch(0, TOGETHER);
	wait_for(is_read_ahead, 5);
	assert_int_equal(pthread_create(&reader.thread, NULL, read_byte, &reader), 0);
	wait_for(is_wanted, 5);
	atomic_store(&mem_home.hold, false);
	pthread_join(reader.thread, NULL);
	sigaction(SIGBUS, &old, NULL);
	assert_int_equal(reader.found, byte_of(reader.off));
	assert_int_equal(stats().poisoned_bytes, 0);
	assert_right(0, TOGETHER);
}

/* ---- writes that are read together ---- */

static bool is_home(uint64_t unit)
{
	return at_home(unit * UNIT) == 0xee;
}

/* The kernel reads all of them at once, or says that it could not. */
static void a_page_that_was_dropped_keeps_no_other_from_home(void **state)
{
	need_map();
	if (mode != WEFT_MAP_PAGED)
		skip(); /* the pages are the file's, and are not dropped */
	for (unsigned unit = 0; unit < TOGETHER; unit++)
		(void)base[unit * UNIT];
	assert_int_equal(weft_map_sync(map, (void *)base, TOGETHER * UNIT, 0), 0);
	for (unsigned unit = 0; unit < TOGETHER; unit++)
		base[unit * UNIT] = 0xee;
	pthread_mutex_lock(&map->lock);
	map->retry_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000); /* not yet */
	pthread_mutex_unlock(&map->lock);
	assert_int_equal(map_collect(map, 0, MAPPED), 0);
	assert_int_equal(madvise((void *)&base[4 * UNIT], weft_page_bytes(), MADV_DONTNEED), 0);
	assert_true(weft_map_sync(map, (void *)base, TOGETHER * UNIT, 0) < 0);
	for (unsigned unit = 0; unit < TOGETHER; unit++)
		if (unit != 4)
			wait_for(is_home, unit);
	assert_int_equal(at_home(4 * UNIT), byte_of(4 * UNIT));
}

#define case_of(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(int argc, char **argv)
{
	int failed = 0;
	const struct CMUnitTest tests[] = {
		case_of(what_follows_is_read_together),
		case_of(what_is_here_is_not_read_again),
		case_of(all_of_it_is_right_again_and_again),
		case_of(what_is_written_in_passing_goes_home),
		case_of(a_read_that_fails_is_not_the_last_for_who_waits),
		case_of(a_page_that_was_dropped_keeps_no_other_from_home),
	};

	/* A mode's number, for one alone. */
	mode = argc == 2 ? (unsigned)atoi(argv[1]) : WEFT_MAP_PAGED;
	for (unsigned last = argc == 2 ? mode : WEFT_MAP_RESIDENT; mode <= last; mode++)
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
