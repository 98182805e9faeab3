/* SPDX-License-Identifier: MIT */
/* Conformance: each way to misuse tp_post() has its answer, and changes nothing. */
#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/suite.h"

static void outside_the_region_is_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t size = conf->size_bytes, block = conn->info.min_block_bytes;
	const struct {
		uint64_t off, len;
	} cases[] = {
		{size, block},
		{size - block, 2 * block},
		{size + block, block},
		{UINT64_MAX - block + 1, block},
		{UINT64_MAX - block + 1, 2 * block}, /* wraps */
		{UINT64_C(1) << 63, block},
	};
	static const uint8_t kinds[] = {TP_READ, TP_WRITE, TP_TRIM, TP_ZERO, TP_CACHE};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		for (size_t k = 0; k < WEFT_ARRAY_LEN(kinds); k++) {
			int r = conf_do(conf, conn, kinds[k], 0, cases[i].off, cases[i].len,
				k < 2 ? conf->buf : NULL);

			if (r != -EOPNOTSUPP)
				assert_int_equal(r, -ENOSPC);
		}
	}
	conf_end(conn);
}

static void a_length_of_zero_or_too_much_is_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t most = conn->info.max_io_bytes;
	static const uint8_t kinds[] = {TP_TRIM, TP_ZERO, TP_CACHE};

	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 0, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 0, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, most + 1, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, UINT64_MAX, conf->buf), -EINVAL);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(kinds); i++) {
		int r = conf_do(conf, conn, kinds[i], 0, 0, 0, NULL);

		if (r == -EOPNOTSUPP)
			continue;
		assert_int_equal(r, -EINVAL);
		r = conf_do(conf, conn, kinds[i], 0, 0, TP_MAX_RANGE_BYTES + UINT64_C(1), NULL);
		assert_int_equal(r, -EINVAL);
	}
	/* A FLUSH and a PROBE have no range. */
	if (conn->info.can_flush)
		assert_int_equal(conf_do(conf, conn, TP_FLUSH, 0, 0, 512, NULL), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 512, 0, NULL), -EINVAL);
	conf_end(conn);
}

static void a_buffer_outside_its_memory_is_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t block = conn->info.min_block_bytes;
	uint8_t *end = conf->buf + CONF_BUF_BYTES;
	struct conf_op op;
	uint8_t other[512];

	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, block, end), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 2 * block, end - block), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, block, conf->buf - block), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, block, other), -EINVAL);
	conf_op(conf, &op, TP_READ, 0, block, conf->buf);
	op.op.mem = NULL;
	assert_int_equal(conf_post_one(conn, &op), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, block, end - block), 0);
	conf_end(conn);
}

static void memory_of_another_transport_is_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	struct conf_op op;
	struct tp_mem *mem;
	struct tp *tp;

	assert_int_equal(tp_open(conf->ops, conf->config, &tp, NULL), 0);
	assert_int_equal(tp_register(tp, conf->buf, 4096, &mem, NULL), 0);
	conf_op(conf, &op, TP_READ, 0, conn->info.min_block_bytes, conf->buf);
	op.op.mem = mem;
	assert_int_equal(conf_post_one(conn, &op), -EINVAL);
	assert_int_equal(tp_deregister(mem), 0);
	tp_close(tp);
	conf_end(conn);
}

static void unknown_kinds_and_flags_are_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t block = conn->info.min_block_bytes;

	assert_int_equal(conf_do(conf, conn, TP_NR_KINDS, 0, 0, 0, NULL), -EINVAL);
	assert_int_equal(conf_do(conf, conn, 255, 0, 0, 0, NULL), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_READ, TP_FUA, 0, block, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, TP_NO_HOLE, 0, block, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 1 << 7, 0, block, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_FLUSH, TP_FUA, 0, 0, NULL), -EINVAL);
	conf_end(conn);
}

static void what_the_grant_lacks_is_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	const struct tp_info *info = &conn->info;
	uint64_t block = info->min_block_bytes;
	const struct {
		bool can;
		uint8_t kind, flags;
		bool ranged, has_buf;
	} cases[] = {
		{info->can_flush, TP_FLUSH, 0, false, false},
		{info->can_fua, TP_WRITE, TP_FUA, true, true},
		{info->can_trim, TP_TRIM, 0, true, false},
		{info->can_zero, TP_ZERO, 0, true, false},
		{info->can_fast_zero, TP_ZERO, TP_FAST_ZERO, true, false},
		{info->can_cache, TP_CACHE, 0, true, false},
	};
	unsigned nr = 0;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		if (cases[i].can)
			continue;
		nr++;
		assert_int_equal(conf_do(conf, conn, cases[i].kind, cases[i].flags, 0,
					 cases[i].ranged ? block : 0,
					 cases[i].has_buf ? conf->buf : NULL),
			-EOPNOTSUPP);
	}
	conf_end(conn);
	if (nr == 0)
		conf_skip("%s can do everything", conf->fixture->name);
}

static void odd_ranges_at_a_block_peer_are_refused(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t block = conn->info.min_block_bytes;

	if (block == 1) {
		conf_end(conn);
		conf_skip("%s takes any offset", conf->fixture->name);
	}
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 1, block, conf->buf), -EINVAL);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, block + 1, conf->buf), -EINVAL);
	conf_end(conn);
}

static void a_read_only_grant_refuses_changes(void **state)
{
	struct conf *conf = *state;
	struct tp_target target = conf->target;

	if (!conf->fixture->epoch)
		conf_skip("%s grants no read-only sessions", conf->fixture->name);
	target.hello.mode = WEFT_MODE_READ;
	struct tp_conn *conn = conf_connect(conf, &target);
	uint64_t block = conn->info.min_block_bytes;
	assert_true(conn->info.read_only);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, block, conf->buf), -EPERM);
	assert_int_equal(conf_do(conf, conn, TP_ZERO, 0, 0, block, NULL), -EPERM);
	assert_int_equal(conf_do(conf, conn, TP_TRIM, 0, 0, block, NULL), -EPERM);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, block, conf->buf), 0);
	conf_end(conn);
}

static void a_batch_is_taken_up_to_its_first_mistake(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t block = conn->info.min_block_bytes;
	struct conf_op ops[4];
	struct tp_op *list[4];

	for (unsigned i = 0; i < 4; i++) {
		conf_op(conf, &ops[i], TP_READ, i == 2 ? conf->size_bytes : 0, block, conf->buf);
		list[i] = &ops[i].op;
	}
	assert_int_equal(tp_post(conn, list, 4), 2);
	assert_int_equal(tp_post(conn, list + 2, 2), -ENOSPC);
	conf_drain(conn);
	assert_int_equal(ops[0].nr_done + ops[1].nr_done, 2);
	assert_int_equal(ops[2].nr_done + ops[3].nr_done, 0);
	conf_end(conn);
}

static void posts_need_a_ready_connection(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn;
	struct conf_op op;

	conf_op(conf, &op, TP_PROBE, 0, 0, NULL);
	assert_int_equal(tp_connect(conf->tp, &conf->target, &conn, NULL), 0);
	if (tp_state(conn) == TP_CONNECTING)
		assert_int_equal(conf_post_one(conn, &op), -ENOTCONN);
	conf_end(conn);
	conn = conf_connect(conf, &conf->target);
	tp_shutdown(conn);
	assert_int_equal(conf_post_one(conn, &op), -ENOTCONN);
	conf_end(conn);
}

struct conf_cases conf_misuse_cases(void)
{
	static const struct CMUnitTest tests[] = {
		conf_case(outside_the_region_is_refused),
		conf_case(a_length_of_zero_or_too_much_is_refused),
		conf_case(a_buffer_outside_its_memory_is_refused),
		conf_case(memory_of_another_transport_is_refused),
		conf_case(unknown_kinds_and_flags_are_refused),
		conf_case(what_the_grant_lacks_is_refused),
		conf_case(odd_ranges_at_a_block_peer_are_refused),
		conf_case(a_read_only_grant_refuses_changes),
		conf_case(a_batch_is_taken_up_to_its_first_mistake),
		conf_case(posts_need_a_ready_connection),
	};

	return (struct conf_cases){tests, WEFT_ARRAY_LEN(tests)};
}
