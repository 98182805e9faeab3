/* SPDX-License-Identifier: MIT */
/*
 * A bridge that is made, started, used and ended, and of whose steps the Nth fails, for each N
 * until none does: it says so or does without, and nothing is left behind.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"
#include "tests/support/bridge-io.h"
#include "tests/support/entries.h"
#include "transports/mem/mem.h"

enum { REGION = 8 << 20, CACHE = 4 << 20, CHUNK = 64 << 10, NR_DONORS = 2, UNIT = 64 << 10,
	CONNECT_MS = 5000 };

/*
 * The linker puts these in the place of the real ones (--wrap).  The Nth of them from now on
 * fails; 0: none.
 */
static _Atomic unsigned countdown;
static const char *_Atomic failed;

static bool fails(const char *what)
{
	unsigned n = atomic_load(&countdown);

	while (n > 0 && !atomic_compare_exchange_weak(&countdown, &n, n - 1))
		;
	if (n == 1)
		failed = what;
	return n == 1;
}

#define STEP(type, name, failure, params, args) \
	type __real_##name params; \
	type __wrap_##name params; \
	type __wrap_##name params \
	{ \
		if (fails(#name)) { \
			errno = ENOMEM; \
			return failure; \
		} \
		return __real_##name args; \
	}

STEP(void *, calloc, NULL, (size_t nr, size_t size), (nr, size))
STEP(char *, strdup, NULL, (const char *text), (text))
STEP(void *, mmap, MAP_FAILED, (void *at, size_t len, int prot, int flags, int fd, off_t off),
	(at, len, prot, flags, fd, off))
STEP(int, epoll_create1, -1, (int flags), (flags))
STEP(int, epoll_ctl, -1, (int epfd, int op, int fd, struct epoll_event *event),
	(epfd, op, fd, event))
STEP(int, eventfd, -1, (unsigned value, int flags), (value, flags))
STEP(int, timerfd_create, -1, (int clock, int flags), (clock, flags))
STEP(int, pthread_create, ENOMEM,
	(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *ctx),
	(thread, attr, fn, ctx))

/* A donor that takes a moment, so that the lane sleeps meanwhile. */
static bool slow;
int __real_weft_donor_grant(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hello *hello, const struct weft_peer *peer,
	void (*fence)(void *ctx), void *ctx, struct weft_grant **ret, struct weft_error *err);
int __wrap_weft_donor_grant(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hello *hello, const struct weft_peer *peer,
	void (*fence)(void *ctx), void *ctx, struct weft_grant **ret, struct weft_error *err);

int __wrap_weft_donor_grant(struct weft_donor *donor, struct weft_region *region,
	const struct weft_hello *hello, const struct weft_peer *peer,
	void (*fence)(void *ctx), void *ctx, struct weft_grant **ret, struct weft_error *err)
{
	if (slow)
		usleep(20000);
	return __real_weft_donor_grant(donor, region, hello, peer, fence, ctx, ret, err);
}

static struct mem_config mems[NR_DONORS][2];
static struct weft_donor *donors[NR_DONORS];
static struct weft_region *regions[NR_DONORS];
static struct bridge_donor_config to[NR_DONORS];
static struct bridge_config config;
static char path[64];
static uint8_t data[3 * UNIT], got[3 * UNIT];

static int set_up(void **state)
{
	for (unsigned i = 0; i < NR_DONORS; i++) {
		donors[i] = lend_memory(REGION, 0, &regions[i]);
		to[i] = (struct bridge_donor_config){.region = "r", .nr_ways = 2, .first_way = 1};
		weft_random(to[i].id, sizeof(to[i].id));
		for (unsigned way = 0; way < 2; way++) {
			mems[i][way] = (struct mem_config){.donor = donors[i]};
			to[i].ways[way] = (struct bridge_way){.transport = &tp_mem_ops,
				.transport_config = &mems[i][way],
				.host = ""};
		}
	}
	config = (struct bridge_config){
		.attach = {
			.donors = to,
			.nr_donors = NR_DONORS,
			.stripe_bytes = UNIT,
			.name = "test",
			.mode = WEFT_MODE_WRITE,
			.timeout_ms = 5000,
			.dead_timeout_ms = 5000,
			.connect_timeout_ms = CONNECT_MS,
		},
		.nr_lanes = 2,
	};
	strcpy(path, "/tmp/weft-bridge-faults.XXXXXX");
	int fd = mkstemp(path);
	close(fd);
	weft_random(data, sizeof(data));
	return fd < 0;
}

static int tear_down(void **state)
{
	unlink(path);
	for (unsigned i = 0; i < NR_DONORS; i++) {
		weft_donor_free(donors[i]);
		weft_region_put(regions[i]);
	}
	return 0;
}

/* 0, or the error that it said. */
static int make_and_start(struct weft_error *err)
{
	for (unsigned i = 0; i < NR_DONORS; i++)
		to[i].generation += UINT64_C(1) << 32;
	int r = bridge_new(&config, &bridge, err);
	if (r < 0) {
		assert_null(bridge);
		return r;
	}
	return bridge_start(bridge, err);
}

/* Without its Nth step; false: there are not so many. */
static bool try_without(unsigned nth)
{
	struct weft_error err = {0};
	int fds = count_entries("/proc/self/fd");

	failed = NULL;
	atomic_store(&countdown, nth);
	uint64_t begin_ns = weft_now_ns();
	int r = make_and_start(&err);
	if (weft_now_ns() - begin_ns > CONNECT_MS * UINT64_C(1000000))
		fail_msg("without step %u (%s) somebody waited in vain", nth, failed);
	if (r == 0) {
		/* What fails from here on is done without, or tried again. */
		assert_int_equal(do_write(0, UNIT / 2, data, 2 * UNIT, 0), 0);
		assert_int_equal(do_read(config.nr_lanes - 1, UNIT / 2, got, 2 * UNIT), 0);
		assert_memory_equal(data, got, 2 * UNIT);
		assert_int_equal(bridge_stop(bridge, 5000, &err), 0);
	} else {
		if (err.code != -r || !err.message[0] || !failed)
			fail_msg("without step %u (%s): %d, and said %d '%s'", nth,
				failed ? failed : "none", r, err.code, err.message);
		if (bridge)
			bridge_stop(bridge, 0, NULL);
	}
	bridge_free(bridge);
	bridge = NULL;
	bool done = atomic_exchange(&countdown, 0) > 0;
	assert_int_equal(count_entries("/proc/self/fd"), fds);
	return !done;
}

static void try_all(void)
{
	unsigned nth = 1;

	while (try_without(nth))
		nth++;
	print_message("%u steps\n", nth - 1);
	assert_true(nth > 20);
}

static void direct(void **state)
{
	try_all();
}

static void one_lane_and_one_slow_donor(void **state)
{
	slow = true;
	config.nr_lanes = config.attach.nr_donors = to[0].nr_ways = 1;
	to[0].first_way = 0;
	try_all();
	slow = false;
}

static void driven(void **state)
{
	config.driven = true;
	try_all();
}

static void with_a_cache(void **state)
{
	config.cache = (struct bridge_cache_config){.bytes = CACHE,
		.chunk_bytes = CHUNK,
		.push_interval_ms = 10,
		.pull = true,
		.pull_workers = 2};
	try_all();
}

static void with_a_cache_file(void **state)
{
	unsigned nth = 0;
	bool any;

	config.cache = (struct bridge_cache_config){.bytes = CACHE,
		.chunk_bytes = CHUNK,
		.push_interval_ms = 10,
		.uri = "mem:///r mem:///r"};
	do {
		struct weft_error err = {0};

		if (cache_file_open(path, true, &config.cache.file, &err) < 0)
			fail_msg("%s", err.message);
		cache_file_forget(config.cache.file);
		any = try_without(++nth);
		cache_file_close(config.cache.file);
	} while (any);
	assert_true(nth > 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(direct),
		TEST(one_lane_and_one_slow_donor),
		TEST(driven),
		TEST(with_a_cache),
		TEST(with_a_cache_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
