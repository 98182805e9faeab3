/* SPDX-License-Identifier: MIT */
/*
 * The NBD client's transmission phase: right replies in every shape, wrong ones each fatal to the
 * connection and never taken for data.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "tests/support/nbd-client-pair.h"

#define DONE NBD_REPLY_FLAG_DONE

static struct client_pair pair;
static uint8_t pattern[1 << 20];

static int open_simple(void **state)
{
	client_pair_open(&pair, false);
	return 0;
}

static int open_structured(void **state)
{
	client_pair_open(&pair, true);
	return 0;
}

static int close_pair(void **state)
{
	client_pair_close(&pair);
	return 0;
}

/* Posts one at buf and takes the request off the wire; returns its cookie. */
static uint64_t post(struct tp_op *op, enum tp_op_kind kind, uint64_t off, uint64_t len, void *buf)
{
	struct nbd_request_header req;
	struct tp_op *ops[1] = {op};

	*op = (struct tp_op){.kind = kind,
		.off = off,
		.len = len,
		.buf = buf,
		.mem = buf ? pair.mem : NULL,
		.status = 77};
	assert_int_equal(tp_post(pair.conn, ops, 1), 1);
	client_pair_request(&pair, &req);
	if (kind == TP_WRITE)
		client_pair_payload(&pair, pair.buf + (4 << 20), len);
	return req.cookie;
}

static void expect_done(struct tp_op *op, int status)
{
	assert_int_equal(client_pair_progress(&pair), 1);
	assert_int_equal(op->status, status);
	assert_int_equal(tp_state(pair.conn), TP_READY);
}

/* The connection fails for a broken protocol; op, which may be NULL, with it. */
static void expect_broken(struct tp_op *op, const char *why)
{
	assert_int_equal(client_pair_progress(&pair), op ? 1 : 0);
	assert_int_equal(tp_state(pair.conn), TP_FAILED);
	assert_int_equal(pair.conn->error, -EPROTO);
	if (!strstr(pair.conn->why.message, why))
		fail_msg("'%s' says nothing of '%s'", pair.conn->why.message, why);
	if (op)
		assert_int_equal(op->status, -ENOTCONN);
}

static const struct weft_hashing hashing = {.block_bytes = 4096, .key = {7}};

/* Asks for the hashes of three blocks, the last of them short. */
static uint64_t post_hash(struct tp_op *op, uint8_t *buf)
{
	struct tp_op *ops[1] = {op};
	struct nbd_request_header req;
	struct weft_hashing asked;
	uint8_t body[NBD_HASHING_BYTES];

	*op = (struct tp_op){.kind = TP_HASH,
		.off = 5,
		.len = 2 * 4096 + 1,
		.buf = buf,
		.mem = pair.mem,
		.hashing = &hashing};
	assert_int_equal(tp_post(pair.conn, ops, 1), 1);
	client_pair_request(&pair, &req);
	assert_int_equal(req.type, NBD_CMD_HASH);
	assert_int_equal(req.off, 5);
	assert_int_equal(req.len, 2 * 4096 + 1);
	client_pair_payload(&pair, body, sizeof(body));
	assert_int_equal(nbd_unpack_hashing(body, &asked), 0);
	assert_int_equal(asked.block_bytes, 4096);
	assert_memory_equal(asked.key, hashing.key, WEFT_HASH_KEY_BYTES);
	return req.cookie;
}

static void answer_hash(uint64_t cookie, uint16_t flags, uint32_t len)
{
	uint8_t head[NBD_CHUNK_BYTES];
	const struct nbd_chunk chunk = {
		.flags = flags, .type = NBD_REPLY_TYPE_HASHES, .cookie = cookie, .len = len};

	nbd_pack_chunk(head, &chunk);
	client_pair_send(&pair, head, sizeof(head));
	client_pair_send(&pair, pattern, len);
}

/* Right replies. */

static void hashes_land_in_their_buffer(void **state)
{
	struct tp_op op;

	memset(pair.buf, 0, 64);
	answer_hash(post_hash(&op, pair.buf), DONE, 48);
	expect_done(&op, 0);
	assert_memory_equal(pair.buf, pattern, 48);
	assert_int_equal(pair.buf[48], 0);
	client_pair_simple(&pair, post_hash(&op, pair.buf), NBD_ENOTSUP);
	expect_done(&op, -EOPNOTSUPP);
}

static void too_few_hashes_break_the_protocol(void **state)
{
	struct tp_op op;

	answer_hash(post_hash(&op, pair.buf), DONE, 32);
	expect_broken(&op, "impossible length");
}

static void too_many_hashes_break_the_protocol(void **state)
{
	struct tp_op op;

	answer_hash(post_hash(&op, pair.buf), DONE, 64);
	expect_broken(&op, "impossible length");
}

static void hashes_that_come_twice_break_the_protocol(void **state)
{
	struct tp_op op;
	uint64_t cookie = post_hash(&op, pair.buf);

	answer_hash(cookie, 0, 48);
	answer_hash(cookie, DONE, 48);
	expect_broken(&op, "out of place");
}

static void success_without_hashes_breaks_the_protocol(void **state)
{
	struct tp_op op;

	client_pair_simple(&pair, post_hash(&op, pair.buf), 0);
	expect_broken(&op, "lacks hashes");
}

static void hashes_that_nobody_asked_for_break_the_protocol(void **state)
{
	struct tp_op op;

	answer_hash(post(&op, TP_FLUSH, 0, 0, NULL), DONE, 48);
	expect_broken(&op, "out of place");
}

static void requests_say_what_was_posted(void **state)
{
	static const struct {
		uint8_t kind, flags;
		uint16_t type, wire_flags;
	} cases[] = {
		{TP_READ, 0, NBD_CMD_READ, 0},
		{TP_WRITE, TP_FUA, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA},
		{TP_FLUSH, 0, NBD_CMD_FLUSH, 0},
		{TP_TRIM, 0, NBD_CMD_TRIM, 0},
		{TP_ZERO, TP_NO_HOLE, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE},
		{TP_ZERO, TP_FAST_ZERO | TP_FUA, NBD_CMD_WRITE_ZEROES,
			NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_FUA},
		{TP_CACHE, 0, NBD_CMD_CACHE, 0},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		bool ranged = cases[i].kind != TP_FLUSH;
		struct tp_op op = {.kind = cases[i].kind,
			.flags = cases[i].flags,
			.off = ranged ? 1000 : 0,
			.len = ranged ? 10 : 0};
		struct tp_op *ops[1] = {&op};
		struct nbd_request_header req;

		if (op.kind == TP_READ || op.kind == TP_WRITE) {
			op.buf = pair.buf;
			op.mem = pair.mem;
		}
		assert_int_equal(tp_post(pair.conn, ops, 1), 1);
		client_pair_request(&pair, &req);
		assert_int_equal(req.type, cases[i].type);
		assert_int_equal(req.flags, cases[i].wire_flags);
		assert_int_equal(req.off, op.off);
		assert_int_equal(req.len, op.len);
		if (op.kind == TP_WRITE)
			client_pair_payload(&pair, pair.buf + 4096, 10);
		client_pair_simple(&pair, req.cookie, NBD_EIO);
		expect_done(&op, -EIO);
	}
}

static void a_simple_read_lands_in_its_buffer(void **state)
{
	struct tp_op op;
	uint64_t cookie = post(&op, TP_READ, 5, 10000, pair.buf);

	client_pair_simple(&pair, cookie, 0);
	client_pair_send(&pair, pattern, 10000);
	expect_done(&op, 0);
	assert_memory_equal(pair.buf, pattern, 10000);
}

static void errors_become_errno(void **state)
{
	static const struct {
		uint32_t wire;
		int status;
	} cases[] = {{NBD_EPERM, -EPERM}, {NBD_EIO, -EIO}, {NBD_ENOMEM, -ENOMEM},
		{NBD_EINVAL, -EINVAL}, {NBD_ENOSPC, -ENOSPC}, {NBD_EOVERFLOW, -EIO},
		{NBD_ENOTSUP, -EOPNOTSUPP}, {12345, -EIO}, {UINT32_MAX, -EIO}};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		struct tp_op op;

		client_pair_simple(&pair, post(&op, TP_FLUSH, 0, 0, NULL), cases[i].wire);
		expect_done(&op, cases[i].status);
	}
}

static void a_server_that_shuts_down_ends_the_connection(void **state)
{
	struct tp_op op;

	client_pair_simple(&pair, post(&op, TP_FLUSH, 0, 0, NULL), NBD_ESHUTDOWN);
	assert_int_equal(client_pair_progress(&pair), 1);
	assert_int_equal(op.status, -ENOTCONN);
	assert_int_equal(pair.conn->error, -ESHUTDOWN);
}

static void replies_arrive_in_any_order_byte_by_byte(void **state)
{
	struct tp_op ops[3];
	uint64_t cookies[3];
	uint8_t stream[3 * (NBD_SIMPLE_REPLY_BYTES + 100)];
	size_t n = 0;
	unsigned done = 0;

	for (int i = 0; i < 3; i++)
		cookies[i] = post(&ops[i], TP_READ, (uint64_t)i * 100, 100, pair.buf + i * 100);
	for (int i = 2; i >= 0; i--) {
		nbd_pack_simple_reply(stream + n, 0, cookies[i]);
		n += NBD_SIMPLE_REPLY_BYTES;
		memcpy(stream + n, pattern + i * 100, 100);
		n += 100;
	}
	for (size_t i = 0; i < n; i++) {
		client_pair_send(&pair, stream + i, 1);
		done += client_pair_progress(&pair);
		assert_int_equal(done, (i + 1) / (NBD_SIMPLE_REPLY_BYTES + 100));
	}
	assert_memory_equal(pair.buf, pattern, 300);
}

static void chunks_in_any_order_make_a_read(void **state)
{
	struct tp_op op;
	uint64_t c = post(&op, TP_READ, 1000, 100, pair.buf);
	uint8_t hole[12];

	memset(pair.buf, 0xee, 200);
	client_pair_data(&pair, c, 0, 1060, pattern + 60, 20);
	client_pair_data(&pair, c, 0, 1000, pattern, 10);
	client_pair_data(&pair, c, 0, 1090, pattern + 90, 10);
	weft_put64(hole, 1010);
	weft_put32(hole + 8, 50);
	client_pair_chunk(&pair, c, 0, NBD_REPLY_TYPE_OFFSET_HOLE, hole, 12);
	assert_int_equal(client_pair_progress(&pair), 0);
	client_pair_data(&pair, c, DONE, 1080, pattern + 80, 10);
	expect_done(&op, 0);
	assert_memory_equal(pair.buf, pattern, 10);
	for (int i = 10; i < 60; i++)
		assert_int_equal(pair.buf[i], 0);
	assert_memory_equal(pair.buf + 60, pattern + 60, 40);
	assert_int_equal(pair.buf[100], 0xee);
}

static void chunks_of_several_reads_may_mix(void **state)
{
	struct tp_op a, b;
	uint64_t ca = post(&a, TP_READ, 0, 64, pair.buf),
		 cb = post(&b, TP_READ, 64, 64, pair.buf + 64);

	client_pair_data(&pair, cb, 0, 64, pattern + 64, 32);
	client_pair_data(&pair, ca, 0, 0, pattern, 32);
	client_pair_data(&pair, cb, DONE, 96, pattern + 96, 32);
	client_pair_data(&pair, ca, 0, 32, pattern + 32, 32);
	assert_int_equal(client_pair_progress(&pair), 1);
	client_pair_chunk(&pair, ca, DONE, NBD_REPLY_TYPE_NONE, NULL, 0);
	expect_done(&a, 0);
	assert_int_equal(b.status, 0);
	assert_memory_equal(pair.buf, pattern, 128);
}

static void large_reads_arrive_whole(void **state)
{
	struct tp_op op[4];
	uint64_t c[4];

	for (unsigned i = 0; i < 4; i++)
		c[i] = post(&op[i], TP_READ, i, sizeof(pattern), pair.buf + i * sizeof(pattern));
	for (unsigned i = 0; i < 4; i++)
		client_pair_data(&pair, c[i], DONE, i, pattern, sizeof(pattern));
	client_pair_progress(&pair);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(op[i].status, 0);
		assert_memory_equal(pair.buf + i * sizeof(pattern), pattern, sizeof(pattern));
	}
}

static void an_error_chunk_fails_the_read_alone(void **state)
{
	struct tp_op op;
	uint64_t c = post(&op, TP_READ, 0, 100, pair.buf);
	uint8_t body[6 + 3 + 8];

	client_pair_data(&pair, c, 0, 0, pattern, 50);
	client_pair_error(&pair, c, DONE, NBD_EIO, "the disk is on fire");
	expect_done(&op, -EIO);
	/* With an offset; the first error counts. */
	c = post(&op, TP_READ, 0, 100, pair.buf);
	weft_put32(body, NBD_ENOSPC);
	weft_put16(body + 4, 3);
	memcpy(body + 6, "abc", 3);
	weft_put64(body + 9, 99);
	client_pair_chunk(&pair, c, 0, NBD_REPLY_TYPE_ERROR_OFFSET, body, sizeof(body));
	client_pair_error(&pair, c, 0, NBD_EPERM, "");
	client_pair_chunk(&pair, c, DONE, NBD_REPLY_TYPE_NONE, NULL, 0);
	expect_done(&op, -ENOSPC);
	/* Of a kind that is not known: an error all the same. */
	c = post(&op, TP_FLUSH, 0, 0, NULL);
	client_pair_chunk(&pair, c, DONE, (1 << 15) + 77, body, sizeof(body));
	expect_done(&op, -ENOSPC);
}

static void a_long_error_text_is_skipped(void **state)
{
	struct tp_op op, read;
	uint64_t c = post(&op, TP_WRITE, 0, 100, pair.buf),
		 r = post(&read, TP_READ, 0, 1 << 20, pair.buf);
	char text[4097];

	memset(text, 'x', 4096);
	text[4096] = '\0';
	client_pair_error(&pair, c, DONE, NBD_EIO, text);
	client_pair_data(&pair, r, DONE, 0, pattern, 1 << 20);
	client_pair_progress(&pair);
	assert_int_equal(op.status, -EIO);
	assert_int_equal(read.status, 0);
	assert_memory_equal(pair.buf, pattern, 1 << 20);
}

static void a_probe_reads_a_block(void **state)
{
	struct nbd_request_header req;
	struct tp_op op = {.kind = TP_PROBE}, *ops[1] = {&op};

	assert_int_equal(tp_post(pair.conn, ops, 1), 1);
	client_pair_request(&pair, &req);
	assert_int_equal(req.type, NBD_CMD_READ);
	assert_int_equal(req.len, 1);
	client_pair_data(&pair, req.cookie, DONE, 0, pattern, 1);
	expect_done(&op, 0);
}

static void a_clean_shutdown_says_goodbye(void **state)
{
	struct nbd_request_header req;

	tp_shutdown(pair.conn);
	client_pair_request(&pair, &req);
	assert_int_equal(req.type, NBD_CMD_DISC);
}

static void a_shutdown_with_work_in_flight_says_none(void **state)
{
	struct tp_op op;
	uint8_t byte;

	post(&op, TP_READ, 0, 100, pair.buf);
	tp_shutdown(pair.conn);
	assert_int_equal(recv(pair.fd, &byte, 1, 0), 0);
	assert_int_equal(client_pair_progress(&pair), 1);
	assert_int_equal(op.status, -ECANCELED);
}

static void posts_of_one_batch_leave_in_one_send(void **state)
{
	static struct tp_op ops[PAIR_DEPTH]; /* in flight until the connection is closed */
	struct tp_op *list[PAIR_DEPTH];
	uint8_t stream[PAIR_DEPTH * NBD_REQUEST_BYTES + 1];

	for (unsigned i = 0; i < PAIR_DEPTH; i++) {
		ops[i] = (struct tp_op){.kind = TP_FLUSH};
		list[i] = &ops[i];
	}
	assert_int_equal(tp_post(pair.conn, list, PAIR_DEPTH), PAIR_DEPTH);
	/* A stream socket of the Unix kind receives no more than one send at a time. */
	assert_int_equal(recv(pair.fd, stream, sizeof(stream), 0), PAIR_DEPTH * NBD_REQUEST_BYTES);
}

static void *end_later(void *ctx)
{
	usleep(300000);
	close(*(int *)ctx);
	return NULL;
}

static uint64_t close_ns(void)
{
	uint64_t begin_ns = weft_now_ns();

	client_pair_close(&pair);
	return weft_now_ns() - begin_ns;
}

/* Whoever closes goes on when the server has let go; if that never does, after a while. */
static void a_goodbye_ends_with_the_servers_answer(void **state)
{
	pthread_t thread;

	client_pair_open(&pair, false);
	pair.fd_stays = true;
	assert_int_equal(pthread_create(&thread, NULL, end_later, &pair.fd), 0);
	uint64_t took_ns = close_ns();
	pthread_join(thread, NULL);
	/* the thread was begun before */
	assert_in_range(took_ns, UINT64_C(150000000), UINT64_C(1900000000));
	client_pair_open(&pair, false);
	pair.fd_stays = true;
	took_ns = close_ns();
	assert_in_range(took_ns, UINT64_C(1900000000), UINT64_C(20000000000));
	close(pair.fd);
}

/* Deaths. */

static void a_server_that_dies_in_a_read(void **state)
{
	struct tp_op op;
	uint64_t c = post(&op, TP_READ, 0, 100000, pair.buf);

	client_pair_simple(&pair, c, 0);
	client_pair_send(&pair, pattern, 99999);
	assert_int_equal(client_pair_progress(&pair), 0);
	close(pair.fd);
	pair.fd = -1;
	assert_int_equal(client_pair_progress(&pair), 1);
	assert_int_equal(op.status, -ENOTCONN);
	assert_int_equal(pair.conn->error, -ENOTCONN);
}

static void a_server_that_dies_in_a_write(void **state)
{
	struct tp_op ops[4], *list[4];
	uint8_t some[1000];

	for (unsigned i = 0; i < 4; i++) {
		ops[i] = (struct tp_op){.kind = TP_WRITE, .off = i, .len = 1 << 20, .buf = pair.buf,
			.mem = pair.mem};
		list[i] = &ops[i];
	}
	assert_int_equal(tp_post(pair.conn, list, 4), 4);
	assert_int_equal(tp_arm(pair.conn), POLLIN | POLLOUT);
	client_pair_payload(&pair, some, sizeof(some));
	close(pair.fd);
	pair.fd = -1;
	client_pair_progress(&pair);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(ops[i].status, -ENOTCONN);
	assert_int_equal(pair.conn->nr_outstanding, 0);
}

/*
 * The server dies after N bytes of its answers, for N = 0, 1, … until it lives: what was whole
 * counts, nothing else.
 */
static void a_server_may_die_at_any_byte(void **state)
{
	enum { NR = 3, LEN = 20 };
	uint8_t stream[NR * (NBD_DATA_CHUNK_BYTES + LEN) + NBD_CHUNK_BYTES];

	for (size_t cut = 0; cut <= sizeof(stream); cut++) {
		struct tp_op ops[NR + 1];
		uint64_t c[NR + 1];
		size_t n = 0, whole[NR + 1];

		memset(pair.buf, 0xee, NR * LEN);
		for (unsigned i = 0; i < NR; i++) {
			c[i] = post(&ops[i], TP_READ, i * LEN, LEN, pair.buf + i * LEN);
			nbd_pack_data_chunk(stream + n, DONE, c[i], i * LEN, LEN);
			n += NBD_DATA_CHUNK_BYTES;
			memcpy(stream + n, pattern + i * LEN, LEN);
			n += LEN;
			whole[i] = n;
		}
		c[NR] = post(&ops[NR], TP_WRITE, 0, LEN, pair.buf + NR * LEN);
		const struct nbd_chunk none = {.flags = DONE,
			.type = NBD_REPLY_TYPE_NONE,
			.cookie = c[NR]};
		nbd_pack_chunk(stream + n, &none);
		whole[NR] = n + NBD_CHUNK_BYTES;
		assert_int_equal(whole[NR], sizeof(stream));
		client_pair_send(&pair, stream, cut);
		close(pair.fd);
		pair.fd = -1;
		assert_int_equal(client_pair_progress(&pair), NR + 1);
		for (unsigned i = 0; i <= NR; i++) {
			assert_int_equal(ops[i].status, whole[i] <= cut ? 0 : -ENOTCONN);
			if (i < NR && ops[i].status == 0)
				assert_memory_equal(pair.buf + i * LEN, pattern + i * LEN, LEN);
		}
		client_pair_close(&pair);
		client_pair_open(&pair, true);
	}
}

static void an_idle_connection_notices_the_end(void **state)
{
	struct pollfd fd = {.fd = tp_event_fd(pair.conn), .events = (short)tp_arm(pair.conn)};

	assert_int_equal(fd.events, POLLIN);
	close(pair.fd);
	pair.fd = -1;
	assert_int_equal(poll(&fd, 1, 1000), 1);
	assert_int_equal(client_pair_progress(&pair), 0);
	assert_int_equal(tp_state(pair.conn), TP_FAILED);
}

/* Wrong replies. */

static void an_unknown_cookie(void **state)
{
	struct tp_op op;

	client_pair_simple(&pair, post(&op, TP_FLUSH, 0, 0, NULL) + 1, 0);
	expect_broken(&op, "no request");
}

static void a_cookie_beyond_the_depth(void **state)
{
	struct tp_op op;

	client_pair_simple(&pair, post(&op, TP_FLUSH, 0, 0, NULL) | PAIR_DEPTH, 0);
	expect_broken(&op, "no request");
}

static void a_second_reply(void **state)
{
	struct tp_op op;
	uint64_t cookie = post(&op, TP_FLUSH, 0, 0, NULL);

	client_pair_simple(&pair, cookie, 0);
	expect_done(&op, 0);
	client_pair_simple(&pair, cookie, 0);
	expect_broken(NULL, "no request");
}

static void a_reply_of_an_earlier_use_of_the_slot(void **state)
{
	struct tp_op op;
	uint64_t old = post(&op, TP_FLUSH, 0, 0, NULL);

	client_pair_simple(&pair, old, 0);
	expect_done(&op, 0);
	uint64_t new = post(&op, TP_FLUSH, 0, 0, NULL);
	assert_int_equal((uint32_t)new, (uint32_t)old); /* the same slot */
	client_pair_simple(&pair, old, 0);
	expect_broken(&op, "no request");
}

static void wrong_magic(void **state)
{
	struct tp_op op;

	post(&op, TP_FLUSH, 0, 0, NULL);
	client_pair_send(&pair, "HTTP/1.1 400 Bad Request\r\n", 26);
	expect_broken(&op, "magic");
}

static void bytes_that_nobody_asked_for(void **state)
{
	client_pair_send(&pair, pattern, 100);
	assert_int_equal(client_pair_progress(&pair), 0);
	assert_int_equal(tp_state(pair.conn), TP_FAILED);
}

static void a_structured_reply_without_agreement(void **state)
{
	struct tp_op op;

	client_pair_chunk(&pair, post(&op, TP_FLUSH, 0, 0, NULL), DONE, NBD_REPLY_TYPE_NONE, NULL,
		0);
	expect_broken(&op, "agreed");
}

static void a_simple_reply_to_a_structured_read(void **state)
{
	struct tp_op op;

	client_pair_simple(&pair, post(&op, TP_READ, 0, 10, pair.buf), 0);
	expect_broken(&op, "simple reply");
}

/* A READ of 100 bytes is answered with the first 50, and with these. */
static void expect_broken_by(uint64_t off, uint32_t len, const char *why)
{
	struct tp_op op;
	uint64_t c = post(&op, TP_READ, 0, 100, pair.buf);

	client_pair_data(&pair, c, 0, 0, pattern, 50);
	client_pair_data(&pair, c, DONE, off, pattern, len);
	expect_broken(&op, why);
}

static void a_read_that_lacks_a_byte(void **state)
{
	expect_broken_by(51, 49, "lacks");
}

static void a_read_without_any_data(void **state)
{
	struct tp_op op;
	uint64_t c = post(&op, TP_READ, 0, 100, pair.buf);

	client_pair_chunk(&pair, c, DONE, NBD_REPLY_TYPE_NONE, NULL, 0);
	expect_broken(&op, "lacks");
}

/* As many bytes as were asked for, and yet not all of them. */
static void the_same_data_twice(void **state)
{
	expect_broken_by(0, 50, "twice");
}

static void data_that_overlaps_a_hole(void **state)
{
	struct tp_op op;
	uint64_t c = post(&op, TP_READ, 0, 100, pair.buf);
	uint8_t hole[12];

	client_pair_data(&pair, c, 0, 40, pattern, 20);
	weft_put64(hole, 0);
	weft_put32(hole + 8, 41);
	client_pair_chunk(&pair, c, 0, NBD_REPLY_TYPE_OFFSET_HOLE, hole, 12);
	expect_broken(&op, "twice");
}

static void data_outside_the_read(void **state)
{
	static const struct {
		uint64_t off;
		uint32_t len;
	} cases[] = {{999, 10}, {1091, 10}, {1100, 1}, {UINT64_MAX, 2}, {0, 100}};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		struct tp_op op;
		uint64_t c = post(&op, TP_READ, 1000, 100, pair.buf + 200);

		memset(pair.buf, 0xee, 1000);
		client_pair_data(&pair, c, DONE, cases[i].off, pattern, cases[i].len);
		expect_broken(&op, "not asked for");
		for (int k = 0; k < 1000; k++)
			assert_int_equal(pair.buf[k], 0xee);
		client_pair_close(&pair);
		client_pair_open(&pair, true);
	}
}

static void chunks_of_impossible_length(void **state)
{
	static const struct {
		uint16_t type, flags;
		uint32_t len;
	} cases[] = {
		{NBD_REPLY_TYPE_NONE, DONE, 1},
		{NBD_REPLY_TYPE_NONE, 0, 0},
		{NBD_REPLY_TYPE_OFFSET_DATA, DONE, 8},
		{NBD_REPLY_TYPE_OFFSET_DATA, DONE, 0},
		{NBD_REPLY_TYPE_OFFSET_DATA, DONE, 109},
		{NBD_REPLY_TYPE_OFFSET_DATA, DONE, UINT32_MAX},
		{NBD_REPLY_TYPE_OFFSET_HOLE, DONE, 11},
		{NBD_REPLY_TYPE_OFFSET_HOLE, DONE, 13},
		{NBD_REPLY_TYPE_ERROR, DONE, 5},
		{NBD_REPLY_TYPE_ERROR, DONE, UINT32_MAX},
		{NBD_REPLY_TYPE_BLOCK_STATUS, DONE, 12},
		{6, DONE, 0},
		{0x7fff, DONE, 0},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		struct tp_op op;
		uint64_t c = post(&op, TP_READ, 0, 100, pair.buf);

		client_pair_chunk(&pair, c, cases[i].flags, cases[i].type, NULL, cases[i].len);
		expect_broken(&op, "chunk");
		client_pair_close(&pair);
		client_pair_open(&pair, true);
	}
}

static void error_chunks_that_make_no_sense(void **state)
{
	struct tp_op op;
	uint8_t body[20] = {0};

	for (int i = 0; i < 4; i++) {
		uint64_t c = post(&op, TP_READ, 0, 100, pair.buf);

		weft_put32(body, i == 0 ? 0 : NBD_EIO); /* no error */
		weft_put16(body + 4, i == 1 ? 15 : 0);  /* text beyond the chunk */
		weft_put64(body + 6, 100);              /* an offset outside */
		client_pair_chunk(&pair, c, DONE,
			i == 3 ? NBD_REPLY_TYPE_ERROR_OFFSET : NBD_REPLY_TYPE_ERROR, body,
			i == 3 ? 14 : i == 2 ? 7 : i == 0 ? 6 : 20);
		expect_broken(&op, "error");
		client_pair_close(&pair);
		client_pair_open(&pair, true);
	}
}

static void data_in_reply_to_a_write(void **state)
{
	struct tp_op op;
	uint64_t c = post(&op, TP_WRITE, 0, 100, pair.buf);

	client_pair_data(&pair, c, DONE, 0, pattern, 100);
	expect_broken(&op, "out of place");
}

/* Its buffer would be reused while it is still being sent. */
static void success_of_a_write_that_has_not_left(void **state)
{
	struct tp_op op = {.kind = TP_WRITE, .len = 4 << 20, .buf = pair.buf, .mem = pair.mem};
	struct tp_op *ops[1] = {&op};
	struct nbd_request_header req;

	assert_int_equal(tp_post(pair.conn, ops, 1), 1);
	client_pair_request(&pair, &req);
	client_pair_simple(&pair, req.cookie, 0);
	expect_broken(&op, "no request");
}

#define simple(fn) cmocka_unit_test_setup_teardown(fn, open_simple, close_pair)
#define structured(fn) cmocka_unit_test_setup_teardown(fn, open_structured, close_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		structured(hashes_land_in_their_buffer),
		structured(too_few_hashes_break_the_protocol),
		structured(too_many_hashes_break_the_protocol),
		structured(hashes_that_come_twice_break_the_protocol),
		structured(success_without_hashes_breaks_the_protocol),
		structured(hashes_that_nobody_asked_for_break_the_protocol),
		simple(requests_say_what_was_posted),
		simple(a_simple_read_lands_in_its_buffer),
		simple(errors_become_errno),
		simple(a_server_that_shuts_down_ends_the_connection),
		simple(replies_arrive_in_any_order_byte_by_byte),
		structured(chunks_in_any_order_make_a_read),
		structured(chunks_of_several_reads_may_mix),
		structured(large_reads_arrive_whole),
		structured(an_error_chunk_fails_the_read_alone),
		structured(a_long_error_text_is_skipped),
		structured(a_probe_reads_a_block),
		simple(a_clean_shutdown_says_goodbye),
		cmocka_unit_test(a_goodbye_ends_with_the_servers_answer),
		simple(a_shutdown_with_work_in_flight_says_none),
		simple(posts_of_one_batch_leave_in_one_send),
		simple(a_server_that_dies_in_a_read),
		simple(a_server_that_dies_in_a_write),
		structured(a_server_may_die_at_any_byte),
		simple(an_idle_connection_notices_the_end),
		simple(an_unknown_cookie),
		simple(a_cookie_beyond_the_depth),
		simple(a_second_reply),
		simple(a_reply_of_an_earlier_use_of_the_slot),
		simple(wrong_magic),
		structured(bytes_that_nobody_asked_for),
		simple(a_structured_reply_without_agreement),
		structured(a_simple_reply_to_a_structured_read),
		structured(a_read_that_lacks_a_byte),
		structured(a_read_without_any_data),
		structured(the_same_data_twice),
		structured(data_that_overlaps_a_hole),
		structured(data_outside_the_read),
		structured(chunks_of_impossible_length),
		structured(error_chunks_that_make_no_sense),
		structured(data_in_reply_to_a_write),
		simple(success_of_a_write_that_has_not_left),
	};

	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 7 + (i >> 8));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
