/* SPDX-License-Identifier: MIT */
/* Tokens: one is good for its key until its end, and nothing else is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/proof.h"
#include "fabric/key/token.h"

#define SECRET "00112233445566778899aabbccddeeff"
#define END INT64_C(1900000000)

static struct weft_key key_of(const char *line)
{
	struct weft_key key;

	assert_int_equal(weft_key_parse(line, strlen(line), &key, NULL), 0);
	return key;
}

static void a_token_is_good_for_its_key_until_its_end(void **state)
{
	const struct weft_key key = key_of("node-7~2:" SECRET);
	const struct weft_key other = key_of("node-7~2:ff" SECRET);
	char token[WEFT_TOKEN_MAX], identity[WEFT_IDENTITY_MAX + 1];
	int64_t expires = 0;

	assert_int_equal(weft_token_make(&key, END, token), 0);
	assert_int_equal(weft_token_identity(token, identity), 0);
	assert_string_equal(identity, "node-7~2");
	assert_int_equal(weft_token_check(token, &key, END - 1, &expires), 0);
	assert_int_equal(expires, END);
	assert_int_equal(weft_token_check(token, &key, END, &expires), -EKEYEXPIRED);
	assert_int_equal(weft_token_check(token, &other, END - 1, &expires), -EKEYREJECTED);
	/* Only letters that a header takes (RFC 6750, 2.1). */
	assert_int_equal(strspn(token,
				 "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789-._~+/"),
		strlen(token));
}

static void it_is_what_the_header_says(void **state)
{
	const struct weft_key key = key_of("a:" SECRET);
	uint8_t secret[32], tag[32];
	char token[WEFT_TOKEN_MAX], right[WEFT_TOKEN_MAX], hex[65];

	assert_int_equal(weft_hkdf(NULL, 0, key.secret, key.secret_bytes, "weft token 1", 12,
				 secret, sizeof(secret)),
		0);
	assert_int_equal(weft_hmac(secret, sizeof(secret), "a/1900000000", 12, tag), 0);
	weft_hex(tag, sizeof(tag), hex);
	snprintf(right, sizeof(right), "weft1/a/1900000000/%s", hex);
	assert_int_equal(weft_token_make(&key, END, token), 0);
	assert_string_equal(token, right);
}

static void what_is_changed_is_of_no_key(void **state)
{
	const struct weft_key key = key_of("node7:" SECRET);
	char token[WEFT_TOKEN_MAX];
	int64_t expires;

	assert_int_equal(weft_token_make(&key, END, token), 0);
	for (size_t i = 0; token[i]; i++) {
		const char was = token[i];

		token[i] = was == '1' ? '2' : '1';
		if (i > 0 && weft_token_check(token, &key, 1, &expires) == 0)
			fail_msg("%s", token);
		/* A later end above all. */
		token[i] = was;
	}
	assert_int_equal(weft_token_check(token, &key, 1, &expires), 0);
}

static void what_has_no_such_form_is_no_token(void **state)
{
	static const char *const texts[] = {"", "weft1", "weft1/", "weft1/a", "weft1/a/1",
		"weft1/a/1/", "weft1/a/1/00", "weft2/a/1/" SECRET SECRET, "weft1//1/" SECRET SECRET,
		"weft1/a b/1/" SECRET SECRET, "weft1/a/-1/" SECRET SECRET,
		"weft1/a/01/" SECRET SECRET, "weft1/a/0/" SECRET SECRET,
		"weft1/a/1x/" SECRET SECRET, "weft1/a/99999999999999999999/" SECRET SECRET,
		"weft1/a/1/" SECRET SECRET "0",
		"weft1/a/1/" SECRET "00112233445566778899aabbccddeefg",
		"weft1/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/"
		"1/" SECRET SECRET};
	const struct weft_key key = key_of("a:" SECRET);
	char identity[WEFT_IDENTITY_MAX + 1];
	int64_t expires;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(texts); i++) {
		print_message("%s\n", texts[i]);
		assert_int_equal(weft_token_identity(texts[i], identity), -EINVAL);
		assert_int_equal(weft_token_check(texts[i], &key, 0, &expires), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_is_good_for_its_key_until_its_end),
		cmocka_unit_test(it_is_what_the_header_says),
		cmocka_unit_test(what_is_changed_is_of_no_key),
		cmocka_unit_test(what_has_no_such_form_is_no_token),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
