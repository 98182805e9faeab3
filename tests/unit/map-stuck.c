/* SPDX-License-Identifier: MIT */
/*
 * A map of which the kernel does not give pages up, or whose writes do not end.  A page that a
 * child of fork(2) has too cannot be moved, just like one that is pinned.  Where the kernel cannot
 * map, the cases are skipped with what weft_map() says.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/support/map-test.h"

enum {
	MAPPED = 8 << 20,
	UNIT = 64 << 10,
	CHILDREN = 20,
	LEAST = 18, /* units of local_bytes */
	TIMEOUT_MS = 2000,
	DEAD_MS = 500,
	LOOK_MS = 500,
	TOGETHER = 8, /* units that leave by one system call */
};

static volatile uint8_t *base;

static int begin(void **state)
{
	const struct weft_options options = {
		.size = sizeof(options),
		.timeout_ms = TIMEOUT_MS,
		.dead_timeout_ms = DEAD_MS,
	};
	const struct weft_map_options o = {
		.size = sizeof(o),
		.mode = WEFT_MAP_PAGED,
		.unit_bytes = UNIT,
		.local_bytes = LEAST * UNIT,
	};

	map_test_begin(&options, MAPPED, &o);
	base = map ? weft_map_addr(map) : NULL;
	if (map)
		assert_int_equal(weft_map_advise(map, WEFT_MAP_RANDOM), 0);
	return 0;
}

static int end(void **state)
{
	map_test_end(0);
	return 0;
}

/* ---- pages that two processes have ---- */

static pid_t share_pages(void *at, uint64_t bytes)
{
	assert_int_equal(madvise(at, bytes, MADV_DOFORK), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return child;
}

static void end_child(pid_t child)
{
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

/* The unit leaves the map, and cannot be written, so that it stays in its slot. */
static void write_and_evict(unsigned unit)
{
	const uint64_t end_ns = patience_ns();

	memset((uint8_t *)base + unit * UNIT, 5, UNIT);
	while (!is_staged(unit)) {
		weft_map_evict(map, (uint8_t *)base + unit * UNIT, UNIT);
		assert_true(weft_now_ns() < end_ns);
	}
}

static void what_cannot_be_moved_into_the_map_is_copied(void **state)
{
	need_map();
	atomic_store(&mem_home.hold, false);
	(void)base[0];
	atomic_store(&mem_home.hold, true);
	write_and_evict(0);
	pid_t child = share_pages(map->stage, map->nr_frames * map->unit_bytes);
	const bool is_lost = is_bus(base);
	end_child(child);
	atomic_store(&mem_home.hold, false);
	assert_false(is_lost);
	for (unsigned i = 0; i < UNIT; i++)
		assert_int_equal(base[i], 5);
	base[1] = 6;
	assert_int_equal(weft_map_sync(map, (void *)base, UNIT, 0), 0);
	assert_int_equal(((uint8_t *)mem_home.base)[0], 5);
	assert_int_equal(((uint8_t *)mem_home.base)[1], 6);
}

/* No frame can be had: whoever waits for one waits no longer than the handle's calls do. */
static void a_fault_does_not_wait_for_ever_for_room(void **state)
{
	const uint64_t end_ns = patience_ns();
	pid_t children[CHILDREN];
	unsigned nr = 0, unit = 0;

	need_map();
	look_for_dirt_at(UINT64_MAX);
	for (; unit + 1 < map->nr_frames; unit++)
		(void)base[unit * UNIT];
	/* A frame that got free meanwhile is used up, and then no page can leave. */
	do {
		assert_true(nr < CHILDREN);
		children[nr++] = share_pages((void *)base, MAPPED);
	} while (!is_bus(&base[unit++ * UNIT]));
	while (nr > 0)
		end_child(children[--nr]);
	look_for_dirt_at(0);
	while (is_bus(&base[(unit - 1) * UNIT]))
		assert_true(weft_now_ns() < end_ns);
}

/* A thread may read a page a moment before its handler notes that it is there. */
static void bring(unsigned nr)
{
	const uint64_t end_ns = patience_ns();

	for (unsigned unit = 0; unit < nr; unit++)
		(void)base[unit * UNIT];
	while (stats().resident_bytes < nr * UNIT)
		assert_true(weft_now_ns() < end_ns);
}

/* Of units that leave together one cannot: it stays, is counted, and keeps no other here. */
static void a_page_that_cannot_leave_keeps_no_other(void **state)
{
	const unsigned stuck = TOGETHER / 2;

	need_map();
	look_for_dirt_at(UINT64_MAX);
	bring(TOGETHER);
	pid_t child = share_pages((void *)base, MAPPED);
	/* A page that is written after the fork is this process's alone. */
	for (uint64_t off = 0; off < TOGETHER * UNIT; off += weft_page_bytes())
		if (off / UNIT != stuck)
			base[off] = (uint8_t)(off / UNIT + 1);
	pthread_mutex_lock(&map->lock);
	map_make_room(map, map->free.nr + TOGETHER);
	pthread_mutex_unlock(&map->lock);
	for (unsigned unit = 0; unit < TOGETHER; unit++)
		assert_int_equal(is_staged(unit), unit != stuck);
	end_child(child);
	base[stuck * UNIT] = stuck + 1;
	assert_int_equal(stats().evicted, TOGETHER - 1);
	assert_true(stats().pinned > 0);
	look_for_dirt_at(0);
	assert_int_equal(weft_map_sync(map, (void *)base, MAPPED, 0), 0);
	for (unsigned unit = 0; unit < TOGETHER; unit++)
		assert_int_equal(((uint8_t *)mem_home.base)[unit * UNIT], unit + 1);
}

/* Those that had left with it, and come back, were written by nobody. */
static void a_page_that_cannot_leave_makes_no_other_dirty(void **state)
{
	const unsigned stuck = TOGETHER / 2;

	need_map();
	look_for_dirt_at(UINT64_MAX);
	bring(TOGETHER);
	/* From here on all pages are protected, and a write leaves a mark. */
	assert_int_equal(weft_map_sync(map, (void *)base, MAPPED, 0), 0);
	pid_t child = share_pages((void *)base, MAPPED);
	for (uint64_t off = 0; off < TOGETHER * UNIT; off += weft_page_bytes())
		if (off / UNIT != stuck)
			base[off]++;
	assert_int_equal(weft_map_sync(map, (void *)base, MAPPED, 0), 0);
	const uint64_t written = stats().written_bytes;
	pthread_mutex_lock(&map->lock);
	map_make_room(map, map->free.nr + TOGETHER);
	pthread_mutex_unlock(&map->lock);
	end_child(child);
	assert_true(stats().pinned > 0);
	assert_int_equal(stats().evicted, TOGETHER - 1);
	assert_int_equal(stats().evicted_dirty, 0);
	assert_int_equal(weft_map_sync(map, (void *)base, MAPPED, 0), 0);
	assert_int_equal(stats().written_bytes, written);
	look_for_dirt_at(0);
}

/* Somebody says when, while a look is under way: the end of that look changes nothing. */
static void when_to_look_for_dirt_is_as_was_said_last(void **state)
{
	const uint64_t end_ns = patience_ns();

	need_map();
	pthread_mutex_lock(&map->scan_lock);
	map->scan_every_ns = 1;
	look_for_dirt_at(0);
	while (atomic_load(&map->nr_to_scan) == 0)
		assert_true(weft_now_ns() < end_ns);
	look_for_dirt_at(UINT64_MAX);
	pthread_mutex_unlock(&map->scan_lock);
	uint64_t every_ns, at_ns;
	do {
		usleep(500);
		assert_true(weft_now_ns() < end_ns);
		pthread_mutex_lock(&map->lock);
		every_ns = map->scan_every_ns;
		at_ns = map->scan_ns;
		pthread_mutex_unlock(&map->lock);
	} while (every_ns == 1);
	assert_true(at_ns == UINT64_MAX);
}

/* ---- what cannot be had ---- */

static bool is_whole(uint64_t unit)
{
	return !is_bus(&base[unit * UNIT]);
}

/* Units that fail again and again, as they do if a part of the donors is gone, keep no other. */
static void what_fails_all_the_time_puts_no_healing_off(void **state)
{
	enum { EACH_MS = 50, WITHIN_MS = 5000 };
	uint64_t next = 0;

	need_map();
	atomic_store(&mem_home.hold, true); /* nothing heals yet */
	pthread_mutex_lock(&map->lock);
	map_fail_unit(map, 0, -EIO);
	pthread_mutex_unlock(&map->lock);
	const bool was_bus = is_bus(base);
	atomic_store(&mem_home.hold, false);
	assert_true(was_bus);
	const uint64_t end_ns = weft_now_ns() + WITHIN_MS * UINT64_C(1000000);
	while (!is_whole(0)) {
		assert_true(weft_now_ns() < end_ns);
		pthread_mutex_lock(&map->lock);
		if (++next < MAPPED / UNIT)
			map_fail_unit(map, next, -EIO);
		map_tell_pump(map);
		pthread_mutex_unlock(&map->lock);
		usleep(EACH_MS * 1000);
	}
	for (uint64_t unit = 0; unit < MAPPED / UNIT; unit++)
		wait_for(is_whole, unit);
}

/* Whoever waits finds the poison first: else it would wait for the donor once more. */
static void what_has_just_failed_does_not_heal_at_once(void **state)
{
	need_map();
	atomic_store(&mem_home.hold, true);
	const uint64_t before = atomic_load(&mem_home.nr_ops);
	pthread_mutex_lock(&map->lock);
	map_fail_unit(map, 0, -EIO);
	map->heal_ns = 0;
	map_tell_pump(map);
	pthread_mutex_unlock(&map->lock);
	const bool was_bus = is_bus(base);
	atomic_store(&mem_home.hold, false);
	assert_true(was_bus);
	wait_for(is_whole, 0);
	/* Two looks, and the READ of the unit. */
	assert_true(atomic_load(&mem_home.nr_ops) - before >= 3);
}

/* Nobody would wait for the end of that before the next contents come. */
static void after_the_contents_were_lost_nothing_is_fetched(void **state)
{
	uint32_t nr;
	bool one, some;

	need_map();
	pthread_mutex_lock(&map->lock);
	map->lost = -ESTALE;
	const uint32_t frame = map_take_frame(map, 0, &one);
	if (frame != MAP_NO_FRAME)
		map_put_frame(map, frame);
	const uint32_t first = map_take_run(map, 0, TOGETHER, &nr, &some);
	for (uint32_t i = 0; i < nr; i++)
		map_put_frame(map, first + i);
	map->lost = 0;
	pthread_mutex_unlock(&map->lock);
	assert_int_equal(frame, MAP_NO_FRAME);
	assert_int_equal(nr, 0);
	/* Whoever waits faults again, and is told. */
	assert_false(one || some);
}

/* ---- faults that are older than the page ---- */

/* The pages of memory, of which none is: they are all in swap space. */
static int hide_pages(void)
{
	const int before = map->pagemap;

	map->pagemap = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	assert_true(map->pagemap >= 0);
	return before;
}

static void show_pages(int before)
{
	close(map->pagemap);
	map->pagemap = before;
}

/* Several threads wait for the unit, and the kernel tells of each; the page is written meanwhile,
 * and swapped out. */
static void a_page_that_is_swapped_out_is_not_taken_for_dropped(void **state)
{
	need_map();
	look_for_dirt_at(UINT64_MAX);
	base[0] = 7;
	const int before = hide_pages();
	for (unsigned i = 0; i < 3; i++)
		map_serve(&map->handlers[0], (uintptr_t)base, false);
	show_pages(before);
	assert_false(is_bus(base));
	assert_int_equal(base[0], 7);
	assert_int_equal(weft_map_sync(map, (void *)base, UNIT, 0), 0);
	assert_int_equal(((uint8_t *)mem_home.base)[0], 7);
	look_for_dirt_at(0);
}

/* ---- writes that do not end ---- */

static uint64_t cpu_ns(pthread_t thread)
{
	struct timespec t;
	clockid_t clock;

	assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
	assert_int_equal(clock_gettime(clock, &t), 0);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static bool all_writes_are_under_way(void)
{
	pthread_mutex_lock(&map->lock);
	bool all = !map->ios_free[1];
	pthread_mutex_unlock(&map->lock);
	return all;
}

/* The pump has nothing to ask the donor with whether it can be read again, and waits. */
static void the_pump_rests_while_no_write_ends(void **state)
{
	const uint64_t end_ns = patience_ns();

	need_map();
	for (unsigned i = 0; i < map->nr_writes; i++)
		(void)base[i * UNIT];
	atomic_store(&mem_home.hold, true);
	for (unsigned i = 0; i < map->nr_writes; i++)
		write_and_evict(i);
	while (!all_writes_are_under_way()) {
		assert_true(weft_now_ns() < end_ns);
		usleep(1000);
	}
	pthread_mutex_lock(&map->lock);
	map_fail_unit(map, MAPPED / UNIT - 1, -EIO);
	map_tell_pump(map);
	pthread_mutex_unlock(&map->lock);
	const uint64_t before = cpu_ns(map->pump);
	usleep(LOOK_MS * 1000);
	const uint64_t used = cpu_ns(map->pump) - before;
	atomic_store(&mem_home.hold, false);
	assert_in_range(used, 0, LOOK_MS * UINT64_C(1000000) / 5);
	while (is_bus(&base[MAPPED - UNIT]))
		assert_true(weft_now_ns() < end_ns);
}

#define case_of(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		case_of(what_cannot_be_moved_into_the_map_is_copied),
		case_of(a_page_that_cannot_leave_keeps_no_other),
		case_of(a_page_that_cannot_leave_makes_no_other_dirty),
		case_of(when_to_look_for_dirt_is_as_was_said_last),
		case_of(what_fails_all_the_time_puts_no_healing_off),
		case_of(what_has_just_failed_does_not_heal_at_once),
		case_of(after_the_contents_were_lost_nothing_is_fetched),
		case_of(the_pump_rests_while_no_write_ends),
		case_of(a_fault_does_not_wait_for_ever_for_room),
		case_of(a_page_that_is_swapped_out_is_not_taken_for_dropped),
	};

	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
