/* SPDX-License-Identifier: MIT */
/* The donor's NBD listener: connections, fences, ends. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "fabric/base/util.h"
#include "tests/support/nbd-donor.h"

enum { SIZE = 16 << 20 };

static uint8_t data[4 << 20];

static int set_up(void **state)
{
	static struct nbd_donor d;

	nbd_donor_start(&d, SIZE, NULL, 0);
	*state = &d;
	return 0;
}

static int tear_down(void **state)
{
	nbd_donor_end(*state);
	return 0;
}

static struct weft_listener_status status(struct nbd_donor *d)
{
	struct weft_listener_status s;

	nbd_listener_status(d->listener, &s);
	return s;
}

static void wait_for_connections(struct nbd_donor *d, uint64_t n)
{
	for (int i = 0; status(d).connections != n; i++) {
		assert_true(i < 10000);
		usleep(1000);
	}
}

static void goodbye(struct nbd_raw *raw)
{
	nbd_raw_request(raw, 0, NBD_CMD_DISC, 0, 0, 0);
	assert_true(nbd_raw_ended(raw));
	nbd_raw_close(raw);
}

static void memory_is_served_over_tcp_and_unix(void **state)
{
	struct nbd_donor *d = *state;

	for (int tcp = 0; tcp < 2; tcp++) {
		struct nbd_raw raw;

		nbd_donor_connect(d, &raw, tcp);
		assert_int_equal(nbd_raw_go(&raw, "m", true), 0);
		memset(data, 'a' + tcp, sizeof(data));
		assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_WRITE, 5000, sizeof(data), data),
			0);
		assert_memory_equal(d->region->map + 5000, data, sizeof(data));
		memset(data, 0, sizeof(data));
		assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_READ, 5000, sizeof(data), data),
			0);
		assert_memory_equal(d->region->map + 5000, data, sizeof(data));
		assert_int_equal(nbd_raw_command(&raw, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE_ZEROES, 0,
					 SIZE, data),
			0);
		assert_int_equal(d->region->map[5000], 0);
		assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_FLUSH, 0, 0, data), 0);
		assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_CACHE, 0, SIZE, data), 0);
		assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_TRIM, 0, SIZE, data), 0);
		goodbye(&raw);
	}
	assert_int_equal(status(d).requests, 2 * 6);
	assert_int_equal(status(d).written_bytes, 2 * sizeof(data));
	assert_int_equal(status(d).accepted, 2);
}

static void file_errors_are_replies(void **state)
{
	struct nbd_donor *d = *state;
	struct weft_region *region;
	struct nbd_raw raw;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/file", d->dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	assert_int_equal(weft_region_open_file(AT_FDCWD, path, "f", false, false, &region, NULL),
		0);
	assert_int_equal(weft_donor_add(d->donor, region, NULL), 0);
	weft_region_put(region);
	nbd_donor_connect(d, &raw, false);
	assert_int_equal(nbd_raw_go(&raw, "f", true), 0);
	memset(data, 'f', sizeof(data));
	assert_int_equal(nbd_raw_command(&raw, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 4096, sizeof(data),
				 data),
		0);
	memset(data, 0, sizeof(data));
	assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_READ, 4096, sizeof(data), data), 0);
	assert_int_equal(data[sizeof(data) - 1], 'f');
	/* Many at once, more than the buffers kept. */
	for (uint64_t i = 0; i < 64; i++)
		nbd_raw_request(&raw, 0, NBD_CMD_READ, i, 4096 + i, 100000);
	for (uint64_t i = 0; i < 64; i++) {
		struct nbd_raw_answer a;

		assert_int_equal(nbd_raw_answer(&raw, &a, data, 100000), 0);
		assert_int_equal(a.cookie, i);
		assert_int_equal(data[0], 'f');
	}
	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_READ, 16384, 4096, data), NBD_EIO);
	assert_int_equal(nbd_raw_command(&raw, 0, NBD_CMD_READ, 4096, 4096, data), 0);
	goodbye(&raw);
	close(fd);
	unlink(path);
}

/* A file region "f" of the donor's, SIZE bytes; returns a descriptor of the file. */
static int add_file(struct nbd_donor *d, char *path, size_t len)
{
	struct weft_region *region;

	snprintf(path, len, "%s/file", d->dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	assert_int_equal(weft_region_open_file(AT_FDCWD, path, "f", false, false, &region, NULL),
		0);
	assert_int_equal(weft_donor_add(d->donor, region, NULL), 0);
	weft_region_put(region);
	return fd;
}

/*
 * What fails in the middle of a long request is an error of that request, whatever form its reply
 * has.
 */
static void late_file_errors_are_replies(void **state)
{
	enum { LONG = 3 << 20 };
	struct nbd_donor *d = *state;
	struct nbd_raw structured, simple;
	char path[128];
	int fd = add_file(d, path, sizeof(path));
	struct rlimit limit;

	nbd_donor_connect(d, &structured, true);
	assert_int_equal(nbd_raw_go(&structured, "f", true), 0);
	nbd_donor_connect(d, &simple, true);
	assert_int_equal(nbd_raw_go(&simple, "f", false), 0);
	for (size_t i = 0; i < LONG; i++)
		data[i] = (uint8_t)(i * 7 + i / 4096);
	assert_int_equal(nbd_raw_command(&simple, 0, NBD_CMD_WRITE, 4097, LONG, data), 0);
	struct nbd_raw *raws[] = { &structured, &simple };
	for (int i = 0; i < 2; i++) {
		memset(data, 0, LONG);
		assert_int_equal(nbd_raw_command(raws[i], 0, NBD_CMD_READ, 4097, LONG, data), 0);
		for (size_t j = 0; j < LONG; j++)
			assert_int_equal(data[j], (uint8_t)(j * 7 + j / 4096));
	}
	/* One chunk, as long as it may be. */
	memset(data, 0, LONG);
	assert_int_equal(nbd_raw_request(&structured, NBD_CMD_FLAG_DF, NBD_CMD_READ, 5, 4097, LONG),
		0);
	struct nbd_raw_answer a;
	assert_int_equal(nbd_raw_answer(&structured, &a, data, LONG), 0);
	assert_true(a.done);
	assert_int_equal(data[LONG - 1], (uint8_t)((LONG - 1) * 7 + (LONG - 1) / 4096));

	/* What comes behind it is answered behind it. */
	for (int i = 0; i < 2; i++) {
		uint32_t got = 0;

		nbd_raw_request(raws[i], 0, NBD_CMD_READ, 1, 4097, LONG);
		nbd_raw_request(raws[i], 0, NBD_CMD_FLUSH, 2, 0, 0);
		nbd_raw_request(raws[i], 0, NBD_CMD_FLUSH, 3, 0, 0);
		nbd_raw_request(raws[i], 0, NBD_CMD_READ, 4, 4097, 100);
		do {
			assert_int_equal(nbd_raw_answer(raws[i], &a, data + got, LONG - got), 0);
			assert_int_equal(a.cookie, 1);
			got += a.len - 8;
		} while (!a.done);
		for (uint64_t cookie = 2; cookie <= 4; cookie++) {
			assert_int_equal(nbd_raw_answer(raws[i], &a, data, cookie == 4 ? 100 : 0),
				0);
			assert_int_equal(a.cookie, cookie);
			assert_int_equal(a.error, 0);
		}
	}

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	const struct rlimit low = { 1 << 20, limit.rlim_max };
	setrlimit(RLIMIT_FSIZE, &low);
	for (int i = 0; i < 2; i++)
		assert_int_not_equal(nbd_raw_command(raws[i], 0, NBD_CMD_WRITE, 0, LONG, data), 0);
	setrlimit(RLIMIT_FSIZE, &limit);
	assert_int_equal(ftruncate(fd, 2 << 20), 0);
	assert_int_equal(nbd_raw_command(&structured, 0, NBD_CMD_READ, 0, LONG, data), NBD_EIO);
	assert_int_equal(nbd_raw_command(&structured, NBD_CMD_FLAG_DF, NBD_CMD_READ, 0, LONG, data),
		NBD_EIO);
	assert_int_equal(nbd_raw_command(&simple, 0, NBD_CMD_READ, 0, LONG, data), NBD_EIO);
	/* And they go on. */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(nbd_raw_command(raws[i], 0, NBD_CMD_READ, 0, 1 << 20, data), 0);
		goodbye(raws[i]);
	}
	close(fd);
	unlink(path);
}

static void unknown_region_is_refused(void **state)
{
	struct nbd_raw raw;
	char text[256];

	nbd_donor_connect(*state, &raw, true);
	assert_int_equal(nbd_donor_go(&raw, "m", 1, 1, NULL), NBD_REP_ACK);
	nbd_raw_close(&raw);
	nbd_donor_connect(*state, &raw, true);
	nbd_raw_hello(&raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	nbd_raw_option(&raw, NBD_OPT_GO, text, nbd_raw_info_data((uint8_t *)text, "nope", NULL, 0));
	assert_int_equal(nbd_raw_final(&raw, NBD_OPT_GO), NBD_REP_ERR_UNKNOWN);
	nbd_raw_close(&raw);
}

static void higher_generation_cuts_the_lower_off(void **state)
{
	struct nbd_raw old, new;
	char text[256];

	nbd_donor_connect(*state, &old, true);
	assert_int_equal(nbd_donor_go(&old, "m", 7, 1, NULL), NBD_REP_ACK);
	/* In the middle of a payload. */
	nbd_raw_request(&old, 0, NBD_CMD_WRITE, 1, 0, 1 << 20);
	nbd_raw_send(&old, data, 1000);
	nbd_donor_connect(*state, &new, false);
	assert_int_equal(nbd_donor_go(&new, "m", 7, 2, NULL), NBD_REP_ACK);
	assert_true(nbd_raw_ended(&old));
	assert_int_equal(nbd_raw_command(&new, 0, NBD_CMD_READ, 0, 512, data), 0);
	nbd_raw_close(&old);
	nbd_donor_connect(*state, &old, true);
	assert_int_equal(nbd_donor_go(&old, "m", 7, 1, text), NBD_REP_ERR_POLICY);
	assert_memory_equal(text, "OVER: ", 6);
	nbd_raw_close(&old);
	goodbye(&new);
}

static void second_writer_is_busy_until_goodbye(void **state)
{
	struct nbd_raw one, two;
	char text[256];

	nbd_donor_connect(*state, &one, true);
	assert_int_equal(nbd_donor_go(&one, "m", 1, 1, NULL), NBD_REP_ACK);
	nbd_donor_connect(*state, &two, true);
	assert_int_equal(nbd_donor_go(&two, "m", 2, 1, text), NBD_REP_ERR_POLICY);
	assert_memory_equal(text, "EBUSY: ", 7);
	nbd_raw_close(&two);
	goodbye(&one);
	wait_for_connections(*state, 0);
	nbd_donor_connect(*state, &two, true);
	assert_int_equal(nbd_donor_go(&two, "m", 2, 1, text), NBD_REP_ACK);
	goodbye(&two);
}

static void drain_cuts_off_who_does_not_read(void **state)
{
	struct nbd_donor *d = *state;
	struct nbd_raw raw, idle, shaking;
	struct nbd_raw_answer a;

	nbd_donor_connect(d, &raw, true);
	assert_int_equal(nbd_raw_go(&raw, "m", false), 0);
	nbd_donor_connect(d, &idle, false);
	assert_int_equal(nbd_raw_go(&idle, "m", false), 0);
	nbd_donor_connect(d, &shaking, false);
	/*
	 * Replies that do not fit into the socket: the thread is busy sending when the end comes.
	 */
	for (uint64_t i = 0; i < 16; i++)
		nbd_raw_request(&raw, 0, NBD_CMD_READ, i, 0, sizeof(data));
	assert_int_equal(nbd_raw_answer(&raw, &a, data, sizeof(data)), 0);
	assert_int_equal(nbd_donor_drain(d, 200), 0);
	assert_true(nbd_raw_ended(&idle));
	nbd_raw_hello(&shaking, 3);
	assert_true(nbd_raw_ended(&shaking));
	nbd_raw_close(&raw);
	nbd_raw_close(&idle);
	nbd_raw_close(&shaking);
}

static void *end_donor(void *d)
{
	nbd_donor_end(d);
	return NULL;
}

static void drain_waits_for_slow_readers(void **state)
{
	struct nbd_donor *d = *state;
	struct nbd_raw raw;
	struct nbd_raw_answer a;
	pthread_t thread;

	nbd_donor_connect(d, &raw, false);
	assert_int_equal(nbd_raw_go(&raw, "m", false), 0);
	for (uint64_t i = 0; i < 8; i++)
		nbd_raw_request(&raw, 0, NBD_CMD_READ, i, 0, sizeof(data));
	assert_int_equal(nbd_raw_answer(&raw, &a, data, sizeof(data)), 0);
	assert_int_equal(pthread_create(&thread, NULL, end_donor, d), 0);
	for (uint64_t i = 1; i < 8; i++) {
		assert_int_equal(nbd_raw_answer(&raw, &a, data, sizeof(data)), 0);
		assert_int_equal(a.cookie, i);
	}
	assert_true(nbd_raw_ended(&raw));
	pthread_join(thread, NULL);
	nbd_raw_close(&raw);
	set_up(state);
}

static void too_many_connections_are_refused(void **state)
{
	const struct nbd_listener_config config = { .max_connections = 3 };
	struct nbd_raw raw[4];
	char text[256];
	struct nbd_donor d;

	nbd_donor_start(&d, 1 << 20, &config, 0);
	for (int i = 0; i < 3; i++) {
		nbd_donor_connect(&d, &raw[i], i % 2);
		assert_int_equal(nbd_raw_go(&raw[i], "m", false), 0);
	}
	nbd_donor_connect(&d, &raw[3], true);
	assert_int_equal(nbd_donor_go(&raw[3], "m", 1, 1, text), NBD_REP_ERR_POLICY);
	assert_non_null(strstr(text, "EBUSY: this donor serves 3 connections"));
	assert_int_equal(status(&d).refused, 1);
	goodbye(&raw[0]);
	wait_for_connections(&d, 3);
	nbd_raw_close(&raw[3]);
	wait_for_connections(&d, 2);
	nbd_donor_connect(&d, &raw[3], true);
	assert_int_equal(nbd_raw_go(&raw[3], "m", false), 0);
	for (int i = 1; i < 4; i++)
		nbd_raw_close(&raw[i]);
	nbd_donor_end(&d);
}

static void an_attachment_that_is_known_is_never_one_too_many(void **state)
{
	const struct nbd_listener_config config = { .max_connections = 1 };
	struct nbd_raw first, second;
	struct nbd_donor d;

	nbd_donor_start(&d, 1 << 20, &config, 0);
	nbd_donor_connect(&d, &first, true);
	assert_int_equal(nbd_donor_go(&first, "m", 1, 1, NULL), NBD_REP_ACK);
	nbd_donor_connect(&d, &second, true);
	assert_int_equal(nbd_donor_go(&second, "m", 1, 2, NULL), NBD_REP_ACK);
	assert_true(nbd_raw_ended(&first));
	nbd_raw_close(&first);
	nbd_raw_close(&second);
	nbd_donor_end(&d);
}

/*
 * Whoever says nothing makes room, and costs no thread; whoever came before and said something
 * stays.
 */
static void silent_strangers_make_room(void **state)
{
	enum { STRANGERS = 8, CROWD = 50 };
	const struct nbd_listener_config config = { .max_strangers = STRANGERS };
	struct nbd_raw slow, crowd[CROWD];
	struct nbd_donor d;

	nbd_donor_start(&d, 1 << 20, &config, 0);
	nbd_donor_connect(&d, &slow, true);
	assert_int_equal(nbd_raw_hello(&slow, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES), 0);
	nbd_raw_option(&slow, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	assert_int_equal(nbd_raw_final(&slow, NBD_OPT_STRUCTURED_REPLY), NBD_REP_ACK);
	for (int i = 0; i < CROWD; i++)
		nbd_donor_connect(&d, &crowd[i], true);
	while (status(&d).strangers.entered < CROWD + 1)
		usleep(1000);
	assert_int_equal(status(&d).strangers.now, STRANGERS);
	assert_int_equal(status(&d).strangers.made_room, CROWD + 1 - STRANGERS);
	for (int i = 0; i < CROWD + 1 - STRANGERS; i++) {
		nbd_raw_hello(&crowd[i], 3);
		assert_true(nbd_raw_ended(&crowd[i]));
	}
	nbd_raw_option(&slow, NBD_OPT_LIST, NULL, 0);
	assert_int_equal(nbd_raw_final(&slow, NBD_OPT_LIST), NBD_REP_ACK);
	nbd_raw_close(&slow);
	/* Nobody's room is lost. */
	for (int i = 0; i < CROWD; i++)
		nbd_raw_close(&crowd[i]);
	wait_for_connections(&d, 0);
	assert_int_equal(status(&d).strangers.now, 0);
	nbd_donor_end(&d);
}

/* A grant, or an id that the donor knows, is the way out of the budget. */
static void friends_do_not_count_as_strangers(void **state)
{
	const struct nbd_listener_config config = { .max_strangers = 2 };
	struct weft_hello hello = { .generation = 2, .mode = WEFT_MODE_WRITE, .name = "test" };
	uint8_t option[WEFT_CONTEXT_MAX + 64];
	char query[WEFT_CONTEXT_MAX];
	const char *queries[] = { query };
	struct nbd_raw friend, again, crowd[20];
	struct nbd_donor d;

	nbd_donor_start(&d, 1 << 20, &config, 0);
	nbd_donor_connect(&d, &friend, true);
	assert_int_equal(nbd_donor_go(&friend, "m", 1, 1, NULL), NBD_REP_ACK);
	assert_int_equal(status(&d).strangers.now, 0);
	/* It is back, and slow: its hello is said, the rest is not. */
	nbd_donor_connect(&d, &again, true);
	memset(hello.id, 1, sizeof(hello.id));
	weft_hello_format(&hello, query);
	assert_int_equal(nbd_raw_hello(&again, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES),
		0);
	nbd_raw_option(&again, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	assert_int_equal(nbd_raw_final(&again, NBD_OPT_STRUCTURED_REPLY), NBD_REP_ACK);
	assert_int_equal(status(&d).strangers.now, 1);
	nbd_raw_option(&again, NBD_OPT_SET_META_CONTEXT, option,
		nbd_raw_context_data(option, "m", queries, 1));
	assert_int_equal(nbd_raw_final(&again, NBD_OPT_SET_META_CONTEXT), NBD_REP_ACK);
	assert_int_equal(status(&d).strangers.now, 0);
	for (int i = 0; i < 20; i++) {
		nbd_donor_connect(&d, &crowd[i], true);
		nbd_raw_hello(&crowd[i], 3);
	}
	while (status(&d).strangers.entered < 22)
		usleep(1000);
	nbd_raw_option(&again, NBD_OPT_GO, option, nbd_raw_info_data(option, "m", NULL, 0));
	assert_int_equal(nbd_raw_final(&again, NBD_OPT_GO), NBD_REP_ACK);
	assert_int_equal(nbd_raw_command(&again, 0, NBD_CMD_READ, 0, 512, data), 0);
	for (int i = 0; i < 20; i++)
		nbd_raw_close(&crowd[i]);
	nbd_raw_close(&friend);
	nbd_raw_close(&again);
	nbd_donor_end(&d);
}

static uint32_t ask_about(struct nbd_raw *raw, uint32_t opt)
{
	uint8_t option[64];

	nbd_raw_option(raw, opt, option, nbd_raw_info_data(option, "m", NULL, 0));
	return nbd_raw_final(raw, opt);
}

/* A client that asks about a hundred regions takes longer than one that asks about one. */
static void each_option_has_its_time(void **state)
{
	const struct nbd_listener_config config = { .handshake_ms = 500 };
	struct nbd_donor d;
	struct nbd_raw raw;

	nbd_donor_start(&d, 1 << 20, &config, 0);
	nbd_donor_connect(&d, &raw, true);
	uint64_t start_ns = weft_now_ns();
	assert_int_equal(nbd_raw_hello(&raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES), 0);
	while (weft_now_ns() - start_ns < UINT64_C(1500000000)) {
		assert_int_equal(ask_about(&raw, NBD_OPT_INFO), NBD_REP_ACK);
		usleep(50000);
	}
	assert_int_equal(ask_about(&raw, NBD_OPT_GO), NBD_REP_ACK);
	nbd_raw_close(&raw);
	nbd_donor_end(&d);
}

static void but_a_handshake_ends(void **state)
{
	const struct nbd_listener_config config = { .handshake_ms = 50 };
	struct nbd_donor d;
	struct nbd_raw raw;

	nbd_donor_start(&d, 1 << 20, &config, 0);
	nbd_donor_connect(&d, &raw, true);
	uint64_t start_ns = weft_now_ns();
	/* A busy machine may be late for the first step already. */
	while (nbd_raw_hello(&raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) != 0) {
		assert_in_range(weft_now_ns() - start_ns, 0, UINT64_C(20000000000));
		nbd_raw_close(&raw);
		nbd_donor_connect(&d, &raw, true);
	}
	do
		usleep(5000);
	while (ask_about(&raw, NBD_OPT_INFO) == NBD_REP_ACK);
	assert_in_range(weft_now_ns() - start_ns, 0, UINT64_C(20000000000));
	nbd_raw_close(&raw);
	nbd_donor_end(&d);
}

static void handshake_has_a_deadline(void **state)
{
	const struct nbd_listener_config config = { .handshake_ms = 200 };
	struct nbd_raw silent, slow, good;
	struct nbd_donor d;
	uint64_t start;

	nbd_donor_start(&d, 1 << 20, &config, 0);
	nbd_donor_connect(&d, &good, true);
	assert_int_equal(nbd_raw_go(&good, "m", false), 0);
	start = weft_now_ns();
	nbd_donor_connect(&d, &silent, true);
	nbd_donor_connect(&d, &slow, false);
	assert_int_equal(nbd_raw_hello(&slow, 3), 0);
	nbd_raw_send(&slow, "IHAVEOPT\0\0\0\3\0\0\1\0", 16);
	/* A byte now and then does not buy time. */
	while (nbd_raw_send(&slow, "I", 1) == 0) {
		usleep(20000);
		assert_true(weft_now_ns() - start < UINT64_C(20000000000));
		if (status(&d).connections == 1)
			break;
	}
	assert_true(weft_now_ns() - start >= 150000000);
	nbd_raw_hello(&silent, 3);
	assert_true(nbd_raw_ended(&silent));
	assert_int_equal(nbd_raw_command(&good, 0, NBD_CMD_READ, 0, 512, data), 0);
	nbd_raw_close(&silent);
	nbd_raw_close(&slow);
	nbd_raw_close(&good);
	nbd_donor_end(&d);
}

/*
 * A client that sends all it can before it reads anything: both sides would block for ever in
 * send(2).
 */
static void pipelining_without_reading_does_not_lock_up(void **state)
{
	enum { N = 32, LEN = 1 << 20 };
	struct nbd_raw raw;
	struct nbd_raw_answer a;

	nbd_donor_connect(*state, &raw, false);
	assert_int_equal(nbd_raw_go(&raw, "m", false), 0);
	for (uint64_t i = 0; i < N; i++) {
		assert_int_equal(nbd_raw_request(&raw, 0, NBD_CMD_READ, 2 * i, 0, LEN), 0);
		assert_int_equal(nbd_raw_request(&raw, 0, NBD_CMD_WRITE, 2 * i + 1, LEN, LEN), 0);
		assert_int_equal(nbd_raw_send(&raw, data, LEN), 0);
	}
	for (uint64_t i = 0; i < 2 * N; i++) {
		assert_int_equal(nbd_raw_answer(&raw, &a, data, i % 2 ? 0 : LEN), 0);
		assert_int_equal(a.cookie, i);
		assert_int_equal(a.error, 0);
	}
	goodbye(&raw);
}

static void a_million_requests_do_not_grow(void **state)
{
	enum { BATCH = 64 };
	const unsigned batches = 1000000 / BATCH;
	uint8_t requests[BATCH * NBD_REQUEST_BYTES];
	struct nbd_raw raw;
	uint64_t rss = 0;

	nbd_donor_connect(*state, &raw, false);
	assert_int_equal(nbd_raw_go(&raw, "m", false), 0);
	for (unsigned i = 0; i < BATCH; i++)
		nbd_pack_request(requests + i * NBD_REQUEST_BYTES,
			&(struct nbd_request_header){.type = i % 8 ? NBD_CMD_READ : NBD_CMD_FLUSH,
				.cookie = i,
				.off = i % 8 ? i * 4096 : 0,
				.len = i % 8 ? 512 : 0});
	for (unsigned n = 0; n < batches; n++) {
		assert_int_equal(nbd_raw_send(&raw, requests, sizeof(requests)), 0);
		assert_int_equal(nbd_raw_recv(&raw, data,
					 BATCH * NBD_SIMPLE_REPLY_BYTES + BATCH / 8 * 7 * 512),
			0);
		if (n == batches / 100)
			rss = rss_bytes();
	}
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	rss += 64 << 20; /* they keep what was freed */
#endif
	assert_in_range(rss_bytes(), 0, rss + (1 << 20));
	goodbye(&raw);
	assert_int_equal(status(*state).requests, batches * BATCH);
}

/* Clients that take in no replies, and clients that end no payload. */
static void stalled_clients_cost_little(void **state)
{
	enum { CLIENTS = 40, PART = 2 << 20 };
	struct nbd_donor *d = *state;
	struct nbd_raw raw[2 * CLIENTS];
	char path[128];
	int fd = add_file(d, path, sizeof(path));
	uint64_t before;

	/* The file's pages are in memory, and one of each has been there. */
	for (int i = 0; i < SIZE; i += (int)sizeof(data))
		assert_int_equal(pwrite(fd, data, sizeof(data), i), sizeof(data));
	before = rss_bytes();
	for (int i = 0; i < CLIENTS; i++) {
		nbd_donor_connect(d, &raw[i], true);
		assert_int_equal(nbd_raw_go(&raw[i], "f", i % 2), 0);
		nbd_raw_request(&raw[i], 0, NBD_CMD_READ, 1, 0, SIZE);
	}
	for (int i = CLIENTS; i < 2 * CLIENTS; i++) {
		nbd_donor_connect(d, &raw[i], true);
		assert_int_equal(nbd_raw_go(&raw[i], "f", true), 0);
		nbd_raw_request(&raw[i], 0, NBD_CMD_WRITE, 1, 0, SIZE);
		assert_int_equal(nbd_raw_send(&raw[i], data, PART), 0);
	}
	/* Until nothing moves any more. */
	for (uint64_t bytes = 1, was = 0; bytes != was; bytes = status(d).read_bytes) {
		was = bytes;
		usleep(300000);
	}
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	before += 200 << 20; /* the threads' own */
#endif
	assert_in_range(rss_bytes(), 0, before + (64 << 20));
	for (int i = 0; i < 2 * CLIENTS; i++)
		nbd_raw_close(&raw[i]);
	close(fd);
	unlink(path);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(memory_is_served_over_tcp_and_unix),
		T(file_errors_are_replies),
		T(late_file_errors_are_replies),
		T(unknown_region_is_refused),
		T(higher_generation_cuts_the_lower_off),
		T(second_writer_is_busy_until_goodbye),
		T(drain_cuts_off_who_does_not_read),
		T(drain_waits_for_slow_readers),
		cmocka_unit_test(too_many_connections_are_refused),
		cmocka_unit_test(an_attachment_that_is_known_is_never_one_too_many),
		cmocka_unit_test(silent_strangers_make_room),
		cmocka_unit_test(friends_do_not_count_as_strangers),
		cmocka_unit_test(each_option_has_its_time),
		cmocka_unit_test(but_a_handshake_ends),
		cmocka_unit_test(handshake_has_a_deadline),
		T(pipelining_without_reading_does_not_lock_up),
		T(a_million_requests_do_not_grow),
		T(stalled_clients_cost_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
