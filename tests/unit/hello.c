/* SPDX-License-Identifier: MIT */
/* Hellos and welcomes: what is formatted parses back; nothing else parses. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/hello.h"
#include "fabric/base/util.h"

#define ID "00112233445566778899aabbccddeeff"
#define HELLO "weft:session:v=1,id=" ID ",gen=4294967296,mode=w,name=box-1.a_B"

static int parse(const char *text)
{
	struct weft_hello hello;

	return weft_hello_parse(text, strlen(text), &hello, NULL);
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
		in.granted = i == 0 ? 0 : UINT64_MAX;
		in.wrote = i == 2;
		in.pass = i == 1;
		in.has_alias = i == 2;
		weft_random(in.alias, sizeof(in.alias));
		weft_hello_format(&in, text);
		assert_int_equal(weft_hello_parse(text, strlen(text), &out, NULL), 0);
		assert_memory_equal(in.id, out.id, sizeof(in.id));
		assert_true(in.generation == out.generation && in.epoch == out.epoch);
		assert_true(in.granted == out.granted && in.wrote == out.wrote && !out.version0);
		assert_int_equal(in.mode, out.mode);
		assert_true(in.pass == out.pass && in.has_alias == out.has_alias);
		if (in.has_alias)
			assert_memory_equal(in.alias, out.alias, sizeof(in.alias));
		assert_string_equal(in.name, out.name);
	}
}

static void hello_text_is_as_documented(void **state)
{
	struct weft_hello hello = {.generation = 4294967296,
		.mode = WEFT_MODE_WRITE,
		.name = "box-1.a_B"};
	char text[WEFT_CONTEXT_MAX];

	assert_int_equal(weft_unhex(ID, hello.id, sizeof(hello.id)), 0);
	weft_hello_format(&hello, text);
	assert_string_equal(text, HELLO);
}

static void version_0_has_its_own_text(void **state)
{
	struct weft_hello hello = {.generation = 7,
				  .mode = WEFT_MODE_READ,
				  .name = "x",
				  .version0 = true},
			  out;
	char text[WEFT_CONTEXT_MAX];

	hello.epoch = 0x6f1c;
	hello.granted = 6;
	assert_int_equal(weft_unhex(ID, hello.id, sizeof(hello.id)), 0);
	weft_hello_format(&hello, text);
	assert_string_equal(text,
		"weft:session:id=" ID ",gen=7,mode=r,name=x,epoch=0000000000006f1c");
	assert_int_equal(weft_hello_parse(text, strlen(text), &out, NULL), 0);
	assert_true(out.version0 && out.granted == 0);
	hello.expect = hello.epoch;
	hello.epoch = 0;
	weft_hello_format(&hello, text);
	assert_string_equal(text,
		"weft:session:id=" ID ",gen=7,mode=r,name=x,epoch=0000000000006f1c");
	hello.version0 = false;
	weft_hello_format(&hello, text);
	assert_string_equal(text,
		"weft:session:v=1,id=" ID ",gen=7,mode=r,name=x,expect=0000000000006f1c");
	assert_int_equal(weft_hello_parse(text, strlen(text), &out, NULL), 0);
	assert_true(out.expect == 0x6f1c && out.epoch == 0);

	/* It knows no aliases. */
	assert_int_equal(weft_hello_check_version0(&hello, "r", NULL), 0);
	hello.has_alias = true;
	assert_int_equal(weft_hello_check_version0(&hello, "r", NULL), -EPROTONOSUPPORT);

	struct weft_welcome welcome = {.epoch = 1, .restorable = true, .version0 = true};
	weft_welcome_format(&welcome, text);
	assert_string_equal(text, "weft:grant:epoch=0000000000000001,lease=0,offers=");
}

static void unknown_fields_are_skipped_or_named(void **state)
{
	struct weft_hello hello;
	struct weft_error err = {0};

	assert_int_equal(parse(HELLO ",colour=blue"), 0);
	assert_int_equal(parse("weft:session:v=2,colour=blue,colour=red,id=" ID
			       ",gen=1,mode=w,name=x"),
		0);
	assert_int_equal(
		parse_grant("weft:grant:v=9,epoch=0000000000006f1c,lease=0,offers=,colour=blue"),
		0);
	assert_int_equal(
		parse_grant("weft:grant:v=9,epoch=0000000000006f1c,lease=0,offers=,!colour=blue"),
		-EPROTONOSUPPORT);
	const char *text = HELLO ",!colour=blue";
	assert_int_equal(weft_hello_parse(text, strlen(text), &hello, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.message, "'colour'"));
	assert_int_equal(parse(HELLO ",col our=blue"), -EINVAL);
	assert_int_equal(parse(HELLO ",!=blue"), -EPROTONOSUPPORT);
	assert_int_equal(parse(HELLO ",=blue"), -EINVAL);
	assert_int_equal(parse(HELLO ",epoch=0000000000006f1c,expect=0000000000006f1c"), -EINVAL);
	assert_int_equal(parse(HELLO ",granted=1"), -EINVAL); /* of what epoch? */
	assert_int_equal(parse(HELLO ",epoch=0000000000006f1c,wrote=1"), -EINVAL);
	assert_int_equal(parse(HELLO ",epoch=0000000000006f1c,granted=1,wrote=0"), -EINVAL);
	assert_int_equal(parse("weft:session:v=0,id=" ID ",gen=1,mode=w,name=x"), -EINVAL);
	assert_int_equal(parse("weft:session:id=" ID ",v=1,gen=1,mode=w,name=x"), -EINVAL);
}

static void the_part_of_a_striped_device_round_trips(void **state)
{
	static const char *const bad[] = {"", "1", "1/2", "1/2:", "0/2:65536", "3/2:65536", "1/0:0",
		"1/1:65536", "1/2:0", "01/2:65536", "1/2:+65536", "1/ 2:65536", "1/2:65536 ",
		"1/2:65536x", "1/65536:1", "1/2:18446744073709551616", "-1/2:65536"};
	struct weft_hello hello = {.generation = 4294967296,
				  .mode = WEFT_MODE_WRITE,
				  .name = "box-1.a_B"},
			  out;
	char text[WEFT_CONTEXT_MAX], one[256];

	assert_int_equal(weft_unhex(ID, hello.id, sizeof(hello.id)), 0);
	hello.stripe = (struct weft_stripe){2, 16, 65536};
	weft_hello_format(&hello, text);
	assert_string_equal(text, HELLO ",stripe=2/16:65536");
	assert_int_equal(weft_hello_parse(text, strlen(text), &out, NULL), 0);
	assert_true(weft_stripe_equal(&out.stripe, &hello.stripe) && !out.new_contents);
	hello.stripe = weft_stripe_whole;
	hello.new_contents = true;
	weft_hello_format(&hello, text);
	assert_string_equal(text, HELLO ",stripe=1/1:0,renew=1");
	assert_int_equal(weft_hello_parse(text, strlen(text), &out, NULL), 0);
	assert_true(weft_stripe_equal(&out.stripe, &weft_stripe_whole) && out.new_contents);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++) {
		snprintf(one, sizeof(one), HELLO ",stripe=%s", bad[i]);
		if (parse(one) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
	}
	assert_int_equal(parse(HELLO ",stripe=1/2:1,stripe=1/2:1"), -EINVAL);
	assert_int_equal(parse(HELLO ",renew=1"), -EINVAL); /* what for? */
	assert_int_equal(parse(HELLO ",stripe=1/2:1,renew=0"), -EINVAL);
	/* Whoever goes on with contents does not give them up. */
	assert_int_equal(parse(HELLO ",epoch=0000000000006f1c,stripe=1/2:1,renew=1"), -EINVAL);
	assert_int_equal(parse(HELLO ",epoch=0000000000006f1c,stripe=1/2:1"), 0);
	/* Version 0 has no place for it. */
	hello.version0 = true;
	weft_hello_format(&hello, text);
	assert_string_equal(text, "weft:session:id=" ID ",gen=4294967296,mode=w,name=box-1.a_B");
	assert_int_equal(parse("weft:session:id=" ID ",gen=1,mode=w,name=x,stripe=1/2:1"), -EINVAL);
}

static void refusals_have_words(void **state)
{
	const char *rest;

	assert_string_equal(weft_refusal_word(WEFT_EOVER, false), "OVER");
	assert_string_equal(weft_refusal_word(WEFT_ESUPERSEDED, false), "SUPERSEDED");
	assert_string_equal(weft_refusal_word(WEFT_ESUPERSEDED, true), "ESTALE");
	assert_null(weft_refusal_word(ENOENT, false));
	assert_int_equal(weft_refusal_parse("OVER: ask again", &rest), WEFT_EOVER);
	assert_string_equal(rest, "ask again");
	assert_int_equal(weft_refusal_parse("OVERLY: x", &rest), 0);
	assert_int_equal(weft_refusal_parse("ESTALE", &rest), 0);
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
		"weft:session:id=" ID ",gen=1,mode=w,name=x,granted=1",
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
		assert_int_equal(weft_hello_parse(copy, len, &hello, NULL), -EINVAL);
		free(copy);
	}
}

static void embedded_nul_is_refused(void **state)
{
	char text[] = HELLO;
	struct weft_hello hello;

	text[sizeof(HELLO) - 3] = '\0';
	assert_int_equal(weft_hello_parse(text, sizeof(HELLO) - 1, &hello, NULL), -EINVAL);
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
	struct weft_welcome in = {.epoch = 0x6f1c,
				    .lease_ms = 30000,
				    .offers = "tcp,rdma:20049",
				    .restorable = true,
				    .pass = true,
				    .hashes = 1,
				    .marks = 1,
				    .mark = {.number = 1, .age_ms = 250},
				    .moving = "weft://b.example:10809/a%20b"},
			    out = {0};
	char text[WEFT_CONTEXT_MAX];

	weft_welcome_format(&in, text);
	assert_string_equal(text,
		"weft:grant:v=1,epoch=0000000000006f1c,lease=30000,offers=tcp;rdma:20049,"
		"restorable=1,pass=1,hashes=1,marks=1,unmarked=250,"
		"moving=weft://b.example:10809/a%20b");
	assert_int_equal(weft_welcome_parse(text, strlen(text), &out), 0);
	assert_true(in.epoch == out.epoch && in.lease_ms == out.lease_ms);
	assert_string_equal(in.offers, out.offers);
	assert_true(out.restorable && out.pass && out.hashes == 1 && !out.version0);
	assert_true(out.marks == 1 && !weft_is_marked(out.mark.number) && out.mark.age_ms == 250);
	assert_string_equal(in.moving, out.moving);
	in.mark.number = 0x1000;
	weft_welcome_format(&in, text);
	assert_non_null(strstr(text, ",marks=1,marked=250"));
	assert_int_equal(weft_welcome_parse(text, strlen(text), &out), 0);
	assert_true(weft_is_marked(out.mark.number));
}

static void a_refusal_begins_with_a_place(void **state)
{
	static const char *const bad[] = {"", "weft://", "weft:/b/r", "nbd://b/r", " weft://b/r",
		"weft://b,c/r has it", "weft://b;/r", "weft://b/r=1", "weft://b/\x7f",
		"weft://b/\xc3\xa4", "weft://b/\n"};
	char place[WEFT_PLACE_MAX] = "as before", long_text[WEFT_PLACE_MAX + 1];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++)
		if (weft_place_of(bad[i], place))
			fail_msg("taken: %s", bad[i]);
	memset(long_text, 'x', sizeof(long_text));
	memcpy(long_text, "weft://", 7);
	long_text[WEFT_PLACE_MAX] = '\0';
	assert_false(weft_place_of(long_text, place));
	assert_string_equal(place, "as before");
	long_text[WEFT_PLACE_MAX - 1] = '\0';
	assert_true(weft_place_of(long_text, place));
	assert_true(weft_place_of("weft://[::1]:7/r has the region now", place));
	assert_string_equal(place, "weft://[::1]:7/r");
	assert_true(weft_place_of("weft://b/r", place));
	assert_string_equal(place, "weft://b/r");
}

static void malformed_welcomes_are_refused(void **state)
{
	static const char *const bad[] = {
		"weft:grant:",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=,moving=",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=,moving=b",
		"weft:grant:epoch=0000000000000000,lease=1,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=4294967296,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=1",
		"weft:grant:epoch=0000000000006f1c,offers=tcp",
		"weft:grant:lease=1,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=1,lease=1,offers=tcp",
		"weft:grant:epoch=0000000000006f1c,lease=1,offers=tcp,x=1",
		"weft:grant:epoch=0000000000006f1c,lease=1,offers=tcp,restorable=1",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=tcp,restorable=2",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=tcp,hashes=0",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=tcp,hashes=4294967296",
		"weft:grant:epoch=0000000000006f1c,lease=1,offers=tcp,hashes=1",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=tcp,marks=0",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=tcp,marked=-1",
		"weft:grant:v=1,epoch=0000000000006f1c,lease=1,offers=tcp,marked=1,unmarked=1",
		"weft:grant:epoch=0000000000006f1c,lease=1,offers=a b",
		("weft:grant:epoch=0000000000006f1c,lease=1,offers="
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
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
		cmocka_unit_test(version_0_has_its_own_text),
		cmocka_unit_test(unknown_fields_are_skipped_or_named),
		cmocka_unit_test(the_part_of_a_striped_device_round_trips),
		cmocka_unit_test(refusals_have_words),
		cmocka_unit_test(malformed_hellos_are_refused),
		cmocka_unit_test(every_prefix_of_a_hello_is_refused),
		cmocka_unit_test(embedded_nul_is_refused),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(welcome_round_trips),
		cmocka_unit_test(malformed_welcomes_are_refused),
		cmocka_unit_test(a_refusal_begins_with_a_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
