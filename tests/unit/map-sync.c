/* SPDX-License-Identifier: MIT */
/*
 * weft_map_sync() and its like while other threads use the same map, in each mode.  Where the
 * kernel cannot map, the cases are skipped with what weft_map() says.
 */
#include <stdlib.h>

#include "tests/support/map-test.h"
#include "tests/support/seed.h"

enum {
	MAPPED = 8 << 20,
	WORDS = MAPPED / 8,
	UNIT = 64 << 10,
	BLOCK = 16 << 10, /* of the server's; two pages at least, if they have 8 KiB at most */
	ROUNDS = 500,
	WRITES = 5,
	LOOKERS = 2,
	PAUSE_US = 50,
	DELAY_NS = 20000000, /* long enough for a thread to write again */
};

static unsigned mode;
static volatile uint64_t *base;

static int begin(void **state)
{
	const struct weft_map_options o = {.size = sizeof(o), .unit_bytes = UNIT, .mode = mode};

	map_test_begin(NULL, MAPPED, &o);
	base = map ? weft_map_addr(map) : NULL;
	return 0;
}

static int end(void **state)
{
	map_test_end(0);
	return 0;
}

/* A thread that does one thing to the map until it is told to end. */
struct helper {
	pthread_t thread;
	_Atomic bool stops;
};

static void start(struct helper *helper, void *(*fn)(void *ctx))
{
	atomic_store(&helper->stops, false);
	assert_int_equal(pthread_create(&helper->thread, NULL, fn, helper), 0);
}

static void stop(struct helper *helper)
{
	atomic_store(&helper->stops, true);
	pthread_join(helper->thread, NULL);
}

/* Calls that must not take for ever, and of those that have returned the sum of their errors. */
static _Atomic unsigned nr_calls;
static _Atomic int errors;

static void called(int r)
{
	atomic_fetch_add(&errors, r);
	atomic_fetch_add(&nr_calls, 1);
}

static void *look_for_dirt(void *ctx)
{
	struct helper *helper = ctx;
	struct weft_map_extent extents[16];

	while (!atomic_load(&helper->stops)) {
		weft_map_dirty(map, 0, extents, 16, 0);
		usleep(PAUSE_US);
	}
	return NULL;
}

/* The kernel tells one of them of a write, and the other syncs. */
static void sync_brings_home_what_another_thread_has_just_found(void **state)
{
	static struct helper lookers[LOOKERS];
	uint64_t seed = seed_or(9), nr_missed = 0;

	need_map();
	atomic_store(&errors, 0);
	for (unsigned i = 0; i < LOOKERS; i++)
		start(&lookers[i], look_for_dirt);
	for (uint64_t i = 1; i <= ROUNDS; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		uint64_t word = (seed >> 20) % WORDS;

		base[word] = i;
		called(weft_map_sync(map, (void *)&base[word], sizeof(*base), 0));
		nr_missed += ((volatile uint64_t *)mem_home.base)[word] != i;
	}
	for (unsigned i = 0; i < LOOKERS; i++)
		stop(&lookers[i]);
	assert_int_equal(atomic_load(&errors), 0);
	assert_int_equal(nr_missed, 0);
}

static void wait_for_calls(unsigned nr)
{
	const uint64_t end_ns = patience_ns();

	while (atomic_load(&nr_calls) < nr) {
		if (weft_now_ns() > end_ns)
			fail_msg("%u of %u calls have returned", atomic_load(&nr_calls), nr);
		usleep(1000);
	}
	assert_int_equal(atomic_load(&errors), 0);
}

static void start_caller(struct helper *helper, void *(*fn)(void *ctx))
{
	atomic_store(&nr_calls, 0);
	atomic_store(&errors, 0);
	start(helper, fn);
}

static void *count(void *ctx)
{
	struct helper *helper = ctx;

	while (!atomic_load(&helper->stops)) {
		base[0]++;
		usleep(PAUSE_US);
	}
	return NULL;
}

/* What is written meanwhile is not waited for: there is always more of it. */
static void sync_writes_a_page_a_few_times_while_a_thread_writes_on(void **state)
{
	static struct helper writer;

	need_map();
	base[0] = 1;
	atomic_store(&mem_home.delay_ns, DELAY_NS);
	start(&writer, count);
	const uint64_t before = stats().written_bytes;
	int r = weft_map_sync(map, (void *)base, UNIT, 0);
	const uint64_t after = stats().written_bytes;
	stop(&writer);
	assert_int_equal(r, 0);
	assert_in_range(after - before, 0, WRITES * weft_page_bytes());
}

/* There is room for all units, so none has to leave for others: it would only come back. */
static void what_has_room_stays(void **state)
{
	need_map();
	for (unsigned round = 1; round <= 3; round++) {
		for (unsigned word = 0; word < WORDS; word += UNIT / sizeof(*base))
			base[word] = round;
		assert_int_equal(weft_map_sync(map, (void *)base, MAPPED, 0), 0);
	}
	assert_int_equal(stats().evicted, 0);
}

static void *evict(void *ctx)
{
	struct helper *helper = ctx;

	for (unsigned i = 0; !atomic_load(&helper->stops); i++) {
		weft_map_evict(map, (void *)base, UNIT);
		usleep(i % (PAUSE_US + 1));
	}
	return NULL;
}

static void *prefetch_some(void *ctx)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		called(weft_map_prefetch(map, (void *)base, UNIT, WEFT_MAP_WAIT));
		usleep(i % PAUSE_US);
	}
	return NULL;
}

static void prefetch_ends_while_a_thread_evicts(void **state)
{
	static struct helper evicter, caller;

	need_map();
	start(&evicter, evict);
	start_caller(&caller, prefetch_some);
	wait_for_calls(ROUNDS);
	stop(&evicter);
	stop(&caller);
}

/* ---- a server that takes whole blocks of several pages ---- */

static int begin_with_blocks(void **state)
{
	mem_home.min_block_bytes = BLOCK;
	return begin(state);
}

static int end_with_blocks(void **state)
{
	int r = end(state);

	mem_home.min_block_bytes = 0;
	return r;
}

static void a_byte_goes_home_with_its_block(void **state)
{
	volatile uint8_t *bytes = (volatile uint8_t *)base;
	const uint8_t value = (uint8_t)(100 + mode); /* what no other case wrote */

	need_map();
	for (unsigned at = 1; at < MAPPED; at += 3 * BLOCK)
		bytes[at] = value;
	assert_int_equal(weft_map_sync(map, weft_map_addr(map), MAPPED, 0), 0);
	for (unsigned at = 1; at < MAPPED; at += 3 * BLOCK)
		assert_int_equal(((uint8_t *)mem_home.base)[at], value);
}

static void what_cuts_blocks_cannot_be_mapped(void **state)
{
	struct weft_map_options o = {.size = sizeof(o), .unit_bytes = UNIT, .mode = mode};
	struct weft_map *m;
	char why[256];

	need_map();
	assert_int_equal(
		weft_map(handle, BLOCK / 2, MAPPED, &o, &m, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "offset is a multiple of 16384"));
	o.unit_bytes = BLOCK / 2;
	assert_int_equal(weft_map(handle, 0, MAPPED, &o, &m, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "blocks of 16384 bytes"));
}

#define case_with_blocks(fn) cmocka_unit_test_setup_teardown(fn, begin_with_blocks, end_with_blocks)
#define case_of(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(int argc, char **argv)
{
	int failed = 0;
	const struct CMUnitTest tests[] = {
		case_of(sync_brings_home_what_another_thread_has_just_found),
		case_of(sync_writes_a_page_a_few_times_while_a_thread_writes_on),
		case_of(what_has_room_stays),
		case_of(prefetch_ends_while_a_thread_evicts),
		case_with_blocks(a_byte_goes_home_with_its_block),
		case_with_blocks(what_cuts_blocks_cannot_be_mapped),
	};

	/* A mode's number, for one alone. */
	mode = argc == 2 ? (unsigned)atoi(argv[1]) : WEFT_MAP_PAGED;
	for (unsigned last = argc == 2 ? mode : WEFT_MAP_RESIDENT; mode <= last; mode++)
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
