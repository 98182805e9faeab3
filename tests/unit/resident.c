/* SPDX-License-Identifier: MIT */
/* What a resident process takes comes from its reserve, and not from the kernel. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/map.h"
#include "fabric/base/resident.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "tests/support/emulated.h"

enum { RESERVE = 16 << 20, LARGE = 3 << 20 };

/* All that is mapped, in KiB. */
static uint64_t mapped_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu", &pages), 1);
	fclose(file);
	return pages * (weft_page_bytes() / WEFT_KIB);
}

static void *touch_stack(void *ctx)
{
	volatile char deep[128 << 10];

	for (size_t i = 0; i < sizeof(deep); i += 1024)
		deep[i] = 1;
	return NULL;
}

static void run_threads(unsigned nr)
{
	pthread_t threads[8];

	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(weft_thread_create(&threads[i], NULL, touch_stack, NULL), 0);
	for (unsigned i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
}

static int begin(void **state)
{
	const char *preloaded = getenv("LD_PRELOAD");
	struct weft_resident_usage usage;
	struct weft_error err;

	weft_resident_prepare();
	assert_false(weft_is_resident());
	if (weft_resident_begin(RESERVE, &err) < 0 || weft_resident_complete(&err) < 0) {
		printf("%s\n", err.message);
		return 0;
	}
	weft_resident_usage(&usage);
	/* Sanitizers lock nothing, and have heaps of their own, as valgrind has. */
	if (usage.locked_bytes > RESERVE && !is_emulated(NULL) &&
		!(preloaded && strstr(preloaded, "vgpreload")))
		*state = "locked";
	return 0;
}

static void check(const struct weft_resident_usage *since, uint64_t kib)
{
	struct weft_resident_usage now;

	weft_resident_usage(&now);
	assert_int_equal(now.faults_major, since->faults_major);
	assert_int_equal(now.faults_minor, since->faults_minor);
	assert_int_equal(now.grown_bytes, 0);
	assert_int_equal(mapped_kib(), kib);
}

static void a_heap_that_is_used_asks_for_nothing(void **state)
{
	struct weft_resident_usage since;
	void *p[4];

	if (!*state)
		skip();
	assert_true(weft_is_resident());
	uint64_t kib = mapped_kib();
	weft_resident_usage(&since);
	for (unsigned round = 0; round < 3; round++) {
		for (size_t i = 0; i < WEFT_ARRAY_LEN(p); i++) {
			p[i] = malloc(LARGE);
			assert_non_null(p[i]);
			memset(p[i], 1, LARGE);
		}
		for (size_t i = 0; i < WEFT_ARRAY_LEN(p); i++)
			free(p[i]);
	}
	check(&since, kib);
}

static void pages_come_from_the_reserve_as_zeros(void **state)
{
	static const char zeros[4096];
	struct weft_resident_usage since;

	if (!*state)
		skip();
	uint64_t kib = mapped_kib();
	weft_resident_usage(&since);
	for (unsigned round = 0; round < 3; round++) {
		char *p = weft_map_bytes(LARGE);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % weft_page_bytes(), 0);
		for (size_t i = 0; i < LARGE; i += sizeof(zeros))
			assert_memory_equal(p + i, zeros, sizeof(zeros));
		memset(p, 7, LARGE);
		weft_unmap_bytes(p, LARGE);
	}
	check(&since, kib);
}

static void threads_have_stacks_that_are_there(void **state)
{
	struct weft_resident_usage since;

	if (!*state)
		skip();
	uint64_t kib = mapped_kib();
	weft_resident_usage(&since);
	run_threads(8);
	run_threads(8);
	check(&since, kib);
}

static void what_the_reserve_lacks_is_counted(void **state)
{
	struct weft_resident_usage usage;

	if (!*state)
		skip();
	void *p = malloc(2 * RESERVE);
	assert_non_null(p);
	weft_resident_usage(&usage);
	assert_in_range(usage.grown_bytes, RESERVE, 3 * RESERVE);
	free(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_heap_that_is_used_asks_for_nothing),
		cmocka_unit_test(pages_come_from_the_reserve_as_zeros),
		cmocka_unit_test(threads_have_stacks_that_are_there),
		cmocka_unit_test(what_the_reserve_lacks_is_counted),
	};

	return cmocka_run_group_tests(tests, begin, NULL);
}
