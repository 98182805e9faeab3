/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the transport "mem" over a plain buffer, and the cases that only it can stage:
 * order, faults and deaths on demand.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/suite.h"
#include "transports/mem/mem.h"

static void start(struct conf *conf)
{
	struct mem_config *config = test_calloc(1, sizeof(*config));

	config->size_bytes = CONF_REGION_BYTES;
	config->base = test_calloc(1, CONF_REGION_BYTES);
	config->epoch = 0x1234;
	config->region = "r";
	conf->peer = config;
	conf->config = config;
	conf->ops = &tp_mem_ops;
	conf->size_bytes = CONF_REGION_BYTES;
}

static void stop(struct conf *conf)
{
	struct mem_config *config = conf->peer;

	test_free(config->base);
	test_free(config);
}

enum { NR = 40, BLOCK = 4096 };

/* NR writes to blocks of their own, then NR reads of them; every completion is counted. */
static void workload(struct conf *conf, struct tp_conn *conn, struct conf_op *ops)
{
	for (unsigned i = 0; i < 2 * NR; i++) {
		unsigned block = i % NR;
		uint8_t *buf = conf->buf + i * BLOCK;

		if (i < NR)
			conf_fill(buf, block * BLOCK, BLOCK, 1);
		else
			memset(buf, 0, BLOCK);
		conf_op(conf, &ops[i], i < NR ? TP_WRITE : TP_READ, block * BLOCK, BLOCK, buf);
		if (i == NR && tp_state(conn) == TP_READY)
			conf_drain(conn);
		if (conf_post_one(conn, &ops[i]) < 0)
			ops[i].op.status = -ENOTCONN;
	}
	conf_drain(conn);
}

static void completions_out_of_order_come_once_each(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;
	struct conf_op ops[2 * NR];
	uint64_t seed = weft_now_ns() | 1;

	print_message("seed %ju\n", (uintmax_t)seed);
	config->reorder = seed;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	workload(conf, conn, ops);
	for (unsigned i = 0; i < 2 * NR; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		assert_int_equal(ops[i].op.status, 0);
		if (i >= NR)
			conf_check(ops[i].op.buf, ops[i].op.off, BLOCK, 1);
	}
	conf_end(conn);
}

static void reordering_does_reorder(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;
	struct conf_op ops[16];
	struct tp_op *done[16];
	unsigned in_order = 0;

	config->reorder = 4711;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	for (unsigned i = 0; i < 16; i++) {
		conf_op(conf, &ops[i], TP_READ, 0, 512, conf->buf + i * 512);
		conf_post(conn, &ops[i]);
	}
	assert_int_equal(tp_progress(conn, done, 16), 16);
	for (unsigned i = 0; i < 16; i++)
		in_order += done[i] == &ops[i].op;
	assert_true(in_order < 16);
	conf_end(conn);
}

static void a_delay_is_waited_for(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;
	uint64_t start_ns;

	config->delay_ns = 30000000;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	start_ns = weft_now_ns();
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 512, conf->buf), 0);
	assert_true(weft_now_ns() - start_ns >= 30000000);
	conf_end(conn);
}

/*
 * Fails the Nth operation for N = 1, 2, … until none fires: it alone fails, once, and has done
 * nothing.
 */
static void each_operation_may_fail(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;
	struct conf_op ops[2 * NR];

	for (uint64_t n = 1;; n++) {
		struct tp_conn *conn = conf_connect(conf, &conf->target);
		unsigned failed = 0;

		memset(config->base, 0, NR * BLOCK);
		config->nr_ops = 0;
		config->fail_error = n % 2 ? EIO : ENOSPC;
		config->fail_at = n;
		workload(conf, conn, ops);
		for (unsigned i = 0; i < 2 * NR; i++) {
			assert_int_equal(ops[i].nr_done, 1);
			if (ops[i].op.status == 0)
				continue;
			failed++;
			assert_int_equal(i, n - 1);
			assert_int_equal(ops[i].op.status, n % 2 ? -EIO : -ENOSPC);
		}
		for (unsigned i = NR; i < 2 * NR; i++)
			if (ops[i].op.status == 0 && ops[i - NR].op.status == 0)
				conf_check(ops[i].op.buf, ops[i].op.off, BLOCK, 1);
		assert_int_equal(tp_state(conn), TP_READY);
		conf_end(conn);
		if (failed == 0) {
			assert_int_equal(n, 2 * NR + 1);
			break;
		}
	}
}

/*
 * The same with the connection's death: everything in flight fails with it, and the next connection
 * works.
 */
static void each_operation_may_kill_its_connection(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;
	struct conf_op ops[2 * NR];
	bool fired = true;

	for (uint64_t n = 1; fired; n++) {
		struct tp_conn *conn = conf_connect(conf, &conf->target);

		memset(config->base, 0, NR * BLOCK);
		config->nr_ops = 0;
		config->kill_at = n;
		workload(conf, conn, ops);
		fired = tp_state(conn) == TP_FAILED;
		for (unsigned i = 0; i < 2 * NR; i++) {
			if (ops[i].op.status == 0) {
				assert_int_equal(ops[i].nr_done, 1);
				if (i >= NR)
					conf_check(ops[i].op.buf, ops[i].op.off, BLOCK, 1);
			} else {
				assert_int_equal(ops[i].op.status, -ENOTCONN);
				assert_true(ops[i].nr_done <= 1);
				assert_true(i + 1 >= n);
			}
		}
		config->kill_at = 0;
		conf_end(conn);
		conn = conf_connect(conf, &conf->target);
		assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
		conf_end(conn);
		if (!fired)
			assert_int_equal(n, 2 * NR + 1);
	}
}

static void what_never_completes_is_canceled_by_shutdown(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;
	struct conf_op op;

	config->hold = true;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	conf_fill(conf->buf, 0, 4096, 1);
	conf_op(conf, &op, TP_WRITE, 0, 4096, conf->buf);
	conf_post(conn, &op);
	for (int i = 0; i < 5; i++)
		assert_int_equal(conf_pump(&conn, 1), 0);
	tp_shutdown(conn);
	conf_drain(conn);
	assert_int_equal(op.op.status, -ECANCELED);
	assert_int_equal(((uint8_t *)config->base)[0], 0);
	tp_disconnect(conn);
}

static void a_refusal_is_reported(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;

	config->refuse = EHOSTUNREACH;
	assert_int_equal(conf_refused(conf, &conf->target, NULL), -EHOSTUNREACH);
	config->refuse = 0;
	conf->target.hello.epoch = 1;
	assert_int_equal(conf_refused(conf, &conf->target, NULL), -ESTALE);
	conf->target.hello.epoch = 0;
	conf->target.hello.expect = 1;
	assert_int_equal(conf_refused(conf, &conf->target, NULL), -ESTALE);
	conf->target.hello.expect = 0;
	conf->target.hello.epoch = 0x1234;
	conf_end(conf_connect(conf, &conf->target));
	config->read_only = true;
	assert_int_equal(conf_refused(conf, &conf->target, NULL), -EROFS);
}

static void every_capability_can_be_taken_away(void **state)
{
	struct conf *conf = *state;
	struct mem_config *config = conf->peer;

	config->no_flush = config->no_fua = config->no_trim = config->no_zero = true;
	config->no_fast_zero = config->no_cache = config->no_multi_conn = config->no_epoch = true;
	config->min_block_bytes = 512;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	assert_false(conn->info.has_epoch || conn->info.can_multi_conn);
	assert_int_equal(conf_do(conf, conn, TP_FLUSH, 0, 0, 0, NULL), -EOPNOTSUPP);
	assert_int_equal(conf_do(conf, conn, TP_TRIM, 0, 0, 512, NULL), -EOPNOTSUPP);
	assert_int_equal(conf_do(conf, conn, TP_ZERO, 0, 0, 512, NULL), -EOPNOTSUPP);
	assert_int_equal(conf_do(conf, conn, TP_CACHE, 0, 0, 512, NULL), -EOPNOTSUPP);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, TP_FUA, 0, 512, conf->buf), -EOPNOTSUPP);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 1, 512, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 513, conf->buf), -EINVAL);
	conf_end(conn);
}

int main(void)
{
	static const struct conf_fixture fixture = {.name = "mem",
		.start = start,
		.stop = stop,
		.epoch = true};
	const struct CMUnitTest own[] = {
		conf_case(completions_out_of_order_come_once_each),
		conf_case(reordering_does_reorder),
		conf_case(a_delay_is_waited_for),
		conf_case(each_operation_may_fail),
		conf_case(each_operation_may_kill_its_connection),
		conf_case(what_never_completes_is_canceled_by_shutdown),
		conf_case(a_refusal_is_reported),
		conf_case(every_capability_can_be_taken_away),
	};

	return conf_run(&fixture, own, WEFT_ARRAY_LEN(own));
}
