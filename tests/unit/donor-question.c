/* SPDX-License-Identifier: MIT */
/*
 * Questions to a donor itself, by the borrower's side over TCP, in plaintext and with keys: who is
 * answered, over which connection, and who is not.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fabric/base/util.h"
#include "fabric/uri.h"
#include "tests/support/nbd-donor.h"
#include "transports/nbd/borrower/question.h"

#define SECRET_A "00112233445566778899aabbccddeeff"
#define SECRET_B "ffeeddccbbaa99887766554433221100"

enum { SIZE = 1 << 20, TIME_MS = 20000 };

static struct nbd_donor d;
static struct weft_keys *keys;
static char dir[64];
static struct weft_uri uri = {.region = ""};
static struct tp_talk *talk;
static struct weft_error err;
static struct weft_peer asker;
static _Atomic unsigned nr_asked;

/* {"say": …} is answered with that. */
static int answer(void *ctx, const struct weft_peer *peer, const json_t *question, json_t **ret,
	struct weft_error *why)
{
	json_t *say = json_object_get(question, "say");

	assert_ptr_equal(ctx, &d);
	nr_asked++;
	asker = *peer;
	if (!say)
		return weft_error_set(why, ENOSPC, "only %d bytes are free", 7);
	*ret = json_pack("{s:O, s:s}", "said", say, "by", peer->identity);
	return 0;
}

static void start(weft_donor_question_fn *question, const struct nbd_listener_config *config,
	bool allow_insecure)
{
	const struct weft_donor_config donor_config = {.offers = "tcp",
		.keys = keys,
		.allow_insecure = allow_insecure,
		.question = question,
		.question_ctx = &d};

	nbd_donor_start_as(&d, SIZE, config, &donor_config);
	strcpy(uri.host, "127.0.0.1");
	snprintf(uri.port, sizeof(uri.port), "%u", d.port);
	uri.socket[0] = '\0';
}

static int tear_down(void **state)
{
	nbd_hang_up(talk);
	talk = NULL;
	nbd_donor_end(&d);
	return 0;
}

/* What was said is to be the answer; or -errno. */
static int ask_as(const struct weft_key *key, const char *text)
{
	json_t *question = text ? json_pack("{s:s}", "say", text) : json_object(), *ret = NULL;
	int r = nbd_put_question(&uri, key, NULL, TIME_MS, -1, &talk, question, &ret, &err);

	if (r == 0) {
		assert_string_equal(json_string_value(json_object_get(ret, "said")), text);
		assert_string_equal(json_string_value(json_object_get(ret, "by")),
			key ? key->identity : "");
	}
	json_decref(question);
	json_decref(ret);
	return r;
}

static int ask(const char *text)
{
	return ask_as(NULL, text);
}

static struct weft_listener_status status(void)
{
	struct weft_listener_status s;

	nbd_listener_status(d.listener, &s);
	return s;
}

static uint64_t accepted(void)
{
	return status().accepted;
}

static void questions_go_over_one_connection(void **state)
{
	static char text[60000];

	start(answer, NULL, false);
	memset(text, 'x', sizeof(text) - 1);
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(ask(i % 10 ? "hello" : text), 0);
		assert_non_null(talk);
	}
	assert_int_equal(accepted(), 1);
	assert_string_equal(asker.transport, "tcp");
	/* A refusal ends nothing. */
	assert_int_equal(ask(NULL), -ENOSPC);
	assert_string_equal(err.message, "only 7 bytes are free");
	assert_non_null(talk);
	assert_int_equal(ask("hello"), 0);
	assert_int_equal(accepted(), 1);
}

static void a_unix_socket_is_as_good(void **state)
{
	start(answer, NULL, false);
	strcpy(uri.socket, d.socket);
	assert_int_equal(ask("hello"), 0);
	assert_true(asker.local);
}

static void a_question_beyond_the_bound_is_not_sent(void **state)
{
	static char text[NBD_MAX_OPTION];

	start(answer, NULL, false);
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(ask(text), -EMSGSIZE);
	assert_int_equal(nr_asked, 0);
	assert_int_equal(ask("hello"), 0);
}

static void a_donor_without_answers_is_as_an_old_one(void **state)
{
	start(NULL, NULL, false);
	assert_int_equal(ask("hello"), -ENOSYS);
	assert_int_equal(ask("hello"), -ENOSYS);
	assert_int_equal(accepted(), 1);
}

static void what_is_no_object_is_refused(void **state)
{
	static const char *const texts[] = {"", "7", "[]", "{\"a\":1,\"a\":2}",
		"{\"say\":\"\xff\"}", "{} {}", "{\"say\":\"\\u0000\"}"};
	struct nbd_raw raw;

	start(answer, NULL, false);
	nbd_donor_connect(&d, &raw, true);
	assert_int_equal(nbd_raw_hello(&raw, NBD_FLAG_C_FIXED_NEWSTYLE), 0);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(texts); i++) {
		nbd_raw_option(&raw, NBD_OPT_WEFT_ASK, texts[i], (uint32_t)strlen(texts[i]));
		assert_int_equal(nbd_raw_final(&raw, NBD_OPT_WEFT_ASK), NBD_REP_ERR_POLICY);
	}
	assert_int_equal(nr_asked, 0);
	nbd_raw_close(&raw);
}

static void a_lost_connection_is_told_and_made_anew(void **state)
{
	static const struct nbd_listener_config hasty = {.handshake_ms = 100};

	start(answer, &hasty, false);
	assert_int_equal(ask("hello"), 0);
	/* The donor waits for the next option no longer than that. */
	for (unsigned i = 0; i < 5000 && status().connections > 0; i++)
		usleep(1000);
	assert_int_equal(ask("hello"), -ECONNRESET);
	assert_null(talk);
	assert_int_equal(ask("hello"), 0);
	assert_int_equal(accepted(), 2);
}

/* Each answer gives it another step's time. */
static void answered_questions_have_time_each(void **state)
{
	static const struct nbd_listener_config hasty = {.handshake_ms = 200};
	const uint64_t end_ns = weft_now_ns() + 3 * UINT64_C(200000000);

	start(answer, &hasty, false);
	while (weft_now_ns() < end_ns) {
		assert_int_equal(ask("hello"), 0);
		usleep(50000);
	}
	assert_int_equal(accepted(), 1);
}

static void who_was_answered_makes_no_room(void **state)
{
	static const struct nbd_listener_config few = {.max_strangers = 4};
	struct nbd_raw raw[8];

	start(answer, &few, false);
	assert_int_equal(ask("hello"), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(raw); i++) {
		nbd_donor_connect(&d, &raw[i], true);
		nbd_raw_hello(&raw[i], NBD_FLAG_C_FIXED_NEWSTYLE);
	}
	assert_true(status().strangers.made_room > 0);
	assert_int_equal(ask("hello"), 0);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(raw); i++)
		nbd_raw_close(&raw[i]);
}

/* It counts among those that have a grant, once, and no longer than it is there. */
static void who_was_answered_has_one_place(void **state)
{
	static const struct nbd_listener_config one = {.max_connections = 1};
	struct nbd_raw raw;

	start(answer, &one, false);
	assert_int_equal(ask("hello"), 0);
	assert_int_equal(ask("hello"), 0);
	nbd_donor_connect(&d, &raw, true);
	assert_int_equal(nbd_donor_go(&raw, "m", 1, 1, NULL), NBD_REP_ERR_POLICY);
	nbd_raw_close(&raw);
	nbd_hang_up(talk);
	talk = NULL;
	uint32_t type = 0;
	for (unsigned i = 0; i < 5000 && type != NBD_REP_ACK; i++) {
		nbd_donor_connect(&d, &raw, true);
		type = nbd_donor_go(&raw, "m", 1, 1, NULL);
		if (type != NBD_REP_ACK) {
			nbd_raw_close(&raw);
			usleep(1000);
		}
	}
	assert_int_equal(type, NBD_REP_ACK);
	/* Who has no place is answered all the same. */
	assert_int_equal(ask("hello"), 0);
	nbd_raw_close(&raw);
}

static void nobody_there_and_no_answer_are_told(void **state)
{
	struct weft_uri nobody = {.host = "127.0.0.1", .port = "1", .region = ""};
	json_t *question = json_object(), *ret;
	int stop[2];

	start(answer, NULL, false);
	assert_int_equal(nbd_put_question(&nobody, NULL, NULL, TIME_MS, -1, &talk, question, &ret,
				 &err),
		-ECONNREFUSED);
	assert_null(talk);
	assert_int_equal(pipe(stop), 0);
	close(stop[1]);
	assert_int_equal(nbd_put_question(&uri, NULL, NULL, TIME_MS, stop[0], &talk, question, &ret,
				 &err),
		-ECANCELED);
	assert_null(talk);
	close(stop[0]);
	json_decref(question);
}

/* ---- with keys ---- */

static void put(const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(weft_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static struct weft_key key_of(const char *identity, const char *secret)
{
	struct weft_key key = {.secret_bytes = (uint32_t)strlen(secret) / 2};

	strcpy(key.identity, identity);
	assert_int_equal(weft_unhex(secret, key.secret, key.secret_bytes), 0);
	return key;
}

static int open_keys(void **state)
{
	strcpy(dir, "/tmp/weft-donor-question-XXXXXX");
	assert_non_null(mkdtemp(dir));
	put("keys.psk", "alice:" SECRET_A "\nbob:" SECRET_B "\n");
	put("grants.json",
		"{\"version\": 1, \"keys\": {\"alice\": {\"admin\": true}, \"bob\": {}}}");
	nr_asked = 0;
	return weft_keys_open(dir, &keys, &err);
}

static int close_keys(void **state)
{
	char path[128];

	tear_down(state);
	weft_keys_close(keys);
	keys = NULL;
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/grants.json", dir);
	unlink(path);
	return rmdir(dir);
}

static int no_keys(void **state)
{
	nr_asked = 0;
	return 0;
}

static void a_key_needs_the_right_to_change_the_donor(void **state)
{
	const struct weft_key alice = key_of("alice", SECRET_A), bob = key_of("bob", SECRET_B);

	start(answer, NULL, false);
	assert_int_equal(ask_as(&alice, "hello"), 0);
	assert_true(asker.encrypted);
	assert_int_equal(ask_as(&alice, "again"), 0);
	assert_int_equal(accepted(), 1);
	nbd_hang_up(talk);
	talk = NULL;
	nr_asked = 0;
	assert_int_equal(ask_as(&bob, "hello"), -EACCES);
	assert_non_null(strstr(err.message, "weft key new NAME --admin"));
	assert_int_equal(nr_asked, 0);
}

static void another_secret_is_no_key(void **state)
{
	const struct weft_key alice = key_of("alice", SECRET_B);

	start(answer, NULL, false);
	assert_true(ask_as(&alice, "hello") < 0);
	assert_null(talk);
	assert_int_equal(nr_asked, 0);
}

static void plaintext_is_for_those_who_are_let_in_so(void **state)
{
	start(answer, NULL, true);
	assert_int_equal(ask("hello"), 0);
}

/* A stranger learns nothing, not even whether there are answers. */
static void nobody_else_is_answered(void **state)
{
	struct weft_peer peer = {.transport = "tcp", .text = "192.0.2.7:5"};
	char *text;

	start(NULL, NULL, false);
	peer.address.ss_family = AF_INET;
	assert_int_equal(weft_donor_question(d.donor, &peer, "{}", 2, &text, &err), -EACCES);
	strcpy(peer.identity, "carol");
	peer.encrypted = true;
	assert_int_equal(weft_donor_question(d.donor, &peer, "{}", 2, &text, &err), -EACCES);
	strcpy(peer.identity, "alice");
	assert_int_equal(weft_donor_question(d.donor, &peer, "{}", 2, &text, &err), -ENOSYS);
}

/* Whoever has a certificate may do all where there are no keys. */
static void a_certificate_is_as_good_where_there_are_no_keys(void **state)
{
	struct weft_peer peer = {.transport = "tcp+tls",
		.identity = "node7",
		.certified = true,
		.encrypted = true};
	const char question[] = "{\"say\":\"x\"}";
	char *text;

	peer.address.ss_family = AF_INET;
	start(answer, NULL, false);
	assert_int_equal(weft_donor_question(d.donor, &peer, question, strlen(question), &text,
				 &err),
		0);
	assert_string_equal(text, "{\"said\":\"x\",\"by\":\"node7\"}");
	free(text);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, no_keys, tear_down)
#define KEYS(fn) cmocka_unit_test_setup_teardown(fn, open_keys, close_keys)
	const struct CMUnitTest tests[] = {
		TEST(questions_go_over_one_connection),
		TEST(a_unix_socket_is_as_good),
		TEST(a_question_beyond_the_bound_is_not_sent),
		TEST(a_donor_without_answers_is_as_an_old_one),
		TEST(what_is_no_object_is_refused),
		TEST(a_lost_connection_is_told_and_made_anew),
		TEST(answered_questions_have_time_each),
		TEST(who_was_answered_makes_no_room),
		TEST(who_was_answered_has_one_place),
		TEST(nobody_there_and_no_answer_are_told),
		KEYS(a_key_needs_the_right_to_change_the_donor),
		KEYS(another_secret_is_no_key),
		KEYS(plaintext_is_for_those_who_are_let_in_so),
		KEYS(nobody_else_is_answered),
		TEST(a_certificate_is_as_good_where_there_are_no_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
