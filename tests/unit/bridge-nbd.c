/* SPDX-License-Identifier: MIT */
/* The NBD front-end of a bridge, with libnbd as its client and the mem transport behind it. */
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/front/front.h"
#include "tests/support/bridge-io.h"
#include "transports/mem/mem.h"

enum { REGION = 64 << 20, WAIT_MS = 20000 };

static struct mem_config mem;
static struct bridge_config config;
static struct bridge_front *front;
static struct weft_loop *loop;
static pthread_t control;
static _Atomic bool control_stops;
static uint8_t *region;
static char dir[64], path[96];

/* Accepting, as a bridge's main thread does. */
static void *control_main(void *arg)
{
	while (!atomic_load(&control_stops))
		weft_loop_step(loop, 10);
	return NULL;
}

static int set_up(void **state)
{
	region = calloc(1, REGION);
	mem_config_init(&mem, region, REGION);
	config = bridge_config_for_tests(&mem);
	strcpy(dir, "/tmp/weft-bridge-nbd.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	return 0;
}

static void start(void)
{
	struct weft_error err = {0};

	assert_int_equal(weft_loop_new(&loop), 0);
	bridge_begin(&config);
	if (bridge_front_nbd_new(bridge, loop, path, NULL, &front, &err) < 0)
		fail_msg("cannot start: %s", err.message);
	atomic_store(&control_stops, false);
	assert_int_equal(pthread_create(&control, NULL, control_main, NULL), 0);
}

static int tear_down(void **state)
{
	if (bridge) {
		atomic_store(&control_stops, true);
		pthread_join(control, NULL);
		front->ops->stop(front, true, 5000, NULL);
		bridge_stop(bridge, 1000, NULL);
		bridge_front_free(front);
		bridge_free(bridge);
		weft_loop_free(loop);
		bridge = NULL;
	}
	assert_int_not_equal(access(path, F_OK), 0);
	unlink(path);
	rmdir(dir);
	free(region);
	return 0;
}

static struct nbd_handle *client(const char *export)
{
	struct nbd_handle *nbd = nbd_create();

	assert_non_null(nbd);
	nbd_set_export_name(nbd, export);
	nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
	if (nbd_connect_unix(nbd, path) < 0)
		fail_msg("%s", nbd_get_error());
	return nbd;
}

static void what_the_donor_can_do_is_what_is_advertised(void **state)
{
	mem.no_fast_zero = mem.no_trim = true;
	start();
	struct nbd_handle *nbd = client("r");
	assert_int_equal(nbd_get_size(nbd), REGION);
	assert_int_equal(nbd_can_flush(nbd), 1);
	assert_int_equal(nbd_can_fua(nbd), 1);
	assert_int_equal(nbd_can_zero(nbd), 1);
	assert_int_equal(nbd_can_fast_zero(nbd), 0);
	assert_int_equal(nbd_can_trim(nbd), 0);
	assert_int_equal(nbd_can_multi_conn(nbd), 1);
	assert_int_equal(nbd_is_read_only(nbd), 0);
	nbd_close(nbd);
}

static void another_export_name_is_refused(void **state)
{
	start();
	struct nbd_handle *nbd = nbd_create();
	nbd_set_export_name(nbd, "nonsense");
	assert_int_equal(nbd_connect_unix(nbd, path), -1);
	nbd_close(nbd);
	nbd_close(client(""));
}

static void a_reader_may_not_write(void **state)
{
	config.attach.mode = WEFT_MODE_READ;
	start();
	struct nbd_handle *nbd = client("");
	assert_int_equal(nbd_is_read_only(nbd), 1);
	nbd_set_strict_mode(nbd, 0);
	assert_int_equal(nbd_pwrite(nbd, "x", 1, 0, 0), -1);
	assert_int_equal(nbd_get_errno(), EPERM);
	char c;
	assert_int_equal(nbd_pread(nbd, &c, 1, 0, 0), 0);
	nbd_close(nbd);
}

static atomic_bool enough; /* they may end */

struct worker {
	pthread_t thread;
	unsigned nr;
	char trouble[200];
};

/* Writes and reads back blocks of all sizes in its own part of the region, many in flight. */
static void *work(void *arg)
{
	struct worker *worker = arg;
	struct nbd_handle *nbd = client("");
	const uint64_t part = REGION / 4, base = worker->nr * part;
	unsigned seed = 99 + worker->nr;
	static const size_t sizes[] = {1, 512, 4096, 10000, 65536, 1 << 20, 3 << 20};
	uint8_t *data = malloc(3 << 20), *back = malloc(3 << 20);

	for (unsigned i = 0; (i < 120 || !atomic_load(&enough)) && !worker->trouble[0]; i++) {
		size_t len = sizes[(unsigned)rand_r(&seed) % WEFT_ARRAY_LEN(sizes)];
		uint64_t off = base + (uint64_t)rand_r(&seed) % (part - len);

		for (size_t j = 0; j < len; j++)
			data[j] = (uint8_t)(j * 31 + i + worker->nr);
		if (nbd_pwrite(nbd, data, len, off, i % 8 == 0 ? LIBNBD_CMD_FLAG_FUA : 0) < 0 ||
			nbd_pread(nbd, back, len, off, 0) < 0)
			snprintf(worker->trouble, sizeof(worker->trouble), "%s", nbd_get_error());
		else if (memcmp(data, back, len) != 0 || memcmp(region + off, data, len) != 0)
			snprintf(worker->trouble, sizeof(worker->trouble), "step %u: other bytes",
				i);
		if (i % 16 == 0)
			nbd_flush(nbd, 0);
	}
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
	free(data);
	free(back);
	return NULL;
}

/* Until a lane lost its connection in an operation and asks for another one. */
static bool lose_connection(void)
{
	uint64_t before = atomic_load(&mem.nr_connects),
		 end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (atomic_load(&mem.nr_connects) == before) {
		if (weft_now_ns() > end)
			return false;
		if (atomic_load(&mem.nr_ops) >=
			atomic_load(&mem.kill_at)) /* it may have been missed */
			atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 5);
		usleep(500);
	}
	return true;
}

static void several_clients_verify_their_data_with_losses(void **state)
{
	static struct worker workers[4];
	unsigned nr_lost;

	memset(workers, 0, sizeof(workers));
	atomic_store(&enough, false);
	start();
	for (unsigned i = 0; i < 4; i++) {
		workers[i].nr = i;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (nr_lost = 0; nr_lost < 5 && lose_connection(); nr_lost++)
		;
	atomic_store(&enough, true);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(workers[i].thread, NULL);
		assert_string_equal(workers[i].trouble, "");
	}
	assert_int_equal(nr_lost, 5);
}

struct batch {
	unsigned done, failed;
};

static int one_done(void *user, int *error)
{
	struct batch *batch = user;

	batch->done++;
	batch->failed += *error != 0;
	return 1;
}

/* More and larger requests in flight than there are buffers. */
static void requests_wait_for_buffers(void **state)
{
	static uint8_t data[128][1 << 20];
	struct batch batch = {0};

	start();
	atomic_store(&mem.delay_ns, 500000);
	struct nbd_handle *nbd = client("");
	for (unsigned i = 0; i < 100; i++) {
		memset(data[i], (int)i + 1, sizeof(data[i]));
		size_t len = i % 5 == 0 ? 4096 : i % 2 ? 1 << 20 : 300000;
		assert_true(nbd_aio_pwrite(nbd, data[i], len, (uint64_t)(i % 60) << 20,
				    (nbd_completion_callback){.callback = one_done,
					    .user_data = &batch},
				    0) >= 0);
	}
	while (batch.done < 100)
		assert_true(nbd_poll(nbd, WAIT_MS) >= 0);
	assert_int_equal(batch.failed, 0);
	uint8_t *big = malloc(32 << 20);
	memset(big, 7, 32 << 20);
	assert_int_equal(nbd_pwrite(nbd, big, 32 << 20, 1 << 20, 0), 0);
	assert_int_equal(nbd_pread(nbd, big, 32 << 20, 3 << 20, 0), 0);
	assert_int_equal(big[(30 << 20) - 1], 7);
	assert_memory_equal(region + (1 << 20), big, 1 << 20);
	free(big);
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
}

static void zeroes_and_allocation(void **state)
{
	start();
	memset(region, 0xff, 1 << 20);
	struct nbd_handle *nbd = client("");
	assert_int_equal(nbd_zero(nbd, 5000, 1000, 0), 0);
	assert_int_equal(region[999], 0xff);
	assert_int_equal(region[1000], 0);
	assert_int_equal(region[5999], 0);
	assert_int_equal(region[6000], 0xff);
	nbd_close(nbd);
}

static bool wait_until(bool (*condition)(void))
{
	uint64_t end = weft_now_ns() + WAIT_MS * UINT64_C(1000000);

	while (!condition())
		if (weft_now_ns() > end)
			return false;
		else
			usleep(500);
	return true;
}

static bool nobody_is_connected(void)
{
	json_t *texts = json_array();
	unsigned n = front->ops->users(front, texts);

	json_decref(texts);
	return n == 0;
}

static json_int_t nr_errors(void)
{
	json_t *status = bridge_status(bridge);
	json_int_t n = json_integer_value(json_object_get(status, "errors"));

	json_decref(status);
	return n;
}

static json_int_t nr_in_flight(void)
{
	json_t *status = bridge_status(bridge);
	json_t *lane;
	size_t i;
	json_int_t n = 0;

	json_array_foreach(json_object_get(status, "lanes"), i, lane)
		n += json_integer_value(json_object_get(lane, "in_flight"));
	json_decref(status);
	return n;
}

static bool somebody_waits(void)
{
	return nr_in_flight() > 0;
}

static bool nobody_waits(void)
{
	return nr_in_flight() == 0;
}

static bool is_ready(void)
{
	return strcmp(bridge_state(bridge, NULL), "ready") == 0;
}

/*
 * A write that its client cannot wait for any more must not land after what others, or the same
 * client come back, write next: neither on a connection that is there already (nbd.ko sends again
 * on another of its own) …
 */
static void what_a_dead_client_left_is_never_written_later(void **state)
{
	static uint8_t old[4096], new[4096];
	struct batch batch = {0};

	memset(old, 1, sizeof(old));
	memset(new, 2, sizeof(new));
	config.attach.dead_timeout_ms = 3 * WAIT_MS;
	start();
	struct nbd_handle *dead = client(""), *nbd = client(""); /* each on a lane of its own */
	/* The first one's lane loses its link in the write, and cannot make a new one. */
	atomic_store(&mem.refuse, ECONNREFUSED);
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	assert_true(nbd_aio_pwrite(dead, old, sizeof(old), 0,
			    (nbd_completion_callback){.callback = one_done, .user_data = &batch},
			    0) >= 0);
	assert_true(wait_until(somebody_waits));
	nbd_close(dead);
	assert_true(wait_until(nobody_waits));
	assert_int_equal(nbd_pwrite(nbd, new, sizeof(new), 0, 0), 0);
	atomic_store(&mem.refuse, 0);
	assert_true(wait_until(is_ready));
	assert_int_equal(nbd_flush(nbd, 0), 0);
	nbd_close(nbd);
	assert_memory_equal(region, new, sizeof(new));
	assert_int_equal(nr_errors(), 0); /* nobody was told of one */
}

static void sleep_a_while(struct bridge_lane *lane, void *ctx)
{
	atomic_store((atomic_bool *)ctx, true);
	usleep(100000); /* so late it is, not a wait */
}

static void *keep_lane_busy(void *ctx)
{
	bridge_lane_run(bridge_lane(bridge, 0), sleep_a_while, ctx);
	return NULL;
}

/*
 * … nor on a new one, which waits until it is known what becomes of the old write, however late the
 * lane looks.
 */
static void a_new_client_waits_for_what_a_dead_one_left(void **state)
{
	static uint8_t old[4096], new[4096];
	struct batch batch = {0};
	atomic_bool busy = false;
	pthread_t thread;

	memset(old, 1, sizeof(old));
	memset(new, 2, sizeof(new));
	config.nr_lanes = 1;
	start();
	struct nbd_handle *dead = client("");
	atomic_store(&mem.delay_ns, 200000000);
	assert_true(nbd_aio_pwrite(dead, old, sizeof(old), 0,
			    (nbd_completion_callback){.callback = one_done, .user_data = &batch},
			    0) >= 0);
	assert_true(wait_until(somebody_waits));
	assert_int_equal(pthread_create(&thread, NULL, keep_lane_busy, &busy), 0);
	while (!atomic_load(&busy))
		usleep(100);
	nbd_close(dead);
	atomic_store(&mem.delay_ns, 0);
	struct nbd_handle *nbd = client("");
	pthread_join(thread, NULL);
	assert_memory_equal(region, old, sizeof(old)); /* it was posted: now it has landed */
	assert_int_equal(nbd_pwrite(nbd, new, sizeof(new), 0, 0), 0);
	nbd_close(nbd);
	assert_memory_equal(region, new, sizeof(new));
}

static void users_are_named(void **state)
{
	start();
	struct nbd_handle *nbd = client("");
	json_t *texts = json_array();
	char mine[32];

	assert_int_equal(front->ops->users(front, texts), 1);
	snprintf(mine, sizeof(mine), "pid %d (", (int)getpid());
	assert_non_null(strstr(json_string_value(json_array_get(texts, 0)), mine));
	json_decref(texts);
	nbd_close(nbd);
}

static void a_socket_in_use_is_not_taken_over_and_a_stale_one_is(void **state)
{
	struct bridge_front *other;
	struct weft_error err;

	/* Stale: bound by somebody who has gone. */
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	start();
	assert_int_equal(bridge_front_nbd_new(bridge, loop, path, NULL, &other, &err), -EADDRINUSE);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	nbd_close(client(""));
}

static void clients_that_hang_up_anywhere_disturb_nobody(void **state)
{
	unsigned seed = 4711;

	start();
	struct nbd_handle *nbd = client("");
	for (unsigned i = 0; i < 100; i++) {
		struct sockaddr_un addr = {.sun_family = AF_UNIX};
		static uint8_t junk[400];
		size_t n = (unsigned)rand_r(&seed) % sizeof(junk);

		memcpy(addr.sun_path, path, strlen(path) + 1);
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		for (size_t j = 0; j < n; j++)
			junk[j] = (uint8_t)rand_r(&seed);
		if (i % 2)
			memcpy(junk, "\0\0\0\1IHAVEOPT\0\0\0\7", 16);
		assert_true(send(fd, junk, n, MSG_NOSIGNAL) >= 0 || errno == EPIPE);
		close(fd);
		uint8_t c = (uint8_t)i, d;
		assert_int_equal(nbd_pwrite(nbd, &c, 1, i, 0), 0);
		assert_int_equal(nbd_pread(nbd, &d, 1, i, 0), 0);
		assert_int_equal(c, d);
	}
	nbd_close(nbd);
	assert_true(wait_until(nobody_is_connected));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* READs that a client asks for and does not take hold buffers; those of others wait for them. */
static void who_takes_nothing_does_not_starve_others(void **state)
{
	enum { PAUSED = 4, READS = 8, LEN = 1 << 20 };
	struct nbd_handle *paused[PAUSED];
	static uint8_t data[LEN], ignored[LEN];

	config.nr_lanes = 1;
	config.stall_ms = 1000; /* for handshakes, too, on a machine that is busy */
	start();
	struct nbd_handle *nbd = client("r");
	for (unsigned i = 0; i < PAUSED; i++) {
		paused[i] = client("r");
		for (unsigned k = 0; k < READS; k++)
			assert_true(nbd_aio_pread(paused[i], ignored, LEN, 0, NBD_NULL_COMPLETION,
					    0) > 0);
	}
	for (unsigned k = 0; k < 20; k++)
		assert_int_equal(nbd_pread(nbd, data, LEN, 0, 0), 0);
	for (unsigned i = 0; i < PAUSED; i++)
		nbd_close(paused[i]);
	nbd_close(nbd);
}

/* Nobody waits for what it holds: a client may be stopped for as long as it likes. */
static void a_paused_client_alone_is_left_alone(void **state)
{
	enum { READS = 8, LEN = 1 << 20 };
	static uint8_t data[READS][LEN];

	config.nr_lanes = 1;
	config.stall_ms = 50;
	start();
	memset(region, 0x5a, REGION);
	struct nbd_handle *nbd = client("r");
	for (unsigned k = 0; k < READS; k++)
		assert_true(nbd_aio_pread(nbd, data[k], LEN, 0, NBD_NULL_COMPLETION, 0) > 0);
	usleep(400 * 1000); /* the pause is the test */
	while (nbd_aio_in_flight(nbd) > 0) {
		int64_t cookie = nbd_aio_peek_command_completed(nbd);

		if (cookie > 0)
			assert_int_equal(nbd_aio_command_completed(nbd, (uint64_t)cookie), 1);
		else
			assert_true(nbd_poll(nbd, WAIT_MS) > 0);
	}
	for (unsigned k = 0; k < READS; k++)
		assert_int_equal(data[k][LEN - 1], 0x5a);
	nbd_close(nbd);
}

/* A connection that says nothing keeps its place for a while only. */
static void who_never_asks_is_hung_up_on(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char byte;

	config.stall_ms = 100;
	start();
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(addr.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	struct timeval bound = {.tv_sec = WAIT_MS / 1000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	ssize_t n;
	while ((n = read(fd, &byte, 1)) == 1)
		; /* the greeting */
	assert_int_equal(n, 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_the_donor_can_do_is_what_is_advertised),
		TEST(another_export_name_is_refused),
		TEST(a_reader_may_not_write),
		TEST(several_clients_verify_their_data_with_losses),
		TEST(requests_wait_for_buffers),
		TEST(zeroes_and_allocation),
		TEST(what_a_dead_client_left_is_never_written_later),
		TEST(a_new_client_waits_for_what_a_dead_one_left),
		TEST(users_are_named),
		TEST(a_socket_in_use_is_not_taken_over_and_a_stale_one_is),
		TEST(clients_that_hang_up_anywhere_disturb_nobody),
		TEST(who_takes_nothing_does_not_starve_others),
		TEST(a_paused_client_alone_is_left_alone),
		TEST(who_never_asks_is_hung_up_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
