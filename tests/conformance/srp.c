/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the transport "srp" at another's SRP target, which a script has started
 * (tests/shell/srp-conformance.sh); without one everything is skipped.
 *
 *     WEFT_SRP       "HOST PORT UNIT"
 *     WEFT_SRP_FILE  the file behind the unit, of CONF_REGION_BYTES
 *     WEFT_SRP_PORT  the attribute of the target's port that a 0 stops, and a 1 starts
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "tests/conformance/suite.h"
#include "transports/srp/borrower/client.h"

static char host[64], port[8], unit[64];
static const char *file;

static void start(struct conf *conf)
{
	static const uint8_t zeros[1 << 20];
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	assert_return_code(fd, errno);
	for (unsigned i = 0; i < CONF_REGION_BYTES / sizeof(zeros); i++)
		assert_int_equal(
			pwrite(fd, zeros, sizeof(zeros), i * sizeof(zeros)), sizeof(zeros));
	close(fd);
	conf->ops = &tp_srp_ops;
	conf->size_bytes = CONF_REGION_BYTES;
	conf->target.host = host;
	conf->target.port = port;
	conf->target.region = unit;
	conf->target.hello.anonymous = true;
}

static void stop(struct conf *conf)
{
}

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

	snprintf(text, sizeof(text), "%.16s/77", unit);
	conf->target.region = text;
	assert_int_equal(conf_refused(conf, &conf->target, &why), -ENOENT);
	assert_non_null(strstr(why.message, "unit 77"));
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_return_code(fd, errno);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
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
	put(getenv("WEFT_SRP_PORT"), "0");
	conf_drain(conn);
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		assert_true(ops[i].op.status == 0 || ops[i].op.status == -ENOTCONN ||
			ops[i].op.status == -ETIMEDOUT);
		nr_lost += ops[i].op.status != 0;
	}
	print_message("%u of 32 were lost\n", nr_lost);
	conf_end(conn);
	put(getenv("WEFT_SRP_PORT"), "1");
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

int main(void)
{
	static const struct conf_fixture fixture = {.name = "srp", .start = start, .stop = stop};
	const struct CMUnitTest own[] = {
		conf_case(a_session_is_refused),
		conf_case(another_target_port_is_not_there),
		conf_case(another_unit_is_not_there),
		conf_case(a_target_that_stops_fails_what_is_in_flight),
		conf_case(a_later_generation_ends_the_earlier),
	};
	const char *where = getenv("WEFT_SRP");
	struct weft_error err;
	struct tp *keep;

	file = getenv("WEFT_SRP_FILE");
	if (!where || !file || sscanf(where, "%63s %7s %63s", host, port, unit) != 3) {
		printf("SKIP: WEFT_SRP does not name a unit of an SRP target\n");
		return 77;
	}
	/* The devices stay open, so that the suite sees no file come or go with them. */
	if (tp_open(&tp_srp_ops, NULL, &keep, &err) < 0) {
		printf("SKIP: %s\n", err.message);
		return 77;
	}
	int r = conf_run(&fixture, own, WEFT_ARRAY_LEN(own));
	tp_close(keep);
	return r;
}
