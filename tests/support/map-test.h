/* SPDX-License-Identifier: MIT */
/*
 * A map of the region in this process, for unit tests that look inside one.  Where the kernel
 * cannot map, there is none, and the cases are skipped with what weft_map() says.
 */
#ifndef WEFT_TESTS_SUPPORT_MAP_TEST_H
#define WEFT_TESTS_SUPPORT_MAP_TEST_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/weft.h"
#include "transports/mem/mem.h"

enum { MAP_TEST_PATIENCE_S = 60 };

static struct weft *handle;
static struct weft_map *map; /* NULL: the kernel cannot */

/* Of the region's first bytes.  options may be NULL. */
static inline void map_test_begin(const struct weft_options *options, uint64_t bytes,
	const struct weft_map_options *o)
{
	const char *const uri = "mem:///r";
	char why[256];

	if (weft_open_regions(&uri, 1, options, &handle, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	int r = weft_map(handle, 0, bytes, o, &map, why, sizeof(why));
	if (r == -ENOTSUP || r == -ENOSYS) {
		printf("\nSKIP: %s\n", why);
		map = NULL;
	} else if (r < 0) {
		fail_msg("%s", why);
	}
}

static inline void map_test_end(unsigned flags)
{
	atomic_store(&mem_home.hold, false);
	atomic_store(&mem_home.fail_at, 0);
	atomic_store(&mem_home.delay_ns, 0);
	assert_int_equal(weft_unmap(map, flags), 0);
	weft_close(handle);
}

static inline struct weft_map_stats stats(void)
{
	struct weft_map_stats s = {.size = sizeof(s)};

	assert_int_equal(weft_map_stats(map, &s), 0);
	return s;
}

static inline uint64_t patience_ns(void)
{
	return weft_now_ns() + MAP_TEST_PATIENCE_S * UINT64_C(1000000000);
}

static inline void wait_for(bool (*is_so)(uint64_t n), uint64_t n)
{
	const uint64_t end_ns = patience_ns();

	while (!is_so(n)) {
		assert_true(weft_now_ns() < end_ns);
		usleep(500);
	}
}

/* Whether the unit has a frame in this state. */
static inline bool is_in_state(uint64_t unit, enum frame_state state)
{
	pthread_mutex_lock(&map->lock);
	const uint32_t frame = map_frame_of(map, unit);
	const bool is = frame != MAP_NO_FRAME && map->frames[frame].state == state;
	pthread_mutex_unlock(&map->lock);
	return is;
}

static inline bool is_staged(uint64_t unit)
{
	return is_in_state(unit, FRAME_STAGED);
}

/* Pages are read then, and that gives this process pages of its own again. */
static inline void look_for_dirt_at(uint64_t ns)
{
	pthread_mutex_lock(&map->lock);
	map_look_for_dirt_at(map, ns);
	pthread_mutex_unlock(&map->lock);
}

/* ---- threads that may get SIGBUS ---- */

static _Thread_local sigjmp_buf map_test_back;

static inline void map_test_on_bus(int signo)
{
	siglongjmp(map_test_back, 1);
}

/* A case begins with this: cmocka has set its own handlers by then. */
static inline void need_map(void)
{
	const struct sigaction catch = {.sa_handler = map_test_on_bus};

	if (!map)
		skip();
	sigaction(SIGBUS, &catch, NULL);
}

/* The byte, or -1: SIGBUS. */
static inline int byte_or_bus(const volatile uint8_t *at)
{
	volatile int found = -1;

	if (sigsetjmp(map_test_back, 1) == 0)
		found = *at;
	return found;
}

static inline bool is_bus(const volatile uint8_t *at)
{
	return byte_or_bus(at) < 0;
}

#endif
