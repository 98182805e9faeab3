/* SPDX-License-Identifier: MIT */
/* The lanes' buffer pool: sizes, exhaustion, merging, untouched pages. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/lane/pool.h"
#include "tests/support/emulated.h"

enum { ARENA = 4 << 20 };

static char *arena;
static struct bridge_pool *pool;

static int set_up(void **state)
{
	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(arena, MAP_FAILED);
	assert_int_equal(bridge_pool_new(arena, ARENA, &pool), 0);
	return 0;
}

static int tear_down(void **state)
{
	bridge_pool_free(pool);
	munmap(arena, ARENA);
	return 0;
}

static void lengths_that_are_no_multiple_are_refused(void **state)
{
	struct bridge_pool *other = NULL;

	assert_int_equal(bridge_pool_new(arena, 0, &other), -EINVAL);
	assert_int_equal(bridge_pool_new(arena, ARENA - 4096, &other), -EINVAL);
	assert_null(other);
}

static void the_largest_blocks_use_all_of_it(void **state)
{
	void *blocks[ARENA / BRIDGE_POOL_MAX];

	for (unsigned i = 0; i < ARENA / BRIDGE_POOL_MAX; i++)
		assert_non_null(blocks[i] = bridge_pool_get(pool, BRIDGE_POOL_MAX));
	assert_null(bridge_pool_get(pool, 1));
	for (unsigned i = 0; i < ARENA / BRIDGE_POOL_MAX; i++)
		bridge_pool_put(pool, blocks[i]);
	assert_int_equal(bridge_pool_used(pool), 0);
}

static void small_blocks_use_all_of_it_and_merge_again(void **state)
{
	static void *blocks[ARENA / BRIDGE_POOL_MIN];
	const unsigned n = ARENA / BRIDGE_POOL_MIN;

	for (unsigned i = 0; i < n; i++)
		assert_non_null(blocks[i] = bridge_pool_get(pool, 1 + i % BRIDGE_POOL_MIN));
	assert_null(bridge_pool_get(pool, 1));
	for (unsigned i = 0; i < n; i += 2)
		bridge_pool_put(pool, blocks[i]);
	assert_null(bridge_pool_get(pool, BRIDGE_POOL_MIN + 1));
	for (unsigned i = 1; i < n; i += 2)
		bridge_pool_put(pool, blocks[i]);
	assert_non_null(bridge_pool_get(pool, BRIDGE_POOL_MAX));
}

static void blocks_never_overlap(void **state)
{
	struct {
		uint8_t *buf;
		size_t len;
		uint8_t mark;
	} held[64] = {0};
	unsigned seed = 20260101, got = 0;

	print_message("seed %u\n", seed);
	for (unsigned step = 0; step < 50000; step++) {
		unsigned i = (unsigned)rand_r(&seed) % 64;

		if (held[i].buf) {
			assert_int_equal(held[i].buf[0], held[i].mark);
			assert_int_equal(held[i].buf[held[i].len - 1], held[i].mark);
			bridge_pool_put(pool, held[i].buf);
			held[i].buf = NULL;
			continue;
		}
		held[i].len = 1 + (size_t)rand_r(&seed) % (1u << (rand_r(&seed) % 21));
		held[i].buf = bridge_pool_get(pool, held[i].len);
		if (!held[i].buf)
			continue;
		got++;
		assert_int_equal((uintptr_t)held[i].buf % 4096, 0);
		assert_true(held[i].buf >= (uint8_t *)arena &&
			held[i].buf + held[i].len <= (uint8_t *)arena + ARENA);
		held[i].mark = (uint8_t)step;
		memset(held[i].buf, held[i].mark, held[i].len);
	}
	assert_true(got > 1000);
	for (unsigned i = 0; i < 64; i++)
		if (held[i].buf)
			bridge_pool_put(pool, held[i].buf);
	assert_int_equal(bridge_pool_used(pool), 0);
}

static void what_was_freed_last_is_used_first_and_the_rest_stays_untouched(void **state)
{
	unsigned char resident[ARENA / 4096];
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	unsigned pages = 0;

	if (page_bytes > 4096)
		SKIP_IF_EMULATED(NULL, "counts pages of the machine that it runs on");
	for (unsigned i = 0; i < 10000; i++) {
		char *a = bridge_pool_get(pool, 4096), *b = bridge_pool_get(pool, 16384);

		memset(a, 1, 4096);
		memset(b, 1, 16384);
		bridge_pool_put(pool, i % 2 ? a : b);
		bridge_pool_put(pool, i % 2 ? b : a);
	}
	assert_int_equal(mincore(arena, ARENA, resident), 0);
	for (size_t i = 0; i < ARENA / page_bytes; i++)
		pages += resident[i] & 1;
	assert_in_range(pages * page_bytes, 5 * 4096, weft_max(16 * 4096, page_bytes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lengths_that_are_no_multiple_are_refused, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(the_largest_blocks_use_all_of_it, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(small_blocks_use_all_of_it_and_merge_again, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(blocks_never_overlap, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_was_freed_last_is_used_first_and_the_rest_stays_untouched, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
