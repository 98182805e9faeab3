/* SPDX-License-Identifier: MIT */
/*
 * The NBD client against a server that answers wrong, from a seeded generator: never a crash, a
 * hang, or bytes in a successful READ that the server did not claim for it.  WEFT_SEED repeats a
 * run.
 *
 * The server's data is a function of the offset that it claims, so that whatever the client takes
 * for good can be checked.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "tests/support/emulated.h"
#include "tests/support/nbd-client-pair.h"
#include "tests/support/seed.h"

enum { ROUNDS = 3000, OPS = 12, MAX_LEN = 40000 };

static uint64_t seed, rng, nr_good;
static struct client_pair pair;

static uint64_t next(void)
{
	/* splitmix64 */
	uint64_t z = (rng += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool one_in(unsigned n)
{
	return next() % n == 0;
}

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 7 ^ off >> 8 ^ off >> 16) | 1; /* never 0: holes are told apart */
}

static void fill(uint8_t *buf, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = byte_at(off + i);
}

/* A value near right, now and then. */
static uint64_t bend(uint64_t value, unsigned chance)
{
	if (!one_in(chance))
		return value;
	switch (next() % 5) {
	case 0:
		return value + 1;
	case 1:
		return value - 1;
	case 2:
		return value ^ UINT64_C(1) << next() % 64;
	case 3:
		return 0;
	default:
		return next();
	}
}

static uint8_t scratch[2 * MAX_LEN];

static const struct nbd_request_header *find(const struct nbd_request_header *reqs, unsigned nr,
	uint64_t cookie)
{
	for (unsigned i = 0; i < nr; i++)
		if (reqs[i].cookie == cookie)
			return &reqs[i];
	return NULL;
}

/* False: too much or too little data was sent, nothing that comes after it would mean anything. */
static bool answer_simple(const struct nbd_request_header *reqs, unsigned nr,
	const struct nbd_request_header *meant, unsigned chance)
{
	uint64_t cookie = bend(meant->cookie, chance);
	uint32_t error = one_in(8) ? NBD_EIO : (uint32_t)bend(0, chance);
	const struct nbd_request_header *req = find(reqs, nr, cookie);

	client_pair_simple(&pair, cookie, error);
	if (!req)
		req = meant;
	if (req->type != NBD_CMD_READ || error != 0)
		return true;
	uint32_t len = one_in(chance) ? (uint32_t)(next() % MAX_LEN) : req->len;
	fill(scratch, req->off, len);
	client_pair_send(&pair, scratch, len);
	return len == req->len;
}

static void answer_chunks(const struct nbd_request_header *req, unsigned chance)
{
	uint64_t cookie = req->cookie;
	uint32_t at = 0;

	while (req->type == NBD_CMD_READ && at < req->len && !one_in(4 * chance)) {
		uint32_t len = one_in(2) ? req->len - at : (uint32_t)(1 + next() % (req->len - at));
		uint64_t off = bend(req->off + at, chance);
		bool last = at + len == req->len;
		uint16_t flags = last && one_in(2) ? NBD_REPLY_FLAG_DONE : 0;
		uint8_t hole[12];

		if (one_in(chance))
			flags ^= 1;
		cookie = bend(cookie, 3 * chance);
		if (one_in(4)) {
			weft_put64(hole, off);
			weft_put32(hole + 8, (uint32_t)bend(len, chance));
			client_pair_chunk(&pair, cookie, flags, NBD_REPLY_TYPE_OFFSET_HOLE, hole,
				(uint32_t)weft_min(bend(12, 4 * chance), 12));
		} else {
			uint8_t head[NBD_DATA_CHUNK_BYTES];
			uint32_t said = (uint32_t)bend(len, 2 * chance);

			nbd_pack_data_chunk(head, flags, cookie, off, said);
			client_pair_send(&pair, head, sizeof(head));
			/* As many bytes as it says, if they are bearable. */
			len = (uint32_t)weft_min(said, sizeof(scratch));
			fill(scratch, off, len);
			client_pair_send(&pair, scratch, len);
		}
		if (flags & NBD_REPLY_FLAG_DONE)
			return;
		at += len;
	}
	if (one_in(6))
		client_pair_error(&pair, cookie, one_in(chance) ? 0 : NBD_REPLY_FLAG_DONE,
			(uint32_t)bend(NBD_EIO, chance), one_in(2) ? "" : "so it goes");
	else
		client_pair_chunk(&pair, bend(cookie, 2 * chance), NBD_REPLY_FLAG_DONE,
			(uint16_t)bend(NBD_REPLY_TYPE_NONE, chance), NULL,
			(uint32_t)bend(0, chance));
}

/* A READ that succeeded holds what was claimed for it, or a hole's zeros. */
static void check_good(const struct tp_op *op, bool structured)
{
	const uint8_t *buf = op->buf;

	for (uint64_t i = 0; i < op->len; i++)
		if (buf[i] != byte_at(op->off + i) && !(structured && buf[i] == 0))
			fail_msg("byte %ju of %ju at %ju is %#x", (uintmax_t)i, (uintmax_t)op->len,
				(uintmax_t)op->off, buf[i]);
}

/* One connection: some operations, answered in any order and more or less wrong. */
static void one_connection(bool structured)
{
	struct nbd_request_header reqs[OPS];
	struct tp_op ops[OPS], *list[OPS];
	unsigned nr = (unsigned)(1 + next() % OPS), todo[OPS];
	unsigned chance = (unsigned)(3 + next() % 60);
	bool sane = true;

	client_pair_open(&pair, structured);
	for (unsigned i = 0; i < nr; i++) {
		uint8_t kind = one_in(4) ? TP_WRITE : one_in(8) ? TP_FLUSH : TP_READ;
		uint64_t len = one_in(2) ? 1 + next() % MAX_LEN : 1 + next() % 64;

		ops[i] = (struct tp_op){.kind = kind, .status = 77};
		if (kind != TP_FLUSH) {
			ops[i].len = len;
			ops[i].off = next() % (PAIR_REGION_BYTES - len);
			ops[i].buf = pair.buf + i * MAX_LEN;
			ops[i].mem = pair.mem;
			memset(ops[i].buf, 0xfe, len); /* no byte of the server's: those are odd */
		}
		list[i] = &ops[i];
	}
	assert_int_equal(tp_post(pair.conn, list, nr), nr);
	for (unsigned i = 0; i < nr; i++) {
		todo[i] = i;
		client_pair_request(&pair, &reqs[i]);
		if (reqs[i].type == NBD_CMD_WRITE)
			client_pair_payload(&pair, scratch, reqs[i].len);
	}
	for (unsigned left = nr; left > 0 && sane && tp_state(pair.conn) == TP_READY;) {
		unsigned pick = (unsigned)(next() % left);

		if (one_in(2 * chance)) {
			uint8_t noise[64];

			for (unsigned i = 0; i < sizeof(noise); i++)
				noise[i] = (uint8_t)next();
			client_pair_send(&pair, noise, 1 + next() % sizeof(noise));
		}
		if (structured)
			answer_chunks(&reqs[todo[pick]], chance);
		else
			sane = answer_simple(reqs, nr, &reqs[todo[pick]], chance);
		if (one_in(2))
			client_pair_progress(&pair);
		if (!one_in(chance)) /* else it may be answered twice */
			todo[pick] = todo[--left];
	}
	client_pair_progress(&pair);
	/* Whatever is left ends here. */
	tp_shutdown(pair.conn);
	client_pair_progress(&pair);
	assert_int_equal(pair.conn->nr_outstanding, 0);
	for (unsigned i = 0; i < nr; i++) {
		nr_good += ops[i].status == 0;
		assert_true(ops[i].status <= 0);
		if (ops[i].kind == TP_READ && ops[i].status == 0)
			check_good(&ops[i], structured);
	}
	client_pair_close(&pair);
}

static void whatever_comes_is_survived(void **state)
{
	struct rusage usage;
	long before __attribute__((unused)) = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		rng = seed + i;
		one_connection(i % 2);
		if (i == ROUNDS / 2) {
			getrusage(RUSAGE_SELF, &usage);
			before = usage.ru_maxrss;
		}
	}
	getrusage(RUSAGE_SELF, &usage);
	/* In KiB.  The sanitizers keep what was freed; they have their own means to find leaks. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	if (MEMORY_IS_OURS())
		assert_true(usage.ru_maxrss < before + 8192);
#endif
	/* The generator is not so wrong that nothing is ever right. */
	print_message("%ju operations succeeded\n", (uintmax_t)nr_good);
	assert_true(nr_good > ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(whatever_comes_is_survived)};

	seed = seed_or(weft_now_ns());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
