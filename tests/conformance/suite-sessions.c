/* SPDX-License-Identifier: MIT */
/*
 * Conformance: attachments and generations at a weft donor.  The donor is in this process, so that
 * its clock can be turned.  Two borrowers, A and B, differ in id and name.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/suite.h"

#define GEN(incarnation, reconnects) ((uint64_t)(incarnation) << 32 | (reconnects))

static struct tp_target borrower(const struct conf *conf, char who, enum weft_mode mode,
	uint64_t generation)
{
	struct tp_target target = conf->target;

	memset(target.hello.id, who, WEFT_ID_BYTES);
	snprintf(target.hello.name, sizeof(target.hello.name), "borrower-%c", who);
	target.hello.mode = mode;
	target.hello.generation = generation;
	return target;
}

/* Until the connections that the donor ended have noticed. */
static bool both_settled(void *ctx)
{
	struct tp_conn **conns = ctx;

	return tp_state(conns[0]) == TP_FAILED && tp_state(conns[1]) != TP_CONNECTING;
}

/* Connects with target while `old` is kept going, and expects it to take old's place. */
static struct tp_conn *supersede(struct conf *conf, struct tp_conn *old,
	const struct tp_target *target)
{
	struct tp_conn *conns[2] = {old};

	assert_int_equal(tp_connect(conf->tp, target, &conns[1], NULL), 0);
	conf_pump_until(conns, 2, both_settled, conns);
	if (tp_state(conns[1]) != TP_READY)
		fail_msg("not ready: %s", conns[1]->why.message);
	return conns[1];
}

/* A donor hears of a goodbye a moment later. */
static struct tp_conn *connect_when_free(struct conf *conf, const struct tp_target *target)
{
	uint64_t end = weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
	struct tp_conn *conn = conf_try(conf, target);

	while (tp_state(conn) == TP_FAILED && conn->error == -EBUSY && weft_now_ns() < end) {
		conf_end(conn);
		poll(NULL, 0, 5);
		conn = conf_try(conf, target);
	}
	if (tp_state(conn) != TP_READY)
		fail_msg("not ready: %s", conn->why.message);
	return conn;
}

static void the_same_generation_joins(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_conn *one = conf_connect(conf, &a), *two = conf_connect(conf, &a);

	assert_int_equal(one->info.epoch, two->info.epoch);
	conf_fill(conf->buf, 0, 4096, 1);
	assert_int_equal(conf_do(conf, one, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	memset(conf->buf, 0, 4096);
	assert_int_equal(conf_do(conf, two, TP_READ, 0, 0, 4096, conf->buf), 0);
	conf_check(conf->buf, 0, 4096, 1);
	conf_end(one);
	assert_int_equal(conf_do(conf, two, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	conf_end(two);
}

static void a_higher_generation_supersedes(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_conn *old = conf_connect(conf, &a);
	struct conf_op ops[16];

	/* With writes in flight: each is done, or fails; none hangs. */
	for (unsigned i = 0; i < 16; i++) {
		conf_fill(conf->buf + i * 65536, i * 65536, 65536, 1);
		conf_op(conf, &ops[i], TP_WRITE, i * 65536, 65536, conf->buf + i * 65536);
		conf_post(old, &ops[i]);
	}
	a.hello.generation = GEN(1, 1);
	struct tp_conn *new = supersede(conf, old, &a);
	assert_int_equal(new->info.generation, GEN(1, 1));
	/* The old ones are fenced: what the new one writes stays. */
	uint8_t *mine = conf->buf + (16 << 20);
	conf_fill(mine, 0, 1 << 20, 2);
	assert_int_equal(conf_do(conf, new, TP_WRITE, 0, 0, 1 << 20, mine), 0);
	conf_drain(old);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		if (ops[i].op.status != 0 && ops[i].op.status != -ESTALE)
			assert_int_equal(ops[i].op.status, -ENOTCONN);
	}
	assert_int_equal(conf_post_one(old, &ops[0]), -ENOTCONN);
	memset(mine, 0, 1 << 20);
	assert_int_equal(conf_do(conf, new, TP_READ, 0, 0, 1 << 20, mine), 0);
	conf_check(mine, 0, 1 << 20, 2);
	conf_end(old);
	conf_end(new);
}

static void a_higher_generation_supersedes_every_session(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_conn *conns[3] = {conf_connect(conf, &a), conf_connect(conf, &a)};

	a.hello.generation = GEN(2, 0);
	assert_int_equal(tp_connect(conf->tp, &a, &conns[2], NULL), 0);
	conf_pump_until(conns, 3, both_settled, conns + 1);
	assert_int_equal(tp_state(conns[2]), TP_READY);
	conf_pump_until(conns, 3, both_settled, (struct tp_conn *[]){conns[0], conns[2]});
	for (int i = 0; i < 3; i++)
		conf_end(conns[i]);
}

static void a_lower_generation_is_stale(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(2, 3));
	struct tp_conn *conn = conf_connect(conf, &a);

	a.hello.generation = GEN(2, 2);
	assert_int_equal(conf_refused(conf, &a, NULL), -WEFT_EOVER);
	a.hello.generation = GEN(1, 9);
	assert_int_equal(conf_refused(conf, &a, NULL), -WEFT_ESUPERSEDED);
	assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
	conf_end(conn);
	/* Also after everybody left. */
	assert_int_equal(conf_refused(conf, &a, NULL), -WEFT_ESUPERSEDED);
	a.hello.generation = GEN(2, 3);
	conf_end(conf_connect(conf, &a));
}

/*
 * While it connects, ESTALE says that the contents are gone: a fence says something else.  Whoever
 * comes after fences it at each step of its way.
 */
static void superseded_while_it_connects_is_not_another_epoch(void **state)
{
	struct conf *conf = *state;

	for (unsigned nr_steps = 0; nr_steps < 8; nr_steps++) {
		struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1 + nr_steps, 0));
		struct tp_conn *conns[2];

		assert_int_equal(tp_connect(conf->tp, &a, &conns[0], NULL), 0);
		for (unsigned i = 0; i < nr_steps && tp_state(conns[0]) == TP_CONNECTING; i++)
			conf_pump(conns, 1);
		bool connects = tp_state(conns[0]) == TP_CONNECTING;
		/* It may have been granted, and not have looked. */
		struct pollfd fd = {.events = (short)tp_arm(conns[0])};
		fd.fd = tp_event_fd(conns[0]);
		if (fd.events != 0)
			poll(&fd, 1, 50);
		a.hello.generation = GEN(1 + nr_steps, 1);
		assert_int_equal(tp_connect(conf->tp, &a, &conns[1], NULL), 0);
		uint64_t end_ns = weft_now_ns() + UINT64_C(50000000);
		while (tp_state(conns[1]) == TP_CONNECTING && weft_now_ns() < end_ns)
			conf_pump(&conns[1], 1);
		while (tp_state(conns[0]) == TP_CONNECTING)
			conf_pump(conns, 1);
		if (connects && tp_state(conns[0]) == TP_FAILED && conns[0]->error == -ESTALE)
			fail_msg("after %u steps: %s", nr_steps, conns[0]->why.message);
		conf_pump_until(conns, 2, both_settled, conns);
		assert_int_equal(tp_state(conns[1]), TP_READY);
		conf_end(conns[0]);
		conf_end(conns[1]);
	}
}

static void a_second_writer_is_refused_and_told_who_holds_it(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_target b = borrower(conf, 'b', WEFT_MODE_WRITE, GEN(7, 0));
	struct tp_conn *conn = conf_connect(conf, &a);
	struct weft_error why;

	assert_int_equal(conf_refused(conf, &b, &why), -EBUSY);
	if (!strstr(why.message, "borrower-a"))
		fail_msg("says nothing of borrower-a: %s", why.message);
	assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
	conf_end(conn);
}

static void a_goodbye_frees_the_region(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_target b = borrower(conf, 'b', WEFT_MODE_WRITE, GEN(1, 0));

	conf_end(conf_connect(conf, &a));
	conf_end(connect_when_free(conf, &b));
}

/* Whoever closes has let go: the next is granted at once, however often. */
static void after_the_close_the_region_is_free(void **state)
{
	struct conf *conf = *state;
	uint64_t end_ns = weft_now_ns() + UINT64_C(3000000000);

	for (unsigned i = 0; i < 300 && weft_now_ns() < end_ns; i++) {
		struct tp_target target =
			borrower(conf, i % 2 ? 'a' : 'b', WEFT_MODE_WRITE, GEN(1 + i, 0));
		struct conf mine = *conf;
		struct tp_conn *conns[2];

		/* Several lanes, each with a transport of its own. */
		struct tp *tps[2];
		for (unsigned lane = 0; lane < 2; lane++) {
			assert_int_equal(tp_open(conf->ops, conf->config, &tps[lane], NULL), 0);
			mine.tp = tps[lane];
			conns[lane] = conf_connect(&mine, &target);
		}
		for (unsigned lane = 0; lane < 2; lane++)
			conf_end(conns[lane]);
		for (unsigned lane = 0; lane < 2; lane++)
			tp_close(tps[lane]);
	}
}

static void without_a_goodbye_the_region_stays_held_until_the_lease_ends(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_target b = borrower(conf, 'b', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_conn *conn = conf_connect(conf, &a);
	struct conf_op op;

	/* With an operation in flight there is no clean end. */
	conf_op(conf, &op, TP_READ, 0, 512, conf->buf);
	conf_post(conn, &op);
	conf_end(conn);
	/* The peer may take a moment to notice; it must not free it then. */
	for (int i = 0; i < 20; i++) {
		assert_int_equal(conf_refused(conf, &b, NULL), -EBUSY);
		poll(NULL, 0, 2);
	}
	weft_donor_tick(conf->donor, weft_now_ns() + 2 * CONF_LEASE_MS * UINT64_C(1000000));
	conf_end(connect_when_free(conf, &b));
}

static bool first_failed(void *ctx)
{
	return tp_state(((struct tp_conn **)ctx)[0]) == TP_FAILED;
}

static void a_lost_lease_is_stale_for_good(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_target b = borrower(conf, 'b', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_conn *conn = conf_connect(conf, &a);

	uint64_t epoch = conn->info.epoch;

	assert_true(conn->info.lease_ms > 0);
	weft_donor_tick(conf->donor, weft_now_ns() + 2 * CONF_LEASE_MS * UINT64_C(1000000));
	conf_pump_until(&conn, 1, first_failed, &conn);
	conf_end(conn);
	/* Somebody else may have it now, and what A believes about its contents is void. */
	conf_end(connect_when_free(conf, &b));
	assert_int_equal(conf_refused(conf, &a, NULL), -WEFT_EOVER);
	a.hello.epoch = epoch;
	a.hello.generation = GEN(1, 1);
	assert_int_equal(conf_refused(conf, &a, NULL), -ESTALE);
	a.hello.generation = GEN(2, 0);
	assert_int_equal(conf_refused(conf, &a, NULL), -ESTALE);
	a.hello.epoch = 0;
	conf_end(connect_when_free(conf, &a));
}

static void signs_of_life_keep_the_lease(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_conn *conn = conf_connect(conf, &a);

	for (int i = 0; i < 3; i++) {
		assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
		weft_donor_tick(conf->donor, weft_now_ns() + CONF_LEASE_MS / 2 * UINT64_C(1000000));
	}
	assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
	conf_end(conn);
}

static void shared_readers_stand_beside_a_writer_others_do_not(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_target s = borrower(conf, 's', WEFT_MODE_SHARED, GEN(1, 0));
	struct tp_target r = borrower(conf, 'r', WEFT_MODE_READ, GEN(1, 0));
	struct tp_conn *writer = conf_connect(conf, &a), *reader = conf_connect(conf, &s);

	assert_true(reader->info.read_only);
	assert_int_equal(conf_refused(conf, &r, NULL), -EBUSY);
	conf_fill(conf->buf, 0, 4096, 8);
	assert_int_equal(conf_do(conf, writer, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	memset(conf->buf, 0, 4096);
	assert_int_equal(conf_do(conf, reader, TP_READ, 0, 0, 4096, conf->buf), 0);
	conf_check(conf->buf, 0, 4096, 8);
	conf_end(writer);
	conf_end(reader);
	/* The other way round: a plain reader keeps writers out. */
	reader = connect_when_free(conf, &r);
	assert_int_equal(conf_refused(conf, &a, NULL), -EBUSY);
	conf_end(reader);
}

static void another_epoch_is_stale(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_conn *conn = conf_connect(conf, &a);
	uint64_t epoch = conn->info.epoch;

	conf_end(conn);
	a.hello.epoch = epoch;
	conf_end(conf_connect(conf, &a));
	a.hello.epoch = epoch ^ 1;
	assert_int_equal(conf_refused(conf, &a, NULL), -ESTALE);
	/* Not to remember anything, and to mean another region, is no better. */
	a.hello.epoch = 0;
	a.hello.expect = epoch ^ 1;
	assert_int_equal(conf_refused(conf, &a, NULL), -ESTALE);
	a.hello.expect = epoch;
	conf_end(conf_connect(conf, &a));
}

static void stock_clients_and_a_weft_writer_exclude_each_other(void **state)
{
	struct conf *conf = *state;
	struct tp_target a = borrower(conf, 'a', WEFT_MODE_WRITE, GEN(1, 0));
	struct tp_target stock = conf->target;
	struct tp_conn *one, *two;

	if (conf->fixture->no_stock)
		conf_skip("%s is not for stock clients", conf->fixture->name);
	stock.hello.anonymous = true;
	one = conf_connect(conf, &stock);
	two = conf_connect(conf, &stock);
	assert_false(one->info.has_epoch);
	assert_int_equal(conf_refused(conf, &a, NULL), -EBUSY);
	conf_end(one);
	conf_end(two);
	one = connect_when_free(conf, &a);
	assert_int_equal(conf_refused(conf, &stock, NULL), -EBUSY);
	conf_end(one);
}

static void sessions(void **state)
{
	struct conf *conf = *state;

	conf_skip("%s knows no sessions", conf->fixture->name);
}

struct conf_cases conf_session_cases(const struct conf_fixture *fixture)
{
	static const struct CMUnitTest none[] = {conf_case(sessions)};
	static const struct CMUnitTest tests[] = {
		conf_case(the_same_generation_joins),
		conf_case(a_higher_generation_supersedes),
		conf_case(a_higher_generation_supersedes_every_session),
		conf_case(a_lower_generation_is_stale),
		conf_case(superseded_while_it_connects_is_not_another_epoch),
		conf_case(a_second_writer_is_refused_and_told_who_holds_it),
		conf_case(a_goodbye_frees_the_region),
		conf_case(after_the_close_the_region_is_free),
		conf_case(without_a_goodbye_the_region_stays_held_until_the_lease_ends),
		conf_case(a_lost_lease_is_stale_for_good),
		conf_case(signs_of_life_keep_the_lease),
		conf_case(shared_readers_stand_beside_a_writer_others_do_not),
		conf_case(another_epoch_is_stale),
		conf_case(stock_clients_and_a_weft_writer_exclude_each_other),
	};

	if (!fixture->sessions)
		return (struct conf_cases){none, WEFT_ARRAY_LEN(none)};
	return (struct conf_cases){tests, WEFT_ARRAY_LEN(tests)};
}
