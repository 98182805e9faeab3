/* SPDX-License-Identifier: MIT */
/*
 * The client's handshake as a machine of bytes: what leaves when, and what servers may not say.
 * Hostile servers are named by the class of the fault that others had.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/nbd/client-handshake.h"

#define GRANT "weft:grant:v=1,epoch=00000000000000aa,lease=30000,offers=tcp;rdma:1"

static struct nbd_talk talk;
static uint8_t said[256 << 10]; /* by the server, not given to the client yet */
static size_t said_len;
static struct weft_hello hello;

static uint8_t *say(size_t n)
{
	assert_true(n <= sizeof(said) - said_len);
	said_len += n;
	return said + said_len - n;
}

static void greet(void)
{
	nbd_pack_handshake(say(NBD_HANDSHAKE_BYTES),
		NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

static void answer(uint32_t option, uint32_t type, const void *data, size_t len)
{
	nbd_pack_option_reply(say(NBD_OPTION_REPLY_BYTES), option, type, (uint32_t)len);
	memcpy(say(len), data, len);
}

static void acknowledge(uint32_t option)
{
	answer(option, NBD_REP_ACK, "", 0);
}

static void welcome(uint32_t option, const char *name)
{
	uint8_t data[4096] = {0};

	memcpy(data + 4, name, strlen(name));
	answer(option, NBD_REP_META_CONTEXT, data, 4 + strlen(name));
}

static void inform(uint64_t size, uint16_t flags)
{
	uint8_t data[12];

	weft_put16(data, NBD_INFO_EXPORT);
	weft_put64(data + 2, size);
	weft_put16(data + 10, flags);
	answer(NBD_OPT_GO, NBD_REP_INFO, data, sizeof(data));
}

static void inform_blocks(uint32_t min, uint32_t preferred, uint32_t max)
{
	uint8_t data[14];

	weft_put16(data, NBD_INFO_BLOCK_SIZE);
	weft_put32(data + 2, min);
	weft_put32(data + 6, preferred);
	weft_put32(data + 10, max);
	answer(NBD_OPT_GO, NBD_REP_INFO, data, sizeof(data));
}

/* What the client has to send leaves. */
static void leave(void)
{
	talk.out_sent = talk.out_len = 0;
}

/* The client gets all that was said, in pieces. */
static int give(size_t piece)
{
	int r = 0;

	leave();
	for (size_t at = 0; r == 0 && at < said_len; at += piece)
		r = nbd_talk_take(&talk, said + at, weft_min(piece, said_len - at));
	said_len = 0;
	return r;
}

static void begin(bool session, bool at_once, bool tls)
{
	hello = (struct weft_hello){.anonymous = !session,
		.generation = 1,
		.mode = WEFT_MODE_WRITE,
		.name = "t"};
	const struct nbd_talk_wish wish = {
		.region = "r", .hello = hello, .at_once = at_once, .tls = tls};

	said_len = 0;
	assert_int_equal(nbd_talk_begin(&talk, &wish), 0);
}

/* The options that are to leave, from the flags or from the first option on. */
static unsigned leaving(bool flags, uint32_t *options)
{
	size_t at = flags ? 4 : 0;
	unsigned nr = 0;

	while (at < talk.out_len) {
		struct nbd_option option;

		assert_int_equal(nbd_unpack_option(talk.out + at, &option), 0);
		options[nr++] = option.option;
		at += NBD_OPTION_BYTES + option.len;
	}
	assert_int_equal(at, talk.out_len);
	return nr;
}

static void leaves(bool flags, unsigned nr, const uint32_t *expected)
{
	uint32_t options[NBD_TALK_MAX_ASKED];

	assert_int_equal(leaving(flags, options), nr);
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(options[i], expected[i]);
	leave();
}

#define LEAVES(flags, ...)                                                                         \
	leaves(flags, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (uint32_t[]){__VA_ARGS__})

static bool out_has(const char *text)
{
	return memmem(talk.out, talk.out_len, text, strlen(text));
}

/* All that a donor says up to its answer to GO. */
static void say_up_to_go(void)
{
	greet();
	acknowledge(NBD_OPT_STRUCTURED_REPLY);
	welcome(NBD_OPT_SET_META_CONTEXT, GRANT);
	acknowledge(NBD_OPT_SET_META_CONTEXT);
}

static void say_all(void)
{
	say_up_to_go();
	inform(1 << 20, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	inform_blocks(1, 4096, 32 << 20);
	acknowledge(NBD_OPT_GO);
}

static void refuses(int r, int code, const char *text)
{
	if (r != -code || talk.error.code != code || !strstr(talk.error.message, text))
		fail_msg("%d: %d '%s', not %d '%s'", r, talk.error.code, talk.error.message, code,
			text);
}

/* ---- what leaves when ---- */

static void a_donor_is_asked_everything_at_once(void **state)
{
	for (size_t piece = 1; piece < 1000; piece += 37) {
		begin(true, true, false);
		assert_true(out_has("weft:session:v=1"));
		LEAVES(true, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT, NBD_OPT_GO);
		say_all();
		assert_int_equal(give(piece), 1);
		assert_int_equal(talk.state, NBD_TALK_OVER);
		assert_int_equal(talk.out_len, 0);
		assert_true(talk.structured && talk.info.has_epoch && talk.info.can_flush);
		assert_false(talk.info.can_trim || talk.info.read_only);
		assert_int_equal(talk.info.epoch, 0xaa);
		assert_int_equal(talk.info.size_bytes, 1 << 20);
		assert_int_equal(talk.info.lease_ms, 30000);
		assert_string_equal(talk.info.offers, "tcp,rdma:1");
	}
}

/* The GO in flight names no region: whoever does not know what it means grants nothing. */
static void a_go_in_flight_is_for_the_hello_alone(void **state)
{
	static const uint8_t plain[] = {0, 0, 0, 1, 'r', 0, 1, 0, 3};

	begin(true, true, false);
	assert_true(out_has(WEFT_EXPORT_SESSION "\0"));
	assert_null(memmem(talk.out, talk.out_len, plain, sizeof(plain)));
	/* A donor that does not know it is asked by the region's name. */
	say_up_to_go();
	answer(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "", 0);
	assert_int_equal(give(1000), 0);
	assert_non_null(memmem(talk.out, talk.out_len, plain, sizeof(plain)));
	LEAVES(false, NBD_OPT_GO);
	inform(1 << 20, NBD_FLAG_HAS_FLAGS);
	acknowledge(NBD_OPT_GO);
	assert_int_equal(give(1000), 1);
	/* Not a second time. */
	begin(true, true, false);
	say_up_to_go();
	answer(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "", 0);
	assert_int_equal(give(1000), 0);
	answer(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "", 0);
	refuses(give(1000), ENOENT, "'r'");
}

static void a_donor_of_version_0_is_asked_step_by_step(void **state)
{
	static const char malformed[] = "malformed weft:session";

	begin(true, true, false);
	greet();
	acknowledge(NBD_OPT_STRUCTURED_REPLY);
	answer(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID, malformed, sizeof(malformed) - 1);
	answer(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "", 0);
	assert_int_equal(give(1000), 0);
	assert_true(out_has("weft:session:id="));
	LEAVES(false, NBD_OPT_SET_META_CONTEXT);
	welcome(NBD_OPT_SET_META_CONTEXT, "weft:grant:epoch=00000000000000aa,lease=1,offers=tcp");
	acknowledge(NBD_OPT_SET_META_CONTEXT);
	assert_int_equal(give(1000), 0);
	LEAVES(false, NBD_OPT_GO);
	inform(1 << 20, NBD_FLAG_HAS_FLAGS);
	acknowledge(NBD_OPT_GO);
	assert_int_equal(give(1000), 1);
	assert_true(talk.info.version0);
}

static void others_are_asked_one_option_at_a_time(void **state)
{
	for (unsigned session = 0; session < 2; session++) {
		begin(session, false, false);
		assert_int_equal(talk.out_len, 0);
		greet();
		assert_int_equal(give(1000), 0);
		LEAVES(true, NBD_OPT_STRUCTURED_REPLY);
		acknowledge(NBD_OPT_STRUCTURED_REPLY);
		assert_int_equal(give(1000), 0);
		if (session) {
			LEAVES(false, NBD_OPT_SET_META_CONTEXT);
			welcome(NBD_OPT_SET_META_CONTEXT, GRANT);
			acknowledge(NBD_OPT_SET_META_CONTEXT);
			assert_int_equal(give(1000), 0);
		}
		LEAVES(false, NBD_OPT_GO);
		inform(1 << 20, NBD_FLAG_HAS_FLAGS);
		acknowledge(NBD_OPT_GO);
		assert_int_equal(give(1000), 1);
	}
}

static void a_question_takes_nothing(void **state)
{
	const struct nbd_talk_wish wish = {.region = "r",
		.hello = {.generation = 1, .mode = WEFT_MODE_SHARED, .name = "t"},
		.at_once = true,
		.only_ask = true};

	assert_int_equal(nbd_talk_begin(&talk, &wish), 0);
	LEAVES(true, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_LIST_META_CONTEXT);
	greet();
	acknowledge(NBD_OPT_STRUCTURED_REPLY);
	welcome(NBD_OPT_LIST_META_CONTEXT, GRANT);
	acknowledge(NBD_OPT_LIST_META_CONTEXT);
	assert_int_equal(give(1000), 1);
	assert_true(talk.has_welcome);
	assert_int_equal(talk.welcome.epoch, 0xaa);
	LEAVES(false, NBD_OPT_ABORT);
}

/* ---- STARTTLS ---- */

static void nothing_is_said_before_tls(void **state)
{
	for (unsigned at_once = 0; at_once < 2; at_once++) {
		begin(true, at_once, true);
		greet();
		if (!at_once)
			assert_int_equal(give(1000), 0);
		assert_false(out_has("weft:"));
		LEAVES(true, NBD_OPT_STARTTLS);
		acknowledge(NBD_OPT_STARTTLS);
		assert_int_equal(give(1000), 1);
		assert_int_equal(talk.state, NBD_TALK_TLS);
		assert_int_equal(talk.out_len, 0);
		nbd_talk_secured(&talk);
		if (at_once)
			LEAVES(false, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT,
				NBD_OPT_GO);
		else
			LEAVES(false, NBD_OPT_STRUCTURED_REPLY);
	}
}

/* CVE-2021-3716: what somebody put behind the answer is not taken for what came encrypted. */
static void starttls_injection_is_refused(void **state)
{
	for (size_t n = 1; n < 40; n += 19) {
		begin(true, true, true);
		greet();
		acknowledge(NBD_OPT_STARTTLS);
		memset(say(n), 0, n);
		refuses(give(1000), EPROTO, "behind the answer to STARTTLS");
	}
	/* Nor behind the answer to one who only asks, and so reads no further than that. */
	const struct nbd_talk_wish question = {.region = "r",
		.hello = {.generation = 1, .mode = WEFT_MODE_SHARED, .name = "t"},
		.at_once = true,
		.only_ask = true,
		.tls = true};

	assert_int_equal(nbd_talk_begin(&talk, &question), 0);
	greet();
	acknowledge(NBD_OPT_STARTTLS);
	memset(say(19), 0, 19);
	refuses(give(1000), EPROTO, "behind the answer to STARTTLS");
	/* An answer that was put there before STARTTLS's own. */
	begin(true, true, true);
	greet();
	acknowledge(NBD_OPT_STRUCTURED_REPLY);
	refuses(give(1000), EPROTO, "another option");
	/* The greeting with everything that a donor would say. */
	begin(true, true, true);
	say_all();
	refuses(give(1000), EPROTO, "another option");
}

/* CVE-2019-14842: a server, or who is between, that has no TLS is told nothing. */
static void starttls_downgrade_is_refused(void **state)
{
	static const struct {
		uint32_t type;
		int code;
		const char *text, *expected;
	} cases[] = {
		{NBD_REP_ERR_UNSUP, EPROTONOSUPPORT, "", "does not begin TLS"},
		{NBD_REP_ERR_POLICY, EPROTONOSUPPORT, "no keys\x1b[2J", "no keys?[2J"},
		{NBD_REP_ERR_UNKNOWN, ENOENT, "", "does not begin TLS"},
		{0x8fffffff, EPROTO, "", "does not begin TLS"},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		begin(true, true, true);
		leave();
		greet();
		answer(NBD_OPT_STARTTLS, cases[i].type, cases[i].text, strlen(cases[i].text));
		refuses(give(1000), cases[i].code, cases[i].expected);
		assert_int_equal(talk.out_len, 0);
	}
	begin(true, true, true);
	greet();
	answer(NBD_OPT_STARTTLS, NBD_REP_INFO, "\0\0", 2);
	refuses(give(1000), EPROTO, "not asked");
}

/* ---- hostile servers ---- */

static void other_magic_is_no_nbd_server(void **state)
{
	static const char http[] = "HTTP/1.1 400 Bad Request\r\n";

	begin(true, true, false);
	memcpy(say(sizeof(http)), http, sizeof(http));
	refuses(give(1000), EPROTO, "no NBD server");
	begin(true, true, false);
	greet();
	memset(say(NBD_OPTION_REPLY_BYTES), 7, NBD_OPTION_REPLY_BYTES);
	refuses(give(1000), EPROTO, "something else than an answer");
	/* proto, "Oldstyle negotiation" */
	begin(true, true, false);
	weft_put64(say(8), NBD_MAGIC);
	weft_put64(say(8), UINT64_C(0x00420281861253));
	memset(say(136), 0, 136);
	refuses(give(1000), EPROTONOSUPPORT, "no weft donor");
	begin(false, false, false);
	nbd_pack_handshake(say(NBD_HANDSHAKE_BYTES), 0);
	refuses(give(1000), EPROTONOSUPPORT, "too old");
}

/* CVE-2022-26495 and -26496, CVE-2017-15118 at servers: lengths that are more than there is. */
static void lengths_beyond_bounds_are_refused(void **state)
{
	static const uint32_t lengths[] = {
		NBD_TALK_ANSWER_BYTES + 1, 1 << 20, 0x7fffffff, 0xffffffec, 0xffffffff};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(lengths); i++)
		for (uint32_t type = 0; type < 12; type++) {
			begin(true, true, false);
			greet();
			acknowledge(NBD_OPT_STRUCTURED_REPLY);
			nbd_pack_option_reply(say(NBD_OPTION_REPLY_BYTES),
				NBD_OPT_SET_META_CONTEXT, type < 8 ? type : type << 28,
				lengths[i]);
			refuses(give(1000), EPROTO, "bytes long");
		}
}

/* CVE-2021-20286: an answer of a kind that is not expected where it comes. */
static void answers_out_of_place_are_refused(void **state)
{
	static const struct {
		uint32_t option, type;
		uint32_t len;
		const char *expected;
	} cases[] = {
		{NBD_OPT_GO, NBD_REP_ACK, 0, "another option"},
		{NBD_OPT_LIST, NBD_REP_ACK, 0, "another option"},
		{NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT, 10, "another option"},
		{0, NBD_REP_ACK, 0, "another option"},
		{NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 1, "with data"},
		{NBD_OPT_SET_META_CONTEXT, NBD_REP_SERVER, 4, "not asked"},
		{NBD_OPT_SET_META_CONTEXT, NBD_REP_INFO, 12, "not asked"},
		{NBD_OPT_SET_META_CONTEXT, 0, 0, "not asked"},
		{NBD_OPT_SET_META_CONTEXT, 77, 0, "not asked"},
		{NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, 3, "without a name"},
	};
	static const uint8_t zeros[16];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		begin(true, true, false);
		greet();
		acknowledge(NBD_OPT_STRUCTURED_REPLY);
		answer(cases[i].option, cases[i].type, zeros, cases[i].len);
		refuses(give(1000), EPROTO, cases[i].expected);
	}
	/* Before it can have seen what it answers. */
	begin(true, true, false);
	say_up_to_go();
	inform(1 << 20, 0);
	acknowledge(NBD_OPT_GO);
	int r = nbd_talk_take(&talk, said, said_len);
	refuses(r, EPROTO, "not left yet");
}

/* CVE-2022-0485: an error at the end is not success, whatever came before it. */
static void an_error_is_no_success(void **state)
{
	begin(true, true, false);
	say_up_to_go();
	inform(1 << 20, NBD_FLAG_HAS_FLAGS);
	answer(NBD_OPT_GO, NBD_REP_ERR_POLICY, "EBUSY: held", 11);
	refuses(give(1000), EBUSY, "held");
	assert_int_equal(talk.info.size_bytes, 0);
	/* What the refused one said is not taken for the next one's. */
	begin(true, true, false);
	say_up_to_go();
	inform(1 << 20, NBD_FLAG_HAS_FLAGS);
	answer(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "", 0);
	assert_int_equal(give(1000), 0);
	leave();
	acknowledge(NBD_OPT_GO);
	refuses(give(1000), EPROTO, "does not say the size");
}

static void bytes_behind_go_are_refused(void **state)
{
	begin(true, true, false);
	say_all();
	say(1)[0] = 0;
	refuses(give(sizeof(said)), EPROTO, "behind the answer to GO");
}

/* A server that never comes to an end costs a bounded time and no memory. */
static void endless_answers_are_refused(void **state)
{
	begin(true, true, false);
	greet();
	acknowledge(NBD_OPT_STRUCTURED_REPLY);
	assert_int_equal(give(1000), 0);
	for (unsigned i = 0; i <= NBD_TALK_MAX_ANSWERS; i++)
		welcome(NBD_OPT_SET_META_CONTEXT, "base:allocation");
	refuses(give(1000), EPROTO, "come to an end");
	/* Nor does it by hellos that it always finds malformed. */
	begin(true, true, false);
	greet();
	acknowledge(NBD_OPT_STRUCTURED_REPLY);
	for (unsigned i = 0; i < 3; i++) {
		answer(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID, "malformed weft:session", 22);
		if (i == 0)
			answer(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "", 0);
		if (give(1000) < 0)
			break;
	}
	refuses(-EPROTO, EPROTO, "another option"); /* it asked INFO by then */
}

static void informations_are_whole_and_once(void **state)
{
	static const struct {
		uint16_t type;
		uint32_t len;
	} cases[] = {{NBD_INFO_EXPORT, 2}, {NBD_INFO_EXPORT, 11}, {NBD_INFO_EXPORT, 13},
		{NBD_INFO_EXPORT, 4000}, {NBD_INFO_BLOCK_SIZE, 2}, {NBD_INFO_BLOCK_SIZE, 13},
		{NBD_INFO_BLOCK_SIZE, 15}, {NBD_INFO_EXPORT, 0}, {NBD_INFO_EXPORT, 1}};
	uint8_t data[4096] = {0};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		begin(true, true, false);
		say_up_to_go();
		weft_put16(data, cases[i].type);
		answer(NBD_OPT_GO, NBD_REP_INFO, data, cases[i].len);
		refuses(give(1000), EPROTO, "the server");
	}
	begin(true, true, false);
	say_up_to_go();
	inform(1 << 20, 0);
	inform(1 << 21, 0);
	refuses(give(1000), EPROTO, "twice");
	begin(true, true, false);
	say_up_to_go();
	inform_blocks(1, 4096, 4096);
	inform_blocks(1, 4096, 4096);
	refuses(give(1000), EPROTO, "twice");
	/* What was not asked for, names and descriptions, is passed over. */
	begin(true, true, false);
	say_up_to_go();
	for (uint16_t type = NBD_INFO_NAME; type < 200; type += 99) {
		weft_put16(data, type);
		answer(NBD_OPT_GO, NBD_REP_INFO, data, 4000);
	}
	inform(1 << 20, 0);
	acknowledge(NBD_OPT_GO);
	assert_int_equal(give(1000), 1);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
	static const struct {
		uint64_t size;
		uint32_t min, preferred, max;
		int code;
	} cases[] = {
		{UINT64_C(1) << 63, 1, 4096, 1 << 20, EPROTO},
		{UINT64_MAX, 1, 4096, 1 << 20, EPROTO},
		{0, 1, 4096, 1 << 20, ENODATA},
		{511, 512, 4096, 1 << 20, ENODATA},
		{1 << 20, 0, 4096, 1 << 20, EPROTO},
		{1 << 20, 3, 4096, 1 << 20, EPROTO},
		{1 << 20, 513, 4096, 1 << 20, EPROTO},
		{1 << 20, 1 << 17, 1 << 17, 1 << 20, EPROTO},
		{1 << 20, 0x80000000, 4096, 0xffffffff, EPROTO},
		{1 << 20, 0xffffffff, 4096, 0xffffffff, EPROTO},
		{1 << 20, 4096, 4096, 512, EPROTO},
		{1 << 20, 4096, 4096, 0, EPROTO},
		{INT64_MAX, 1, 0, 0xffffffff, 0},
		{1 << 20, 512, 3, 5000, 0},
		{(1 << 20) + 7, 512, 0xffffffff, 0xffffffff, 0},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(cases); i++) {
		const struct tp_info *info = &talk.info;

		begin(true, true, false);
		say_up_to_go();
		inform(cases[i].size, NBD_FLAG_HAS_FLAGS);
		inform_blocks(cases[i].min, cases[i].preferred, cases[i].max);
		acknowledge(NBD_OPT_GO);
		int r = give(1000);
		if (cases[i].code) {
			refuses(r, cases[i].code, "");
			continue;
		}
		assert_int_equal(r, 1);
		assert_true(info->size_bytes > 0 && info->size_bytes <= cases[i].size);
		assert_true(info->max_io_bytes >= info->min_block_bytes &&
			info->max_io_bytes <= NBD_MAX_PAYLOAD);
		assert_int_equal(info->size_bytes % info->min_block_bytes, 0);
		assert_int_equal(info->max_io_bytes % info->min_block_bytes, 0);
		assert_true(info->preferred_block_bytes >= info->min_block_bytes &&
			info->preferred_block_bytes <= NBD_MAX_PAYLOAD);
	}
}

/* What a server says reaches terminals and logs. */
static void texts_are_printable(void **state)
{
	uint8_t text[4096];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)i;
	begin(true, true, false);
	say_up_to_go();
	answer(NBD_OPT_GO, NBD_REP_ERR_POLICY, text, sizeof(text));
	assert_int_equal(give(1000), -EPERM);
	assert_true(strlen(talk.error.message) > 200);
	for (const char *p = talk.error.message; *p; p++)
		assert_true((uint8_t)*p >= 0x20 && *p != 0x7f);
	/* Nor do names and contexts, which are not shown at all. */
	begin(true, true, false);
	greet();
	acknowledge(NBD_OPT_STRUCTURED_REPLY);
	answer(NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, text, sizeof(text));
	acknowledge(NBD_OPT_SET_META_CONTEXT);
	answer(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, text, 20);
	assert_int_equal(give(1000), 0);
	leave();
	acknowledge(NBD_OPT_INFO);
	refuses(give(1000), EPROTONOSUPPORT, "no weft donor");
}

/* Two welcomes, another's epoch: see nbd-client-connect.c; here what comes with a grant in hand. */
static void a_grant_of_other_contents_is_given_up(void **state)
{
	begin(true, true, false);
	talk.wish.hello.epoch = 0xab;
	say_all();
	refuses(give(1000), ESTALE, "another epoch");
	begin(true, true, false);
	talk.wish.hello.expect = 0xab;
	say_all();
	refuses(give(1000), ESTALE, "another epoch");
}

static void a_name_too_long_is_refused(void **state)
{
	static char region[NBD_MAX_STRING + 2];
	struct nbd_talk_wish wish = {.region = region,
		.hello = {.generation = 1, .name = "t"},
		.at_once = true};

	memset(region, 'a', sizeof(region) - 1);
	assert_int_equal(nbd_talk_begin(&talk, &wish), -ENAMETOOLONG);
	region[NBD_MAX_STRING] = '\0';
	memset(wish.hello.name, 'n', WEFT_NAME_MAX);
	assert_int_equal(nbd_talk_begin(&talk, &wish), 0);
	LEAVES(true, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT, NBD_OPT_GO);
}

/* ---- over a stream ---- */

static void it_moves_over_a_stream(void **state)
{
	int pair[2];
	short events;

	assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	struct nbd_stream stream = {.fd = pair[0]};
	begin(true, true, false);
	assert_int_equal(nbd_talk_move(&talk, &stream, &events), 0);
	assert_int_equal(events, POLLIN);
	assert_true(recv(pair[1], said, sizeof(said), 0) > 40);
	say_all();
	assert_int_equal(send(pair[1], said, said_len, 0), said_len);
	assert_int_equal(nbd_talk_move(&talk, &stream, &events), 1);
	/* Whoever ends in the middle of it has hung up. */
	begin(true, true, false);
	greet();
	assert_int_equal(send(pair[1], said, said_len, 0), said_len);
	close(pair[1]);
	refuses(nbd_talk_move(&talk, &stream, &events), ECONNRESET, "hung up");
	close(pair[0]);
}

static void secrets_are_wiped(void **state)
{
	begin(true, true, false);
	memset(talk.wish.hello.id, 0x5a, WEFT_ID_BYTES);
	nbd_talk_end(&talk);
	for (size_t i = 0; i < WEFT_ID_BYTES; i++)
		assert_int_equal(talk.wish.hello.id[i], 0);
	for (size_t i = 0; i < sizeof(talk.out); i++)
		assert_int_equal(talk.out[i], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_donor_is_asked_everything_at_once),
		cmocka_unit_test(a_go_in_flight_is_for_the_hello_alone),
		cmocka_unit_test(a_donor_of_version_0_is_asked_step_by_step),
		cmocka_unit_test(others_are_asked_one_option_at_a_time),
		cmocka_unit_test(a_question_takes_nothing),
		cmocka_unit_test(nothing_is_said_before_tls),
		cmocka_unit_test(starttls_injection_is_refused),
		cmocka_unit_test(starttls_downgrade_is_refused),
		cmocka_unit_test(other_magic_is_no_nbd_server),
		cmocka_unit_test(lengths_beyond_bounds_are_refused),
		cmocka_unit_test(answers_out_of_place_are_refused),
		cmocka_unit_test(an_error_is_no_success),
		cmocka_unit_test(bytes_behind_go_are_refused),
		cmocka_unit_test(endless_answers_are_refused),
		cmocka_unit_test(informations_are_whole_and_once),
		cmocka_unit_test(sizes_that_cannot_be_are_refused),
		cmocka_unit_test(texts_are_printable),
		cmocka_unit_test(a_grant_of_other_contents_is_given_up),
		cmocka_unit_test(a_name_too_long_is_refused),
		cmocka_unit_test(it_moves_over_a_stream),
		cmocka_unit_test(secrets_are_wiped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
