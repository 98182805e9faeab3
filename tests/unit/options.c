/* SPDX-License-Identifier: MIT */
/* Command lines parsed by a table, and what is said of those that are wrong. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/util.h"
#include "tests/support/catch.h"

/* As if it were a file of a room, for its debug line. */
#line 1 "fabric/unit/options.c"

struct wishes {
	bool flag;
	const char *uri, *name, *text, *optional;
	unsigned number;
	uint64_t bytes;
	uint32_t ms;
};

static int parse_optional(void *into, const struct weft_option *option, char *value)
{
	struct wishes *wishes = into;

	wishes->optional = value ? value : "none";
	return WEFT_GO_ON;
}

static const struct weft_option options[] = {
	{NULL, "URI", "of a region\nor of two", WEFT_OPTION_ARGUMENT,
		.into = offsetof(struct wishes, uri), .completion = WEFT_COMPLETE_URI},
	{NULL, "NAME", "for it", WEFT_OPTION_ARGUMENT, .into = offsetof(struct wishes, name)},
	{.kind = WEFT_OPTION_GROUP, .help = "Values:"},
	{"flag", NULL, "a flag", WEFT_OPTION_FLAG, .into = offsetof(struct wishes, flag)},
	{"text", "auto|2M|NODE", "a text", WEFT_OPTION_TEXT, .into = offsetof(struct wishes, text)},
	{"number", "NUMBER", "a number", WEFT_OPTION_NUMBER,
		.into = offsetof(struct wishes, number), .min = 2, .max = 16},
	{"size", "SIZE", "a size", WEFT_OPTION_SIZE, .into = offsetof(struct wishes, bytes),
		.min = 4096, .wants = "a size such as 1G"},
	{"time", "SECONDS", "a time", WEFT_OPTION_SECONDS, .into = offsetof(struct wishes, ms),
		.wants = "seconds"},
	{"optional", "[PATH]", "a path", WEFT_OPTION_CALL, .parse = parse_optional, .follows = '/',
		.completion = WEFT_COMPLETE_FILE},
	{0},
};

static const struct weft_option others[] = {
	{"other-number", "SECONDS", "from elsewhere", WEFT_OPTION_NUMBER, .into = sizeof(unsigned),
		.min = 1, .max = 9, .wants = "seconds, "},
	{0},
};

static struct weft_command_line line;
static struct wishes wishes;
static unsigned elsewhere[2];
static char said[4096]; /* on what `fd` was */

/* "a b c" as the arguments of a program, parsed; what is written to fd meanwhile is in said. */
static int parse_with(const struct weft_option *table, void *into, const char *words, int fd)
{
	static char text[512];
	static char *argv[32];
	int argc = 1;

	snprintf(text, sizeof(text), "%s", words);
	argv[0] = (char *)"weft-test";
	for (char *save, *word = strtok_r(text, " ", &save); word;
		word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	argv[argc] = NULL;
	line = (struct weft_command_line){.command = "test",
		.synopsis = "URI [OPTION]...\n--from FILE",
		.about = "Tests.\nMore.",
		.epilogue = "The end.",
		.tables = {{table, into}, {others, elsewhere}},
		.surplus = "two at a time",
		.noun = "a name"};
	memset(elsewhere, 0, sizeof(elsewhere));
	struct catcher catcher = catch_begin(fd);
	int r = weft_options_parse(&line, argc, argv);
	weft_debug("parsed");
	fflush(stdout);
	catch_end(&catcher, said, sizeof(said));
	return r;
}

static int parse(const char *words, int fd)
{
	wishes = (struct wishes){0};
	return parse_with(options, &wishes, words, fd);
}

static void each_kind_is_stored(void **state)
{
	const char *words = "weft://a/r --flag --text=x --number 16 --size 64K --time 1.5 more "
			    "--other-number 9";

	assert_int_equal(parse(words, 2), WEFT_GO_ON);
	assert_string_equal(said, "");
	assert_true(wishes.flag);
	assert_string_equal(wishes.text, "x");
	assert_int_equal(wishes.number, 16);
	assert_int_equal(wishes.bytes, 65536);
	assert_int_equal(wishes.ms, 1500);
	assert_int_equal(elsewhere[1], 9);
	assert_string_equal(wishes.uri, "weft://a/r");
	assert_string_equal(wishes.name, "more");
	assert_string_equal(weft_option_given(&line, "flag"), "--flag");
	assert_null(weft_option_given(&line, "optional"));
}

static void an_argument_may_be_left_out(void **state)
{
	assert_int_equal(parse("--optional x", 2), WEFT_GO_ON);
	assert_string_equal(wishes.optional, "none");
	assert_string_equal(wishes.uri, "x");
	assert_null(wishes.name);
	assert_int_equal(parse("--optional /x", 2), WEFT_GO_ON);
	assert_string_equal(wishes.optional, "/x");
	assert_null(wishes.uri);
	assert_int_equal(parse("--optional=x y", 2), WEFT_GO_ON);
	assert_string_equal(wishes.optional, "x");
	assert_int_equal(parse("--optional", 2), WEFT_GO_ON);
	assert_string_equal(wishes.optional, "none");
}

static void what_is_refused_is_told(void **state)
{
	static const struct {
		const char *words, *text;
	} wrong[] = {
		{"--number 1", "--number wants 2 to 16, not '1'"},
		{"--number 17", "--number wants 2 to 16, not '17'"},
		{"--number -3", "--number wants 2 to 16, not '-3'"},
		{"--number 3x", "--number wants 2 to 16, not '3x'"},
		{"--number 99999999999999999999999",
			"--number wants 2 to 16, not '99999999999999999999999'"},
		{"--size 1K", "--size wants a size such as 1G, not '1K'"},
		{"--size x", "--size wants a size such as 1G, not 'x'"},
		{"--time 0", "--time wants seconds, not '0'"},
		{"--time -1", "--time wants seconds, not '-1'"},
		{"--time nan", "--time wants seconds, not 'nan'"},
		{"--time 86401", "--time wants seconds, not '86401'"},
		{"--other-number 10", "--other-number wants seconds, 1 to 9, not '10'"},
		{"--nonsense", "unrecognized option '--nonsense'"},
		{"--flag=1", "option '--flag' doesn't allow an argument"},
		{"--text", "option '--text' requires an argument"},
	};
	char text[256];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(wrong); i++) {
		assert_int_equal(parse(wrong[i].words, 2), WEFT_EXIT_USAGE);
		snprintf(text, sizeof(text), "weft-test: %s\nTry: weft test --help\n",
			wrong[i].text);
		assert_string_equal(said, text);
	}
}

static void a_table_is_the_help(void **state)
{
	assert_int_equal(parse("--flag --help --nonsense", 1), 0);
	assert_string_equal(said,
		"usage: weft test URI [OPTION]...\n"
		"       weft test --from FILE\n"
		"Tests.\n"
		"More.\n"
		"\n"
		"  URI                     of a region\n"
		"                          or of two\n"
		"  NAME                    for it\n"
		"\n"
		"Values:\n"
		"  --flag                  a flag\n"
		"  --text auto|2M|NODE     a text\n"
		"  --number NUMBER         a number\n"
		"  --size SIZE             a size\n"
		"  --time SECONDS          a time\n"
		"  --optional [PATH]       a path\n"
		"  --other-number SECONDS  from elsewhere\n"
		"  --debug[=AREA,...]      print what is done; all of it, or:\n"
		"                          unit\n"
		"  --help                  show this\n"
		"\n"
		"The end.\n");
}

static void a_table_tells_what_can_be_completed(void **state)
{
	assert_int_equal(parse("--completion-table", 1), 0);
	assert_string_equal(said,
		"argument\t-\trequired\tURI\turi\t\n"
		"argument\t-\trequired\tNAME\t-\t\n"
		"option\t--flag\tnone\t-\t-\t\n"
		"option\t--text\trequired\tauto|2M|NODE\t-\tauto 2M\n"
		"option\t--number\trequired\tNUMBER\t-\t\n"
		"option\t--size\trequired\tSIZE\t-\t\n"
		"option\t--time\trequired\tSECONDS\t-\t\n"
		"option\t--optional\toptional\t[PATH]\tfile\t\n"
		"option\t--other-number\trequired\tSECONDS\t-\t\n"
		"option\t--debug\toptional\t[=AREA,...]\tdebug\tunit\n"
		"option\t--help\tnone\t-\t-\t\n");
}

static void a_surplus_argument_is_named(void **state)
{
	assert_int_equal(parse("a b c", 2), WEFT_EXIT_USAGE);
	assert_string_equal(said,
		"weft-test: two at a time: 'c' is one too many\n"
		"Try: weft test --help\n");
}

static void an_argument_that_is_missing_is_asked_for(void **state)
{
	static const struct weft_option wanted[] = {
		{NULL, "FILE", "to read", WEFT_OPTION_ARGUMENT, .wants = "which file?"},
		{NULL, "OTHER", "to write", WEFT_OPTION_ARGUMENT, .into = sizeof(char *)},
		{0},
	};
	const char *files[2] = {"", "none"};

	assert_int_equal(parse_with(wanted, files, "", 2), WEFT_EXIT_USAGE);
	assert_string_equal(said, "weft-test: which file?\nTry: weft test --help\n");
	assert_int_equal(parse_with(wanted, files, "a", 2), WEFT_GO_ON);
	assert_string_equal(files[0], "a");
	assert_string_equal(files[1], "none");
}

static void debug_lines_are_an_option_of_every_program(void **state)
{
	assert_int_equal(parse("--debug=nothing", 2), WEFT_EXIT_USAGE);
	assert_string_equal(said,
		"weft-test: --debug: there is no area 'nothing'; there are: unit\n"
		"Try: weft test --help\n");
	assert_int_equal(parse("--debug=unit", 2), WEFT_GO_ON);
	assert_non_null(strstr(said, "] unit: parsed\n"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_is_stored),
		cmocka_unit_test(an_argument_may_be_left_out),
		cmocka_unit_test(what_is_refused_is_told),
		cmocka_unit_test(a_table_is_the_help),
		cmocka_unit_test(a_table_tells_what_can_be_completed),
		cmocka_unit_test(a_surplus_argument_is_named),
		cmocka_unit_test(an_argument_that_is_missing_is_asked_for),
		/* The last: its lines stay on. */
		cmocka_unit_test(debug_lines_are_an_option_of_every_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
