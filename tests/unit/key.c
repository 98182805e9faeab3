/* SPDX-License-Identifier: MIT */
/* Keys: what is formatted parses back; nothing else does, and nothing is left of what does not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/key/key.h"

#define SECRET_16 "00112233445566778899aabbccddeeff"

static int parse(const char *line, struct weft_key *key, struct weft_error *err)
{
	return weft_key_parse(line, strlen(line), key, err);
}

static void a_new_key_parses_back(void **state)
{
	struct weft_key key, again, other;
	char line[WEFT_KEY_LINE_MAX];

	assert_int_equal(weft_key_new("node-7~2", &key, NULL), 0);
	assert_int_equal(weft_key_new("node-7~2", &other, NULL), 0);
	weft_key_format(&key, line);
	assert_int_equal(parse(line, &again, NULL), 0);
	assert_string_equal(again.identity, "node-7~2");
	assert_int_equal(again.secret_bytes, WEFT_SECRET_BYTES);
	assert_true(weft_secret_equal(again.secret, key.secret, WEFT_SECRET_BYTES));
	assert_false(weft_secret_equal(other.secret, key.secret, WEFT_SECRET_BYTES));
}

static void what_is_no_line_is_refused_and_leaves_nothing(void **state)
{
	static const struct weft_key none;
	static const char *const lines[] = {
		"",
		":" SECRET_16,
		"node7" SECRET_16,
		"node 7:" SECRET_16,
		"../x:" SECRET_16,
		"~2:" SECRET_16,
		"node~3:" SECRET_16,
		"node7~2~2:" SECRET_16,
		"node7:",
		"node7:00112233445566778899aabbccddee",
		"node7:" SECRET_16 "0",
		"node7:" SECRET_16 "0g",
		"node7:" SECRET_16 SECRET_16 SECRET_16 SECRET_16 "00",
		"node7:" SECRET_16 " ",
		"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn:" SECRET_16,
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		struct weft_error err = {0};
		struct weft_key key;

		memset(&key, 0xff, sizeof(key));
		print_message("%s\n", lines[i]);
		assert_int_equal(parse(lines[i], &key, &err), -EINVAL);
		assert_memory_equal(&key, &none, sizeof(key));
		assert_null(strstr(err.message, "0011"));
	}
}

static void a_name_has_two_identities(void **state)
{
	char name[WEFT_KEY_NAME_MAX + 1];

	assert_true(weft_identity_is_of("node7", "node7"));
	assert_true(weft_identity_is_of("node7~2", "node7"));
	assert_false(weft_identity_is_of("node77", "node7"));
	assert_false(weft_identity_is_of("node7~2", "node7~2"));
	assert_false(weft_identity_is_of("node7~3", "node7"));
	weft_identity_name("node7~2", name);
	assert_string_equal(name, "node7");
	weft_identity_name("node7", name);
	assert_string_equal(name, "node7");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_key_parses_back),
		cmocka_unit_test(what_is_no_line_is_refused_and_leaves_nothing),
		cmocka_unit_test(a_name_has_two_identities),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
