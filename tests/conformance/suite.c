/* SPDX-License-Identifier: MIT */
/* The conformance suite's ground: peers, connections, waiting.  Single-threaded, as a lane is. */
#include "tests/conformance/suite.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/util.h"
#include "tests/support/entries.h"

static const struct conf_fixture *fixture;

int conf_setup(void **state)
{
	struct conf *conf = calloc(1, sizeof(*conf));
	struct weft_error err = {0};

	assert_non_null(conf);
	conf->fixture = fixture;
	conf->nr_fds = count_entries("/proc/self/fd");
	conf->target = (struct tp_target){
		.region = "r",
		.hello = {.generation = UINT64_C(1) << 32,
			.mode = WEFT_MODE_WRITE,
			.name = "suite"},
		.connect_timeout_ms = 10000,
	};
	memset(conf->target.hello.id, 0x11, WEFT_ID_BYTES);
	fixture->start(conf);
	conf->buf = mmap(NULL, CONF_BUF_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	assert_ptr_not_equal(conf->buf, MAP_FAILED);
	if (tp_open(conf->ops, conf->config, &conf->tp, &err) < 0 ||
		tp_register(conf->tp, conf->buf, CONF_BUF_BYTES, &conf->mem, &err) < 0)
		fail_msg("%s", err.message);
	*state = conf;
	return 0;
}

int conf_teardown(void **state)
{
	struct conf *conf = *state;
	uint64_t end = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	int nr_fds;

	/*
	 * A case that failed has left its connections: tp_close() would end the program before its
	 * message is printed.
	 */
	if (conf->tp->nr_conns > 0)
		return -1;
	assert_int_equal(tp_deregister(conf->mem), 0);
	tp_close(conf->tp);
	munmap(conf->buf, CONF_BUF_BYTES);
	fixture->stop(conf);
	/* A peer's thread may still be about to close its end. */
	while ((nr_fds = count_entries("/proc/self/fd")) != conf->nr_fds && weft_now_ns() < end)
		poll(NULL, 0, 5);
	assert_int_equal(nr_fds, conf->nr_fds);
	free(conf);
	return 0;
}

int conf_pump(struct tp_conn *const *conns, unsigned n)
{
	struct tp_op *done[32];
	struct pollfd fds[16];
	bool work = false;
	int total = 0;

	assert_true(n <= 16);
	for (unsigned i = 0; i < n; i++) {
		enum tp_state before = tp_state(conns[i]);
		int nr = tp_progress(conns[i], done, 32);

		for (int k = 0; k < nr; k++)
			((struct conf_op *)done[k])->nr_done++;
		total += nr;
		if (tp_state(conns[i]) != before)
			work = true; /* what the caller may be waiting for */
	}
	if (total > 0 || work)
		return total;
	for (unsigned i = 0; i < n; i++) {
		int events = tp_arm(conns[i]);

		fds[i].fd = tp_event_fd(conns[i]);
		fds[i].events = (short)events;
		if (events == 0)
			work = true;
	}
	/* Now and then without an event, so that a peer's own clock can be looked at. */
	if (!work)
		poll(fds, n, 100);
	return 0;
}

void conf_pump_until(struct tp_conn *const *conns, unsigned n, bool (*cond)(void *ctx), void *ctx)
{
	uint64_t end = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);

	while (!cond(ctx)) {
		if (weft_now_ns() > end)
			fail_msg("waited %d ms in vain", CONF_BOUND_MS);
		conf_pump(conns, n);
	}
}

static bool is_settled(void *ctx)
{
	return tp_state(ctx) != TP_CONNECTING;
}

static bool is_idle(void *ctx)
{
	return ((struct tp_conn *)ctx)->nr_outstanding == 0;
}

static bool has_room(void *ctx)
{
	const struct tp_conn *conn = ctx;

	return conn->state != TP_READY || conn->nr_outstanding < conn->info.depth;
}

struct tp_conn *conf_try(struct conf *conf, const struct tp_target *target)
{
	struct weft_error err = {0};
	struct tp_conn *conn;

	if (tp_connect(conf->tp, target, &conn, &err) < 0)
		fail_msg("cannot even start: %s", err.message);
	conf_pump_until(&conn, 1, is_settled, conn);
	return conn;
}

struct tp_conn *conf_connect(struct conf *conf, const struct tp_target *target)
{
	struct tp_conn *conn = conf_try(conf, target);

	if (tp_state(conn) != TP_READY)
		fail_msg("not ready: %s", conn->why.message);
	return conn;
}

int conf_refused(struct conf *conf, const struct tp_target *target, struct weft_error *why)
{
	struct tp_conn *conn = conf_try(conf, target);
	int code;

	if (tp_state(conn) == TP_READY) {
		conf_end(conn);
		return 0;
	}
	code = conn->error;
	assert_int_equal(conn->why.code, -code);
	assert_true(strlen(conn->why.message) > 0);
	if (why)
		*why = conn->why;
	conf_end(conn);
	return code;
}

void conf_drain(struct tp_conn *conn)
{
	conf_pump_until(&conn, 1, is_idle, conn);
}

void conf_end(struct tp_conn *conn)
{
	if (!conn)
		return;
	tp_shutdown(conn);
	conf_drain(conn);
	tp_disconnect(conn);
}

void conf_op(struct conf *conf, struct conf_op *op, enum tp_op_kind kind, uint64_t off,
	uint64_t len, void *buf)
{
	*op = (struct conf_op){.op = {.kind = kind, .off = off, .len = len, .buf = buf,
				       .mem = buf ? conf->mem : NULL, .status = 77}};
}

int conf_post_one(struct tp_conn *conn, struct conf_op *op)
{
	struct tp_op *ops[1] = {&op->op};

	return tp_post(conn, ops, 1);
}

void conf_post(struct tp_conn *conn, struct conf_op *op)
{
	int r;

	while ((r = conf_post_one(conn, op)) == -EAGAIN)
		conf_pump_until(&conn, 1, has_room, conn);
	assert_int_equal(r, 1);
}

static bool is_done(void *ctx)
{
	return ((struct conf_op *)ctx)->nr_done > 0;
}

int conf_do(struct conf *conf, struct tp_conn *conn, enum tp_op_kind kind, unsigned flags,
	uint64_t off, uint64_t len, void *buf)
{
	struct conf_op op;
	int r;

	conf_op(conf, &op, kind, off, len, buf);
	op.op.flags = (uint8_t)flags;
	r = conf_post_one(conn, &op);
	if (r < 0)
		return r;
	conf_pump_until(&conn, 1, is_done, &op);
	assert_int_equal(op.nr_done, 1);
	return op.op.status;
}

uint64_t conf_random(uint64_t *seed)
{
	/* splitmix64 */
	uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint8_t pattern(uint64_t off, uint64_t stamp)
{
	return (uint8_t)((off * 7) ^ (off >> 8) ^ (off >> 16) ^ (stamp * 0x3b) ^ 0xa5);
}

void conf_fill(uint8_t *buf, uint64_t off, size_t len, uint64_t stamp)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(off + i, stamp);
}

void conf_check(const uint8_t *buf, uint64_t off, size_t len, uint64_t stamp)
{
	for (size_t i = 0; i < len; i++)
		if (buf[i] != pattern(off + i, stamp))
			fail_msg("byte %zu of %zu at offset %ju is %#x, not %#x", i, len,
				(uintmax_t)off, buf[i], pattern(off + i, stamp));
}

int conf_run(const struct conf_fixture *fx, const struct CMUnitTest *own, size_t nr_own)
{
	const struct conf_cases all[] = {conf_data_cases(), conf_misuse_cases(), conf_life_cases(),
		conf_session_cases(fx), {own, nr_own}};
	struct CMUnitTest tests[128];
	size_t nr = 0;

	fixture = fx;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(all); i++) {
		assert(nr + all[i].nr <= WEFT_ARRAY_LEN(tests));
		if (all[i].nr > 0)
			memcpy(tests + nr, all[i].tests, all[i].nr * sizeof(tests[0]));
		nr += all[i].nr;
	}
	return _cmocka_run_group_tests(fx->name, tests, nr, NULL, NULL);
}

int conf_run_own(const struct conf_fixture *fx, const struct CMUnitTest *own, size_t nr_own)
{
	fixture = fx;
	return _cmocka_run_group_tests(fx->name, own, nr_own, NULL, NULL);
}
