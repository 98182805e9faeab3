/* SPDX-License-Identifier: MIT */
/*
 * Units of a map that follow one another come, leave and go home together, in each mode; and what
 * cannot be had of one keeps no other.  Where the kernel cannot map, the cases are skipped with
 * what weft_map() says.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/support/map-test.h"

enum {
	UNIT = 64 << 10,
	UNITS = 128,
	MAPPED = UNITS * UNIT,
	LOCAL = 64 * UNIT,
	TOGETHER = 8, /* units of 64 KiB that are read at once */
	SHORT = 1000, /* bytes of the last unit, where it is short */
};

static unsigned mode;
static uint64_t mapped;
static uint64_t unit_bytes = UNIT;
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

static void begin_with(uint64_t bytes)
{
	const struct weft_map_options o = {.size = sizeof(o),
		.mode = mode,
		.unit_bytes = unit_bytes,
		.local_bytes = mode == WEFT_MAP_RESIDENT ? 0 : LOCAL};

	for (uint64_t off = 0; off < MAPPED; off++)
		((uint8_t *)mem_home.base)[off] = byte_of(off);
	mapped = bytes;
	map_test_begin(NULL, bytes, &o);
	base = map ? weft_map_addr(map) : NULL;
}

static int begin(void **state)
{
	begin_with(MAPPED);
	return 0;
}

static int begin_with_a_unit_less(void **state)
{
	begin_with(MAPPED - UNIT);
	return 0;
}

static int begin_with_a_short_end(void **state)
{
	begin_with(MAPPED - UNIT + SHORT);
	return 0;
}

static int end(void **state)
{
	map_test_end(WEFT_UNMAP_DISCARD);
	return 0;
}

static void prefetch(unsigned first, unsigned nr)
{
	assert_int_equal(
		weft_map_prefetch(map, (void *)&base[first * UNIT], nr * UNIT, 0), 0);
}

static bool has_fetched(uint64_t units)
{
	return stats().fetched >= units;
}

static void assert_right(unsigned first, unsigned nr)
{
	const uint64_t end = weft_min((first + nr) * UNIT, mapped);

	for (uint64_t off = first * UNIT; off < end; off += 256)
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

/* Frames that hold what has left the map, and is at the donor. */
static uint32_t nr_cached(void)
{
	pthread_mutex_lock(&map->lock);
	const uint32_t nr = map->clean.nr;
	pthread_mutex_unlock(&map->lock);
	return nr;
}

/* Units that have left stay at hand until their frames are needed: for what is absent alone. */
static void what_is_here_takes_nobodys_frame(void **state)
{
	need_plain_map();
	if (mode == WEFT_MAP_RESIDENT)
		skip(); /* nothing leaves it */
	look_for_dirt_at(UINT64_MAX);
	const uint32_t nr = map->nr_frames;
	prefetch(0, nr);
	wait_for(has_fetched, nr);
	assert_right(0, nr);
	for (unsigned unit = 0; unit < nr; unit++)
		weft_map_prefetch(map, (void *)&base[unit * UNIT], UNIT, WEFT_MAP_WAIT);
	pthread_mutex_lock(&map->lock);
	map_make_room(map, 2 * TOGETHER);
	pthread_mutex_unlock(&map->lock);
	const uint32_t before = nr_cached();
	assert_true(before >= 2 * TOGETHER);
	/* Of these one is absent; who follows is here. */
	uint32_t got;
	bool absent;
	pthread_mutex_lock(&map->lock);
	map->units[UNITS - TOGETHER + 1] = MAP_POISONED;
	const uint32_t frame = map_take_run(map, UNITS - TOGETHER, TOGETHER, &got, &absent);
	map->units[UNITS - TOGETHER + 1] = 0;
	assert_int_not_equal(frame, MAP_NO_FRAME);
	map_put_frame(map, frame);
	pthread_mutex_unlock(&map->lock);
	assert_int_equal(got, 1);
	assert_int_equal(nr_cached(), before - 1);
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

/* ---- units that come along with another ---- */

enum { GROUP = 4 };

static void begin_groups(void)
{
	need_map();
	pthread_mutex_lock(&map->lock);
	map->around = GROUP;
	pthread_mutex_unlock(&map->lock);
}

static bool is_resident(uint64_t unit)
{
	return is_in_state(unit, FRAME_RESIDENT);
}

static void a_fault_brings_its_group_along(void **state)
{
	begin_groups();
	assert_int_equal(base[5 * UNIT], byte_of(5 * UNIT));
	for (unsigned unit = GROUP; unit < 2 * GROUP; unit++)
		wait_for(is_resident, unit);
	assert_right(GROUP, GROUP);
	assert_int_equal(stats().fetched, GROUP);
}

static void the_last_group_may_have_fewer(void **state)
{
	const unsigned first = UNITS - GROUP;

	begin_groups();
	assert_int_equal(base[(first + 1) * UNIT], byte_of((first + 1) * UNIT));
	for (unsigned unit = first; unit < UNITS - 1; unit++)
		wait_for(is_resident, unit);
	assert_right(first, GROUP - 1);
	assert_int_equal(stats().fetched, GROUP - 1);
}

/* Every other group, from the end on: what comes next is a whole one. */
static void a_stream_of_groups_goes_on_by_groups(void **state)
{
	const unsigned first = UNITS - GROUP;
	unsigned nr = 0;

	begin_groups();
	for (unsigned unit = first; nr < 3; unit -= 2 * GROUP, nr++) {
		assert_int_equal(base[unit * UNIT + 1], byte_of(unit * UNIT + 1));
		wait_for(has_fetched, (nr + 1) * GROUP);
	}
	wait_for(has_fetched, 4 * GROUP);
	assert_right(first - 6 * GROUP, GROUP);
	assert_true(stats().fetched_ahead >= 3 * (GROUP - 1) + GROUP);
}

/* The group that would be asked for next. */
static uint64_t next_group(void)
{
	uint64_t group = 0;

	pthread_mutex_lock(&map->lock);
	for (unsigned i = 0; i < MAP_STREAMS; i++)
		if (map->streams[i].step != 0)
			group = map->streams[i].last + map->streams[i].ahead + 1;
	pthread_mutex_unlock(&map->lock);
	return group;
}

/* Who touches every group in another place than its first unit is told from who has ended. */
static void a_stream_goes_on_before_all_is_used_up(void **state)
{
	enum { PLACE = 2 };

	uint64_t at = PLACE * UNIT, next = 2;

	begin_groups();
	assert_int_equal(base[at], byte_of(at));
	for (unsigned nr = 0; nr < 2; nr++) {
		at += GROUP * UNIT;
		assert_int_equal(base[at], byte_of(at));
		wait_for(is_staged, next * GROUP + PLACE);
		next = next_group();
	}
	assert_right(0, 2 * GROUP);
}

/* ---- where what follows ends ---- */

/* What is behind the end of the region's bytes, in the last page, is zeros. */
static void the_last_unit_is_as_short_as_it_is(void **state)
{
	const unsigned first = UNITS - TOGETHER;

	need_plain_map();
	prefetch(first, TOGETHER - 1);
	assert_int_equal(weft_map_prefetch(map, (void *)&base[first * UNIT],
				 map->map_bytes - first * UNIT, 0),
		0);
	wait_for(has_fetched, TOGETHER);
	assert_right(first, TOGETHER);
	assert_int_equal(stats().read_bytes, (TOGETHER - 1) * UNIT + SHORT);
	for (uint64_t off = mapped; off < map->map_bytes; off++)
		assert_int_equal(base[off], 0);
	base[mapped - 1] = 0xee;
	base[mapped] = 0xee; /* nobody's */
	assert_int_equal(weft_map_sync(map, (void *)base, map->map_bytes, 0), 0);
	assert_int_equal(at_home(mapped - 1), 0xee);
	assert_int_equal(at_home(mapped), byte_of(mapped));
	assert_int_equal(weft_map_evict(map, (void *)base, map->map_bytes), 0);
	assert_int_equal(base[mapped - 1], 0xee);
	assert_right(first, TOGETHER - 1);
}

/* Each READ is of one donor, so that it waits for no other. */
static void no_read_goes_beyond_a_stripe(void **state)
{
	enum { OF_STRIPE = 3 }; /* units */

	need_plain_map();
	const uint64_t before = atomic_load(&mem_home.nr_ops);
	handle->stripe_bytes = OF_STRIPE * UNIT;
	prefetch(1, 2 * OF_STRIPE);
	wait_for(has_fetched, 2 * OF_STRIPE);
	handle->stripe_bytes = 0;
	/* Units 1 and 2; 3, 4 and 5; 6. */
	assert_int_equal(atomic_load(&mem_home.nr_ops) - before, 3);
	assert_right(1, 2 * OF_STRIPE);
}

static bool is_whole(uint64_t unit)
{
	return !is_bus(&base[unit * UNIT]);
}

static void poison(unsigned unit)
{
	pthread_mutex_lock(&map->lock);
	map_fail_unit(map, unit, -EIO);
	map->heal_ns = patience_ns(); /* not yet */
	pthread_mutex_unlock(&map->lock);
}

/* What follows is fetched around it; it stays as it is until it heals. */
static void a_poisoned_unit_keeps_no_other(void **state)
{
	const unsigned bad = TOGETHER / 2;

	need_plain_map();
	poison(bad);
	prefetch(0, TOGETHER);
	wait_for(has_fetched, TOGETHER - 1);
	assert_right(0, bad);
	assert_right(bad + 1, TOGETHER - bad - 1);
	assert_true(is_bus(&base[bad * UNIT]));
	assert_int_equal(stats().fetched, TOGETHER - 1);
	pthread_mutex_lock(&map->lock);
	map->heal_ns = 0;
	map_tell_pump(map);
	pthread_mutex_unlock(&map->lock);
	wait_for(is_whole, bad);
	assert_right(bad, 1);
}

/* ---- a thread that waits for one of them ---- */

struct reader {
	pthread_t thread;
	uint64_t off;
	int found; /* -1: SIGBUS */
	_Atomic bool ended;
};

static void *read_byte(void *ctx)
{
	struct reader *reader = ctx;

	reader->found = byte_or_bus(&base[reader->off]);
	atomic_store(&reader->ended, true);
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

	need_plain_map();
	atomic_store(&mem_home.hold, true);
	atomic_store(&mem_home.fail_error, EIO);
	atomic_store(&mem_home.fail_at, atomic_load(&mem_home.nr_ops) + 1);
	prefetch(0, TOGETHER);
	wait_for(is_read_ahead, 5);
	assert_int_equal(pthread_create(&reader.thread, NULL, read_byte, &reader), 0);
	wait_for(is_wanted, 5);
	atomic_store(&mem_home.hold, false);
	pthread_join(reader.thread, NULL);
	assert_int_equal(reader.found, byte_of(reader.off));
	assert_int_equal(stats().poisoned_bytes, 0);
	assert_right(0, TOGETHER);
}

/* ---- writes that are copied together ---- */

static bool is_home(uint64_t off)
{
	return at_home(off) == 0xee;
}

/* Until somebody syncs, and all that he waits for is known. */
static void hold_writes(void)
{
	look_for_dirt_at(UINT64_MAX);
	pthread_mutex_lock(&map->lock);
	map->retry_ns = patience_ns();
	pthread_mutex_unlock(&map->lock);
}

/* The kernel reads all of them at once, or says that it could not. */
static void a_page_that_was_dropped_keeps_no_other_from_home(void **state)
{
	const uint64_t bytes = TOGETHER * unit_bytes, bad = 4 * unit_bytes;

	need_map();
	if (mode != WEFT_MAP_PAGED)
		skip(); /* the pages are the file's, and are not dropped */
	for (uint64_t off = 0; off < bytes; off += unit_bytes)
		(void)base[off];
	assert_int_equal(weft_map_sync(map, (void *)base, bytes, 0), 0);
	for (uint64_t off = 0; off < bytes; off += unit_bytes)
		base[off] = 0xee;
	hold_writes();
	assert_int_equal(map_collect(map, 0, MAPPED), 0);
	assert_int_equal(madvise((void *)&base[bad], weft_page_bytes(), MADV_DONTNEED), 0);
	assert_true(weft_map_sync(map, (void *)base, bytes, 0) < 0);
	look_for_dirt_at(0); /* and goes on */
	for (uint64_t off = 0; off < bytes; off += unit_bytes)
		if (off != bad)
			wait_for(is_home, off);
	assert_int_equal(at_home(bad), byte_of(bad));
}

/* ---- writes that go together: of units that are smaller than a WRITE can be ---- */

static int begin_with_pages(void **state)
{
	unit_bytes = weft_page_bytes();
	begin_with(MAPPED);
	return 0;
}

static int begin_with_pairs(void **state)
{
	unit_bytes = 2 * weft_page_bytes();
	begin_with(MAPPED);
	return 0;
}

static int begin_with_pages_and_a_short_end(void **state)
{
	unit_bytes = weft_page_bytes();
	begin_with(MAPPED - UNIT + SHORT);
	return 0;
}

static int end_of_small(void **state)
{
	unit_bytes = UNIT;
	return end(state);
}

static void need_small_units(void)
{
	need_plain_map();
	if (MAP_WRITE_BYTES < 8 * weft_page_bytes())
		skip(); /* no WRITE has so many pages */
	look_for_dirt_at(UINT64_MAX);
}

static void write_pages(uint64_t first, uint64_t nr)
{
	const uint64_t page = weft_page_bytes();

	for (uint64_t off = first * page; off < (first + nr) * page; off += 64)
		base[off] = (uint8_t)~byte_of(off);
}

static void assert_pages_are_home(uint64_t first, uint64_t nr)
{
	const uint64_t page = weft_page_bytes();

	for (uint64_t off = first * page; off < (first + nr) * page; off += 64)
		assert_int_equal(at_home(off), (uint8_t)~byte_of(off));
}

/* The WRITEs that it takes. */
static uint64_t sync_all(int want)
{
	hold_writes();
	const uint64_t before = atomic_load(&mem_home.nr_ops);
	assert_int_equal(weft_map_sync(map, (void *)base, map->map_bytes, 0), want);
	return atomic_load(&mem_home.nr_ops) - before;
}

static void what_follows_goes_home_together(void **state)
{
	enum { WRITES = 16 };
	const uint64_t nr = WRITES * MAP_WRITE_BYTES / weft_page_bytes();

	need_small_units();
	write_pages(0, nr);
	assert_int_equal(sync_all(0), WRITES);
	assert_pages_are_home(0, nr);
	assert_int_equal(stats().written_bytes, WRITES * MAP_WRITE_BYTES);
	assert_int_equal(stats().dirty_bytes, 0);
}

static bool is_all_home(uint64_t unused)
{
	bool is = true;

	pthread_mutex_lock(&map->lock);
	for (uint32_t i = 0; i < map->nr_frames; i++)
		is &= !map->frames[i].dirty && !map->frames[i].writing;
	pthread_mutex_unlock(&map->lock);
	return is;
}

static void what_has_left_goes_home_together(void **state)
{
	enum { WRITES = 16 };
	const uint64_t bytes = WRITES * MAP_WRITE_BYTES, nr = bytes / weft_page_bytes();

	need_small_units();
	if (mode == WEFT_MAP_RESIDENT)
		skip(); /* nothing leaves it */
	write_pages(0, nr);
	hold_writes();
	for (uint64_t unit = 0; unit < nr; unit++)
		while (!is_staged(unit))
			weft_map_evict(map, (void *)&base[unit * unit_bytes], unit_bytes);
	const uint64_t before = atomic_load(&mem_home.nr_ops);
	pthread_mutex_lock(&map->lock);
	map->retry_ns = 0;
	map_tell_pump(map);
	pthread_mutex_unlock(&map->lock);
	wait_for(is_all_home, 0);
	assert_int_equal(atomic_load(&mem_home.nr_ops) - before, WRITES);
	assert_pages_are_home(0, nr);
}

/* Bytes between those that were written may be somebody else's by now: no WRITE has them. */
static void a_write_has_no_gap(void **state)
{
	const uint64_t page = weft_page_bytes();
	const unsigned gaps[] = {0, 5, 7, 8, 11};

	need_small_units();
	write_pages(0, 12);
	assert_int_equal(sync_all(0), 1);
	for (unsigned i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++)
		((uint8_t *)mem_home.base)[gaps[i] * page] = 0xaa;
	for (uint64_t at = 0; at < 12; at++)
		if (at != 0 && at != 5 && at != 7 && at != 8 && at != 11)
			base[at * page] = 0xbb;
	/* Pages 1 to 4; 6; 9 and 10. */
	assert_int_equal(sync_all(0), 3);
	assert_int_equal(stats().written_bytes, (12 + 7) * page);
	for (uint64_t at = 0; at < 12; at++)
		assert_int_equal(at_home(at * page),
			at == 0 || at == 5 || at == 7 || at == 8 || at == 11 ? 0xaa : 0xbb);
}

static void no_write_goes_beyond_a_stripe(void **state)
{
	enum { OF_STRIPE = 3 }; /* units */

	need_small_units();
	write_pages(1, 2 * OF_STRIPE);
	handle->stripe_bytes = OF_STRIPE * unit_bytes;
	const uint64_t nr = sync_all(0);
	handle->stripe_bytes = 0;
	/* Units 1 and 2; 3, 4 and 5; 6. */
	assert_int_equal(nr, 3);
	assert_pages_are_home(1, 2 * OF_STRIPE);
}

static void a_write_ends_where_the_region_does(void **state)
{
	const uint64_t page = weft_page_bytes(), last = mapped / page;

	need_small_units();
	write_pages(last - 3, 3);
	base[mapped - 1] = 0xee;
	base[mapped] = 0xee; /* nobody's */
	assert_int_equal(sync_all(0), 1);
	assert_pages_are_home(last - 3, 3);
	assert_int_equal(stats().written_bytes, 3 * page + mapped % page);
	assert_int_equal(at_home(mapped - 1), 0xee);
	assert_int_equal(at_home(mapped), byte_of(mapped));
}

/* One of them may be the reason: each goes alone until it is at the donor. */
static void a_write_that_fails_keeps_no_other_from_home(void **state)
{
	need_small_units();
	write_pages(0, TOGETHER);
	atomic_store(&mem_home.fail_error, EIO);
	hold_writes();
	atomic_store(&mem_home.fail_at, atomic_load(&mem_home.nr_ops) + 1);
	assert_int_equal(sync_all(-EIO), 1);
	assert_int_equal(stats().dirty_bytes, TOGETHER * unit_bytes);
	assert_int_equal(sync_all(0), TOGETHER);
	assert_pages_are_home(0, TOGETHER);
	for (uint64_t unit = 0; unit < TOGETHER; unit++)
		base[unit * unit_bytes] = 0xee;
	assert_int_equal(sync_all(0), 1);
	for (uint64_t unit = 0; unit < TOGETHER; unit++)
		assert_int_equal(at_home(unit * unit_bytes), 0xee);
}

/* ---- writes that wait together ---- */

static struct map_mode slow_mode;
static const struct map_mode *quick_mode;
static _Atomic bool held; /* the first that is shown stays on its way until this is over */
static _Atomic unsigned nr_shown;

static int show_slowly(struct weft_map *m, uint32_t frame, uint32_t nr)
{
	if (atomic_fetch_add(&nr_shown, 1) == 0)
		while (atomic_load(&held))
			usleep(500);
	return quick_mode->show(m, frame, nr);
}

static bool is_shown(uint64_t nr)
{
	return atomic_load(&nr_shown) >= nr;
}

/* Again, as long as a handler has not noted that the unit is there. */
static bool has_left(uint64_t unit)
{
	weft_map_evict(map, (void *)&base[unit * UNIT], UNIT);
	return is_staged(unit);
}

/*
 * They are copied together, and one of them goes back into the map at once.  A fault on another
 * waits for the copies, not for that.
 */
static void who_waits_for_a_write_waits_for_no_other(void **state)
{
	static struct reader reader;

	need_plain_map();
	if (mode == WEFT_MAP_RESIDENT)
		skip(); /* nothing is staged */
	reader = (struct reader){.off = UNIT};
	base[0] = base[UNIT] = 0xee;
	pthread_mutex_lock(&map->lock);
	map->retry_ns = patience_ns(); /* not yet */
	pthread_mutex_unlock(&map->lock);
	wait_for(has_left, 0);
	wait_for(has_left, 1);
	atomic_store(&nr_shown, 0);
	atomic_store(&held, true);
	pthread_mutex_lock(&map->lock);
	quick_mode = map->mode;
	slow_mode = *quick_mode;
	slow_mode.show = show_slowly;
	map->mode = &slow_mode; /* until the map ends */
	map->frames[map_frame_of(map, 0)].wanted = true;
	map->retry_ns = 0;
	map_tell_pump(map);
	pthread_mutex_unlock(&map->lock);
	wait_for(is_shown, 1);
	assert_int_equal(pthread_create(&reader.thread, NULL, read_byte, &reader), 0);
	const uint64_t end_ns = weft_now_ns() + UINT64_C(5000000000);
	while (!atomic_load(&reader.ended) && weft_now_ns() < end_ns)
		usleep(500);
	const bool in_time = atomic_load(&reader.ended);
	atomic_store(&held, false);
	pthread_join(reader.thread, NULL);
	assert_true(in_time);
	assert_int_equal(reader.found, 0xee);
}

#define case_of_small(fn, begin) cmocka_unit_test_setup_teardown(fn, begin, end_of_small)
#define case_of(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(int argc, char **argv)
{
	int failed = 0;
	const struct CMUnitTest tests[] = {
		case_of(what_follows_is_read_together),
		case_of(what_is_here_is_not_read_again),
		case_of(what_is_here_takes_nobodys_frame),
		case_of(a_fault_brings_its_group_along),
		cmocka_unit_test_setup_teardown(
			the_last_group_may_have_fewer, begin_with_a_unit_less, end),
		case_of(a_stream_of_groups_goes_on_by_groups),
		case_of(a_stream_goes_on_before_all_is_used_up),
		cmocka_unit_test_setup_teardown(
			the_last_unit_is_as_short_as_it_is, begin_with_a_short_end, end),
		case_of(no_read_goes_beyond_a_stripe),
		case_of(a_poisoned_unit_keeps_no_other),
		case_of(all_of_it_is_right_again_and_again),
		case_of(what_is_written_in_passing_goes_home),
		case_of(a_read_that_fails_is_not_the_last_for_who_waits),
		case_of(a_page_that_was_dropped_keeps_no_other_from_home),
		case_of_small(a_page_that_was_dropped_keeps_no_other_from_home, begin_with_pages),
		case_of_small(what_follows_goes_home_together, begin_with_pages),
		case_of_small(what_has_left_goes_home_together, begin_with_pages),
		case_of_small(a_write_has_no_gap, begin_with_pairs),
		case_of_small(no_write_goes_beyond_a_stripe, begin_with_pages),
		case_of_small(a_write_ends_where_the_region_does, begin_with_pages_and_a_short_end),
		case_of_small(a_write_that_fails_keeps_no_other_from_home, begin_with_pages),
		case_of(who_waits_for_a_write_waits_for_no_other),
	};

	/* A mode's number, for one alone. */
	mode = argc == 2 ? (unsigned)atoi(argv[1]) : WEFT_MAP_PAGED;
	for (unsigned last = argc == 2 ? mode : WEFT_MAP_RESIDENT; mode <= last; mode++)
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
