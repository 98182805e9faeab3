/* SPDX-License-Identifier: MIT */
/* Conformance: what is written is what is read, by every kind of operation that there is. */
#include <errno.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/hashing.h"
#include "fabric/marking.h"
#include "tests/conformance/suite.h"

static uint64_t round_down(uint64_t n, uint64_t to)
{
	return n / to * to;
}

static void patterns_at_odd_sizes_and_offsets(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 7, 511, 512, 513, 4095, 4096, 4097, 16383, 65535,
		65543, 131072, 1000003, 1 << 20};
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t block = conn->info.min_block_bytes;
	uint8_t *out = conf->buf, *in = conf->buf + (8 << 20);
	uint64_t stamp = 0;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(sizes); i++) {
		uint64_t len =
			weft_max(round_down(weft_min(sizes[i], conn->info.max_io_bytes), block),
				block);
		const uint64_t offs[] = {0, 1, 4093, 65537, conf->size_bytes - len,
			conf->size_bytes / 2 - 1};

		for (size_t k = 0; k < WEFT_ARRAY_LEN(offs); k++) {
			uint64_t off = weft_min(round_down(offs[k], block), conf->size_bytes - len);
			/* Odd addresses too; and nothing around the buffer may change. */
			uint8_t *from = out + k, *to = in + 16 + k;

			stamp++;
			conf_fill(from, off, len, stamp);
			assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, off, len, from), 0);
			memset(to - 16, 0xee, len + 32);
			assert_int_equal(conf_do(conf, conn, TP_READ, 0, off, len, to), 0);
			conf_check(to, off, len, stamp);
			conf_check(from, off, len, stamp);
			for (int g = 0; g < 16; g++) {
				assert_int_equal(to[-16 + g], 0xee);
				assert_int_equal(to[len + (size_t)g], 0xee);
			}
		}
	}
	conf_end(conn);
}

/* Stripes keep operations that are in flight together apart. */
enum { STRIPES = 32 };

static void random_operations_match_a_model(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t block = conn->info.min_block_bytes;
	uint64_t stripe = round_down(conf->size_bytes / STRIPES, block);
	/* of each in the buffer */
	uint64_t place = weft_min(stripe, round_down(CONF_BUF_BYTES / STRIPES, block));
	uint64_t seed = weft_now_ns();
	uint8_t *model = calloc(1, conf->size_bytes); /* test_calloc() would touch all of it */
	struct conf_op ops[STRIPES];
	unsigned nr = (unsigned)weft_min(STRIPES, conn->info.depth);

	print_message("seed %ju\n", (uintmax_t)seed);
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned i = 0; i < nr; i++) {
			uint64_t r = conf_random(&seed);
			/* Mostly small, sometimes the whole stripe. */
			uint64_t most = r % 8 == 0 ? place : weft_min(place, 8192);
			uint64_t len = weft_min(1 + (r >> 8) % most, conn->info.max_io_bytes);
			len = weft_max(round_down(len, block), block);
			uint64_t off =
				i * stripe + round_down((r >> 32) % (stripe - len + 1), block);
			uint8_t *buf = conf->buf + i * place;
			enum tp_op_kind kind = (r >> 4) % 2 ? TP_WRITE : TP_READ;

			if (conn->info.can_zero && (r >> 5) % 8 == 0)
				kind = TP_ZERO;
			conf_op(conf, &ops[i], kind, off, len, kind == TP_ZERO ? NULL : buf);
			if (kind == TP_WRITE) {
				conf_fill(buf, off, len, r);
				memcpy(model + off, buf, len);
			} else if (kind == TP_ZERO) {
				memset(model + off, 0, len);
			} else {
				memset(buf, 0xdd, len);
			}
			conf_post(conn, &ops[i]);
		}
		conf_drain(conn);
		for (unsigned i = 0; i < nr; i++) {
			assert_int_equal(ops[i].nr_done, 1);
			assert_int_equal(ops[i].op.status, 0);
			if (ops[i].op.kind == TP_READ)
				assert_memory_equal(ops[i].op.buf, model + ops[i].op.off,
					ops[i].op.len);
		}
	}
	for (uint64_t off = 0, len; off < conf->size_bytes; off += len) {
		len = weft_min(conf->size_bytes - off, weft_min(conn->info.max_io_bytes, 1 << 20));
		assert_int_equal(conf_do(conf, conn, TP_READ, 0, off, len, conf->buf), 0);
		assert_memory_equal(conf->buf, model + off, len);
	}
	free(model);
	conf_end(conn);
}

/*
 * More than any socket's buffers hold, both ways at once: nobody may wait for the other for ever.
 */
static void large_reads_and_writes_pass_each_other(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t len = weft_min(conn->info.max_io_bytes, 1 << 20);
	uint64_t half = round_down(conf->size_bytes / 2, len);
	enum { NR = 32 };
	struct conf_op ops[NR];

	for (uint64_t off = 0; off < half; off += len) {
		conf_fill(conf->buf, off, len, 1);
		assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, off, len, conf->buf), 0);
	}
	for (unsigned i = 0; i < NR; i++) {
		uint64_t off = (i / 2) * len % half;
		uint8_t *buf = conf->buf + i * len;

		/* Reads below the middle, writes above it; those that overlap write the same. */
		if (i % 2) {
			conf_fill(buf, half + off, len, 2);
			conf_op(conf, &ops[i], TP_WRITE, half + off, len, buf);
		} else {
			conf_op(conf, &ops[i], TP_READ, off, len, buf);
		}
		conf_post(conn, &ops[i]);
	}
	conf_drain(conn);
	for (unsigned i = 0; i < NR; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		assert_int_equal(ops[i].op.status, 0);
		if (i % 2 == 0)
			conf_check(ops[i].op.buf, ops[i].op.off, len, 1);
	}
	for (uint64_t off = 0; off + len <= half && off < NR / 2 * len; off += len) {
		assert_int_equal(conf_do(conf, conn, TP_READ, 0, half + off, len, conf->buf), 0);
		conf_check(conf->buf, half + off, len, 2);
	}
	conf_end(conn);
}

static void the_largest_operation_passes(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t len = weft_min(conn->info.max_io_bytes, conf->size_bytes);

	conf_fill(conf->buf, 0, len, 9);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, len, conf->buf), 0);
	memset(conf->buf, 0, len);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, len, conf->buf), 0);
	conf_check(conf->buf, 0, len, 9);
	conf_end(conn);
}

static void a_full_queue_says_so_and_goes_on(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	unsigned depth = conn->info.depth, nr = 3 * depth;
	uint64_t block = conn->info.min_block_bytes;
	struct conf_op *ops = test_calloc(nr, sizeof(*ops));

	for (unsigned i = 0; i < depth; i++) {
		conf_op(conf, &ops[i], TP_READ, 0, block, conf->buf + i * block);
		assert_int_equal(conf_post_one(conn, &ops[i]), 1);
	}
	conf_op(conf, &ops[depth], TP_READ, 0, block, conf->buf + depth * block);
	assert_int_equal(conf_post_one(conn, &ops[depth]), -EAGAIN);
	for (unsigned i = depth; i < nr; i++) {
		conf_op(conf, &ops[i], TP_READ, 0, block, conf->buf + i * block);
		conf_post(conn, &ops[i]);
	}
	conf_drain(conn);
	for (unsigned i = 0; i < nr; i++) {
		assert_int_equal(ops[i].nr_done, 1);
		assert_int_equal(ops[i].op.status, 0);
	}
	test_free(ops);
	conf_end(conn);
}

static void a_batch_over_the_depth_is_taken_in_part(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	unsigned depth = conn->info.depth, nr = depth + 5;
	uint64_t block = conn->info.min_block_bytes;
	struct conf_op *ops = test_calloc(nr, sizeof(*ops));
	struct tp_op **list = test_calloc(nr, sizeof(*list));

	for (unsigned i = 0; i < nr; i++) {
		conf_op(conf, &ops[i], TP_READ, 0, block, conf->buf + i * block);
		list[i] = &ops[i].op;
	}
	assert_int_equal(tp_post(conn, list, nr), depth);
	conf_drain(conn);
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(ops[i].nr_done, i < depth);
	assert_int_equal(tp_post(conn, list + depth, 5), 5);
	conf_drain(conn);
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(ops[i].op.status, 0);
	test_free(list);
	test_free(ops);
	conf_end(conn);
}

/* Fills [0, 64 KiB), does one operation on the blocks of the middle, reads back. */
static int on_the_middle(struct conf *conf, struct tp_conn *conn, enum tp_op_kind kind,
	unsigned flags, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t block = weft_max(conn->info.min_block_bytes, 512);
	int r;

	*ret_off = 3 * block;
	*ret_len = 20 * block;
	conf_fill(conf->buf, 0, 65536, 5);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 65536, conf->buf), 0);
	r = conf_do(conf, conn, kind, flags, *ret_off, *ret_len, NULL);
	memset(conf->buf, 0xcc, 65536);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 0, 65536, conf->buf), 0);
	/* The rest is as it was, whatever the operation did. */
	conf_check(conf->buf, 0, *ret_off, 5);
	conf_check(conf->buf + *ret_off + *ret_len, *ret_off + *ret_len,
		65536 - *ret_off - *ret_len, 5);
	return r;
}

static void zeroed_ranges_read_as_zeros(void **state)
{
	static const unsigned flags[] = {0, TP_NO_HOLE, TP_FUA, TP_FUA | TP_NO_HOLE};
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t off, len;

	if (!conn->info.can_zero) {
		conf_end(conn);
		conf_skip("%s cannot zero", conf->fixture->name);
	}
	for (size_t i = 0; i < WEFT_ARRAY_LEN(flags); i++) {
		if ((flags[i] & TP_FUA) && !conn->info.can_fua)
			continue;
		assert_int_equal(on_the_middle(conf, conn, TP_ZERO, flags[i], &off, &len), 0);
		for (uint64_t k = 0; k < len; k++)
			assert_int_equal(conf->buf[off + k], 0);
	}
	conf_end(conn);
}

static void a_fast_zero_zeroes_or_says_that_it_is_slow(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t off, len;

	if (!conn->info.can_fast_zero) {
		conf_end(conn);
		conf_skip("%s has no fast zero", conf->fixture->name);
	}
	int r = on_the_middle(conf, conn, TP_ZERO, TP_FAST_ZERO, &off, &len);
	if (r == 0) {
		for (uint64_t k = 0; k < len; k++)
			assert_int_equal(conf->buf[off + k], 0);
	} else {
		assert_int_equal(r, -EOPNOTSUPP);
		conf_check(conf->buf + off, off, len, 5);
	}
	conf_end(conn);
}

static void a_trim_leaves_its_surroundings_alone(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t off, len;

	if (!conn->info.can_trim) {
		conf_end(conn);
		conf_skip("%s cannot trim", conf->fixture->name);
	}
	assert_int_equal(on_the_middle(conf, conn, TP_TRIM, 0, &off, &len), 0);
	if (conn->info.can_fua)
		assert_int_equal(on_the_middle(conf, conn, TP_TRIM, TP_FUA, &off, &len), 0);
	conf_end(conn);
}

static void a_cache_hint_changes_nothing(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	uint64_t off, len;

	if (!conn->info.can_cache) {
		conf_end(conn);
		conf_skip("%s has no cache hint", conf->fixture->name);
	}
	assert_int_equal(on_the_middle(conf, conn, TP_CACHE, 0, &off, &len), 0);
	conf_check(conf->buf + off, off, len, 5);
	conf_end(conn);
}

static int do_hash(struct conf *conf, struct tp_conn *conn, const struct weft_hashing *hashing,
	uint64_t off, uint64_t len, void *buf)
{
	struct conf_op op;

	conf_op(conf, &op, TP_HASH, off, len, buf);
	op.op.hashing = hashing;
	int r = conf_post_one(conn, &op);
	if (r < 0)
		return r;
	conf_drain(conn);
	assert_int_equal(op.nr_done, 1);
	return op.op.status;
}

static void hashes_are_those_of_the_blocks(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	struct weft_hashing hashing = {.block_bytes = 4096, .key = {1, 2, 3}};
	const uint64_t max = (uint64_t)conn->info.max_hash_blocks;
	const uint64_t len = weft_min(max, 200) * 4096 - 17, nr = weft_min(max, 200);
	uint8_t *hashes = conf->buf, *data = conf->buf + (8 << 20);
	struct weft_hasher hasher = {0};
	uint8_t want[200 * WEFT_HASH_BYTES];

	if (max == 0) {
		conf_end(conn);
		conf_skip("%s does not hash", conf->fixture->name);
	}
	conf_fill(data, 4093, len, 9);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 4093, len, data), 0);
	for (int i = 0; i < 2; i++) {
		hashing.key[31] = (uint8_t)i;
		memset(hashes, 0xee, nr * WEFT_HASH_BYTES + 16);
		assert_int_equal(do_hash(conf, conn, &hashing, 4093, len, hashes), 0);
		assert_int_equal(weft_hasher_set(&hasher, hashing.key), 0);
		weft_hasher_hash_blocks(&hasher, 4096, data, len, want);
		assert_memory_equal(hashes, want, nr * WEFT_HASH_BYTES);
		assert_int_equal(hashes[nr * WEFT_HASH_BYTES], 0xee);
	}
	/* What was never written is zeros, in larger blocks too. */
	hashing.block_bytes = 65536;
	memset(data, 0, 65536);
	weft_hasher_hash(&hasher, data, 65536, want);
	assert_int_equal(do_hash(conf, conn, &hashing, 4 << 20, 2 * 65536, hashes), 0);
	assert_memory_equal(hashes, want, WEFT_HASH_BYTES);
	assert_memory_equal(hashes + WEFT_HASH_BYTES, want, WEFT_HASH_BYTES);
	conf_end(conn);
}

static void a_question_for_hashes_has_bounds(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	const uint64_t max = conn->info.max_hash_blocks;
	struct weft_hashing hashing = {.block_bytes = 4096};
	static const uint32_t bad[] = {0, 512, 4095, 12288, 131072};

	if (max == 0) {
		const int r = do_hash(conf, conn, &hashing, 0, 4096, conf->buf);

		conf_end(conn);
		assert_int_equal(r, -EOPNOTSUPP);
		return;
	}
	if ((max + 1) * 4096 <= conf->size_bytes)
		assert_int_equal(do_hash(conf, conn, &hashing, 0, max * 4096 + 1, conf->buf),
			-EINVAL);
	assert_int_equal(do_hash(conf, conn, &hashing, 0, 0, conf->buf), -EINVAL);
	assert_int_equal(do_hash(conf, conn, NULL, 0, 4096, conf->buf), -EINVAL);
	assert_int_equal(do_hash(conf, conn, &hashing, conf->size_bytes, 1, conf->buf), -ENOSPC);
	assert_int_equal(do_hash(conf, conn, &hashing, 0, 4097,
				 conf->buf + CONF_BUF_BYTES - WEFT_HASH_BYTES),
		-EINVAL);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++) {
		hashing.block_bytes = bad[i];
		assert_int_equal(do_hash(conf, conn, &hashing, 0, 4096, conf->buf), -EINVAL);
	}
	conf_end(conn);
}

static int do_mark(struct conf *conf, struct tp_conn *conn, enum weft_mark_action action,
	uint64_t number, struct weft_marked *ret)
{
	struct weft_hashing hashing;

	weft_marking_pack(action, number, &hashing);
	int r = do_hash(conf, conn, &hashing, 4093, 1, conf->buf);
	if (r == 0)
		weft_marked_unpack(conf->buf, ret);
	return r;
}

static void a_mark_is_raised_and_set(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	struct weft_marked first, raised, set;

	if (!conn->info.can_mark) {
		conf_end(conn);
		conf_skip("%s keeps no marks", conf->fixture->name);
	}
	assert_int_equal(do_mark(conf, conn, WEFT_MARK_ASK, 0, &first), 0);
	assert_false(weft_is_marked(first.number));
	assert_int_equal(do_mark(conf, conn, WEFT_MARK_RAISE, 0, &raised), 0);
	assert_true(raised.number == first.number + 2);
	assert_int_equal(do_mark(conf, conn, WEFT_MARK_SET, raised.number, &set), 0);
	assert_true(set.number == raised.number + 1);
	assert_int_not_equal(do_mark(conf, conn, WEFT_MARK_SET, first.number, &set), 0);
	/* A question about more than a block is none. */
	struct weft_hashing hashing;
	weft_marking_pack(WEFT_MARK_ASK, 0, &hashing);
	assert_int_equal(do_hash(conf, conn, &hashing, 0, 4097, conf->buf), -EINVAL);
	conf_end(conn);
}

static void flush_is_carried_out(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);

	if (!conn->info.can_flush) {
		conf_end(conn);
		conf_skip("%s cannot flush", conf->fixture->name);
	}
	conf_fill(conf->buf, 0, 4096, 3);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, 0, 0, 4096, conf->buf), 0);
	assert_int_equal(conf_do(conf, conn, TP_FLUSH, 0, 0, 0, NULL), 0);
	conf_end(conn);
}

static void a_fua_write_is_a_write(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);

	if (!conn->info.can_fua) {
		conf_end(conn);
		conf_skip("%s has no FUA", conf->fixture->name);
	}
	conf_fill(conf->buf, 4096, 8192, 4);
	assert_int_equal(conf_do(conf, conn, TP_WRITE, TP_FUA, 4096, 8192, conf->buf), 0);
	memset(conf->buf, 0, 8192);
	assert_int_equal(conf_do(conf, conn, TP_READ, 0, 4096, 8192, conf->buf), 0);
	conf_check(conf->buf, 4096, 8192, 4);
	conf_end(conn);
}

static void a_probe_comes_back(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	struct conf_op ops[3];

	assert_int_equal(conf_do(conf, conn, TP_PROBE, 0, 0, 0, NULL), 0);
	for (int i = 0; i < 3; i++) {
		conf_op(conf, &ops[i], TP_PROBE, 0, 0, NULL);
		conf_post(conn, &ops[i]);
	}
	conf_drain(conn);
	for (int i = 0; i < 3; i++)
		assert_int_equal(ops[i].op.status, 0);
	conf_end(conn);
}

static void connections_see_each_others_completed_writes(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *a = conf_connect(conf, &conf->target);

	if (!a->info.can_multi_conn) {
		conf_end(a);
		conf_skip("%s has one connection at a time", conf->fixture->name);
	}
	struct tp_conn *b = conf_connect(conf, &conf->target);
	for (unsigned i = 0; i < 50; i++) {
		struct tp_conn *writer = i % 2 ? a : b, *reader = i % 2 ? b : a;

		conf_fill(conf->buf, i * 4096, 4096, i);
		assert_int_equal(conf_do(conf, writer, TP_WRITE, 0, i * 4096, 4096, conf->buf), 0);
		if (reader->info.can_flush)
			assert_int_equal(conf_do(conf, reader, TP_FLUSH, 0, 0, 0, NULL), 0);
		memset(conf->buf, 0, 4096);
		assert_int_equal(conf_do(conf, reader, TP_READ, 0, i * 4096, 4096, conf->buf), 0);
		conf_check(conf->buf, i * 4096, 4096, i);
	}
	conf_end(a);
	conf_end(b);
}

static void what_was_granted_makes_sense(void **state)
{
	struct conf *conf = *state;
	struct tp_conn *conn = conf_connect(conf, &conf->target);
	const struct tp_info *info = &conn->info;

	assert_int_equal(info->size_bytes, conf->size_bytes);
	assert_true(info->depth >= 1);
	assert_true(info->max_io_bytes >= 65536);
	assert_true(info->preferred_block_bytes >= info->min_block_bytes);
	assert_false(info->read_only);
	assert_true(info->transport[0] && info->path[0] && info->offers[0]);
	assert_int_equal(info->has_epoch, conf->fixture->epoch);
	if (info->has_epoch) {
		assert_int_equal(info->generation, conf->target.hello.generation);
		assert_true(info->epoch != 0);
	}
	conf_end(conn);
}

struct conf_cases conf_data_cases(void)
{
	static const struct CMUnitTest tests[] = {
		conf_case(what_was_granted_makes_sense),
		conf_case(patterns_at_odd_sizes_and_offsets),
		conf_case(random_operations_match_a_model),
		conf_case(large_reads_and_writes_pass_each_other),
		conf_case(the_largest_operation_passes),
		conf_case(a_full_queue_says_so_and_goes_on),
		conf_case(a_batch_over_the_depth_is_taken_in_part),
		conf_case(zeroed_ranges_read_as_zeros),
		conf_case(a_fast_zero_zeroes_or_says_that_it_is_slow),
		conf_case(a_trim_leaves_its_surroundings_alone),
		conf_case(a_cache_hint_changes_nothing),
		conf_case(hashes_are_those_of_the_blocks),
		conf_case(a_mark_is_raised_and_set),
		conf_case(a_question_for_hashes_has_bounds),
		conf_case(flush_is_carried_out),
		conf_case(a_fua_write_is_a_write),
		conf_case(a_probe_comes_back),
		conf_case(connections_see_each_others_completed_writes),
	};

	return (struct conf_cases){tests, WEFT_ARRAY_LEN(tests)};
}
