/* SPDX-License-Identifier: MIT */
#include "tests/conformance/srp-cases.h"

#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"

static const struct srp_port *port;

/* weft:// at a target: there is nothing that could hold it. */
static void a_session_is_refused(void **state)
{
	struct conf *conf = *state;
	struct weft_error why = {0};
	struct tp_conn *conn;

	conf->target.hello.anonymous = false;
	assert_int_equal(tp_connect(conf->tp, &conf->target, &conn, &why), -EPROTONOSUPPORT);
	assert_non_null(strstr(why.message, "srp://"));
}

static void another_target_port_is_not_there(void **state)
{
	struct conf *conf = *state;
	struct weft_error why;

	conf->target.region = "0123456789abcdef.fedcba9876543210";
	assert_int_equal(conf_refused(conf, &conf->target, &why), -ENOENT);
	assert_non_null(strstr(why.message, "0123456789abcdef.fedcba9876543210"));
}

static void another_unit_is_not_there(void **state)
{
	struct conf *conf = *state;
	struct weft_error why;
	char text[80];

	snprintf(text, sizeof(text), "%.*s/77", (int)strcspn(conf->target.region, "/"),
		conf->target.region);
	conf->target.region = text;
	assert_int_equal(conf_refused(conf, &conf->target, &why), -ENOENT);
	assert_non_null(strstr(why.message, "unit 77"));
}

static void a_target_that_stops_fails_what_is_in_flight(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	struct conf_op ops[32];
	unsigned nr_lost = 0;

	for (unsigned i = 0; i < 32; i++) {
		conf_op(conf, &ops[i], i % 2 ? TP_READ : TP_WRITE, i * 65536, 65536,
			conf->buf + i * 65536);
		conf_post(conn, &ops[i]);
	}
	port->stop(conf);
	conf_drain(conn);
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		assert_true(ops[i].op.status == 0 || ops[i].op.status == -ENOTCONN ||
			ops[i].op.status == -ETIMEDOUT);
		nr_lost += ops[i].op.status != 0;
	}
	print_message("%u of 32 were lost\n", nr_lost);
	conf_end(conn);
	port->start(conf);
	conf_end(conf_connect(conf, &conf->target));
}

/* A later generation ends the channels that there are, and none of a lower one comes. */
static void a_later_generation_ends_the_earlier(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conns[3] = {conf_connect(conf, &conf->target),
		conf_connect(conf, &conf->target)};
	uint64_t identity = conns[0]->info.identity;

	assert_int_not_equal(identity, 0);
	conf->target.hello.generation++;
	conns[2] = conf_connect(conf, &conf->target);
	assert_int_equal(conns[2]->info.identity, identity);
	for (unsigned i = 0; i < 2; i++) {
		struct conf_op op;

		conf_op(conf, &op, TP_WRITE, 0, 4096, conf->buf);
		if (conf_post_one(conns[i], &op) >= 0) {
			conf_drain(conns[i]);
			assert_int_not_equal(op.op.status, 0);
		}
	}
	conf->target.hello.generation--;
	assert_int_equal(conf_refused(conf, &conf->target, NULL), -ECONNABORTED);
	for (unsigned i = 0; i < 3; i++)
		conf_end(conns[i]);
}

/* Who asks to write is told that it may not, and is refused before anything is sent. */
static void a_unit_that_may_only_be_read_is_read(void **state)
{
	struct conf *conf = *state;

	for (unsigned i = 0; i < 2; i++) {
		conf->target.hello.mode = i ? WEFT_MODE_READ : WEFT_MODE_WRITE;
		conf->target.hello.generation++;
		struct tp_conn *conn = conf_connect(conf, &conf->target);
		uint64_t block = conn->info.min_block_bytes;

		assert_true(conn->info.read_only);
		assert_int_equal(conn->info.size_bytes, conf->size_bytes);
		memset(conf->buf, 0xee, 65536);
		assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 65536, conf->buf), 0);
		for (unsigned k = 0; k < 65536; k++)
			assert_int_equal(conf->buf[k], 0);
		assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, block, conf->buf), -EPERM);
		assert_int_equal(conf_do(conf, conn, TP_ZERO, 0, 0, block, NULL), -EPERM);
		assert_int_equal(conf_do(conf, conn, TP_TRIM, 0, 0, block, NULL), -EPERM);
		assert_int_equal(conf_do(conf, conn, TP_FLUSH, 0, 0, 0, NULL), 0);
		assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
		conf_end(conn);
	}
}

int srp_conf_run(const struct conf_fixture *fixture, const struct srp_port *of)
{
	const struct CMUnitTest own[] = {
		conf_case(a_session_is_refused),
		conf_case(another_target_port_is_not_there),
		conf_case(another_unit_is_not_there),
		conf_case(a_target_that_stops_fails_what_is_in_flight),
		conf_case(a_later_generation_ends_the_earlier),
	};

	port = of;
	return conf_run(fixture, own, WEFT_ARRAY_LEN(own));
}

int srp_conf_run_read_only(const struct conf_fixture *fixture)
{
	const struct CMUnitTest own[] = {conf_case(a_unit_that_may_only_be_read_is_read)};

	return conf_run_own(fixture, own, WEFT_ARRAY_LEN(own));
}
