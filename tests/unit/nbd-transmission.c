/* SPDX-License-Identifier: MIT */
/* The NBD engine's transmission phase: every command, right and wrong, over a socketpair. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/base/util.h"
#include "tests/support/nbd-memory.h"
#include "tests/support/nbd-raw.h"

enum { SIZE = 8 << 20 };

static uint8_t mem[SIZE];
static uint8_t data[SIZE];

struct fixture {
	struct nbd_memory m;
	struct nbd_raw raw;
};

static int set_up(void **state)
{
	static struct fixture f;

	for (size_t i = 0; i < SIZE; i += 8)
		weft_put64(mem + i, i * 0x9e3779b97f4a7c15);
	nbd_memory_init(&f.m, mem, SIZE);
	nbd_raw_pair(&f.raw, &f.m.service, &f.m);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	nbd_raw_close(&f->raw);
	while (f->m.nr_held > 0)
		nbd_memory_complete(&f->m, 0, 0);
	return f->m.nr_opened == f->m.nr_closed && f->m.nr_in_use == 0 ? 0 : -1;
}

static struct fixture *simple(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(nbd_raw_go(&f->raw, "", false), 0);
	return f;
}

static struct fixture *structured(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(nbd_raw_go(&f->raw, "", true), 0);
	return f;
}

static int command(struct fixture *f, uint16_t flags, uint16_t type, uint64_t off, uint32_t len)
{
	return nbd_raw_command(&f->raw, flags, type, off, len, data);
}

static struct nbd_raw_answer answer(struct fixture *f, uint32_t data_len)
{
	struct nbd_raw_answer a;

	assert_int_equal(nbd_raw_answer(&f->raw, &a, data, data_len), 0);
	return a;
}

/* ---- what works ---- */

static void write_then_read_at_odd_sizes(void **state)
{
	static const uint32_t lens[] = { 1, 511, 4096, 16383, 16384, 70001, 1 << 20, 3 << 20 };
	struct fixture *f = *state;

	for (int form = 0; form < 2; form++) {
		nbd_raw_close(&f->raw);
		nbd_raw_pair(&f->raw, &f->m.service, &f->m);
		assert_int_equal(nbd_raw_go(&f->raw, "", form), 0);
		for (size_t i = 0; i < WEFT_ARRAY_LEN(lens); i++) {
			const uint64_t off = 4095 * i + (uint64_t)form;

			memset(data, (int)(10 * form + 1 + (int)i), lens[i]);
			assert_int_equal(command(f, 0, NBD_CMD_WRITE, off, lens[i]), 0);
			assert_memory_equal(mem + off, data, lens[i]);
			memset(data, 0, lens[i]);
			assert_int_equal(command(f, 0, NBD_CMD_READ, off, lens[i]), 0);
			assert_memory_equal(mem + off, data, lens[i]);
		}
	}
}

static void payload_in_odd_pieces(void **state)
{
	struct fixture *f = simple(state);
	static const size_t steps[] = { 1, 27, 28, 29, 4095 };

	for (size_t i = 0; i < WEFT_ARRAY_LEN(steps); i++) {
		f->raw.step = steps[i];
		for (uint32_t len = 16300; len < 16500; len += 97) {
			memset(data, (int)len, len);
			assert_int_equal(command(f, 0, NBD_CMD_WRITE, 3, len), 0);
			assert_memory_equal(mem + 3, data, len);
			assert_int_equal(command(f, 0, NBD_CMD_READ, 3, len), 0);
			assert_memory_equal(mem + 3, data, len);
		}
	}
}

static void structured_read_has_offset_and_done(void **state)
{
	struct fixture *f = structured(state);
	struct nbd_raw_answer a;

	nbd_raw_request(&f->raw, NBD_CMD_FLAG_DF, NBD_CMD_READ, 7, 4096, 512);
	a = answer(f, 512);
	assert_int_equal(a.type, NBD_REPLY_TYPE_OFFSET_DATA);
	assert_int_equal(a.off, 4096);
	assert_int_equal(a.cookie, 7);
	assert_true(a.done);
	assert_memory_equal(data, mem + 4096, 512);
}

static void commands_without_payload(void **state)
{
	struct fixture *f = simple(state);
	static const uint8_t zeros[8192];

	assert_int_equal(command(f, 0, NBD_CMD_FLUSH, 0, 0), 0);
	assert_int_equal(command(f, NBD_CMD_FLAG_FUA, NBD_CMD_TRIM, 0, SIZE), 0);
	assert_int_equal(command(f, 0, NBD_CMD_CACHE, 0, SIZE), 0);
	assert_int_equal(command(f, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES, 512, 8192), 0);
	assert_memory_equal(mem + 512, zeros, 8192);
	assert_int_equal(command(f, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES, 512, 8192),
		NBD_ENOTSUP);
	assert_int_equal(command(f, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 0, 100), 0);
	assert_int_equal(f->m.nr_released, 6);
}

static void signs_of_life_come_once_a_batch(void **state)
{
	struct fixture *f = simple(state);
	uint8_t requests[16 * NBD_REQUEST_BYTES];
	const unsigned before = f->m.nr_received;

	for (unsigned i = 0; i < 16; i++)
		nbd_pack_request(requests + i * NBD_REQUEST_BYTES,
			&(struct nbd_request_header){ .type = NBD_CMD_FLUSH, .cookie = i });
	nbd_raw_send(&f->raw, requests, sizeof(requests));
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(answer(f, 0).cookie, i);
	assert_int_equal(f->m.nr_received, before + 1);
}

/* ---- block status ---- */

static void block_status_tells_holes(void **state)
{
	struct fixture *f = structured(state);

	f->m.zero_extents = true;
	memset(mem + 4096, 0, 8192);
	nbd_raw_request(&f->raw, 0, NBD_CMD_BLOCK_STATUS, 1, 100, 16384);
	struct nbd_raw_answer a = answer(f, 4 + 8 * NBD_MAX_EXTENTS);
	assert_int_equal(a.type, NBD_REPLY_TYPE_BLOCK_STATUS);
	assert_int_equal(a.len, 4 + 3 * 8);
	assert_int_equal(weft_get32(data), 1);
	assert_int_equal(weft_get32(data + 4), 3996);
	assert_int_equal(weft_get32(data + 8), 0);
	assert_int_equal(weft_get32(data + 12), 8192);
	assert_int_equal(weft_get32(data + 16), NBD_STATE_HOLE | NBD_STATE_ZERO);
	assert_int_equal(weft_get32(data + 20), 16384 - 8192 - 3996);

	nbd_raw_request(&f->raw, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS, 1, 4096, 16384);
	a = answer(f, 4 + 8 * NBD_MAX_EXTENTS);
	assert_int_equal(a.len, 4 + 8);
	assert_int_equal(weft_get32(data + 4), 8192);
}

static void block_status_is_bounded(void **state)
{
	struct fixture *f = structured(state);

	f->m.zero_extents = true;
	for (size_t page = 0; page < SIZE / 4096; page += 2)
		memset(mem + page * 4096, 0, 4096);
	nbd_raw_request(&f->raw, 0, NBD_CMD_BLOCK_STATUS, 1, 0, SIZE);
	assert_int_equal(answer(f, 4 + 8 * NBD_MAX_EXTENTS).len, 4 + 8 * NBD_MAX_EXTENTS);
	for (unsigned i = 0; i < NBD_MAX_EXTENTS; i++)
		assert_int_equal(weft_get32(data + 8 + 8 * i), i % 2 ? 0 : 3);
}

static void block_status_answers_each_context(void **state)
{
	static const char *const queries[] = { "base:allocation",
		"weft:session:id=00112233445566778899aabbccddeeff,gen=1,mode=w,name=me" };
	struct fixture *f = *state;

	nbd_raw_hello(&f->raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	nbd_raw_option(&f->raw, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	nbd_raw_final(&f->raw, NBD_OPT_STRUCTURED_REPLY);
	nbd_raw_option(&f->raw, NBD_OPT_SET_META_CONTEXT, data,
		nbd_raw_context_data(data, "", queries, 2));
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_SET_META_CONTEXT), NBD_REP_ACK);
	nbd_raw_option(&f->raw, NBD_OPT_GO, data, nbd_raw_info_data(data, "", NULL, 0));
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_GO), NBD_REP_ACK);
	nbd_raw_request(&f->raw, 0, NBD_CMD_BLOCK_STATUS, 9, 0, 4096);
	struct nbd_raw_answer a = answer(f, 100);
	assert_int_equal(weft_get32(data), 1);
	assert_false(a.done);
	a = answer(f, 100);
	assert_int_equal(weft_get32(data), 2);
	assert_int_equal(weft_get32(data + 4), 4096);
	assert_true(a.done);
}

static void long_extents_fit_32_bits(void **state)
{
	struct fixture *f = *state;

	f->m.size_bytes = UINT64_C(1) << 40;
	f->m.hold = true;
	f = structured(state);
	nbd_raw_request(&f->raw, 0, NBD_CMD_BLOCK_STATUS, 9, 0, UINT32_MAX);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->m.nr_held, 1);
	struct nbd_request *rq = f->m.held[0];
	f->m.nr_held = 0;
	rq->extents[0] = (struct nbd_extent){ UINT64_C(1) << 40, 0 };
	rq->nr_extents = 1;
	nbd_request_complete(rq, 0);
	assert_int_equal(answer(f, 100).len, 12);
	assert_int_equal(weft_get32(data + 4), 0xfffff000);
}

/* ---- refusals: each a reply, and the connection lives ---- */

static void bad_requests_are_answered(void **state)
{
	static const struct {
		uint16_t flags, type;
		uint64_t off;
		uint32_t len, simple, structured;
	} cases[] = {
		{ 0, NBD_CMD_READ, SIZE, 1, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_READ, SIZE - 1, 2, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_READ, UINT64_MAX, 1, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_READ, UINT64_MAX - 511, 512, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_READ, 0, 0, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_READ, 0, UINT32_MAX, NBD_EINVAL, NBD_EINVAL },
		{ NBD_CMD_FLAG_DF, NBD_CMD_READ, 0, 512, NBD_EINVAL, 0 },
		{ NBD_CMD_FLAG_NO_HOLE, NBD_CMD_READ, 0, 512, NBD_EINVAL, NBD_EINVAL },
		{ NBD_CMD_FLAG_FUA, NBD_CMD_READ, 0, 512, 0, 0 },
		{ 1 << 15, NBD_CMD_READ, 0, 512, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_WRITE, SIZE, 1, NBD_ENOSPC, NBD_ENOSPC },
		{ 0, NBD_CMD_WRITE, SIZE - 1, 70000, NBD_ENOSPC, NBD_ENOSPC },
		{ 0, NBD_CMD_WRITE, UINT64_MAX - 99, 100, NBD_ENOSPC, NBD_ENOSPC },
		{ 0, NBD_CMD_WRITE, 0, 0, NBD_EINVAL, NBD_EINVAL },
		{ NBD_CMD_FLAG_DF, NBD_CMD_WRITE, 0, 4 << 20, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_WRITE, 0, (4 << 20) + 1, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_FLUSH, 1, 0, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_FLUSH, 0, 1, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_TRIM, 1, SIZE, NBD_EINVAL, NBD_EINVAL },
		{ NBD_CMD_FLAG_NO_HOLE, NBD_CMD_TRIM, 0, 1, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_WRITE_ZEROES, 1, SIZE, NBD_ENOSPC, NBD_ENOSPC },
		{ 0, NBD_CMD_WRITE_ZEROES, 0, UINT32_MAX, NBD_ENOSPC, NBD_ENOSPC },
		{ NBD_CMD_FLAG_REQ_ONE, NBD_CMD_WRITE_ZEROES, 0, 1, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_CACHE, 1, SIZE, NBD_EINVAL, NBD_EINVAL },
		{ 0, NBD_CMD_BLOCK_STATUS, 1, SIZE, NBD_EINVAL, NBD_EINVAL },
		{ 0, 8, 0, 0, NBD_EINVAL, NBD_EINVAL },
		{ 0, 0xffff, 0, 0, NBD_EINVAL, NBD_EINVAL },
	};
	struct fixture *f = *state;

	f->m.max_block_bytes = 4 << 20;
	for (int form = 0; form < 2; form++) {
		nbd_raw_close(&f->raw);
		nbd_raw_pair(&f->raw, &f->m.service, &f->m);
		assert_int_equal(nbd_raw_go(&f->raw, "", form), 0);
		for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
			const int want = (int)(form ? cases[i].structured : cases[i].simple);
			const int got = command(f, cases[i].flags, cases[i].type, cases[i].off,
				cases[i].len);

			if (got != want)
				fail_msg("case %zu, form %d: %d, not %d", i, form, got, want);
		}
		assert_int_equal(command(f, 0, NBD_CMD_READ, 0, 4096), 0);
		assert_memory_equal(data, mem, 4096);
	}
}

static void refused_write_changes_nothing(void **state)
{
	struct fixture *f = simple(state);
	uint8_t before[4096];

	memcpy(before, mem, sizeof(before));
	memset(data, 'x', 1 << 20);
	assert_int_equal(command(f, 1 << 9, NBD_CMD_WRITE, 0, 1 << 20), NBD_EINVAL);
	assert_memory_equal(mem, before, sizeof(before));
	assert_int_equal(f->m.nr_prepared, 0);
}

static void what_is_not_offered_is_refused(void **state)
{
	struct fixture *f = *state;

	f->m.flags = 0;
	f = structured(state);
	assert_int_equal(command(f, 0, NBD_CMD_FLUSH, 0, 0), NBD_EINVAL);
	assert_int_equal(command(f, 0, NBD_CMD_TRIM, 0, 1), NBD_EINVAL);
	assert_int_equal(command(f, 0, NBD_CMD_CACHE, 0, 1), NBD_EINVAL);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE_ZEROES, 0, 1), NBD_EINVAL);
	assert_int_equal(command(f, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 0, 1), NBD_EINVAL);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE, 0, 1), 0);
}

static void fast_zero_must_be_offered(void **state)
{
	struct fixture *f = *state;

	f->m.flags = NBD_FLAG_SEND_WRITE_ZEROES;
	f = simple(state);
	assert_int_equal(command(f, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES, 0, 1),
		NBD_EINVAL);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE_ZEROES, 0, 1), 0);
}

static void read_only_export_is_not_written(void **state)
{
	struct fixture *f = *state;

	f->m.flags |= NBD_FLAG_READ_ONLY;
	f = simple(state);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE, 0, 4096), NBD_EPERM);
	assert_int_equal(command(f, 0, NBD_CMD_TRIM, 0, 4096), NBD_EPERM);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE_ZEROES, 0, 4096), NBD_EPERM);
	assert_int_equal(command(f, 0, NBD_CMD_READ, 0, 4096), 0);
	assert_int_equal(f->m.nr_submitted, 1);
}

static void unaligned_requests_are_invalid(void **state)
{
	struct fixture *f = *state;

	f->m.min_block_bytes = 512;
	f = simple(state);
	assert_int_equal(command(f, 0, NBD_CMD_READ, 511, 512), NBD_EINVAL);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE, 512, 100), NBD_EINVAL);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE, 512, 1024), 0);
}

static void service_errors_are_replies(void **state)
{
	struct fixture *f = structured(state);

	f->m.error = -EIO;
	assert_int_equal(command(f, 0, NBD_CMD_READ, 0, 4096), NBD_EIO);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE, 0, 4096), NBD_EIO);
	assert_int_equal(command(f, 0, NBD_CMD_FLUSH, 0, 0), NBD_EIO);
	assert_int_equal(command(f, 0, NBD_CMD_BLOCK_STATUS, 0, 4096), NBD_EIO);
	f->m.error = -ESTALE;
	assert_int_equal(command(f, 0, NBD_CMD_READ, 0, 4096), NBD_EIO);
	f->m.error = 0;
	f->m.prepare_error = -ENOMEM;
	assert_int_equal(command(f, 0, NBD_CMD_READ, 0, 4096), NBD_ENOMEM);
	assert_int_equal(command(f, 0, NBD_CMD_WRITE, 0, 1 << 20), NBD_ENOMEM);
	f->m.prepare_error = 0;
	assert_int_equal(command(f, 0, NBD_CMD_READ, 0, 4096), 0);
	assert_int_equal(f->m.nr_in_use, 0);
}

/* ---- ends ---- */

static void wrong_request_magic_ends_the_connection(void **state)
{
	struct fixture *f = simple(state);

	nbd_raw_request(&f->raw, 0, NBD_CMD_READ, 5, 0, 512);
	memset(data, 0, NBD_REQUEST_BYTES);
	nbd_raw_send(&f->raw, data, NBD_REQUEST_BYTES);
	/* What came before it is answered. */
	assert_int_equal(answer(f, 512).cookie, 5);
	assert_true(nbd_raw_ended(&f->raw));
	assert_int_equal(f->raw.server_result, -EPROTO);
}

static void disc_is_a_clean_end(void **state)
{
	struct fixture *f = simple(state);

	nbd_raw_request(&f->raw, 0, NBD_CMD_FLUSH, 1, 0, 0);
	nbd_raw_request(&f->raw, 0xffff, NBD_CMD_DISC, 2, 0, 0);
	assert_int_equal(answer(f, 0).cookie, 1);
	assert_true(nbd_raw_ended(&f->raw));
	assert_int_equal(f->raw.server_result, 0);
	nbd_raw_close(&f->raw);
	assert_int_equal(f->m.nr_closed, 1);
	assert_true(f->m.clean);
}

static void hanging_up_is_not_clean(void **state)
{
	struct fixture *f = simple(state);

	shutdown(f->raw.fd, SHUT_WR);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->raw.server_result, 0);
	nbd_raw_close(&f->raw);
	assert_false(f->m.clean);
}

static void end_inside_a_payload_is_an_error(void **state)
{
	struct fixture *f = simple(state);

	nbd_raw_request(&f->raw, 0, NBD_CMD_WRITE, 1, 0, 4096);
	nbd_raw_send(&f->raw, data, 4095);
	shutdown(f->raw.fd, SHUT_WR);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->raw.server_result, -ECONNRESET);
	assert_int_equal(f->m.nr_submitted, 0);
	assert_int_equal(f->m.nr_in_use, 1);
	nbd_raw_close(&f->raw);
	assert_int_equal(f->m.nr_in_use, 0);
}

/* ---- many in flight ---- */

static void completions_may_come_in_any_order(void **state)
{
	struct fixture *f = structured(state);

	f->m.hold = true;
	for (uint64_t i = 0; i < 50; i++)
		nbd_raw_request(&f->raw, 0, NBD_CMD_READ, i, i * 4096, 4096);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->m.nr_held, 50);
	assert_int_equal(nbd_conn_nr_requests(f->raw.server), 50);
	srand(1);
	while (f->m.nr_held > 0) {
		unsigned i = (unsigned)rand() % f->m.nr_held;
		uint64_t cookie = f->m.held[i]->cookie;

		nbd_memory_complete(&f->m, i, 0);
		assert_int_equal(answer(f, 4096).cookie, cookie);
		assert_memory_equal(data, mem + cookie * 4096, 4096);
	}
	assert_int_equal(nbd_conn_nr_requests(f->raw.server), 0);
}

static void more_than_its_slots_wait_their_turn(void **state)
{
	struct fixture *f = simple(state);
	uint64_t next = 0;

	f->m.hold = true;
	for (uint64_t i = 0; i < 500; i++)
		nbd_raw_request(&f->raw, 0, NBD_CMD_READ, i, i * 512, 512);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->m.nr_held, NBD_CONN_REQUESTS);
	assert_int_equal(nbd_conn_events(f->raw.server), 0);
	while (f->m.nr_held > 0) {
		nbd_memory_complete(&f->m, 0, 0);
		assert_int_equal(nbd_conn_events(f->raw.server) & POLLOUT, POLLOUT);
		assert_int_equal(answer(f, 512).cookie, next++);
	}
	assert_int_equal(next, 500);
}

static void no_buffer_means_wait_not_fail(void **state)
{
	struct fixture *f = simple(state);

	f->m.hold = true;
	f->m.nr_buffers = 3;
	for (uint64_t i = 0; i < 10; i++) {
		nbd_raw_request(&f->raw, 0, i % 2 ? NBD_CMD_READ : NBD_CMD_WRITE, i, i * 512, 512);
		if (i % 2 == 0)
			nbd_raw_send(&f->raw, data, 512);
	}
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->m.nr_held, 3);
	assert_int_equal(nbd_conn_events(f->raw.server), 0);
	assert_int_equal(nbd_conn_receive(f->raw.server, false), -EAGAIN);
	/* Resuming too early changes nothing. */
	assert_int_equal(nbd_conn_resume(f->raw.server), 0);
	assert_int_equal(f->m.nr_held, 3);
	for (uint64_t i = 0; i < 10; i++) {
		nbd_memory_complete(&f->m, 0, 0);
		assert_int_equal(answer(f, i % 2 ? 512 : 0).cookie, i);
		assert_int_equal(nbd_conn_resume(f->raw.server), 0);
		nbd_raw_pump(&f->raw);
	}
	assert_int_equal(f->m.nr_in_use, 0);
}

static void requests_pipelined_without_reading(void **state)
{
	struct fixture *f = structured(state);
	static uint8_t requests[64 * NBD_REQUEST_BYTES];

	/* 64 MiB of replies into a socket that takes a fraction of it. */
	for (unsigned i = 0; i < 64; i++)
		nbd_pack_request(requests + i * NBD_REQUEST_BYTES,
			&(struct nbd_request_header){.type = NBD_CMD_READ,
				.cookie = i,
				.off = i,
				.len = 1 << 20});
	nbd_raw_send(&f->raw, requests, sizeof(requests));
	nbd_raw_pump(&f->raw);
	assert_int_equal(nbd_conn_events(f->raw.server), POLLIN | POLLOUT);
	for (unsigned i = 0; i < 64; i++) {
		assert_int_equal(answer(f, 1 << 20).cookie, i);
		assert_memory_equal(data, mem + i, 1 << 20);
	}
	assert_int_equal(nbd_conn_events(f->raw.server), POLLIN);
}

static void freed_with_requests_in_the_service(void **state)
{
	struct fixture *f = simple(state);

	f->m.hold = true;
	for (uint64_t i = 0; i < 5; i++)
		nbd_raw_request(&f->raw, 0, NBD_CMD_READ, i, 0, 512);
	nbd_raw_request(&f->raw, 0, NBD_CMD_WRITE, 9, 0, 512);
	nbd_raw_pump(&f->raw);
	nbd_memory_complete(&f->m, 0, 0);
	nbd_raw_close(&f->raw);
	assert_int_equal(f->m.nr_closed, 0);
	while (f->m.nr_held > 0) {
		assert_int_equal(f->m.nr_closed, 0);
		nbd_memory_complete(&f->m, 0, -EIO);
	}
	assert_int_equal(f->m.nr_closed, 1);
	assert_int_equal(f->m.nr_in_use, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(write_then_read_at_odd_sizes),
		T(payload_in_odd_pieces),
		T(structured_read_has_offset_and_done),
		T(commands_without_payload),
		T(signs_of_life_come_once_a_batch),
		T(block_status_tells_holes),
		T(block_status_is_bounded),
		T(block_status_answers_each_context),
		T(long_extents_fit_32_bits),
		T(bad_requests_are_answered),
		T(refused_write_changes_nothing),
		T(what_is_not_offered_is_refused),
		T(fast_zero_must_be_offered),
		T(read_only_export_is_not_written),
		T(unaligned_requests_are_invalid),
		T(service_errors_are_replies),
		T(wrong_request_magic_ends_the_connection),
		T(disc_is_a_clean_end),
		T(hanging_up_is_not_clean),
		T(end_inside_a_payload_is_an_error),
		T(completions_may_come_in_any_order),
		T(more_than_its_slots_wait_their_turn),
		T(no_buffer_means_wait_not_fail),
		T(requests_pipelined_without_reading),
		T(freed_with_requests_in_the_service),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
