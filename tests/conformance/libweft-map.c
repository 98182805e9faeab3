/* SPDX-License-Identifier: MIT */
/*
 * weft_map(): what its header promises, at a donor in this process, in each mode.  Where the kernel
 * cannot map, the cases are skipped with what weft_map() says.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { UNIT = 16 << 10, LOCAL = 512 << 10, PAGE = 4096 };

/* The modes that pages leave, and the one in which they stay. */
static unsigned mode;

static bool is_bounded(void)
{
	return mode != WEFT_MAP_RESIDENT;
}

static struct weft_map_options small(void)
{
	return (struct weft_map_options){.size = sizeof(struct weft_map_options),
		.unit_bytes = UNIT,
		.mode = mode,
		.local_bytes = is_bounded() ? LOCAL : 0};
}

static struct weft_map *map_with(struct weft *w, const struct weft_map_options *o)
{
	struct weft_map *m;
	char why[256];

	if (weft_page_bytes() > PAGE)
		conf_skip("the cases count in pages of 4 KiB");
	int r = weft_map(w, 0, weft_size(w), o, &m, why, sizeof(why));
	if (r == -ENOTSUP || r == -ENOSYS)
		conf_skip("%s", why);
	if (r < 0)
		fail_msg("%s", why);
	return m;
}

static struct weft_map *map_small(struct weft *w)
{
	const struct weft_map_options o = small();

	return map_with(w, &o);
}

static struct weft_map_stats stats_of(struct weft_map *m)
{
	struct weft_map_stats s = {.size = sizeof(s)};

	assert_int_equal(weft_map_stats(m, &s), 0);
	return s;
}

static void what_is_at_the_donor_is_in_the_map(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t *out = test_malloc(CONF_REGION_BYTES);

	conf_fill(out, 0, CONF_REGION_BYTES, 7);
	assert_int_equal(weft_pwrite(w, out, CONF_REGION_BYTES, 0), 0);
	struct weft_map *m = map_small(w);
	assert_memory_equal(weft_map_addr(m), out, CONF_REGION_BYTES);
	/* Nothing of it was written. */
	assert_int_equal(weft_map_sync(m, weft_map_addr(m), CONF_REGION_BYTES, 0), 0);
	assert_int_equal(stats_of(m).written_bytes, 0);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
	test_free(out);
}

static void what_is_written_to_the_map_is_at_the_donor_after_sync(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m), *in = test_malloc(CONF_REGION_BYTES);

	for (unsigned round = 1; round < 4; round++) {
		for (size_t i = round; i < CONF_REGION_BYTES; i += 5000)
			p[i] = (uint8_t)(i / 5000 + round);
		assert_int_equal(weft_map_sync(m, p, CONF_REGION_BYTES, WEFT_MAP_FLUSH), 0);
		assert_int_equal(weft_pread(w, in, CONF_REGION_BYTES, 0), 0);
		for (size_t i = round; i < CONF_REGION_BYTES; i += 5000)
			assert_int_equal(in[i], (uint8_t)(i / 5000 + round));
		assert_memory_equal(p, in, CONF_REGION_BYTES);
	}
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
	test_free(in);
}

static void no_more_than_the_bound_is_here(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	volatile uint8_t *p = weft_map_addr(m);
	uint64_t seed = 5;

	for (unsigned i = 0; i < 2000; i++) {
		uint64_t at = conf_random(&seed) % CONF_REGION_BYTES;

		if (i % 3)
			(void)p[at];
		else
			p[at] = (uint8_t)i;
		struct weft_map_stats s = stats_of(m);
		if (is_bounded())
			assert_true(s.local_bytes <= LOCAL);
		assert_true(s.resident_bytes + s.staged_bytes <= s.local_bytes);
	}
	assert_true(is_bounded() ? stats_of(m).evicted > 100 : stats_of(m).evicted == 0);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

/* Each thread increments numbers of its own, in pages that all share. */
enum { WRITERS = 4, ROUNDS = 1000 };

struct writer {
	pthread_t thread;
	uint32_t *base;
	unsigned number;
	uint32_t *expected;
};

static void *increment(void *ctx)
{
	struct writer *writer = ctx;
	uint64_t seed = writer->number + 1;

	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t at = conf_random(&seed) % (CONF_REGION_BYTES / 64);

		writer->base[at * 16 + writer->number]++;
		writer->expected[at]++;
	}
	return NULL;
}

static void no_write_is_lost_while_pages_come_and_go(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	struct writer writers[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){.base = weft_map_addr(m),
			.number = i,
			.expected = test_calloc(CONF_REGION_BYTES / 64, sizeof(uint32_t))};
		assert_int_equal(
			pthread_create(&writers[i].thread, NULL, increment, &writers[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(weft_map_sync(m, weft_map_addr(m), CONF_REGION_BYTES, 0), 0);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i].thread, NULL);
	assert_true(!is_bounded() || stats_of(m).evicted > 100);
	assert_int_equal(weft_unmap(m, 0), 0);
	uint32_t *in = test_malloc(CONF_REGION_BYTES);
	assert_int_equal(weft_pread(w, in, CONF_REGION_BYTES, 0), 0);
	for (unsigned i = 0; i < WRITERS; i++) {
		for (size_t at = 0; at < CONF_REGION_BYTES / 64; at++)
			assert_int_equal(in[at * 16 + i], writers[i].expected[at]);
		test_free(writers[i].expected);
	}
	test_free(in);
	weft_close(w);
}

static void writes_go_home_by_themselves(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	uint64_t end = libweft_bound_ns();

	((volatile uint8_t *)weft_map_addr(m))[100000] = 42;
	for (uint8_t byte = 0; byte != 42; poll(NULL, 0, 20)) {
		assert_int_equal(weft_pread(w, &byte, 1, 100000), 0);
		assert_true(weft_now_ns() < end);
	}
	assert_int_equal(weft_unmap(m, WEFT_UNMAP_DISCARD), 0);
	weft_close(w);
}

static void prefetched_pages_are_there(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);
	uint64_t faults;
	int fds[2];

	assert_int_equal(weft_map_prefetch(m, p + PAGE, LOCAL / 2, WEFT_MAP_WAIT), 0);
	faults = stats_of(m).faults;
	assert_int_equal(pipe(fds), 0);
	/* A system call may have them, whoever handles faults. */
	assert_int_equal(write(fds[1], p + PAGE, 60000), 60000);
	assert_int_equal(stats_of(m).faults, faults);
	assert_int_equal(weft_map_prefetch(m, p, CONF_REGION_BYTES, WEFT_MAP_WAIT),
		is_bounded() ? -ENOSPC : 0);
	assert_int_equal(weft_map_prefetch(m, p, CONF_REGION_BYTES + 1, 0), -EINVAL);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void evicted_pages_are_not_here_and_come_back(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);
	uint64_t end = libweft_bound_ns();

	memset(p, 7, LOCAL / 2);
	do {
		assert_int_equal(weft_map_evict(m, p, CONF_REGION_BYTES), 0);
		assert_true(weft_now_ns() < end);
	} while (is_bounded() && stats_of(m).resident_bytes + stats_of(m).staged_bytes > 0);
	for (unsigned i = 0; i < LOCAL / 2; i++)
		assert_int_equal(p[i], 7);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void a_stream_is_fetched_ahead(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	volatile uint8_t *p = weft_map_addr(m);

	for (size_t i = 0; i < CONF_REGION_BYTES; i += PAGE)
		(void)p[i];
	assert_true(stats_of(m).fetched_ahead > CONF_REGION_BYTES / UNIT / 8);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void what_was_written_is_told_once(void **state)
{
	static const uint64_t pages[] = {0, 1, 2, 77, 400, 401, 2047};
	static const struct weft_map_extent right[] = {{0, 3 * PAGE}, {77 * PAGE, PAGE},
		{400 * PAGE, 2 * PAGE}, {2047 * PAGE, PAGE}};
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);
	struct weft_map_extent found[8];

	for (size_t i = 0; i < CONF_REGION_BYTES; i += PAGE)
		assert_int_equal(p[i], 0);
	assert_int_equal(weft_map_dirty(m, 0, found, 8, 0), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(pages); i++)
		p[pages[i] * PAGE + i] = 1;
	/* Whatever happens to them. */
	assert_int_equal(weft_map_sync(m, p, CONF_REGION_BYTES, 0), 0);
	assert_int_equal(weft_map_evict(m, p, CONF_REGION_BYTES), 0);
	assert_int_equal(weft_map_dirty(m, 0, found, 8, 0), 4);
	assert_memory_equal(found, right, sizeof(right));
	assert_int_equal(weft_map_dirty(m, 78 * PAGE, found, 1, 0), 1);
	assert_memory_equal(found, &right[2], sizeof(right[0]));
	assert_int_equal(weft_map_dirty(m, 0, found, 3, WEFT_MAP_RESET), 3);
	assert_int_equal(weft_map_dirty(m, 0, found, 3, WEFT_MAP_RESET), 1);
	assert_memory_equal(found, &right[3], sizeof(right[0]));
	assert_int_equal(weft_map_dirty(m, 0, found, 3, WEFT_MAP_RESET), 0);
	p[5 * PAGE] = 2;
	assert_int_equal(weft_map_dirty(m, 0, found, 3, WEFT_MAP_RESET), 1);
	assert_int_equal(found[0].off, 5 * PAGE);
	assert_int_equal(weft_map_dirty(m, CONF_REGION_BYTES + 1, found, 3, 0), -EINVAL);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void nothing_is_fetched_ahead_of_random_accesses(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	volatile uint8_t *p = weft_map_addr(m);

	assert_int_equal(weft_map_advise(m, 7), -EINVAL);
	assert_int_equal(weft_map_advise(m, WEFT_MAP_RANDOM), 0);
	for (size_t i = 0; i < CONF_REGION_BYTES; i += UNIT)
		(void)p[i];
	assert_int_equal(stats_of(m).fetched_ahead, 0);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static sigjmp_buf jump;
static volatile sig_atomic_t caught;

static void on_signal(int signo)
{
	caught = signo;
	siglongjmp(jump, 1);
}

/* The signal that the access raises; 0: none. */
static int touch(volatile uint8_t *at, bool writes)
{
	struct sigaction catch = {.sa_handler = on_signal}, old[2];

	sigaction(SIGBUS, &catch, &old[0]);
	sigaction(SIGSEGV, &catch, &old[1]);
	caught = 0;
	if (sigsetjmp(jump, 1) == 0) {
		if (writes)
			*at = 1;
		else
			(void)*at;
	}
	sigaction(SIGBUS, &old[0], NULL);
	sigaction(SIGSEGV, &old[1], NULL);
	return caught;
}

static void a_read_only_map_cannot_be_written(void **state)
{
	struct weft *w = libweft_open(libweft_uri, WEFT_OPEN_READ_ONLY);
	struct weft_map_options o = small();
	struct weft_map *m;
	char why[256];

	assert_int_equal(weft_map(w, 0, PAGE, &o, &m, why, sizeof(why)), -EROFS);
	assert_non_null(strstr(why, "READ_ONLY"));
	o.flags = WEFT_MAP_READ_ONLY;
	m = map_with(w, &o);
	uint8_t *p = weft_map_addr(m);
	for (size_t i = 0; i < CONF_REGION_BYTES; i += PAGE / 2)
		assert_int_equal(p[i], 0);
	assert_int_equal(touch(p, false), 0);
	assert_int_equal(touch(p, true), SIGSEGV);
	assert_true(!is_bounded() || stats_of(m).evicted > 100);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void a_child_does_not_have_the_map(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		_exit(*(volatile uint8_t *)weft_map_addr(m));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void what_cannot_be_mapped_says_why(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	const struct {
		uint64_t off, len;
		struct weft_map_options o;
		const char *why;
	} cases[] = {
		{0, 0, {.size = sizeof(cases[0].o)}, "0 bytes"},
		{0, CONF_REGION_BYTES + 1, {.size = sizeof(cases[0].o)}, "8388608"},
		{UINT64_MAX, 2, {.size = sizeof(cases[0].o)}, "bytes at"},
		{1, 2, {.size = sizeof(cases[0].o)}, "multiple"},
		{0, PAGE, {.size = 1}, "size"},
		{0, PAGE, {.size = sizeof(cases[0].o), .flags = 1u << 31}, "flags"},
		{0, PAGE, {.size = sizeof(cases[0].o), .unit_bytes = 5000}, "power of two"},
		{0, PAGE, {.size = sizeof(cases[0].o), .local_bytes = 5000}, "at least"},
		{0, PAGE, {.size = sizeof(cases[0].o), .handlers = 100}, "handlers"},
		{0, PAGE, {.size = sizeof(cases[0].o), .mode = 100}, "mode"},
		{0, PAGE, {.size = sizeof(cases[0].o), .mode = WEFT_MAP_RESIDENT, .local_bytes = 1},
			"bound"},
	};
	struct weft_map *m;
	char why[256];

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		assert_int_equal(weft_map(w, cases[i].off, cases[i].len, &cases[i].o, &m, why,
					 sizeof(why)),
			-EINVAL);
		if (!strstr(why, cases[i].why))
			fail_msg("'%s' says nothing of '%s'", why, cases[i].why);
	}
	weft_close(w);
}

static void a_map_is_no_buffer_of_its_own_handle(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);

	assert_int_equal(weft_pread(w, p, PAGE, 0), -EINVAL);
	assert_int_equal(weft_pwrite(w, p + CONF_REGION_BYTES - 1, 1, 0), -EINVAL);
	assert_int_equal(weft_aio_pread(w, p, PAGE, 0, NULL), -EINVAL);
	assert_int_equal(weft_unmap(m, 0), 0);
	assert_int_equal(weft_pread(w, &(uint8_t){0}, 1, 0), 0);
	weft_close(w);
}

static void the_last_page_is_cut_where_the_map_ends(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	const struct weft_map_options o = small();
	struct weft_map *m;
	uint8_t byte;

	assert_int_equal(weft_pwrite(w, "abc", 3, UNIT + PAGE + 99), 0);
	if (weft_page_bytes() > PAGE)
		conf_skip("the cases count in pages of 4 KiB");
	int r = weft_map(w, 0, UNIT + PAGE + 100, &o, &m, NULL, 0);
	if (r == -ENOTSUP || r == -ENOSYS)
		conf_skip("this kernel cannot map");
	assert_int_equal(r, 0);
	uint8_t *p = weft_map_addr(m);
	assert_int_equal(p[UNIT + PAGE + 99], 'a');
	assert_int_equal(p[UNIT + PAGE + 100], 0);
	p[UNIT + PAGE + 99] = 'z';
	p[UNIT + PAGE + 100] = 'z';
	assert_int_equal(weft_unmap(m, 0), 0);
	assert_int_equal(weft_pread(w, &byte, 1, UNIT + PAGE + 99), 0);
	assert_int_equal(byte, 'z');
	assert_int_equal(weft_pread(w, &byte, 1, UNIT + PAGE + 100), 0);
	assert_int_equal(byte, 'b');
	weft_close(w);
}

/* ---- a donor that is gone ---- */

static struct weft *open_impatient(void)
{
	const struct weft_options options = {.size = sizeof(options), .dead_timeout_ms = 500};

	return libweft_open_with(&options);
}

struct toucher {
	pthread_t thread;
	volatile uint8_t *at;
	_Atomic uint8_t found;
};

static void *touch_it(void *ctx)
{
	struct toucher *toucher = ctx;

	atomic_store(&toucher->found, *toucher->at);
	return NULL;
}

static void start_toucher(struct toucher *toucher, volatile uint8_t *at)
{
	toucher->at = at;
	atomic_store(&toucher->found, 0);
	assert_int_equal(pthread_create(&toucher->thread, NULL, touch_it, toucher), 0);
}

static void a_fault_waits_for_a_donor_that_comes_back(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct toucher touchers[20];

	assert_int_equal(weft_pwrite(w, "x", 1, 0), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(touchers); i++)
		assert_int_equal(weft_pwrite(w, "y", 1, i * 3 * UNIT), 0);
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);
	p[UNIT] = 'z';
	donor_peer_go(libweft_conf);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(touchers); i++)
		start_toucher(&touchers[i], p + i * 3 * UNIT);
	poll(NULL, 0, 200);
	donor_peer_come_back(libweft_conf, false);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(touchers); i++) {
		pthread_join(touchers[i].thread, NULL);
		assert_int_equal(atomic_load(&touchers[i].found), 'y');
	}
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static void a_silent_donor_poisons_what_is_missing_and_heals(void **state)
{
	struct weft *w = open_impatient();
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);
	uint64_t end = libweft_bound_ns();

	p[0] = 'a';
	donor_peer_go(libweft_conf);
	/* What is here can be used, and what is not cannot. */
	assert_int_equal(touch(p + 100 * UNIT, false), SIGBUS);
	assert_int_equal(touch(p + 200 * UNIT, true), SIGBUS);
	assert_int_equal(p[0], 'a');
	p[1] = 'b';
	assert_true(stats_of(m).poisoned_bytes >= 2 * UNIT);
	assert_int_equal(weft_map_sync(m, p, PAGE, 0), -ENOTCONN);
	assert_int_equal(weft_unmap(m, 0), -ENOTCONN);
	assert_int_equal(weft_map_prefetch(m, p + 300 * UNIT, 1, WEFT_MAP_WAIT), -EIO);
	donor_peer_come_back(libweft_conf, false);
	while (touch(p + 100 * UNIT, false) == SIGBUS) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 10);
	}
	assert_int_equal(touch(p + 200 * UNIT, true), 0);
	assert_int_equal(stats_of(m).poisoned_bytes, 0);
	assert_int_equal(weft_map_sync(m, p, CONF_REGION_BYTES, WEFT_MAP_FLUSH), 0);
	char in[2];
	assert_int_equal(weft_pread(w, in, 2, 0), 0);
	assert_memory_equal(in, "ab", 2);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

/* Nothing can be written back, so that there is no room for what is fetched. */
static void threads_that_wait_for_room_do_not_wait_for_ever(void **state)
{
	if (!is_bounded())
		conf_skip("there is always room");
	struct weft *w = open_impatient();
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);
	unsigned nr_lost = 0;

	assert_int_equal(weft_map_prefetch(m, p, LOCAL / 2, WEFT_MAP_WAIT), 0);
	donor_peer_go(libweft_conf);
	memset(p, 1, LOCAL / 2);
	for (unsigned i = LOCAL / UNIT; i < CONF_REGION_BYTES / UNIT; i += 7)
		nr_lost += touch(p + i * UNIT, true) == SIGBUS;
	assert_true(nr_lost > 50);
	for (unsigned i = 0; i < LOCAL / 2; i += PAGE)
		assert_int_equal(p[i], 1);
	assert_int_equal(weft_unmap(m, WEFT_UNMAP_DISCARD), 0);
	weft_close(w);
}

/* ---- contents that are gone ---- */

static _Atomic int lost_error, nr_lost_calls;

static void on_lost(void *ctx, int error)
{
	atomic_store(&lost_error, error);
	atomic_fetch_add(&nr_lost_calls, 1);
}

static struct weft_map *map_told(struct weft *w)
{
	struct weft_map_options o = small();

	o.on_lost = on_lost;
	atomic_store(&nr_lost_calls, 0);
	return map_with(w, &o);
}

static void wait_until_lost(void)
{
	uint64_t end = libweft_bound_ns();

	while (atomic_load(&nr_lost_calls) == 0) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 5);
	}
}

static int keep_rescued(void *ctx, uint64_t off, const void *data, size_t len)
{
	memcpy((uint8_t *)ctx + off, data, len);
	return 0;
}

static void lost_contents_are_sigbus_and_can_be_rescued(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_told(w);
	uint8_t *p = weft_map_addr(m), *rescued = test_calloc(1, CONF_REGION_BYTES);
	char why[256];

	for (unsigned i = 0; i < 20; i++)
		p[i * UNIT] = (uint8_t)(i + 1);
	assert_int_equal(weft_map_sync(m, p, 10 * UNIT, WEFT_MAP_FLUSH), 0);
	for (unsigned i = 5; i < 15; i++)
		p[i * UNIT + 1] = (uint8_t)(i + 100);
	assert_int_equal(weft_map_rescue(m, keep_rescued, rescued), -EINVAL);
	assert_int_equal(weft_map_reset(m, why, sizeof(why)), -EINVAL);
	donor_peer_go(libweft_conf);
	donor_peer_come_back(libweft_conf, true);
	wait_until_lost();
	assert_int_equal(atomic_load(&lost_error), -ESTALE);
	for (unsigned i = 0; i < CONF_REGION_BYTES / UNIT; i++)
		assert_int_equal(touch(p + i * UNIT, i % 2), SIGBUS);
	assert_int_equal(weft_map_sync(m, p, PAGE, 0), -ESTALE);
	assert_int_equal(weft_map_prefetch(m, p, PAGE, WEFT_MAP_WAIT), -ESTALE);
	assert_true(weft_map_rescue(m, keep_rescued, rescued) >= 15 * PAGE);
	for (unsigned i = 5; i < 15; i++) {
		assert_int_equal(rescued[i * UNIT], i + 1);
		assert_int_equal(rescued[i * UNIT + 1], i + 100);
	}
	assert_int_equal(rescued[3 * UNIT], 0);
	assert_int_equal(atomic_load(&nr_lost_calls), 1);
	assert_int_equal(weft_unmap(m, 0), -ESTALE);
	if (weft_map_reset(m, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	/* The donor's contents, which are zeros. */
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(p[i * UNIT], 0);
	p[0] = 5;
	assert_int_equal(weft_map_sync(m, p, PAGE, WEFT_MAP_FLUSH), 0);
	assert_int_equal(weft_pread(w, why, 1, 0), 0);
	assert_int_equal(why[0], 5);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
	test_free(rescued);
}

enum { RESETTERS = 4 };

static pthread_barrier_t all_reset;

/* What the map was told to do; a thread that has done it uses the map at once. */
static void *reset_and_write(void *ctx)
{
	struct weft_map *m = ctx;
	char why[256];

	pthread_barrier_wait(&all_reset);
	int r = weft_map_reset(m, why, sizeof(why));
	if (r == 0)
		*(volatile uint8_t *)weft_map_addr(m) = 5;
	return (void *)(intptr_t)r;
}

/* Whoever is late must not drop what the program has written since. */
static void of_threads_that_reset_one_does_it(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_told(w);
	volatile uint8_t *p = weft_map_addr(m);
	pthread_t threads[RESETTERS];
	unsigned nr_done = 0;

	p[0] = 1;
	donor_peer_go(libweft_conf);
	donor_peer_come_back(libweft_conf, true);
	wait_until_lost();
	pthread_barrier_init(&all_reset, NULL, RESETTERS);
	for (unsigned i = 0; i < RESETTERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reset_and_write, m), 0);
	for (unsigned i = 0; i < RESETTERS; i++) {
		void *r;

		pthread_join(threads[i], &r);
		nr_done += r == NULL;
		assert_true(r == NULL || (intptr_t)r == -EINVAL);
	}
	pthread_barrier_destroy(&all_reset);
	assert_int_equal(nr_done, 1);
	assert_int_equal(p[0], 5);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

static _Atomic bool stop_touching;
static _Atomic unsigned nr_zeros;

/* Bytes that were never zero, until they are SIGBUS, which ends the thread's part. */
static _Thread_local sigjmp_buf ended;

static void on_bus(int signo)
{
	siglongjmp(ended, 1);
}

static void *read_for_ever(void *ctx)
{
	volatile uint8_t *p = ctx;
	uint64_t seed = (uintptr_t)&seed;

	if (sigsetjmp(ended, 1) == 0)
		while (!atomic_load(&stop_touching))
			if (p[conf_random(&seed) % CONF_REGION_BYTES] == 0)
				atomic_fetch_add(&nr_zeros, 1);
	return NULL;
}

static void no_thread_sees_zeros_or_hangs_when_contents_are_lost(void **state)
{
	struct sigaction catch = {.sa_handler = on_bus}, old;
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t *ones = test_malloc(CONF_REGION_BYTES);
	pthread_t threads[8];

	memset(ones, 1, CONF_REGION_BYTES);
	assert_int_equal(weft_pwrite(w, ones, CONF_REGION_BYTES, 0), 0);
	test_free(ones);
	struct weft_map *m = map_told(w);
	sigaction(SIGBUS, &catch, &old);
	atomic_store(&stop_touching, false);
	atomic_store(&nr_zeros, 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_for_ever,
					 weft_map_addr(m)), 0);
	poll(NULL, 0, 100);
	donor_peer_go(libweft_conf);
	poll(NULL, 0, 50);
	donor_peer_come_back(libweft_conf, true);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	wait_until_lost();
	assert_int_equal(atomic_load(&nr_zeros), 0);
	sigaction(SIGBUS, &old, NULL);
	assert_int_equal(weft_unmap(m, WEFT_UNMAP_DISCARD), 0);
	weft_close(w);
}

static void a_page_that_the_program_drops_is_sigbus(void **state)
{
	if (mode != WEFT_MAP_PAGED)
		conf_skip("the page is another mapping's too, and comes back");
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);
	uint8_t *p = weft_map_addr(m);

	p[0] = 1;
	assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(touch(p, false), SIGBUS);
	assert_int_equal(weft_unmap(m, WEFT_UNMAP_DISCARD), 0);
	weft_close(w);
}

/* What else was written is rescued, and no zeros in place of what the program dropped. */
static void a_page_that_the_program_drops_is_not_rescued(void **state)
{
	if (mode != WEFT_MAP_PAGED)
		conf_skip("the page is another mapping's too, and comes back");
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_told(w);
	uint8_t *p = weft_map_addr(m), *rescued = test_malloc(CONF_REGION_BYTES);

	memset(rescued, 7, CONF_REGION_BYTES);
	(void)*(volatile uint8_t *)p;
	donor_peer_go(libweft_conf);
	memset(p, 1, UNIT);
	assert_int_equal(madvise(p + PAGE, PAGE, MADV_DONTNEED), 0);
	donor_peer_come_back(libweft_conf, true);
	wait_until_lost();
	assert_int_equal(weft_map_rescue(m, keep_rescued, rescued), UNIT - PAGE);
	for (unsigned i = 0; i < UNIT; i++)
		assert_int_equal(rescued[i], i / PAGE == 1 ? 7 : 1);
	assert_int_equal(touch(p, false), SIGBUS);
	assert_int_equal(weft_unmap(m, WEFT_UNMAP_DISCARD), 0);
	weft_close(w);
	test_free(rescued);
}

static void a_map_says_its_mode(void **state)
{
	static const char *const names[] = {
		[WEFT_MAP_PAGED] = "paged",
		[WEFT_MAP_COMPAT] = "compat",
		[WEFT_MAP_RESIDENT] = "resident",
	};
	struct weft *w = libweft_open(libweft_uri, 0);
	struct weft_map *m = map_small(w);

	assert_string_equal(stats_of(m).mode, names[mode]);
	assert_int_equal(weft_unmap(m, 0), 0);
	weft_close(w);
}

int main(int argc, char **argv)
{
	int failed = 0;
	const struct CMUnitTest tests[] = {
		libweft_case(a_map_says_its_mode),
		libweft_both_cases(what_is_at_the_donor_is_in_the_map),
		libweft_both_cases(what_is_written_to_the_map_is_at_the_donor_after_sync),
		libweft_case(no_more_than_the_bound_is_here),
		libweft_both_cases(no_write_is_lost_while_pages_come_and_go),
		libweft_case(writes_go_home_by_themselves),
		libweft_case(prefetched_pages_are_there),
		libweft_case(evicted_pages_are_not_here_and_come_back),
		libweft_case(a_stream_is_fetched_ahead),
		libweft_case(what_was_written_is_told_once),
		libweft_case(nothing_is_fetched_ahead_of_random_accesses),
		libweft_case(a_read_only_map_cannot_be_written),
		libweft_case(a_child_does_not_have_the_map),
		libweft_case(what_cannot_be_mapped_says_why),
		libweft_case(a_map_is_no_buffer_of_its_own_handle),
		libweft_case(the_last_page_is_cut_where_the_map_ends),
		libweft_case(a_fault_waits_for_a_donor_that_comes_back),
		libweft_case(a_silent_donor_poisons_what_is_missing_and_heals),
		libweft_case(threads_that_wait_for_room_do_not_wait_for_ever),
		libweft_case(lost_contents_are_sigbus_and_can_be_rescued),
		libweft_case(of_threads_that_reset_one_does_it),
		libweft_case(no_thread_sees_zeros_or_hangs_when_contents_are_lost),
		libweft_case(a_page_that_the_program_drops_is_sigbus),
		libweft_case(a_page_that_the_program_drops_is_not_rescued),
	};

	/* A mode's number, for one alone. */
	mode = argc == 2 ? (unsigned)atoi(argv[1]) : WEFT_MAP_PAGED;
	for (unsigned last = argc == 2 ? mode : WEFT_MAP_RESIDENT; mode <= last; mode++)
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
