/* SPDX-License-Identifier: MIT */
/* The NBD engine's handshake: every option, right and wrong, over a socketpair. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "fabric/base/util.h"
#include "tests/support/nbd-memory.h"
#include "tests/support/nbd-raw.h"

#define SESSION "weft:session:id=00112233445566778899aabbccddeeff,gen=1,mode=w,name=me"
#define GRANT "weft:grant:epoch=1122334455667788,lease=30000,offers=tcp"

static uint8_t mem[1 << 20];
static uint8_t data[NBD_MAX_OPTION + 64];

struct fixture {
	struct nbd_memory m;
	struct nbd_raw raw;
};

static int set_up(void **state)
{
	static struct fixture f;

	nbd_memory_init(&f.m, mem, sizeof(mem));
	f.m.names[0] = "a";
	f.m.names[1] = "other";
	f.m.description = "plain memory";
	nbd_raw_pair(&f.raw, &f.m.service, &f.m);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	nbd_raw_close(&f->raw);
	/* Whatever a test did: open and close go together, and nothing is kept. */
	return f->m.nr_opened == f->m.nr_closed && f->m.nr_in_use == 0 ? 0 : -1;
}

static struct fixture *ready(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(nbd_raw_hello(&f->raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES),
		0);
	return f;
}

static uint32_t ask(struct fixture *f, uint32_t option, const void *bytes, uint32_t n)
{
	assert_int_equal(nbd_raw_option(&f->raw, option, bytes, n), 0);
	return nbd_raw_final(&f->raw, option);
}

static uint32_t go(struct fixture *f, const char *name)
{
	return ask(f, NBD_OPT_GO, data, nbd_raw_info_data(data, name, NULL, 0));
}

static void unknown_client_flags_hang_up(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(nbd_raw_hello(&f->raw, 1 << 5 | NBD_FLAG_C_FIXED_NEWSTYLE), 0);
	assert_true(nbd_raw_ended(&f->raw));
}

static void wrong_option_magic_hangs_up(void **state)
{
	struct fixture *f = ready(state);

	nbd_raw_send(&f->raw, "IHAVENOTIHAVENOT", 16);
	assert_true(nbd_raw_ended(&f->raw));
}

static void export_name_enters_transmission(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(nbd_raw_option(&f->raw, NBD_OPT_EXPORT_NAME, "a", 1), 0);
	assert_int_equal(nbd_raw_recv(&f->raw, data, 10), 0);
	assert_int_equal(weft_get64(data), sizeof(mem));
	assert_int_equal(weft_get16(data + 8), f->m.flags | NBD_FLAG_HAS_FLAGS);
	assert_true(f->m.hello.anonymous);
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_READ, 0, 512, data), 0);
}

static void export_name_is_padded_for_old_clients(void **state)
{
	struct fixture *f = *state;
	static const uint8_t zeros[124];

	assert_int_equal(nbd_raw_hello(&f->raw, NBD_FLAG_C_FIXED_NEWSTYLE), 0);
	assert_int_equal(nbd_raw_option(&f->raw, NBD_OPT_EXPORT_NAME, "a", 1), 0);
	assert_int_equal(nbd_raw_recv(&f->raw, data, 134), 0);
	assert_memory_equal(data + 10, zeros, sizeof(zeros));
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_READ, 0, 512, data), 0);
}

static void unknown_export_name_hangs_up(void **state)
{
	struct fixture *f = ready(state);

	nbd_raw_option(&f->raw, NBD_OPT_EXPORT_NAME, "b", 1);
	assert_true(nbd_raw_ended(&f->raw));
	assert_int_equal(f->m.nr_opened, 0);
}

static void abort_is_acknowledged(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(ask(f, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
	assert_true(nbd_raw_ended(&f->raw));
	assert_int_equal(f->raw.server_result, 0);
}

/* Found while its predecessor's reply was being sent. */
static void pipelined_abort_ends_the_connection(void **state)
{
	struct fixture *f = ready(state);

	nbd_raw_option(&f->raw, NBD_OPT_STARTTLS, NULL, 0);
	nbd_raw_option(&f->raw, NBD_OPT_ABORT, NULL, 0);
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_STARTTLS), NBD_REP_ERR_POLICY);
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_ABORT), NBD_REP_ACK);
	assert_true(nbd_raw_ended(&f->raw));
	assert_int_equal(f->raw.server_result, 0);
	assert_int_equal(nbd_conn_send(f->raw.server), -ESHUTDOWN);
}

static void list_names_every_export(void **state)
{
	struct fixture *f = ready(state);
	uint32_t len;

	nbd_raw_option(&f->raw, NBD_OPT_LIST, NULL, 0);
	assert_int_equal(nbd_raw_reply(&f->raw, NBD_OPT_LIST, data, 100, &len), NBD_REP_SERVER);
	assert_int_equal(len, 4 + 1 + 12);
	assert_memory_equal(data, "\0\0\0\1aplain memory", len);
	assert_int_equal(nbd_raw_reply(&f->raw, NBD_OPT_LIST, data, 100, &len), NBD_REP_SERVER);
	assert_memory_equal(data, "\0\0\0\5otherplain memory", len);
	assert_int_equal(nbd_raw_reply(&f->raw, NBD_OPT_LIST, data, 100, &len), NBD_REP_ACK);
	assert_int_equal(ask(f, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
}

static void list_beyond_its_bound_is_too_big(void **state)
{
	struct fixture *f = ready(state);

	f->m.huge_list = true;
	assert_int_equal(ask(f, NBD_OPT_LIST, NULL, 0), NBD_REP_ERR_TOO_BIG);
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
}

static void info_tells_and_go_grants(void **state)
{
	struct fixture *f = ready(state);
	static const uint16_t infos[] = {NBD_INFO_BLOCK_SIZE, NBD_INFO_NAME, NBD_INFO_DESCRIPTION,
		99};

	for (uint32_t option = NBD_OPT_INFO; option <= NBD_OPT_GO; option++) {
		uint32_t len = nbd_raw_info_data(data, "a", infos, 4);

		nbd_raw_option(&f->raw, option, data, len);
		assert_int_equal(nbd_raw_reply(&f->raw, option, data, 64, &len), NBD_REP_INFO);
		assert_int_equal(len, 12);
		assert_int_equal(weft_get16(data), NBD_INFO_EXPORT);
		assert_int_equal(weft_get64(data + 2), sizeof(mem));
		assert_int_equal(weft_get16(data + 10), f->m.flags | NBD_FLAG_HAS_FLAGS);
		assert_int_equal(nbd_raw_reply(&f->raw, option, data, 64, &len), NBD_REP_INFO);
		assert_int_equal(len, 14);
		assert_int_equal(weft_get32(data + 2), 1);
		assert_int_equal(weft_get32(data + 6), 4096);
		assert_int_equal(weft_get32(data + 10), NBD_MAX_PAYLOAD);
		assert_int_equal(nbd_raw_reply(&f->raw, option, data, 64, &len), NBD_REP_INFO);
		assert_memory_equal(data, "\0\1a", len);
		assert_int_equal(nbd_raw_reply(&f->raw, option, data, 64, &len), NBD_REP_INFO);
		assert_memory_equal(data, "\0\2plain memory", len);
		assert_int_equal(nbd_raw_reply(&f->raw, option, data, 64, &len), NBD_REP_ACK);
		assert_int_equal(f->m.nr_opened, option == NBD_OPT_GO);
		assert_int_equal(nbd_conn_in_transmission(f->raw.server), option == NBD_OPT_GO);
	}
}

static void df_is_offered_with_structured_replies_only(void **state)
{
	struct fixture *f = ready(state);
	uint32_t len;

	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, "x", 1), NBD_REP_ERR_INVALID);
	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	nbd_raw_option(&f->raw, NBD_OPT_GO, data, nbd_raw_info_data(data, "a", NULL, 0));
	assert_int_equal(nbd_raw_reply(&f->raw, NBD_OPT_GO, data, 64, &len), NBD_REP_INFO);
	assert_true(weft_get16(data + 10) & NBD_FLAG_SEND_DF);
}

/* CVE-2022-26495: a name's length that is more than the option's, up to 4 GiB. */
static void malformed_info_is_invalid(void **state)
{
	struct fixture *f = ready(state);
	uint32_t len = nbd_raw_info_data(data, "a", (uint16_t[]){ 3 }, 1);

	for (uint32_t n = 0; n < len; n++)
		assert_int_equal(ask(f, NBD_OPT_GO, data, n), NBD_REP_ERR_INVALID);
	assert_int_equal(ask(f, NBD_OPT_INFO, data, len + 1), NBD_REP_ERR_INVALID);
	weft_put32(data, UINT32_MAX);
	assert_int_equal(ask(f, NBD_OPT_INFO, data, len), NBD_REP_ERR_INVALID);
	nbd_raw_info_data(data, "a", NULL, 0);
	data[4] = 0;
	assert_int_equal(ask(f, NBD_OPT_INFO, data, 7), NBD_REP_ERR_INVALID);
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
}

/* CVE-2022-26496, CVE-2017-15118: a name that is longer than names may be. */
static void name_of_4097_bytes_is_refused(void **state)
{
	struct fixture *f = ready(state);
	char name[NBD_MAX_STRING + 2];

	memset(name, 'n', sizeof(name));
	name[NBD_MAX_STRING + 1] = 0;
	assert_int_equal(go(f, name), NBD_REP_ERR_INVALID);
	name[NBD_MAX_STRING] = 0;
	assert_int_equal(go(f, name), NBD_REP_ERR_UNKNOWN);
	nbd_raw_option(&f->raw, NBD_OPT_EXPORT_NAME, data, NBD_MAX_STRING + 1);
	assert_true(nbd_raw_ended(&f->raw));
}

static void refusal_carries_code_and_reason(void **state)
{
	static const struct {
		int error;
		uint32_t type;
		const char *text;
	} cases[] = {
		{ EBUSY, NBD_REP_ERR_POLICY, "EBUSY: why" },
		{ ESTALE, NBD_REP_ERR_POLICY, "ESTALE: why" },
		{ EROFS, NBD_REP_ERR_POLICY, "EROFS: why" },
		{ ENOENT, NBD_REP_ERR_UNKNOWN, "why" },
		{ ESHUTDOWN, NBD_REP_ERR_SHUTDOWN, "the server is stopping" },
	};
	struct fixture *f = ready(state);

	f->m.open_message = "why";
	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		uint32_t len;

		f->m.open_error = cases[i].error;
		nbd_raw_option(&f->raw, NBD_OPT_GO, data, nbd_raw_info_data(data, "a", NULL, 0));
		assert_int_equal(nbd_raw_reply(&f->raw, NBD_OPT_GO, data, 100, &len),
			cases[i].type);
		data[len] = 0;
		assert_string_equal((char *)data, cases[i].text);
	}
	f->m.open_error = 0;
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
}

static void options_without_place_are_unsupported(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(ask(f, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_POLICY);
	assert_int_equal(ask(f, 4, NULL, 0), NBD_REP_ERR_UNSUP);
	assert_int_equal(ask(f, 11, NULL, 0), NBD_REP_ERR_UNSUP);
	assert_int_equal(ask(f, 0xdeadbeef, data, 1000), NBD_REP_ERR_UNSUP);
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
}

static void long_option_is_skipped(void **state)
{
	struct fixture *f = ready(state);
	uint8_t head[NBD_OPTION_BYTES] = "IHAVEOPT\0\0\0\7";
	const uint32_t len = 1 << 20;

	assert_int_equal(ask(f, NBD_OPT_INFO, data, NBD_MAX_OPTION), NBD_REP_ERR_INVALID);
	weft_put32(head + 12, len);
	nbd_raw_send(&f->raw, head, sizeof(head));
	for (uint32_t sent = 0; sent < len; sent += 4096)
		assert_int_equal(nbd_raw_send(&f->raw, data, 4096), 0);
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_GO), NBD_REP_ERR_TOO_BIG);
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
}

static void endless_option_hangs_up(void **state)
{
	struct fixture *f = ready(state);

	nbd_raw_send(&f->raw, "IHAVEOPT\0\0\0\7\xff\xff\xff\xff", 16);
	assert_true(nbd_raw_ended(&f->raw));
}

static void options_without_end_hang_up(void **state)
{
	struct fixture *f = ready(state);
	unsigned n = 0;

	while (n < 100000 && nbd_raw_option(&f->raw, NBD_OPT_LIST, "x", 1) == 0 &&
		nbd_raw_final(&f->raw, NBD_OPT_LIST) == NBD_REP_ERR_INVALID)
		n++;
	assert_in_range(n, 60000, 70000);
}

static void pipelined_options_are_answered_one_by_one(void **state)
{
	struct fixture *f = ready(state);

	for (int i = 0; i < 100; i++)
		assert_int_equal(nbd_raw_option(&f->raw, NBD_OPT_STARTTLS, NULL, 0), 0);
	nbd_raw_option(&f->raw, NBD_OPT_GO, data, nbd_raw_info_data(data, "a", NULL, 0));
	for (int i = 0; i < 100; i++)
		assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_STARTTLS), NBD_REP_ERR_POLICY);
	assert_int_equal(nbd_raw_final(&f->raw, NBD_OPT_GO), NBD_REP_ACK);
}

static void byte_by_byte_is_the_same(void **state)
{
	struct fixture *f = *state;

	f->raw.step = 1;
	assert_int_equal(nbd_raw_go(&f->raw, "a", true), 0);
	memset(data, 'w', 1000);
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_WRITE, 5, 1000, data), 0);
	memset(data, 0, 1000);
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_READ, 5, 1000, data), 0);
	assert_int_equal(data[999], 'w');
}

/* CVE-2019-14851 and its kind; shell/serve-peers-drop-in-negotiation has the others. */
static void connection_may_end_at_every_byte(void **state)
{
	static const uint8_t good[] =
		"\0\0\0\3IHAVEOPT\0\0\0\10\0\0\0\0IHAVEOPT\0\0\0\7\0\0\0\7\0\0\0\1a\0\0"
		"\x25\x60\x95\x13\0\0\0\1cookiecookie\0\0\0\4data";
	struct fixture *f = *state;

	for (size_t n = 0; n < sizeof(good); n++) {
		nbd_raw_close(&f->raw);
		nbd_raw_pair(&f->raw, &f->m.service, &f->m);
		assert_int_equal(nbd_raw_send(&f->raw, good, n), 0);
		nbd_raw_pump(&f->raw);
		shutdown(f->raw.fd, SHUT_WR);
		nbd_raw_pump(&f->raw);
		assert_true(f->raw.server_result <= 0);
	}
	assert_true(f->m.nr_opened > 0);
}

/* ---- metadata contexts ---- */

static uint32_t context(struct fixture *f, uint32_t option, const char *name, const char *query)
{
	return ask(f, option, data, nbd_raw_context_data(data, name, &query, query ? 1 : 0));
}

static void contexts_need_structured_replies(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(context(f, NBD_OPT_LIST_META_CONTEXT, "a", NULL), NBD_REP_ERR_INVALID);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", "base:allocation"),
		NBD_REP_ERR_INVALID);
}

/* The only context in the answer, or "". */
static const char *only_context(struct fixture *f, uint32_t option, const char *name,
	const char *query)
{
	static char text[256];
	uint32_t len;

	text[0] = 0;
	nbd_raw_option(&f->raw, option, data,
		nbd_raw_context_data(data, name, &query, query ? 1 : 0));
	for (;;) {
		uint32_t type = nbd_raw_reply(&f->raw, option, data, 200, &len);

		if (type == NBD_REP_ACK)
			return text;
		assert_int_equal(type, NBD_REP_META_CONTEXT);
		assert_string_equal(text, "");
		snprintf(text, sizeof(text), "%.*s", (int)len - 4, (char *)data + 4);
	}
}

static void contexts_are_found_by_query(void **state)
{
	static const struct {
		const char *query, *listed, *set;
	} cases[] = {
		{ NULL, "base:allocation", "" },
		{ "base:", "base:allocation", "" },
		{ "base:allocation", "base:allocation", "base:allocation" },
		{ "base:allocatio", "", "" },
		{ "base:allocation2", "", "" },
		{ "qemu:dirty-bitmap:x", "", "" },
		{ "weft:", "", "" },
		{ "colonless", "", "" },
		{ "", "", "" },
		{ SESSION, GRANT, GRANT },
	};
	struct fixture *f = ready(state);

	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		assert_string_equal(only_context(f, NBD_OPT_LIST_META_CONTEXT, "a", cases[i].query),
			cases[i].listed);
		assert_string_equal(only_context(f, NBD_OPT_SET_META_CONTEXT, "a", cases[i].query),
			cases[i].set);
	}
	assert_int_equal(context(f, NBD_OPT_LIST_META_CONTEXT, "b", NULL), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", "weft:session:id=7"),
		NBD_REP_ERR_INVALID);
	assert_int_equal(f->m.nr_opened, 0);
}

static void malformed_contexts_are_invalid(void **state)
{
	struct fixture *f = ready(state);
	const char *const twice[] = { SESSION, SESSION };
	uint32_t len;

	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	len = nbd_raw_context_data(data, "a", (const char *[]){ "base:allocation" }, 1);
	for (uint32_t n = 0; n < len; n++)
		assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, data, n), NBD_REP_ERR_INVALID);
	assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, data, len + 1), NBD_REP_ERR_INVALID);
	weft_put32(data + 5, UINT32_MAX);
	assert_int_equal(ask(f, NBD_OPT_LIST_META_CONTEXT, data, len), NBD_REP_ERR_INVALID);
	len = nbd_raw_context_data(data, "a", twice, 2);
	assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, data, len), NBD_REP_ERR_INVALID);
}

static void session_reaches_open(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", SESSION), NBD_REP_ACK);
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
	assert_false(f->m.hello.anonymous);
	assert_int_equal(f->m.hello.generation, 1);
	assert_string_equal(f->m.hello.name, "me");
}

static void session_for_another_export_is_void(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "other", SESSION), NBD_REP_ACK);
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
	assert_true(f->m.hello.anonymous);
	/* Structured, but with no context selected. */
	assert_int_equal(nbd_raw_command(&f->raw, 0, NBD_CMD_BLOCK_STATUS, 0, 512, data),
		NBD_EINVAL);
}

static void failed_set_forgets_the_session(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", SESSION), NBD_REP_ACK);
	assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, "x", 1), NBD_REP_ERR_INVALID);
	assert_int_equal(go(f, "a"), NBD_REP_ACK);
	assert_true(f->m.hello.anonymous);
}

/* A GO that left before the hello was answered: it grants to that hello, or to nobody. */
static void go_of_the_session_is_for_an_accepted_hello_alone(void **state)
{
	struct fixture *f = ready(state);

	assert_int_equal(go(f, WEFT_EXPORT_SESSION), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(ask(f, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	assert_int_equal(context(f, NBD_OPT_LIST_META_CONTEXT, "a", SESSION), NBD_REP_ACK);
	assert_int_equal(go(f, WEFT_EXPORT_SESSION), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", "base:allocation"), NBD_REP_ACK);
	assert_int_equal(go(f, WEFT_EXPORT_SESSION), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", "weft:session:id=7"),
		NBD_REP_ERR_INVALID);
	assert_int_equal(go(f, WEFT_EXPORT_SESSION), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", SESSION), NBD_REP_ACK);
	assert_int_equal(ask(f, NBD_OPT_SET_META_CONTEXT, "x", 1), NBD_REP_ERR_INVALID);
	assert_int_equal(go(f, WEFT_EXPORT_SESSION), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(context(f, NBD_OPT_SET_META_CONTEXT, "a", SESSION), NBD_REP_ACK);
	assert_int_equal(go(f, WEFT_EXPORT_SESSION), NBD_REP_ACK);
	assert_false(f->m.hello.anonymous);
	assert_string_equal(f->m.hello.name, "me");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(unknown_client_flags_hang_up),
		T(wrong_option_magic_hangs_up),
		T(export_name_enters_transmission),
		T(export_name_is_padded_for_old_clients),
		T(unknown_export_name_hangs_up),
		T(abort_is_acknowledged),
		T(pipelined_abort_ends_the_connection),
		T(list_names_every_export),
		T(list_beyond_its_bound_is_too_big),
		T(info_tells_and_go_grants),
		T(df_is_offered_with_structured_replies_only),
		T(malformed_info_is_invalid),
		T(name_of_4097_bytes_is_refused),
		T(refusal_carries_code_and_reason),
		T(options_without_place_are_unsupported),
		T(long_option_is_skipped),
		T(endless_option_hangs_up),
		T(options_without_end_hang_up),
		T(pipelined_options_are_answered_one_by_one),
		T(byte_by_byte_is_the_same),
		T(connection_may_end_at_every_byte),
		T(contexts_need_structured_replies),
		T(contexts_are_found_by_query),
		T(malformed_contexts_are_invalid),
		T(session_reaches_open),
		T(session_for_another_export_is_void),
		T(failed_set_forgets_the_session),
		T(go_of_the_session_is_for_an_accepted_hello_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
