/* SPDX-License-Identifier: MIT */
/*
 * Questions to a server itself, in the option phase: what the engine answers and to how many, and
 * what the client believes of an answer.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/nbd/client-question.h"
#include "fabric/nbd/conn.h"
#include "tests/support/nbd-memory.h"
#include "tests/support/nbd-raw.h"

#define ANSWER "{\"is\":\"owner\"}"

static uint8_t mem[4096], data[NBD_MAX_OPTION];
static struct nbd_memory m;
static struct nbd_raw raw;
static struct nbd_question q;

static int set_up(void **state)
{
	nbd_memory_init(&m, mem, sizeof(mem));
	m.names[0] = "a";
	nbd_memory_answer(&m, ANSWER);
	nbd_raw_pair(&raw, &m.service, &m);
	return nbd_raw_hello(&raw, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
}

static int tear_down(void **state)
{
	nbd_raw_close(&raw);
	return 0;
}

/* ---- the server ---- */

/* The type of its end; the text before that, or an error's, into `data` with a NUL behind it. */
static uint32_t ask(const char *text, size_t len)
{
	static uint8_t piece[NBD_MAX_STRING];
	static char answer[NBD_MAX_ANSWER + 1];
	size_t at = 0;
	uint32_t type, n;

	assert_int_equal(nbd_raw_option(&raw, NBD_OPT_WEFT_ASK, text, (uint32_t)len), 0);
	while ((type = nbd_raw_reply(&raw, NBD_OPT_WEFT_ASK, piece, sizeof(piece), &n)) ==
		NBD_REP_WEFT_ANSWER) {
		assert_in_range(n, 1, NBD_MAX_ANSWER_PIECE);
		assert_true(at + n <= NBD_MAX_ANSWER);
		memcpy(answer + at, piece, n);
		at += n;
	}
	if (type == NBD_REP_ACK) {
		assert_int_equal(n, 0);
		assert_int_equal(at, strlen(m.answer));
		assert_memory_equal(answer, m.answer, at);
		return type;
	}
	assert_int_equal(at, 0);
	n = (uint32_t)weft_min(n, sizeof(data) - 1);
	memcpy(data, piece, n);
	data[n] = 0;
	return type;
}

static uint32_t ask_text(const char *text)
{
	return ask(text, strlen(text));
}

static void a_question_is_answered_and_nothing_granted(void **state)
{
	assert_int_equal(ask_text("{\"op\":\"takes\"}"), NBD_REP_ACK);
	assert_string_equal(m.question, "{\"op\":\"takes\"}");
	assert_int_equal(ask("", 0), NBD_REP_ACK);
	assert_int_equal(m.nr_opened, 0);
	/* The connection goes on as any. */
	assert_int_equal(nbd_raw_option(&raw, NBD_OPT_GO, data,
				 nbd_raw_info_data(data, "a", NULL, 0)),
		0);
	assert_int_equal(nbd_raw_final(&raw, NBD_OPT_GO), NBD_REP_ACK);
	assert_int_equal(m.nr_opened, 1);
}

static void a_long_answer_comes_in_pieces(void **state)
{
	static char answer[NBD_MAX_ANSWER + 2];
	static const size_t lens[] = {1, NBD_MAX_ANSWER_PIECE, NBD_MAX_ANSWER_PIECE + 1,
		NBD_MAX_ANSWER};

	m.answer = answer;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(lens); i++) {
		memset(answer, 'a' + (int)i, lens[i]);
		assert_int_equal(ask_text("{}"), NBD_REP_ACK);
	}
	answer[NBD_MAX_ANSWER] = 'b';
	assert_int_equal(ask_text("{}"), NBD_REP_ERR_TOO_BIG);
	m.answer = ANSWER;
	assert_int_equal(ask_text("{}"), NBD_REP_ACK);
}

static void a_refusal_has_its_reason(void **state)
{
	static const struct {
		int error;
		uint32_t type;
		const char *text;
	} cases[] = {
		{EACCES, NBD_REP_ERR_POLICY, "EACCES: why"},
		{ENOSPC, NBD_REP_ERR_POLICY, "ENOSPC: why"},
		{ENOENT, NBD_REP_ERR_UNKNOWN, "why"},
		{ESHUTDOWN, NBD_REP_ERR_SHUTDOWN, "the server is stopping"},
		{EOPNOTSUPP, NBD_REP_ERR_POLICY, "EOPNOTSUPP: why"},
		{ENOSYS, NBD_REP_ERR_UNSUP, "such a question is not answered here"},
	};

	m.answer = NULL;
	m.question_message = "why";
	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		m.question_error = cases[i].error;
		assert_int_equal(ask_text("{}"), cases[i].type);
		assert_string_equal((char *)data, cases[i].text);
	}
}

static void a_server_without_answers_does_not_know_the_option(void **state)
{
	m.service.question = NULL;
	assert_int_equal(ask_text("{}"), NBD_REP_ERR_UNSUP);
	assert_int_equal(m.nr_questions, 0);
}

/* Only those that were answered: a stranger's bounds are what they were. */
static void answered_questions_count_against_time_alone(void **state)
{
	unsigned n = 0;

	memset(data, ' ', sizeof(data));
	for (unsigned i = 0; i < 2 * NBD_MAX_OPTION_BYTES / NBD_MAX_OPTION; i++)
		assert_int_equal(ask((char *)data, NBD_MAX_OPTION), NBD_REP_ACK);
	for (unsigned i = 0; i < NBD_MAX_OPTIONS + 1000; i++)
		assert_int_equal(ask_text("{}"), NBD_REP_ACK);
	m.answer = NULL;
	m.question_error = EACCES;
	m.question_message = "not you";
	memset(data, ' ', sizeof(data));
	while (n < 1000 &&
		nbd_raw_option(&raw, NBD_OPT_WEFT_ASK, data, NBD_MAX_OPTION) == 0 &&
		nbd_raw_final(&raw, NBD_OPT_WEFT_ASK) == NBD_REP_ERR_POLICY)
		n++;
	assert_int_equal(n, NBD_MAX_OPTION_BYTES / NBD_MAX_OPTION);
	assert_true(nbd_raw_ended(&raw));
}

static void a_question_that_is_too_long_is_not_asked(void **state)
{
	static uint8_t head[NBD_OPTION_BYTES];

	nbd_pack_option(head, NBD_OPT_WEFT_ASK, NBD_MAX_OPTION + 1);
	assert_int_equal(nbd_raw_send(&raw, head, sizeof(head)), 0);
	assert_int_equal(nbd_raw_send(&raw, data, NBD_MAX_OPTION), 0);
	assert_int_equal(nbd_raw_send(&raw, data, 1), 0);
	assert_int_equal(nbd_raw_final(&raw, NBD_OPT_WEFT_ASK), NBD_REP_ERR_TOO_BIG);
	assert_int_equal(m.nr_questions, 0);
	assert_int_equal(ask_text("{}"), NBD_REP_ACK);
}

/* ---- the client ---- */

static uint8_t said[NBD_MAX_ANSWER + (1 << 20)];
static size_t said_len;

static void say_of(uint32_t option, uint32_t type, const void *bytes, size_t len)
{
	assert_true(said_len + NBD_OPTION_REPLY_BYTES + len <= sizeof(said));
	nbd_pack_option_reply(said + said_len, option, type, (uint32_t)len);
	memcpy(said + said_len + NBD_OPTION_REPLY_BYTES, bytes, len);
	said_len += NBD_OPTION_REPLY_BYTES + len;
}

static void say(uint32_t type, const char *text)
{
	say_of(NBD_OPT_WEFT_ASK, type, text, strlen(text));
}

static void begin(void)
{
	said_len = 0;
	nbd_question_end(&q);
	assert_int_equal(nbd_question_begin(&q, "{}", 2), 0);
	assert_int_equal(q.out_len, NBD_OPTION_BYTES + 2);
	q.out_sent = q.out_len; /* it leaves */
}

static int give(size_t piece)
{
	int r = 0;

	for (size_t at = 0; r == 0 && at < said_len; at += piece)
		r = nbd_question_take(&q, said + at, weft_min(piece, said_len - at));
	return r;
}

static int end(void **state)
{
	nbd_question_end(&q);
	return 0;
}

static void pieces_are_put_together(void **state)
{
	for (size_t piece = 1; piece < 100; piece += 7) {
		begin();
		say(NBD_REP_WEFT_ANSWER, "{\"a\":");
		say(NBD_REP_WEFT_ANSWER, "1}");
		say(NBD_REP_ACK, "");
		assert_int_equal(give(piece), 1);
		assert_int_equal(q.error.code, 0);
		assert_int_equal(q.answer_len, 7);
		assert_string_equal(q.answer, "{\"a\":1}");
	}
}

static void refusals_keep_their_reason(void **state)
{
	static const struct {
		uint32_t type;
		const char *text;
		int code;
		const char *message;
	} cases[] = {
		{NBD_REP_ERR_UNSUP, "unknown option", ENOSYS, "unknown option"},
		{NBD_REP_ERR_POLICY, "EACCES: not you", EACCES, "not you"},
		{NBD_REP_ERR_POLICY, "ENOSPC: only 3 MiB free", ENOSPC, "only 3 MiB free"},
		{NBD_REP_ERR_POLICY, "EOPNOTSUPP: it is a file", EOPNOTSUPP, "it is a file"},
		{NBD_REP_ERR_POLICY, "MOVED: weft://b/r has it", WEFT_EMOVED, "weft://b/r has it"},
		{NBD_REP_ERR_POLICY, "E: no name", EPERM, "E: no name"},
		{NBD_REP_ERR_POLICY, "", EPERM, "the server does not allow it"},
		{NBD_REP_ERR_UNKNOWN, "no 'r'", ENOENT, "no 'r'"},
		{NBD_REP_ERR_SHUTDOWN, "", ESHUTDOWN, "the server is stopping"},
		{NBD_REP_ERR_TLS_REQD, "a key\x1b[2J", EACCES, "a key?[2J"},
		{NBD_REP_ERR_INVALID, "", EINVAL, "the server takes it for malformed"},
		{NBD_REP_ERR_TOO_BIG, "too much", EMSGSIZE, "too much"},
		{NBD_REP_ERR_PLATFORM, "EIO: disk", EIO, "disk"},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		begin();
		say(cases[i].type, cases[i].text);
		assert_int_equal(give(1000), 1);
		assert_int_equal(q.error.code, cases[i].code);
		assert_string_equal(q.error.message, cases[i].message);
	}
}

static void fails(const char *text)
{
	int r = give(5000);

	if (r != -EPROTO || q.error.code != EPROTO || !strstr(q.error.message, text))
		fail_msg("%d: '%s', not '%s'", r, q.error.message, text);
}

static void what_is_no_answer_ends_it(void **state)
{
	static const char piece[NBD_MAX_ANSWER_PIECE + 1];

	begin();
	say_of(NBD_OPT_WEFT_ASK, NBD_REP_WEFT_ANSWER, piece, sizeof(piece));
	fails("too long");
	begin();
	say(NBD_REP_WEFT_ANSWER, "");
	fails("empty");
	begin();
	say(NBD_REP_ACK, "");
	fails("its end");
	begin();
	say(NBD_REP_WEFT_ANSWER, "{}");
	say(NBD_REP_ACK, "x");
	fails("its end");
	begin();
	say(NBD_REP_INFO, "x");
	fails("another type");
	begin();
	say_of(NBD_OPT_GO, NBD_REP_ACK, "", 0);
	fails("something else");
	begin();
	memset(said, 'x', said_len = 100);
	fails("something else came");
	begin();
	say(NBD_REP_WEFT_ANSWER, "{}");
	say(NBD_REP_ACK, "");
	say(NBD_REP_ACK, "");
	fails("behind it");
	begin();
	q.out_sent = 0;
	say(NBD_REP_ERR_POLICY, "no");
	fails("before the question");
	begin();
	for (size_t n = 0; n <= NBD_MAX_ANSWER / NBD_MAX_ANSWER_PIECE; n++)
		say_of(NBD_OPT_WEFT_ASK, NBD_REP_WEFT_ANSWER, piece, NBD_MAX_ANSWER_PIECE);
	fails("too long");
	assert_int_equal(q.answer_len, NBD_MAX_ANSWER);
}

static void a_question_has_a_bound(void **state)
{
	static char text[NBD_MAX_OPTION + 1];

	assert_int_equal(nbd_question_begin(&q, text, sizeof(text)), -EMSGSIZE);
	nbd_question_end(&q);
	assert_int_equal(nbd_question_begin(&q, text, NBD_MAX_OPTION), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define C(f) cmocka_unit_test_setup_teardown(f, NULL, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_question_is_answered_and_nothing_granted),
		T(a_long_answer_comes_in_pieces),
		T(a_refusal_has_its_reason),
		T(a_server_without_answers_does_not_know_the_option),
		T(answered_questions_count_against_time_alone),
		T(a_question_that_is_too_long_is_not_asked),
		C(pieces_are_put_together),
		C(refusals_keep_their_reason),
		C(what_is_no_answer_ends_it),
		C(a_question_has_a_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
