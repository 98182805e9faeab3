/* SPDX-License-Identifier: MIT */
/* A session's alias as an export: stock clients that come by it, and how they end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "tests/support/nbd-donor.h"

enum { SIZE = 1 << 20 };

static uint8_t data[4096], back[4096];
static uint8_t alias[WEFT_ID_BYTES];
static char name[WEFT_EXPORT_ALIAS_MAX];

static int set_up(void **state)
{
	static struct nbd_donor d;

	weft_random(alias, sizeof(alias));
	weft_alias_format(alias, name);
	nbd_donor_start(&d, SIZE, NULL, 0);
	*state = &d;
	return 0;
}

static int tear_down(void **state)
{
	nbd_donor_end(*state);
	return 0;
}

/* A session with the alias: the type of GO's answer. */
static uint32_t begin_session(struct nbd_donor *d, struct nbd_raw *raw, uint64_t generation)
{
	struct weft_hello hello = {.generation = generation,
		.mode = WEFT_MODE_WRITE,
		.name = "test",
		.has_alias = true};
	uint8_t option[WEFT_CONTEXT_MAX + 64];
	char query[WEFT_CONTEXT_MAX];
	const char *queries[] = {query};

	nbd_donor_connect(d, raw, true);
	memset(hello.id, 1, sizeof(hello.id));
	memcpy(hello.alias, alias, sizeof(alias));
	weft_hello_format(&hello, query);
	assert_int_equal(nbd_raw_hello(raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES), 0);
	nbd_raw_option(raw, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	assert_int_equal(nbd_raw_final(raw, NBD_OPT_STRUCTURED_REPLY), NBD_REP_ACK);
	nbd_raw_option(raw, NBD_OPT_SET_META_CONTEXT, option,
		nbd_raw_context_data(option, "m", queries, 1));
	assert_int_equal(nbd_raw_final(raw, NBD_OPT_SET_META_CONTEXT), NBD_REP_ACK);
	nbd_raw_option(raw, NBD_OPT_GO, option, nbd_raw_info_data(option, "m", NULL, 0));
	return nbd_raw_final(raw, NBD_OPT_GO);
}

static int come_by(struct nbd_donor *d, struct nbd_raw *raw, const char *export)
{
	nbd_donor_connect(d, raw, true);
	return nbd_raw_go(raw, export, false);
}

static void a_stock_client_reads_and_writes(void **state)
{
	struct nbd_raw control, kernel, other;

	assert_int_equal(begin_session(*state, &control, 1), NBD_REP_ACK);
	assert_int_equal(come_by(*state, &kernel, name), 0);
	weft_random(data, sizeof(data));
	assert_int_equal(nbd_raw_command(&kernel, 0, NBD_CMD_WRITE, 8192, sizeof(data), data), 0);
	assert_int_equal(nbd_raw_command(&kernel, 0, NBD_CMD_FLUSH, 0, 0, NULL), 0);
	assert_int_equal(nbd_raw_command(&kernel, 0, NBD_CMD_READ, 8192, sizeof(back), back), 0);
	assert_memory_equal(data, back, sizeof(data));
	/* By the region's own name nobody comes beside the session. */
	assert_int_not_equal(come_by(*state, &other, "m"), 0);
	nbd_raw_close(&other);
	nbd_raw_close(&kernel);
	nbd_raw_close(&control);
}

static void it_is_in_no_list(void **state)
{
	struct nbd_raw control, other;
	uint8_t reply[256];
	uint32_t type, len;

	assert_int_equal(begin_session(*state, &control, 1), NBD_REP_ACK);
	nbd_donor_connect(*state, &other, true);
	assert_int_equal(nbd_raw_hello(&other, NBD_FLAG_C_FIXED_NEWSTYLE), 0);
	nbd_raw_option(&other, NBD_OPT_LIST, NULL, 0);
	while ((type = nbd_raw_reply(&other, NBD_OPT_LIST, reply, sizeof(reply), &len)) ==
		NBD_REP_SERVER)
		assert_null(memmem(reply, weft_min(len, sizeof(reply)), "alias", 5));
	assert_int_equal(type, NBD_REP_ACK);
	nbd_raw_close(&other);
	nbd_raw_close(&control);
}

static void a_guess_is_refused(void **state)
{
	struct nbd_raw control, other;
	char guess[sizeof(name)];

	assert_int_equal(begin_session(*state, &control, 1), NBD_REP_ACK);
	strcpy(guess, name);
	guess[strlen(guess) - 1] ^= 1;
	assert_int_not_equal(come_by(*state, &other, guess), 0);
	nbd_raw_close(&other);
	guess[strlen(guess) - 1] = '\0';
	assert_int_not_equal(come_by(*state, &other, guess), 0);
	nbd_raw_close(&other);
	assert_int_equal(come_by(*state, &other, name), 0);
	nbd_raw_close(&other);
	nbd_raw_close(&control);
	/* Its session is over. */
	while (come_by(*state, &other, name) == 0)
		nbd_raw_close(&other);
	nbd_raw_close(&other);
}

static void a_higher_generation_hangs_up_on_it(void **state)
{
	struct nbd_raw control, kernel, next, other;

	assert_int_equal(begin_session(*state, &control, 1), NBD_REP_ACK);
	assert_int_equal(come_by(*state, &kernel, name), 0);
	memset(alias, 7, sizeof(alias));
	assert_int_equal(begin_session(*state, &next, 2), NBD_REP_ACK);
	assert_true(nbd_raw_ended(&kernel));
	assert_int_not_equal(come_by(*state, &other, name), 0);
	nbd_raw_close(&other);
	nbd_raw_close(&kernel);
	nbd_raw_close(&control);
	weft_alias_format(alias, name);
	assert_int_equal(come_by(*state, &kernel, name), 0);
	nbd_raw_close(&kernel);
	nbd_raw_close(&next);
}

static void a_goodbye_of_the_session_hangs_up_on_it(void **state)
{
	struct nbd_raw control, kernel, other;

	assert_int_equal(begin_session(*state, &control, 1), NBD_REP_ACK);
	assert_int_equal(come_by(*state, &kernel, name), 0);
	nbd_raw_request(&control, 0, NBD_CMD_DISC, 0, 0, 0);
	assert_true(nbd_raw_ended(&control));
	assert_true(nbd_raw_ended(&kernel));
	nbd_raw_close(&control);
	nbd_raw_close(&kernel);
	/* The region is free. */
	assert_int_equal(come_by(*state, &other, "m"), 0);
	nbd_raw_close(&other);
}

static void it_goes_on_when_the_session_is_lost(void **state)
{
	struct nbd_raw control, kernel, other;

	assert_int_equal(begin_session(*state, &control, 1), NBD_REP_ACK);
	assert_int_equal(come_by(*state, &kernel, name), 0);
	nbd_raw_close(&control);
	while (come_by(*state, &other, name) == 0)
		nbd_raw_close(&other);
	nbd_raw_close(&other);
	weft_random(data, sizeof(data));
	assert_int_equal(nbd_raw_command(&kernel, 0, NBD_CMD_WRITE, 0, sizeof(data), data), 0);
	assert_int_equal(nbd_raw_command(&kernel, 0, NBD_CMD_READ, 0, sizeof(back), back), 0);
	assert_memory_equal(data, back, sizeof(data));
	assert_int_not_equal(come_by(*state, &other, "m"), 0);
	nbd_raw_close(&other);
	nbd_raw_close(&kernel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		TEST(a_stock_client_reads_and_writes),
		TEST(it_is_in_no_list),
		TEST(a_guess_is_refused),
		TEST(a_higher_generation_hangs_up_on_it),
		TEST(a_goodbye_of_the_session_hangs_up_on_it),
		TEST(it_goes_on_when_the_session_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
