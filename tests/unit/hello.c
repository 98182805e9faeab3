/* Hellos and welcomes: what is formatted parses back; nothing else parses. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/hello.h"
#include "fabric/util.h"

#define ID "00112233445566778899aabbccddeeff"
#define HELLO "weft:session:id=" ID ",gen=4294967296,mode=w,name=box-1.a_B"

static int parse(const char *text)
{
	struct weft_hello hello;

	return weft_hello_parse(text, strlen(text), &hello);
}

static int parse_grant(const char *text)
{
	struct weft_welcome welcome;

	return weft_welcome_parse(text, strlen(text), &welcome);
}

static void hello_round_trips(void **state)
{
	static const enum weft_mode modes[] = {WEFT_MODE_READ, WEFT_MODE_SHARED, WEFT_MODE_WRITE};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(modes); i++) {
		struct weft_hello in = {.generation = UINT64_MAX, .mode = modes[i]}, out = {0};
		char text[WEFT_CONTEXT_MAX];

		weft_random(in.id, sizeof(in.id));
		memset(in.name, 'n', WEFT_NAME_MAX);
		in.epoch = i == 0 ? 0 : UINT64_MAX;
		weft_hello_format(&in, text);
		assert_int_equal(weft_hello_parse(text, strlen(text), &out), 0);
		assert_memory_equal(in.id, out.id, sizeof(in.id));
		assert_true(in.generation == out.generation && in.epoch == out.epoch);
		assert_int_equal(in.mode, out.mode);
		assert_string_equal(in.name, out.name);
	}
}

static void hello_text_is_as_documented(void **state)
{
	struct weft_hello hello = {.generation = 4294967296, .mode = WEFT_MODE_WRITE, .name = "box-1.a_B"};
	char text[WEFT_CONTEXT_MAX];

	assert_int_equal(weft_unhex(ID, hello.id, sizeof(hello.id)), 0);
	weft_hello_format(&hello, text);
	assert_string_equal(text, HELLO);
}

static void malformed_hellos_are_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"weft:",
		"weft:session:",
		"weft:grant:id=" ID ",gen=1,mode=w,name=x",
		"weft:session:id=" ID ",gen=1,mode=w",                     /* missing */
		"weft:session:gen=1,mode=w,name=x",
		"weft:session:id=" ID ",mode=w,name=x",
		"weft:session:id=" ID ",gen=1,name=x",
		"weft:session:id=" ID ",gen=1,gen=1,mode=w,name=x",        /* repeated */
		"weft:session:id=" ID ",gen=1,mode=w,name=x,more=1",       /* unknown */
		"weft:session:id=" ID ",gen=1,mode=w,name=x,",             /* empty field */
		"weft:session:,id=" ID ",gen=1,mode=w,name=x",
		"weft:session:id=" ID ",gen=1,,mode=w,name=x",
		"weft:session:id=" ID "0,gen=1,mode=w,name=x",             /* bad id */
		"weft:session:id=0011,gen=1,mode=w,name=x",
		"weft:session:id=0011223344556677889gaabbccddeeff,gen=1,mode=w,name=x",
		"weft:session:id=" ID ",gen=,mode=w,name=x",               /* bad generation */
		"weft:session:id=" ID ",gen=0,mode=w,name=x",
		"weft:session:id=" ID ",gen=01,mode=w,name=x",
		"weft:session:id=" ID ",gen=+1,mode=w,name=x",
		"weft:session:id=" ID ",gen=0x1,mode=w,name=x",
		"weft:session:id=" ID ",gen= 1,mode=w,name=x",
		"weft:session:id=" ID ",gen=18446744073709551616,mode=w,name=x",
		"weft:session:id=" ID ",gen=99999999999999999999999,mode=w,name=x",
		"weft:session:id=" ID ",gen=1,mode=,name=x",               /* bad mode */
		"weft:session:id=" ID ",gen=1,mode=x,name=x",
		"weft:session:id=" ID ",gen=1,mode=ww,name=x",
		"weft:session:id=" ID ",gen=1,mode=w,name=",               /* bad name */
		"weft:session:id=" ID ",gen=1,mode=w,name=a b",
		"weft:session:id=" ID ",gen=1,mode=w,name=a/b",
		"weft:session:id=" ID ",gen=1,mode=w,name=\xc3\xa4",
		"weft:session:id=" ID ",gen=1,mode=w,name=x,epoch=",       /* bad epoch */
		"weft:session:id=" ID ",gen=1,mode=w,name=x,epoch=0000000000000000",
		"weft:session:id=" ID ",gen=1,mode=w,name=x,epoch=12345678",
	};

	assert_int_equal(parse(HELLO), 0);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++)
		if (parse(bad[i]) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
}

static void every_prefix_of_a_hello_is_refused(void **state)
{
	struct weft_hello hello;

	/* Short of the name's first letter, that is; the copy lets asan see an overread. */
	for (size_t len = 0; len < strlen(HELLO) - strlen("box-1.a_B"); len++) {
		char *copy = malloc(len + 1);

		assert_non_null(copy);
		memcpy(copy, HELLO, len);
		assert_int_equal(weft_hello_parse(copy, len, &hello), -EINVAL);
		free(copy);
	}
}

static void embedded_nul_is_refused(void **state)
{
	char text[] = HELLO;
	struct weft_hello hello;

	text[sizeof(HELLO) - 3] = '\0';
	assert_int_equal(weft_hello_parse(text, sizeof(HELLO) - 1, &hello), -EINVAL);
}

static void names_are_checked(void **state)
{
	char long_name[WEFT_NAME_MAX + 2];

	memset(long_name, 'a', sizeof(long_name));
	long_name[WEFT_NAME_MAX + 1] = '\0';
	assert_false(weft_name_valid(long_name));
	long_name[WEFT_NAME_MAX] = '\0';
	assert_true(weft_name_valid(long_name));
	assert_false(weft_name_valid(""));
	assert_false(weft_name_valid("a b"));
	assert_true(weft_name_valid("a.B-9_"));
}

static void welcome_round_trips(void **state)
{
	struct weft_welcome in = {0x6f1c, 30000, "tcp,rdma:20049"}, out = {0};
	char text[WEFT_CONTEXT_MAX];

	weft_welcome_format(&in, text);
	assert_string_equal(text, "weft:grant:epoch=0000000000006f1c,lease=30000,offers=tcp;rdma:20049");
	assert_int_equal(weft_welcome_parse(text, strlen(text), &out), 0);
	assert_true(in.epoch == out.epoch && in.lease_ms == out.lease_ms);
	assert_string_equal(in.offers, out.offers);
}

static void malformed_welcomes_are_refused(void **state)
{
	static const char *const bad[] = {
		"weft:grant:",
		"weft:grant:epoch=0000000000000000,lease=1,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=4294967296,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=1",
		"weft:grant:epoch=0000000000006f1c,offers=tcp",
		"weft:grant:lease=1,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=1,lease=1,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=1,offers=tcp,x=1",
		"weft:grant:epoch=0000000000006f1c,lease=1,offers=a b",
		"weft:grant:epoch=0000000000006f1c,lease=1,offers="
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};

	assert_int_equal(parse_grant("weft:grant:epoch=0000000000006f1c,lease=0,offers="), 0);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++)
		if (parse_grant(bad[i]) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_round_trips),
		cmocka_unit_test(hello_text_is_as_documented),
		cmocka_unit_test(malformed_hellos_are_refused),
		cmocka_unit_test(every_prefix_of_a_hello_is_refused),
		cmocka_unit_test(embedded_nul_is_refused),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(welcome_round_trips),
		cmocka_unit_test(malformed_welcomes_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
