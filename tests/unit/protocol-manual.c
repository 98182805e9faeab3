/* SPDX-License-Identifier: MIT */
/*
 * weft-protocol(7) against the code: each of its numbers, words and names of fields is one of the
 * code's, and each of the code's is in it; its examples are what the code says.  The layouts of
 * messages are protocol-layouts.c's.
 */
#include "tests/support/manual.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"
#include "fabric/copying.h"
#include "fabric/nbd/conn.h"
#include "fabric/region/region.h"
#include "transports/verbs/proto.h"

/* ---- numbers ---- */

static const struct {
	const char *name, *prefix, *table;
	uint64_t value;
} numbers[] = {
#define K(table, prefix, name)                                                                     \
	{                                                                                          \
#prefix #name, #prefix, #table, prefix##name                                       \
	}
	K(CONSTANT, VERBS_, MAGIC),
	K(CONSTANT, VERBS_, VERSION),
	K(CONSTANT, VERBS_, TOKEN_BYTES),
	K(CONSTANT, VERBS_, NONCE_BYTES),
	K(CONSTANT, VERBS_, TAG_BYTES),
	K(CONSTANT, VERBS_, SEALED_BYTES),
	K(CONSTANT, VERBS_, IDENTITY_MAX),
	K(CONSTANT, VERBS_, PROOF_VERSION),
	K(CONSTANT, VERBS_, REGION_MAX),
	K(CONSTANT, VERBS_, TEXT_MAX),
	K(CONSTANT, VERBS_, OFFERS_MAX),
	K(CONSTANT, VERBS_, CHUNKS_PER_MESSAGE),
	K(CONSTANT, VERBS_, MAX_CHUNKS),
	K(CONSTANT, VERBS_, FIELDS_MAX),
	K(CONSTANT, VERBS_, MSG_MAX),
	K(CONSTANT, VERBS_, START_MAX),
	K(CONSTANT, VERBS_, RANGES_PER_MESSAGE),
	K(CONSTANT, VERBS_, HASHES_PER_MESSAGE),
	K(CONSTANT, VERBS_, REQUESTS),
	K(CONSTANT, VERBS_, PRIVATE_BYTES),
	K(CONSTANT, VERBS_, PROVED_BYTES),
	K(CONSTANT, VERBS_, ENDS_BYTES),
	K(CONSTANT, VERBS_, MACED_BYTES),
	K(CONSTANT, VERBS_, REJECT_BYTES),
	K(TYPE, VERBS_, HELLO),
	K(TYPE, VERBS_, WAIT),
	K(TYPE, VERBS_, GRANT),
	K(TYPE, VERBS_, REFUSE),
	K(TYPE, VERBS_, GET_CHUNKS),
	K(TYPE, VERBS_, CHUNKS),
	K(TYPE, VERBS_, REQUEST),
	K(TYPE, VERBS_, REPLY),
	K(TYPE, VERBS_, BYE),
	K(TYPE, VERBS_, START),
	K(TYPE, VERBS_, CHALLENGE),
	K(TYPE, VERBS_, QUIET),
	K(KIND, VERBS_, FLUSH),
	K(KIND, VERBS_, ZERO),
	K(KIND, VERBS_, HASH),
	K(FLAG, VERBS_GRANT_, READ_ONLY),
	K(FLAG, VERBS_GRANT_, FLUSH_ASKS),
	K(NUMBER, VERBS_FIELD_, GRANTED),
	K(NUMBER, VERBS_FIELD_, WROTE),
	K(NUMBER, VERBS_FIELD_, EXPECT),
	K(NUMBER, VERBS_FIELD_, RESTORABLE),
	K(NUMBER, VERBS_FIELD_, STRIPE),
	K(NUMBER, VERBS_FIELD_, RENEW),
	K(NUMBER, VERBS_FIELD_, HASHES),
	K(NUMBER, VERBS_FIELD_, MARKS),
	K(NUMBER, VERBS_FIELD_, FOLLOWS),
	K(NUMBER, VERBS_FIELD_, COPIES),
	K(NUMBER, VERBS_FIELD_, REPORTS),
	K(NUMBER, VERBS_FIELD_, SAID),
	K(NUMBER, VERBS_FIELD_, MOVING),
	K(BIT, VERBS_FIELD_, MUST),
	K(PURPOSE, VERBS_, CONTROL),
	K(PURPOSE, VERBS_, DATA),
	K(PURPOSE, VERBS_, PROVED),
	K(MODE, WEFT_MODE_, READ),
	K(MODE, WEFT_MODE_, SHARED),
	K(MODE, WEFT_MODE_, WRITE),
	K(SIZE, WEFT_, ID_BYTES),
	K(SIZE, WEFT_, NAME_MAX),
	K(SIZE, WEFT_, CONTEXT_MAX),
	K(SIZE, WEFT_, STRIPE_MAX),
	K(HASHING, NBD_, CMD_HASH),
	K(HASHING, NBD_, REPLY_TYPE_HASHES),
	K(HASHING, NBD_, HASHING_BYTES),
	K(HASHING, WEFT_HASH_, SCHEME),
	K(HASHING, WEFT_HASH_, BYTES),
	K(HASHING, WEFT_HASH_, KEY_BYTES),
	K(HASHING, WEFT_HASH_, SECRET_BYTES),
	K(HASHING, WEFT_HASH_, BLOCK_MIN),
	K(HASHING, WEFT_HASH_, BLOCK_MAX),
	K(HASHING, WEFT_HASH_, MAX_BYTES),
	K(HASHING, WEFT_HASH_, MAX_BLOCKS),
	K(MARK, WEFT_MARK_, SCHEME),
	K(MARK, WEFT_MARK_, ASK),
	K(MARK, WEFT_MARK_, RAISE),
	K(MARK, WEFT_MARK_, SET),
	K(COPIES, WEFT_COPIES_, SCHEME),
	K(COPIES, WEFT_COPIES_, ASK),
	K(COPIES, WEFT_COPIES_, CLAIM),
	K(COPIES, WEFT_COPIES_, MAKE),
	K(COPIES, WEFT_COPIES_, NOTE),
	K(COPIES, WEFT_COPIES_, END),
	K(QUESTION, NBD_, OPT_WEFT_ASK),
	K(QUESTION, NBD_, REP_WEFT_ANSWER),
	K(QUESTION, NBD_, MAX_ANSWER_PIECE),
	K(QUESTION, NBD_, MAX_ANSWER),
	K(LIMIT, NBD_, PORT),
	K(LIMIT, NBD_, MAX_STRING),
	K(LIMIT, NBD_, MAX_PAYLOAD),
	K(LIMIT, NBD_, MAX_OPTION),
	K(LIMIT, NBD_, MAX_OPTIONS),
	K(LIMIT, NBD_, MAX_OPTION_BYTES),
	K(LIMIT, NBD_, CONN_REQUESTS),
	K(LIMIT, WEFT_, NR_GENERATIONS),
	K(LIMIT, WEFT_, PLACE_MAX),
#undef K
};

static void numbers_are_the_codes(void **state)
{
	unsigned nr_rows = 0, nr_found = 0;
	const char *last = "";

	for (size_t i = 0; i < WEFT_ARRAY_LEN(numbers); i++) {
		const struct manual_table *t = manual_table(numbers[i].table);
		int row = manual_row(t, numbers[i].name + strlen(numbers[i].prefix));

		if (row < 0)
			fail_msg("%s is not in the manual's table %s", numbers[i].name, t->name);
		if (manual_number(t, (unsigned)row, 0) != numbers[i].value)
			fail_msg("%s is %llu, in the manual's table %s it is %s", numbers[i].name,
				(unsigned long long)numbers[i].value, t->name, t->cell[row][0]);
		nr_found++;
		if (strcmp(last, t->name) != 0)
			nr_rows += t->nr_rows;
		last = t->name;
	}
	/* No table has more than those: names are told apart above. */
	assert_int_equal(nr_rows, nr_found);
}

/* Each name of the header that begins like this is among them, unless it is one that does not
 * travel. */
static void header_is_known(const char *path, const char *prefix, const char *const *others)
{
	char *text = manual_slurp(path);
	unsigned nr = 0;

	for (char *p = text; (p = strstr(p, prefix));) {
		size_t len = strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
		bool known = p > text && (isalnum(p[-1]) || p[-1] == '_');

		for (size_t i = 0; i < WEFT_ARRAY_LEN(numbers) && !known; i++)
			known = strlen(numbers[i].name) == len &&
				memcmp(numbers[i].name, p, len) == 0;
		for (unsigned i = 0; others[i] && !known; i++)
			known = strlen(others[i]) == len && memcmp(others[i], p, len) == 0;
		if (!known)
			fail_msg("%.*s of %s is not in the manual: add it to one of its tables, "
				 "and to those that this test knows",
				(int)len, p, path);
		p += len;
		nr++;
	}
	assert_true(nr > 10);
	free(text);
}

static void every_number_of_the_headers_is_in_the_manual(void **state)
{
	static const char *const none[] = {NULL};
	/* Texts and errno's; both have tests of their own. */
	static const char *const of_hello[] = {"WEFT_CONTEXT_SESSION", "WEFT_CONTEXT_GRANT",
		"WEFT_CONTEXT_TENURE", "WEFT_EXPORT_SESSION", "WEFT_EXPORT_ALIAS",
		"WEFT_EXPORT_ALIAS_MAX", "WEFT_EOVER", "WEFT_ESUPERSEDED",
		"WEFT_EMOVED", "WEFT_EMOVING",
		"WEFT_FABRIC_HELLO_H", NULL};

	header_is_known(SOURCE "/transports/verbs/proto.h", "VERBS_", none);
	header_is_known(SOURCE "/fabric/hello.h", "WEFT_", of_hello);
}

/* ---- errors ---- */

static const char *error_name(int code)
{
	return code == 0                  ? "OK"
	       : code == WEFT_EOVER       ? "OVER"
	       : code == WEFT_ESUPERSEDED ? "SUPERSEDED"
	       : code == WEFT_EMOVED      ? "MOVED"
	       : code == WEFT_EMOVING     ? "MOVING"
					  : strerrorname_np(code);
}

static void errors_over_rdma_are_the_codes(void **state)
{
	const struct manual_table *t = manual_table("ERROR");
	uint8_t buf[VERBS_MSG_MAX];
	unsigned nr = 0;

	for (int code = 0; code < 200; code++) {
		struct verbs_msg msg = {.type = VERBS_REPLY}, back;

		msg.reply.error = -code;
		assert_int_equal(verbs_unpack(buf, verbs_pack(&msg, buf), &back), 0);
		uint32_t wire = weft_get32(buf + 16);
		if (back.reply.error != -code) {
			assert_int_equal(back.reply.error, -EIO); /* it does not travel */
			continue;
		}
		int row = manual_row(t, error_name(code));
		if (row < 0)
			fail_msg("%s travels, and is not in the manual's table ERROR",
				error_name(code));
		assert_int_equal(manual_number(t, (unsigned)row, 0), wire);
		nr++;
	}
	assert_int_equal(nr, t->nr_rows);
}

static void words_of_refusals_are_the_codes(void **state)
{
	const struct manual_table *t = manual_table("WORD"), *errors = manual_table("ERROR");
	unsigned nr = 0;

	for (int code = 1; code < 200; code++) {
		const char *word = weft_refusal_word(code, false),
			   *old = weft_refusal_word(code, true);

		if (!word)
			continue;
		nr++;
		int row = manual_row(t, word), same = manual_row(errors, error_name(code));
		if (row < 0 || same < 0)
			fail_msg("%s is not in the manual's tables WORD and ERROR", word);
		assert_string_equal(t->cell[row][0], errors->cell[same][0]);
		/* "ESTALE is said for OVER and SUPERSEDED" */
		assert_string_equal(
			old, code == WEFT_EOVER || code == WEFT_ESUPERSEDED ? "ESTALE" : word);
	}
	assert_int_equal(nr, t->nr_rows);
}

/* ---- texts ---- */

/* Between a heading and the next. */
static char *section(const char *name)
{
	char head[80], *text = manual_slurp(MANUAL);

	snprintf(head, sizeof(head), "\n.Sh %s\n", name);
	char *start = strstr(text, head);
	if (!start)
		fail_msg("the manual has no section %s", name);
	start += strlen(head);
	char *end = strstr(start, "\n.Sh ");
	char *copy = strndup(start, end ? (size_t)(end - start) : strlen(start));
	assert_non_null(copy);
	free(text);
	return copy;
}

static void names_of_fields_are_the_codes(void **state)
{
	char *manual = section("THE HELLO OVER TCP"), item[80];
	char *code = manual_slurp(SOURCE "/fabric/hello.c");
	unsigned nr = 1, nr_items = 0; /* v is not looked for like the others */

	for (char *p = code; (p = strstr(p, "is_key(key, \""));) {
		p += strlen("is_key(key, \"");
		char *end = strchr(p, '"');
		assert_non_null(end);
		snprintf(item, sizeof(item), "\n.It Ar %.*s\n", (int)(end - p), p);
		if (!strstr(manual, item))
			fail_msg("the manual does not explain the field '%.*s'", (int)(end - p), p);
		/* Some are in a hello and in a welcome. */
		snprintf(item, sizeof(item), "is_key(key, \"%.*s\")", (int)(end - p), p);
		nr += !strstr(end, item);
	}
	assert_non_null(strstr(manual, "\n.It Ar v\n"));
	for (const char *p = manual; (p = strstr(p, "\n.It Ar ")); p++)
		nr_items++;
	assert_int_equal(nr_items, nr);
	free(code);
	free(manual);
}

/* Lines that continue one are indented. */
static void examples_are_what_the_code_says(void **state)
{
	char *manual = section("THE HELLO OVER TCP"), *p = strstr(manual, ".Ss Example"),
	     text[WEFT_CONTEXT_MAX];
	unsigned nr_hellos = 0, nr_welcomes = 0;

	assert_non_null(p);
	while ((p = strstr(p, "\nweft:"))) {
		char whole[WEFT_CONTEXT_MAX] = "";
		struct weft_hello hello;
		struct weft_welcome welcome;

		p++;
		for (bool goes_on = true; goes_on;) {
			size_t len = strcspn(p, "\n");

			assert_true(strlen(whole) + len < sizeof(whole));
			strncat(whole, p, len);
			p += len;
			goes_on = p[0] == '\n' && p[1] == ' ';
			p += goes_on ? 1 + strspn(p + 1, " ") : 0;
		}
		if (weft_hello_parse(whole, strlen(whole), &hello, NULL) == 0) {
			weft_hello_format(&hello, text);
			nr_hellos++;
		} else {
			assert_int_equal(weft_welcome_parse(whole, strlen(whole), &welcome), 0);
			weft_welcome_format(&welcome, text);
			nr_welcomes++;
		}
		assert_string_equal(text, whole);
	}
	assert_int_equal(nr_hellos, 3);
	assert_int_equal(nr_welcomes, 1);
	free(manual);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_the_codes),
		cmocka_unit_test(every_number_of_the_headers_is_in_the_manual),
		cmocka_unit_test(errors_over_rdma_are_the_codes),
		cmocka_unit_test(words_of_refusals_are_the_codes),
		cmocka_unit_test(names_of_fields_are_the_codes),
		cmocka_unit_test(examples_are_what_the_code_says),
	};

	return cmocka_run_group_tests(tests, manual_read, NULL);
}
