/* SPDX-License-Identifier: MIT */
/* Conformance: connections begin and end; operations in flight end with them, each exactly once. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/suite.h"

static void shutdown_completes_what_is_in_flight(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	unsigned nr = (unsigned)weft_min(conn->info.depth, 64);
	uint64_t len = weft_min(conn->info.max_io_bytes, 65536);
	struct conf_op *ops = test_calloc(nr, sizeof(*ops));
	unsigned nr_canceled = 0;

	for (unsigned i = 0; i < nr; i++) {
		conf_op(conf, &ops[i], i % 2 ? TP_READ : TP_WRITE, (i * len) % conf->size_bytes,
			len, conf->buf + i * len);
		conf_post(conn, &ops[i]);
	}
	tp_shutdown(conn);
	tp_shutdown(conn); /* twice is once */
	assert_int_equal(tp_state(conn), TP_FAILED);
	assert_int_equal(conn->error, -ECANCELED);
	conf_drain(conn);
	for (unsigned i = 0; i < nr; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		if (ops[i].op.status == -ECANCELED)
			nr_canceled++;
		else
			assert_int_equal(ops[i].op.status, 0);
	}
	assert_true(nr_canceled > 0);
	assert_int_equal(conf_pump(&conn, 1), 0); /* and nothing more ever */
	tp_disconnect(conn);
	test_free(ops);
}

static void memory_in_use_is_not_deregistered(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t block = conn->info.min_block_bytes;
	struct tp_mem *mem;
	struct conf_op op;

	assert_int_equal(tp_register(conf->tp, conf->buf, 65536, &mem, NULL), 0);
	conf_op(conf, &op, TP_READ, 0, block, conf->buf);
	op.op.mem = mem;
	/* Operations are in flight until tp_progress() says otherwise. */
	assert_int_equal(conf_post_one(conn, &op), 1);
	assert_int_equal(tp_deregister(mem), -EBUSY);
	conf_drain(conn);
	assert_int_equal(op.op.status, 0);
	/* What ends by a shutdown is in use until then too. */
	conf_op(conf, &op, TP_READ, 0, block, conf->buf);
	op.op.mem = mem;
	assert_int_equal(conf_post_one(conn, &op), 1);
	tp_shutdown(conn);
	assert_int_equal(tp_deregister(mem), -EBUSY);
	conf_drain(conn);
	assert_int_equal(op.nr_done, 1);
	assert_int_equal(tp_deregister(mem), 0);
	tp_disconnect(conn);
}

static void a_connection_can_be_given_up_while_it_connects(void **state)
{
	struct conf *conf = *state;

	for (int i = 0; i < 20; i++) {
		struct tp_conn *conn;
		uint64_t start = weft_now_ns();

		assert_int_equal(tp_connect(conf->tp, &conf->target, &conn, NULL), 0);
		for (int k = 0; k < i % 4; k++)
			tp_progress(conn, NULL, 0);
		tp_shutdown(conn);
		assert_int_equal(conn->error, -ECANCELED);
		assert_true(weft_now_ns() - start < 5 * UINT64_C(1000000000));
		tp_disconnect(conn);
	}
}

static void connections_come_and_go(void **state)
{
	struct conf *conf = *state;

	for (unsigned i = 0; i < 30; i++) {
		struct tp_conn *conn = conf_connect(conf, &conf->target);

		conf_fill(conf->buf, 0, 4096, i);
		assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 4096, conf->buf), 0);
		conf_end(conn);
		conn = conf_connect(conf, &conf->target);
		memset(conf->buf, 0, 4096);
		assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 4096, conf->buf), 0);
		conf_check(conf->buf, 0, 4096, i);
		conf_end(conn);
	}
}

static void progress_gives_no_more_than_asked_for(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	unsigned nr = (unsigned)weft_min(conn->info.depth, 16), got = 0;
	uint64_t end = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	uint64_t block = conn->info.min_block_bytes;
	struct conf_op ops[16];

	for (unsigned i = 0; i < nr; i++) {
		conf_op(conf, &ops[i], TP_READ, 0, block, conf->buf + i * block);
		conf_post(conn, &ops[i]);
	}
	while (got < nr && weft_now_ns() < end) {
		struct tp_op *done[3];
		int n;

		/* What is left over must be told by arm: the peer sends nothing more. */
		n = tp_progress(conn, done, 3);
		assert_in_range(n, 0, 3);
		got += (unsigned)n;
		if (n == 0)
			conf_pump(&conn, 0); /* nothing: the next round asks again */
	}
	assert_int_equal(got, nr);
	conf_end(conn);
}

/*
 * Takes what nr operations complete, one at a time, and waits whenever arm says that there is
 * something to wait for.  Returns how often arm told of something left over, behind one that was
 * taken.
 */
static unsigned take_one_by_one(struct tp_conn *conn, unsigned nr)
{
	uint64_t end = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	unsigned got = 0, nr_told = 0;

	while (got < nr) {
		struct tp_op *done[1];
		int n = tp_progress(conn, done, 1);

		assert_true(weft_now_ns() < end);
		assert_in_range(n, 0, 1);
		if (n == 1) {
			((struct conf_op *)done[0])->nr_done++;
			got++;
		}
		int events = tp_arm(conn);

		if (events == 0)
			nr_told += (unsigned)n;
		else if (got < nr)
			assert_int_equal(poll(&(struct pollfd){.fd = tp_event_fd(conn),
						      .events = (short)events},
						 1, CONF_BOUND_MS),
				1);
	}
	return nr_told;
}

static bool waits_for_something(void *ctx)
{
	struct tp_op *done[1];

	assert_int_equal(tp_progress(ctx, done, 1), 0);
	return tp_arm(ctx) != 0;
}

static void what_is_left_over_is_told_by_arm(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	unsigned nr = (unsigned)weft_min(conn->info.depth, 16), nr_told = 0;
	uint64_t end = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	uint64_t block = conn->info.min_block_bytes;
	struct conf_op ops[16];

	assert_true(nr > 1);
	conf_fill(conf->buf, 0, nr * block, 21);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, nr * block, conf->buf), 0);
	/* Until several came at once, so that there was something left over. */
	while (nr_told == 0) {
		assert_true(weft_now_ns() < end);
		memset(conf->buf, 0, nr * block);
		for (unsigned i = 0; i < nr; i++) {
			conf_op(conf, &ops[i], TP_READ, i * block, block, conf->buf + i * block);
			assert_int_equal(conf_post_one(conn, &ops[i]), 1);
		}
		nr_told = take_one_by_one(conn, nr);
		for (unsigned i = 0; i < nr; i++) {
			assert_int_equal(ops[i].nr_done, 1);
			assert_int_equal(ops[i].op.status, 0);
		}
		conf_check(conf->buf, 0, nr * block, 21);
	}
	/* And where nothing is, arm does not say that there is. */
	for (unsigned i = 0; !waits_for_something(conn); i++)
		assert_true(i < 1000);
	conf_end(conn);
}

static void an_unknown_region_is_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct weft_error why;

	target.region = "there-is-no-such-region";
	int r = conf_refused(conf, &target, &why);
	if (r == 0)
		conf_skip("%s serves any name", conf->fixture->name);
	assert_int_equal(r, -ENOENT);
}

static void targets_that_make_no_sense_are_refused_at_once(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;
	struct tp_conn *conn = NULL;
	struct weft_error err;

	target.hello.anonymous = false;
	target.hello.generation = 0;
	assert_int_equal(tp_connect(conf->tp, &target, &conn, &err), -EINVAL);
	target.hello.generation = 1;
	strcpy(target.hello.name, "no spaces");
	assert_int_equal(tp_connect(conf->tp, &target, &conn, &err), -EINVAL);
	strcpy(target.hello.name, "");
	assert_int_equal(tp_connect(conf->tp, &target, &conn, &err), -EINVAL);
	strcpy(target.hello.name, "fine");
	char *name = test_malloc(5000);
	memset(name, 'a', 4999);
	name[4999] = '\0';
	target.region = name;
	assert_int_equal(tp_connect(conf->tp, &target, &conn, &err), -EINVAL);
	test_free(name);
	assert_null(conn);
}

struct conf_cases conf_life_cases(void)
{
	static const struct CMUnitTest tests[] = {
		conf_case(shutdown_completes_what_is_in_flight),
		conf_case(memory_in_use_is_not_deregistered),
		conf_case(a_connection_can_be_given_up_while_it_connects),
		conf_case(connections_come_and_go),
		conf_case(progress_gives_no_more_than_asked_for),
		conf_case(what_is_left_over_is_told_by_arm),
		conf_case(an_unknown_region_is_refused),
		conf_case(targets_that_make_no_sense_are_refused_at_once),
	};

	return (struct conf_cases){tests, WEFT_ARRAY_LEN(tests)};
}
