/* SPDX-License-Identifier: MIT */
/* The choke point's bookkeeping, over a transport that does what the test says. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/key/key.h"
#include "fabric/transport.h"

static struct {
	struct tp tp;
	struct tp_conn conn;
	struct tp_op *posted[8], *to_complete[8];
	unsigned nr_posted, nr_to_complete, nr_shutdowns, takes;
} stub;

static int stub_open(const void *config, struct tp **ret, struct weft_error *err)
{
	memset(&stub, 0, sizeof(stub));
	stub.takes = 8;
	*ret = &stub.tp;
	return 0;
}

static void stub_close(struct tp *tp)
{
}

static int stub_reg(struct tp *tp, struct tp_mem *mem, struct weft_error *err)
{
	return 0;
}

static void stub_dereg(struct tp_mem *mem)
{
}

static int stub_connect(struct tp *tp, const struct tp_target *target, struct tp_conn **ret,
	struct weft_error *err)
{
	stub.conn.info = (struct tp_info){.size_bytes = 4096,
		.max_io_bytes = 4096,
		.min_block_bytes = 1,
		.depth = 4};
	stub.conn.state = TP_READY;
	*ret = &stub.conn;
	return 0;
}

static void stub_shutdown(struct tp_conn *conn)
{
	stub.nr_shutdowns++;
}

static void stub_disconnect(struct tp_conn *conn)
{
}

static int stub_post(struct tp_conn *conn, struct tp_op *const *ops, unsigned n)
{
	if (n > stub.takes)
		n = stub.takes;
	for (unsigned i = 0; i < n; i++)
		stub.posted[stub.nr_posted++] = ops[i];
	return n ? (int)n : -EAGAIN;
}

static int stub_progress(struct tp_conn *conn, struct tp_op **done, unsigned max)
{
	unsigned n = stub.nr_to_complete;

	for (unsigned i = 0; i < n; i++) {
		done[i] = stub.to_complete[i];
		done[i]->status = 0;
	}
	stub.nr_to_complete = 0;
	return (int)n;
}

static int stub_event_fd(struct tp_conn *conn)
{
	return -1;
}

static int stub_arm(struct tp_conn *conn)
{
	return 0;
}

static const struct tp_ops stub_ops = {
	.name = "stub",
	.open = stub_open,
	.close = stub_close,
	.reg = stub_reg,
	.dereg = stub_dereg,
	.connect = stub_connect,
	.shutdown = stub_shutdown,
	.disconnect = stub_disconnect,
	.post = stub_post,
	.progress = stub_progress,
	.event_fd = stub_event_fd,
	.arm = stub_arm,
};

static struct tp *tp;
static struct tp_mem *mem;
static struct tp_conn *conn;
static uint8_t buf[4096];

static int setup(void **state)
{
	const struct tp_target target = {.host = "h", .region = "r", .hello.anonymous = true};

	assert_int_equal(tp_open(&stub_ops, NULL, &tp, NULL), 0);
	assert_int_equal(tp_register(tp, buf, sizeof(buf), &mem, NULL), 0);
	assert_int_equal(tp_connect(tp, &target, &conn, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	tp_disconnect(conn);
	assert_int_equal(tp_deregister(mem), 0);
	tp_close(tp);
	return 0;
}

static void complete(struct tp_op *op)
{
	struct tp_op *done[8];

	stub.to_complete[stub.nr_to_complete++] = op;
	tp_progress(conn, done, 8);
}

static void reads(struct tp_op *ops, struct tp_op **list, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		ops[i] = (struct tp_op){.kind = TP_READ, .len = 512, .buf = buf, .mem = mem};
		list[i] = &ops[i];
	}
}

static void a_key_is_never_left_out_in_silence(void **state)
{
	const struct weft_key key = {.identity = "node7"};
	struct tp_target target = {
		.host = "h", .region = "r", .hello.anonymous = true, .key = &key};
	struct weft_error err;

	assert_int_equal(tp_connect(tp, &target, &conn, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.message, "over stub with the key 'node7'"));
	target.key = NULL;
	target.certificates = "/etc/pki/weft";
	assert_int_equal(tp_connect(tp, &target, &conn, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.message, "over stub with the certificates of /etc/pki/weft"));
}

static void what_a_transport_did_not_take_stays_the_callers(void **state)
{
	struct tp_op ops[4], *list[4];

	reads(ops, list, 4);
	stub.takes = 3;
	assert_int_equal(tp_post(conn, list, 4), 3);
	assert_int_equal(conn->nr_outstanding, 3);
	assert_int_equal(mem->nr_borrowed, 3);
	stub.takes = 0;
	assert_int_equal(tp_post(conn, list + 3, 1), -EAGAIN);
	stub.takes = 1;
	assert_int_equal(tp_post(conn, list + 3, 1), 1);
	assert_int_equal(tp_post(conn, list + 3, 1), -EAGAIN); /* full; not looked at */
	for (unsigned i = 0; i < 4; i++)
		complete(&ops[i]);
	assert_int_equal(conn->nr_outstanding, 0);
	assert_int_equal(mem->nr_borrowed, 0);
}

static void a_completed_operation_may_be_posted_again(void **state)
{
	struct tp_op op, *list[1];

	reads(&op, list, 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(tp_post(conn, list, 1), 1);
		complete(&op);
	}
}

static void the_first_error_is_kept(void **state)
{
	tp_conn_fail(conn, ETIMEDOUT, "first %d", 1);
	tp_conn_fail(conn, ESTALE, "second");
	assert_int_equal(conn->error, -ETIMEDOUT);
	assert_string_equal(conn->why.message, "first 1");
	tp_shutdown(conn);
	assert_int_equal(conn->error, -ETIMEDOUT);
	assert_int_equal(stub.nr_shutdowns, 0); /* it has failed by itself */
}

static void undone_operations_say_why_as_far_as_it_is_known(void **state)
{
	static const struct {
		int code, status;
	} cases[] = {{ECANCELED, -ECANCELED}, {ESTALE, -ESTALE}, {ETIMEDOUT, -ETIMEDOUT},
		{EPROTO, -ENOTCONN}, {ECONNRESET, -ENOTCONN}, {ENOTCONN, -ENOTCONN}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		conn->state = TP_READY;
		tp_conn_fail(conn, cases[i].code, "x");
		assert_int_equal(tp_conn_op_status(conn), cases[i].status);
	}
}

/* Our own mistakes end the process: they must not become wrong data. */
static void expect_abort(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_return_code(pid, 0);
	if (pid == 0) {
		const struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void post_twice(void)
{
	struct tp_op op, *list[1];

	reads(&op, list, 1);
	tp_post(conn, list, 1);
	tp_post(conn, list, 1);
}

static void post_twice_in_a_batch(void)
{
	struct tp_op op, *list[2];

	reads(&op, list, 1);
	list[1] = list[0];
	tp_post(conn, list, 2);
}

static void complete_twice(void)
{
	struct tp_op ops[2], *list[2];

	reads(ops, list, 2);
	tp_post(conn, list, 2);
	complete(&ops[0]);
	complete(&ops[0]);
}

static void complete_unposted(void)
{
	struct tp_op op, *list[1];

	reads(&op, list, 1);
	complete(&op);
}

static void disconnect_with_work(void)
{
	struct tp_op op, *list[1];

	reads(&op, list, 1);
	tp_post(conn, list, 1);
	tp_disconnect(conn);
}

static void close_with_memory(void)
{
	tp_close(tp);
}

static void our_own_mistakes_abort(void **state)
{
	expect_abort(post_twice);
	expect_abort(post_twice_in_a_batch);
	expect_abort(complete_twice);
	expect_abort(complete_unposted);
	expect_abort(disconnect_with_work);
	expect_abort(close_with_memory);
}

#define tp_case(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		tp_case(a_key_is_never_left_out_in_silence),
		tp_case(what_a_transport_did_not_take_stays_the_callers),
		tp_case(a_completed_operation_may_be_posted_again),
		tp_case(the_first_error_is_kept),
		tp_case(undone_operations_say_why_as_far_as_it_is_known),
		tp_case(our_own_mistakes_abort),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
