/* SPDX-License-Identifier: MIT */
/* Threads that use one handle of the C API at once, and its own threads. */
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { IO = 4096, DEPTH = 16, MANY = 2000, CROWD = 6 };

struct worker {
	pthread_t thread;
	struct weft *w;
	unsigned n, rounds;
	bool asynchronous, wrong;
};

static int worker_write(const struct worker *worker, const uint8_t *buf, uint64_t off)
{
	return worker->asynchronous
		? weft_aio_wait(worker->w, weft_aio_pwrite(worker->w, buf, IO, off, NULL))
		: weft_pwrite(worker->w, buf, IO, off);
}

static int worker_read(const struct worker *worker, uint8_t *buf, uint64_t off)
{
	return worker->asynchronous
		? weft_aio_wait(worker->w, weft_aio_pread(worker->w, buf, IO, off, NULL))
		: weft_pread(worker->w, buf, IO, off);
}

/* Writes and reads blocks that are its own. */
static void *work(void *ctx)
{
	struct worker *worker = ctx;
	uint8_t out[IO], in[IO];

	for (unsigned i = 0; i < worker->rounds && !worker->wrong; i++) {
		uint64_t off = ((uint64_t)i * CROWD + worker->n) * IO % CONF_REGION_BYTES;

		conf_fill(out, off, IO, i);
		worker->wrong = worker_write(worker, out, off) < 0 ||
			worker_read(worker, in, off) < 0 || memcmp(in, out, IO) != 0 ||
			(!worker->asynchronous && i % 64 == 0 && weft_flush(worker->w) < 0);
	}
	return NULL;
}

static void start_crowd(struct worker *workers, struct weft *w, unsigned rounds)
{
	/* CROWD divides neither the blocks nor a worker's share of them: each has its own. */
	for (unsigned i = 0; i < CROWD; i++) {
		workers[i] =
			(struct worker){.w = w, .n = i, .rounds = rounds, .asynchronous = i % 2};
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
}

static void end_crowd(struct worker *workers)
{
	for (unsigned i = 0; i < CROWD; i++) {
		pthread_join(workers[i].thread, NULL);
		assert_false(workers[i].wrong);
	}
}

static void threads_work_side_by_side(void **state)
{
	static const unsigned connections[] = {1, 2, 4};
	struct worker workers[CROWD];

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(connections); i++) {
		const struct weft_options options = {.size = sizeof(options),
			.connections = connections[i]};
		const char *uris[] = {libweft_uri};
		uint64_t end = libweft_bound_ns();
		struct weft *w;

		while (weft_open_regions(uris, 1, &options, &w, NULL, 0) == -EBUSY)
			assert_true(weft_now_ns() < end);
		start_crowd(workers, w, 300);
		end_crowd(workers);
		weft_close(w);
	}
}

static void broken_connections_are_made_again_under_way(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct worker workers[CROWD];

	start_crowd(workers, w, 300);
	for (unsigned i = 0; i < 5; i++)
		weft_donor_fence_all(libweft_conf->donor, CONF_BOUND_MS);
	end_crowd(workers);
	weft_close(w);
}

static void threads_share_a_cache(void **state)
{
	struct weft *w = libweft_open_write_back(3);
	struct worker workers[CROWD];

	start_crowd(workers, w, 300);
	end_crowd(workers);
	assert_int_equal(weft_flush(w), 0);
	weft_close(w);
}

/* A thread that does nothing but take answers. */
struct poller {
	pthread_t thread;
	struct weft *w;
	_Atomic bool stop;
	_Atomic unsigned nr;
};

static void *take_answers(void *ctx)
{
	struct poller *poller = ctx;

	while (!atomic_load(&poller->stop)) {
		int64_t cookie = 0;

		weft_aio_poll(poller->w, 20);
		while ((cookie = weft_aio_next(poller->w)) != 0)
			if (weft_aio_result(poller->w, cookie) == 0)
				atomic_fetch_add(&poller->nr, 1);
	}
	return NULL;
}

static void one_thread_takes_what_others_began(void **state)
{
	struct poller poller = {.w = libweft_open(libweft_uri, 0)};
	uint8_t bufs[DEPTH][IO];
	uint64_t end = libweft_bound_ns();
	unsigned nr = 0;

	assert_int_equal(pthread_create(&poller.thread, NULL, take_answers, &poller), 0);
	while (nr < MANY) {
		for (unsigned i = 0; i < DEPTH; i++, nr++)
			assert_true(weft_aio_pread(poller.w, bufs[i], IO, i * IO, NULL) > 0);
		while (atomic_load(&poller.nr) < nr) {
			assert_true(weft_now_ns() < end);
			sched_yield();
		}
	}
	atomic_store(&poller.stop, true);
	pthread_join(poller.thread, NULL);
	weft_close(poller.w);
}

struct other_waiter {
	pthread_t thread;
	struct weft *w;
	int64_t cookie;
	int result;
};

static void *wait_for_it(void *ctx)
{
	struct other_waiter *other = ctx;

	other->result = weft_aio_wait(other->w, other->cookie);
	return NULL;
}

static void two_threads_do_not_wait_for_one_command(void **state)
{
	const struct weft_options options = {.size = sizeof(options), .connections = 1};
	struct weft *w = libweft_open_with(&options);
	struct libweft_hold h;
	char byte;
	int r[2];

	libweft_hold(w, &h);
	struct other_waiter other = {.w = w, .cookie = weft_aio_pread(w, &byte, 1, 0, NULL)};
	assert_int_equal(weft_aio_result(w, other.cookie), -EINPROGRESS);
	pthread_create(&other.thread, NULL, wait_for_it, &other);
	/* One of both comes second. */
	struct other_waiter third = other;
	pthread_create(&third.thread, NULL, wait_for_it, &third);
	poll(NULL, 0, 1);
	libweft_let_go(&h);
	pthread_join(other.thread, NULL);
	pthread_join(third.thread, NULL);
	r[0] = other.result;
	r[1] = third.result;
	/* The second one comes while it is in flight, or after its end. */
	assert_true(r[0] == 0 || r[1] == 0);
	assert_true(r[0] == -EBUSY || r[1] == -EBUSY || r[0] == -ENOENT || r[1] == -ENOENT);
	weft_close(w);
}

/* Of the thread: "weft-lane-0" and the like, and the signals that it blocks. */
static void read_task(const char *task, char name[32], unsigned long long *ret_blocked)
{
	char path[300], line[256];

	snprintf(path, sizeof(path), "/proc/self/task/%s/status", task);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	name[0] = '\0';
	*ret_blocked = 0;
	while (fgets(line, sizeof(line), file)) {
		sscanf(line, "Name: %31s", name);
		sscanf(line, "SigBlk: %llx", ret_blocked);
	}
	fclose(file);
}

static void the_librarys_threads_take_no_signals(void **state)
{
	const unsigned long long all = 1ull << (SIGTERM - 1) | 1ull << (SIGINT - 1) |
		1ull << (SIGALRM - 1) | 1ull << (SIGCHLD - 1);
	/* Raised by an instruction: the program may have a handler. */
	const unsigned long long own = 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1);
	struct weft *w = libweft_open(libweft_uri, 0);
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned nr = 0;

	assert_non_null(tasks);
	while ((entry = readdir(tasks)) != NULL) {
		unsigned long long blocked;
		char name[32];

		if (entry->d_name[0] == '.')
			continue;
		read_task(entry->d_name, name, &blocked);
		if (strncmp(name, "weft-lane", 9) != 0)
			continue;
		nr++;
		assert_true((blocked & all) == all);
		assert_true((blocked & own) == 0);
	}
	closedir(tasks);
	assert_true(nr > 0);
	weft_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		libweft_both_cases(threads_work_side_by_side),
		libweft_both_cases(threads_share_a_cache),
		libweft_both_cases(broken_connections_are_made_again_under_way),
		libweft_case(one_thread_takes_what_others_began),
		libweft_case(the_librarys_threads_take_no_signals),
		libweft_case(two_threads_do_not_wait_for_one_command),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
