/* SPDX-License-Identifier: MIT */
/* The NBD engine's HASH: who may ask, what is answered, what is refused and leaves all in step. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "tests/support/nbd-memory.h"
#include "tests/support/nbd-raw.h"

enum { SIZE = 8 << 20 };

static uint8_t mem[SIZE], data[SIZE];
static uint8_t hashes[WEFT_HASH_MAX_BLOCKS * WEFT_HASH_BYTES], got[sizeof(hashes)];

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
	nbd_memory_hashes(&f.m, hashes);
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

/* As a borrower whose hello was accepted. */
static struct fixture *session(void **state)
{
	static const char *const query[] = {
		"weft:session:v=1,id=00112233445566778899aabbccddeeff,gen=1,mode=w,name=me"};
	struct fixture *f = *state;

	nbd_raw_hello(&f->raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	nbd_raw_option(&f->raw, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	nbd_raw_final(&f->raw, NBD_OPT_STRUCTURED_REPLY);
	nbd_raw_option(&f->raw, NBD_OPT_SET_META_CONTEXT, data,
		nbd_raw_context_data(data, "", query, 1));
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_SET_META_CONTEXT), NBD_REP_ACK);
	nbd_raw_option(&f->raw, NBD_OPT_GO, data, nbd_raw_info_data(data, "", NULL, 0));
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_GO), NBD_REP_ACK);
	return f;
}

static const struct weft_hashing asks = {.block_bytes = 4096, .key = {9}};

static void send_hash(struct fixture *f, const struct weft_hashing *hashing, uint16_t flags,
	uint64_t off, uint32_t len)
{
	uint8_t request[NBD_REQUEST_BYTES + NBD_HASHING_BYTES];

	nbd_pack_request(request, &(struct nbd_request_header){
		.flags = flags, .type = NBD_CMD_HASH, .cookie = 1, .off = off, .len = len});
	nbd_pack_hashing(request + NBD_REQUEST_BYTES, hashing);
	assert_int_equal(nbd_raw_send(&f->raw, request, sizeof(request)), 0);
}

static struct nbd_raw_answer answer(struct fixture *f)
{
	struct nbd_raw_answer a;

	assert_int_equal(nbd_raw_answer(&f->raw, &a, got, sizeof(got)), 0);
	return a;
}

static void expect_hashes(struct fixture *f, uint64_t off, uint32_t len)
{
	const uint32_t nr = weft_hash_nr_blocks(len, 4096);
	static uint8_t want[sizeof(hashes)];
	struct weft_hasher hasher = {0};
	const struct nbd_raw_answer a = answer(f);

	assert_int_equal(a.error, 0);
	assert_int_equal(a.type, NBD_REPLY_TYPE_HASHES);
	assert_true(a.done);
	assert_int_equal(a.len, nr * WEFT_HASH_BYTES);
	assert_int_equal(weft_hasher_set(&hasher, asks.key), 0);
	weft_hasher_hash_blocks(&hasher, 4096, mem + off, len, want);
	assert_memory_equal(got, want, nr * WEFT_HASH_BYTES);
}

static void still_in_step(struct fixture *f)
{
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_READ, 100, 512, data), 0);
	assert_memory_equal(data, mem + 100, 512);
}

static void a_session_is_answered(void **state)
{
	struct fixture *f = session(state);

	send_hash(f, &asks, 0, 5, 3 * 4096 + 1);
	expect_hashes(f, 5, 3 * 4096 + 1);
	send_hash(f, &asks, 0, 0, SIZE);
	expect_hashes(f, 0, SIZE);
	still_in_step(f);
}

static void byte_by_byte_and_behind_a_big_write(void **state)
{
	struct fixture *f = session(state);
	static const size_t steps[] = {1, 27, 28, 29, 67};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(steps); i++) {
		f->raw.step = steps[i];
		memset(data, (int)i, 70000);
		assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_WRITE, 3, 70000, data), 0);
		send_hash(f, &asks, 0, 3, 70000);
		expect_hashes(f, 3, 70000);
	}
	still_in_step(f);
}

static void many_at_once_are_answered_in_turn(void **state)
{
	struct fixture *f = session(state);
	uint8_t requests[40][NBD_REQUEST_BYTES + NBD_HASHING_BYTES];

	for (uint32_t i = 0; i < 40; i++) {
		nbd_pack_request(requests[i], &(struct nbd_request_header){.type = NBD_CMD_HASH,
			.off = i * 5000, .len = 9000});
		nbd_pack_hashing(requests[i] + NBD_REQUEST_BYTES, &asks);
	}
	nbd_raw_send(&f->raw, requests, sizeof(requests));
	for (uint32_t i = 0; i < 40; i++)
		expect_hashes(f, i * 5000, 9000);
	still_in_step(f);
}

static void a_buffer_is_waited_for(void **state)
{
	struct fixture *f = session(state);

	f->m.hold = true;
	f->m.nr_buffers = 1;
	nbd_raw_request(&f->raw, 0, NBD_CMD_READ, 7, 0, 512);
	send_hash(f, &asks, 0, 0, 4096);
	nbd_raw_pump(&f->raw);
	assert_int_equal(f->m.nr_held, 1);
	nbd_memory_complete(&f->m, 0, 0);
	struct nbd_raw_answer a;
	assert_int_equal(nbd_raw_answer(&f->raw, &a, got, 512), 0);
	assert_int_equal(a.cookie, 7);
	assert_int_equal(nbd_conn_resume(f->raw.server), 0);
	assert_int_equal(f->m.nr_held, 1);
	nbd_memory_complete(&f->m, 0, 0);
	expect_hashes(f, 0, 4096);
	f->m.hold = false;
	f->m.nr_buffers = 0;
	still_in_step(f);
}

static void wrong_questions_are_refused(void **state)
{
	static const struct {
		uint16_t flags;
		uint32_t block_bytes;
		uint64_t off;
		uint32_t len;
	} cases[] = {
		{0, 4096, SIZE, 1},
		{0, 4096, SIZE - 1, 2},
		{0, 4096, UINT64_MAX, 4096},
		{0, 4096, 0, 0},
		{NBD_CMD_FLAG_FUA, 4096, 0, 4096},
		{NBD_CMD_FLAG_REQ_ONE, 4096, 0, 4096},
		{0, 0, 0, 4096},
		{0, 2048, 0, 4096},
		{0, 131072, 0, 4096},
		{0, 5000, 0, 4096},
		{0, UINT32_MAX, 0, 4096},
	};
	struct fixture *f = session(state);

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		const struct weft_hashing hashing = {.block_bytes = cases[i].block_bytes};

		send_hash(f, &hashing, cases[i].flags, cases[i].off, cases[i].len);
		if (answer(f).error != NBD_EINVAL)
			fail_msg("case %zu was taken", i);
	}
	still_in_step(f);
	f->m.size_bytes = UINT64_C(1) << 30;
}

static void another_scheme_is_refused_by_its_own_error(void **state)
{
	struct fixture *f = session(state);
	uint8_t request[NBD_REQUEST_BYTES + NBD_HASHING_BYTES];

	nbd_pack_request(request, &(struct nbd_request_header){.type = NBD_CMD_HASH, .len = 1});
	nbd_pack_hashing(request + NBD_REQUEST_BYTES, &asks);
	weft_put32(request + NBD_REQUEST_BYTES, WEFT_COPIES_SCHEME + 1);
	nbd_raw_send(&f->raw, request, sizeof(request));
	assert_int_equal(answer(f).error, NBD_ENOTSUP);
	still_in_step(f);
}

static void an_error_of_the_contents_is_an_answer(void **state)
{
	struct fixture *f = session(state);

	f->m.error = -EIO;
	send_hash(f, &asks, 0, 0, 4096);
	assert_int_equal(answer(f).error, NBD_EIO);
	f->m.error = 0;
	still_in_step(f);
}

static void a_stock_client_does_not_have_the_command(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(nbd_raw_go(&f->raw, "", true), 0);
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_HASH, 0, 4096, data), NBD_EINVAL);
	still_in_step(f);
	assert_int_equal(f->m.nr_submitted, 1);
}

static void a_service_that_does_not_hash_does_not_have_it_either(void **state)
{
	struct fixture *f = *state;

	f->m.service.hashes = false;
	session(state);
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_HASH, 0, 4096, data), NBD_EINVAL);
	still_in_step(f);
}

#define with(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with(a_session_is_answered),
		with(byte_by_byte_and_behind_a_big_write),
		with(many_at_once_are_answered_in_turn),
		with(a_buffer_is_waited_for),
		with(wrong_questions_are_refused),
		with(another_scheme_is_refused_by_its_own_error),
		with(an_error_of_the_contents_is_an_answer),
		with(a_stock_client_does_not_have_the_command),
		with(a_service_that_does_not_hash_does_not_have_it_either),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
