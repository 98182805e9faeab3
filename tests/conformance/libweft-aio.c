/* SPDX-License-Identifier: MIT */
/*
 * The C API's asynchronous commands and threads at a donor in this process: what its header
 * promises.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/libweft-peer.h"

enum { IO = 4096, DEPTH = 16, MANY = 2000, CROWD = 6 };

/* ---- results without completions ---- */

static void what_is_written_is_read(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t *out = test_malloc(CONF_REGION_BYTES), *in = test_malloc(CONF_REGION_BYTES);

	conf_fill(out, 0, CONF_REGION_BYTES, 1);
	int64_t cookie = weft_aio_pwrite(w, out, CONF_REGION_BYTES, 0, NULL);
	assert_true(cookie > 0);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	cookie = weft_aio_flush(w, NULL);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	cookie = weft_aio_pread(w, in, CONF_REGION_BYTES - 1, 1, NULL);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	assert_memory_equal(in, out + 1, CONF_REGION_BYTES - 1);
	/* Nothing is a command too. */
	cookie = weft_aio_pread(w, in, 0, CONF_REGION_BYTES, NULL);
	assert_int_equal(weft_aio_wait(w, cookie), 0);
	weft_close(w);
	test_free(out);
	test_free(in);
}

static void results_are_kept_until_somebody_asks(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t bufs[DEPTH][IO];
	int64_t cookies[DEPTH];
	uint64_t end = libweft_bound_ns();

	assert_int_equal(weft_aio_poll(w, -1), 0); /* nothing is in flight */
	for (unsigned i = 0; i < DEPTH; i++) {
		cookies[i] = weft_aio_pread(w, bufs[i], IO, i * IO, NULL);
		assert_true(cookies[i] > 0);
		for (unsigned j = 0; j < i; j++)
			assert_true(cookies[i] != cookies[j]);
	}
	unsigned nr = 0;
	while (nr < DEPTH) {
		int64_t cookie;

		assert_true(weft_now_ns() < end);
		assert_int_equal(weft_aio_poll(w, -1), 1);
		while ((cookie = weft_aio_next(w)) != 0) {
			assert_int_equal(weft_aio_result(w, cookie), 0);
			assert_int_equal(weft_aio_result(w, cookie), -ENOENT);
			nr++;
		}
	}
	assert_int_equal(weft_aio_in_flight(w), 0);
	assert_int_equal(weft_aio_poll(w, -1), 0);
	for (unsigned i = 0; i < DEPTH; i++)
		assert_int_equal(weft_aio_wait(w, cookies[i]), -ENOENT);
	weft_close(w);
}

static void cookies_that_nobody_gave_mean_nothing(void **state)
{
	static const int64_t wrong[] = {0, -1, 1, 65536, 65537, INT64_MAX, INT64_MIN};
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < WEFT_ARRAY_LEN(wrong); i++) {
			assert_int_equal(weft_aio_result(w, wrong[i]), -ENOENT);
			assert_int_equal(weft_aio_wait(w, wrong[i]), -ENOENT);
		}
		assert_int_equal(weft_aio_wait(w, weft_aio_pread(w, buf, IO, 0, NULL)), 0);
	}
	weft_close(w);
}

/* ---- completions ---- */

struct told {
	_Atomic unsigned nr, nr_freed;
	int retire;
	_Atomic int error;
	_Atomic bool freed_first;
};

static int tell(void *user, int error)
{
	struct told *told = user;

	atomic_store(&told->error, error);
	if (atomic_load(&told->nr_freed) > 0)
		atomic_store(&told->freed_first, true);
	atomic_fetch_add(&told->nr, 1);
	return told->retire;
}

static void tell_free(void *user)
{
	atomic_fetch_add(&((struct told *)user)->nr_freed, 1);
}

static void wait_told(struct told *told)
{
	uint64_t end = libweft_bound_ns();

	while (atomic_load(&told->nr_freed) == 0) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 1);
	}
}

static void a_completion_is_told_once_and_freed_after(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];

	for (int retire = 0; retire <= 1; retire++) {
		struct told told = {.retire = retire};
		const struct weft_completion completion = {tell, &told, tell_free};
		int64_t cookie = weft_aio_pread(w, buf, IO, 0, &completion);

		while (weft_aio_in_flight(w) > 0)
			assert_true(weft_aio_poll(w, -1) >= 0);
		assert_int_equal(atomic_load(&told.nr), 1);
		assert_int_equal(atomic_load(&told.nr_freed), 1);
		assert_false(atomic_load(&told.freed_first));
		assert_int_equal(atomic_load(&told.error), 0);
		assert_int_equal(weft_aio_result(w, cookie), retire ? -ENOENT : 0);
	}
	/* Whoever waits for one that retires itself gets the result too, or comes late. */
	struct told told = {.retire = 1};
	const struct weft_completion completion = {tell, &told, NULL};
	int r = weft_aio_wait(w, weft_aio_pread(w, buf, IO, 0, &completion));
	assert_true(r == 0 || r == -ENOENT);
	assert_int_equal(atomic_load(&told.nr), 1);
	weft_close(w);
}

static void nobody_needs_to_wait(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];

	for (unsigned i = 0; i < 20; i++) {
		struct told told = {.retire = 1};
		const struct weft_completion completion = {tell, &told, tell_free};

		assert_true(weft_aio_pread(w, buf, IO, 0, &completion) > 0);
		wait_told(&told);
		assert_int_equal(atomic_load(&told.nr), 1);
	}
	weft_close(w);
}

static void what_is_refused_is_freed_and_not_told(void **state)
{
	struct weft *w = libweft_open(libweft_uri, WEFT_OPEN_READ_ONLY);
	struct told told = {0};
	const struct weft_completion completion = {tell, &told, tell_free};
	uint8_t buf[IO] = {0};

	assert_int_equal(weft_aio_pread(w, buf, IO, CONF_REGION_BYTES, &completion), -ENOSPC);
	assert_int_equal(weft_aio_pwrite(w, buf, IO, UINT64_MAX, &completion), -ENOSPC);
	assert_int_equal(weft_aio_pwrite(w, buf, IO, 0, &completion), -EPERM);
	assert_int_equal(atomic_load(&told.nr_freed), 3);
	assert_int_equal(atomic_load(&told.nr), 0);
	assert_int_equal(weft_aio_in_flight(w), 0);
	weft_close(w);
}

/* Reads one block after the other, from inside of its completions. */
struct chain {
	struct weft *w;
	uint8_t buf[IO];
	uint64_t off;
	unsigned left;
	bool wrong;
	_Atomic bool over;
};

static int go_on(void *user, int error)
{
	struct chain *chain = user;
	const struct weft_completion completion = {.fn = go_on, .user = chain};
	uint8_t right[IO];

	conf_fill(right, chain->off, IO, 7);
	chain->wrong |= error < 0 || memcmp(chain->buf, right, IO) != 0;
	chain->off = (chain->off + DEPTH * IO) % CONF_REGION_BYTES;
	if (--chain->left == 0 ||
		weft_aio_pread(chain->w, chain->buf, IO, chain->off, &completion) < 0)
		atomic_store(&chain->over, true);
	return 1;
}

static void fill_region(struct weft *w, uint64_t stamp)
{
	uint8_t *all = test_malloc(CONF_REGION_BYTES);

	conf_fill(all, 0, CONF_REGION_BYTES, stamp);
	assert_int_equal(weft_pwrite(w, all, CONF_REGION_BYTES, 0), 0);
	test_free(all);
}

static void begin_chains(struct weft *w, struct chain *chains)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		const struct weft_completion completion = {.fn = go_on, .user = &chains[i]};

		chains[i].w = w;
		chains[i].off = i * IO;
		chains[i].left = MANY / DEPTH;
		assert_true(weft_aio_pread(w, chains[i].buf, IO, chains[i].off, &completion) > 0);
	}
}

static void check_chains(const struct chain *chains)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		assert_true(atomic_load(&chains[i].over));
		assert_int_equal(chains[i].left, 0);
		assert_false(chains[i].wrong);
	}
}

static void completions_begin_commands(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct chain *chains = test_calloc(DEPTH, sizeof(*chains));
	uint64_t end = libweft_bound_ns();

	fill_region(w, 7);
	begin_chains(w, chains);
	while (weft_aio_in_flight(w) > 0) {
		assert_true(weft_now_ns() < end);
		assert_true(weft_aio_poll(w, 1000) >= 0);
	}
	check_chains(chains);
	weft_close(w);
	test_free(chains);
}

static void a_callers_own_loop_polls_the_descriptor(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct chain *chains = test_calloc(DEPTH, sizeof(*chains));
	int fd = weft_aio_fd(w);

	assert_true(fd >= 0);
	assert_int_equal(weft_aio_fd(w), fd);
	fill_region(w, 7);
	begin_chains(w, chains);
	while (weft_aio_in_flight(w) > 0) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		assert_int_equal(poll(&p, 1, CONF_BOUND_MS), 1);
		assert_true(weft_aio_poll(w, 0) >= 0);
	}
	check_chains(chains);
	weft_close(w);
	test_free(chains);
}

static void a_loop_that_is_late_finds_results_all_the_same(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct pollfd p = {.fd = weft_aio_fd(w), .events = POLLIN};
	uint8_t buf[IO];
	uint64_t end = libweft_bound_ns();

	int64_t cookie = weft_aio_pread(w, buf, IO, 0, NULL);
	/* Somebody takes the answer meanwhile: the library. */
	while (weft_aio_in_flight(w) > 0) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 1);
	}
	assert_int_equal(poll(&p, 1, CONF_BOUND_MS), 1);
	assert_int_equal(weft_aio_poll(w, 0), 1);
	assert_int_equal(weft_aio_next(w), cookie);
	assert_int_equal(weft_aio_result(w, cookie), 0);
	weft_close(w);
}

static void a_descriptor_tells_of_what_ended_before_it_was_asked_for(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	uint8_t buf[IO];
	uint64_t end = libweft_bound_ns();

	int64_t cookie = weft_aio_pread(w, buf, IO, 0, NULL);
	while (weft_aio_in_flight(w) > 0) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 1);
	}
	struct pollfd p = {.fd = weft_aio_fd(w), .events = POLLIN};
	/* At once: later on the next sign of life would do it. */
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_int_equal(weft_aio_poll(w, 0), 1);
	assert_int_equal(weft_aio_result(w, cookie), 0);
	weft_close(w);
}

struct forbidden {
	struct weft *w;
	int results[6];
};

static int try_to_block(void *user, int error)
{
	struct forbidden *f = user;
	struct weft *other;
	char byte = 0;

	f->results[0] = weft_pread(f->w, &byte, 1, 0);
	f->results[1] = weft_pwrite(f->w, &byte, 1, 0);
	f->results[2] = weft_flush(f->w);
	f->results[3] = weft_aio_wait(f->w, 1);
	f->results[4] = weft_aio_poll(f->w, -1);
	f->results[5] = weft_open(libweft_uri, 0, &other, NULL, 0);
	return 0;
}

static void a_completion_does_not_block(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct forbidden f = {.w = w};
	const struct weft_completion completion = {.fn = try_to_block, .user = &f};
	char byte;

	assert_int_equal(weft_aio_wait(w, weft_aio_pread(w, &byte, 1, 0, &completion)), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(f.results); i++)
		assert_int_equal(f.results[i], -EDEADLK);
	/* And others may, afterwards. */
	assert_int_equal(weft_pread(w, &byte, 1, 0), 0);
	weft_close(w);
}

/* ---- threads ---- */

/* Closing waits for what is in flight, and writes back. */
static struct weft *open_write_back(unsigned connections)
{
	const struct weft_options options = {
		.size = sizeof(options),
		.flags = WEFT_OPEN_WRITE_BACK,
		.cache_bytes = 4 << 20,
		.connections = connections,
	};

	return libweft_open_with(&options);
}

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
	struct weft *w = open_write_back(3);
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

/* ---- the end ---- */

static void closing_ends_what_is_in_flight(void **state)
{
	struct weft *w = libweft_open(libweft_uri, 0);
	struct told told[DEPTH] = {0};
	uint8_t bufs[DEPTH][IO] = {0};

	/* Without its donor nothing is answered. */
	libweft_stop(state);
	for (unsigned i = 0; i < DEPTH; i++) {
		const struct weft_completion completion = {tell, &told[i], tell_free};

		told[i].retire = 1;
		if (i % 2)
			assert_true(weft_aio_pwrite(w, bufs[i], IO, 0, &completion) > 0);
		else
			assert_true(weft_aio_pread(w, bufs[i], IO, 0, &completion) > 0);
	}
	assert_true(weft_aio_flush(w, NULL) > 0);
	weft_close(w);
	for (unsigned i = 0; i < DEPTH; i++) {
		assert_int_equal(atomic_load(&told[i].nr), 1);
		assert_int_equal(atomic_load(&told[i].nr_freed), 1);
		assert_int_equal(atomic_load(&told[i].error), -ECANCELED);
	}
}

/* Begins the same command again and again, until it is refused. */
struct again {
	struct weft *w;
	uint8_t buf[IO];
	int64_t refused;
	_Atomic unsigned nr;
};

static int begin_again(void *user, int error)
{
	struct again *again = user;
	const struct weft_completion completion = {.fn = begin_again, .user = again};

	atomic_fetch_add(&again->nr, 1);
	int64_t r = weft_aio_pread(again->w, again->buf, IO, 0, &completion);
	if (r < 0)
		again->refused = r;
	return 1;
}

static void closing_refuses_what_completions_begin(void **state)
{
	struct again again = {.w = open_write_back(1)};
	uint8_t out[IO], in[IO];
	uint64_t end = libweft_bound_ns();

	conf_fill(out, 0, IO, 5);
	assert_int_equal(weft_pwrite(again.w, out, IO, IO), 0);
	begin_again(&again, 0);
	while (atomic_load(&again.nr) < 100) {
		assert_true(weft_now_ns() < end);
		weft_aio_poll(again.w, 10);
	}
	uint64_t begin_ns = weft_now_ns();
	weft_close(again.w);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(20000000000));
	assert_int_equal(again.refused, -ECANCELED);
	struct weft *w = libweft_open_when_free(libweft_uri, 0);
	assert_int_equal(weft_pread(w, in, IO, IO), 0);
	assert_memory_equal(in, out, IO);
	weft_close(w);
}

/* A write that ends well while the handle is closed is at the donor. */
static void closing_loses_nothing_that_was_done(void **state)
{
	uint8_t *out = test_malloc(CONF_REGION_BYTES), *in = test_malloc(CONF_REGION_BYTES);

	for (unsigned i = 0; i < 20; i++) {
		weft_close(libweft_open_when_free(libweft_uri, 0));
		weft_close(libweft_open_when_free(libweft_uri, 0));
		struct weft *w = open_write_back(2);
		struct told told = {.retire = 1};
		const struct weft_completion completion = {tell, &told, tell_free};

		conf_fill(out, 0, CONF_REGION_BYTES, 100 + i);
		assert_true(weft_aio_pwrite(w, out, CONF_REGION_BYTES, 0, &completion) > 0);
		weft_close(w);
		int error = atomic_load(&told.error);
		assert_int_equal(atomic_load(&told.nr), 1);
		assert_true(error == 0 || error == -ECANCELED);
		if (error < 0)
			continue;
		w = libweft_open_when_free(libweft_uri, 0);
		assert_int_equal(weft_pread(w, in, CONF_REGION_BYTES, 0), 0);
		assert_memory_equal(in, out, CONF_REGION_BYTES);
		weft_close(w);
	}
	test_free(out);
	test_free(in);
}

/*
 * Keeps its connection, on the library's thread, until the handle is being closed: the one that
 * closes has left its calls.
 */
static int hold_until_closing(void *user, int error)
{
	struct libweft_hold *hold = user;
	const struct weft_completion completion = {.fn = hold_until_closing, .user = hold};

	if (pthread_equal(pthread_self(), hold->thread)) {
		weft_aio_pread(hold->w, &hold->byte, 1, 0, &completion);
		return 1;
	}
	sem_post(&hold->held);
	while (weft_aio_flush(hold->w, NULL) > 0)
		poll(NULL, 0, 1);
	return 1;
}

static void closing_waits_for_no_more_of_a_command_than_is_in_flight(void **state)
{
	struct libweft_hold hold = {.w = open_write_back(1), .thread = pthread_self()};
	const struct weft_completion holds = {.fn = hold_until_closing, .user = &hold};
	uint8_t *buf = test_calloc(1, CONF_REGION_BYTES);
	struct told told = {.retire = 1};
	const struct weft_completion completion = {tell, &told, NULL};

	sem_init(&hold.held, 0, 0);
	assert_true(weft_aio_pread(hold.w, &hold.byte, 1, 0, &holds) > 0);
	sem_wait(&hold.held);
	assert_true(weft_aio_pread(hold.w, buf, CONF_REGION_BYTES, 0, &completion) > 0);
	weft_close(hold.w);
	assert_int_equal(atomic_load(&told.error), -ECANCELED);
	test_free(buf);
}

static void a_donor_that_is_gone_is_told_in_time(void **state)
{
	const struct weft_options options = {.size = sizeof(options), .dead_timeout_ms = 500};
	struct weft *w = libweft_open_with(&options);
	uint8_t buf[IO] = {0};

	libweft_stop(state);
	uint64_t begin_ns = weft_now_ns();
	assert_int_equal(weft_pread(w, buf, IO, 0), -ENOTCONN);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(10000000000));
	/* At once from then on. */
	assert_int_equal(weft_pwrite(w, buf, IO, 0), -ENOTCONN);
	assert_int_equal(weft_flush(w), -ENOTCONN);
	assert_int_equal(weft_aio_wait(w, weft_aio_pread(w, buf, IO, 0, NULL)), -ENOTCONN);
	weft_close(w);
}

static void a_stock_server_that_is_gone_loses_the_handle(void **state)
{
	char stock[128];
	uint8_t buf[IO];

	snprintf(stock, sizeof(stock), "nbd+unix:///r?socket=%s", libweft_conf->target.host);
	struct weft *w = libweft_open(stock, 0);
	libweft_stop(state);
	assert_int_equal(weft_pread(w, buf, IO, 0), -ENOTCONN);
	assert_int_equal(weft_pread(w, buf, IO, 0), -ENOTCONN);
	weft_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		libweft_both_cases(what_is_written_is_read),
		libweft_case(results_are_kept_until_somebody_asks),
		libweft_case(cookies_that_nobody_gave_mean_nothing),
		libweft_case(a_completion_is_told_once_and_freed_after),
		libweft_case(nobody_needs_to_wait),
		libweft_case(what_is_refused_is_freed_and_not_told),
		libweft_both_cases(completions_begin_commands),
		libweft_case(a_callers_own_loop_polls_the_descriptor),
		libweft_case(a_loop_that_is_late_finds_results_all_the_same),
		libweft_case(a_descriptor_tells_of_what_ended_before_it_was_asked_for),
		libweft_case(a_completion_does_not_block),
		libweft_both_cases(threads_work_side_by_side),
		libweft_both_cases(threads_share_a_cache),
		libweft_both_cases(broken_connections_are_made_again_under_way),
		libweft_case(one_thread_takes_what_others_began),
		libweft_case(the_librarys_threads_take_no_signals),
		libweft_case(two_threads_do_not_wait_for_one_command),
		libweft_both_cases(closing_ends_what_is_in_flight),
		libweft_both_cases(closing_refuses_what_completions_begin),
		libweft_both_cases(closing_loses_nothing_that_was_done),
		libweft_buffered_case(closing_waits_for_no_more_of_a_command_than_is_in_flight),
		libweft_case(a_donor_that_is_gone_is_told_in_time),
		libweft_case(a_stock_server_that_is_gone_loses_the_handle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
