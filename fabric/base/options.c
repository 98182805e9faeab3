/* SPDX-License-Identifier: MIT */
/* Parsing a command line by its table: see options.h. */
#include "fabric/base/options.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/arguments.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum {
	FIRST = 256, /* above every character: getopt_long(3) returns FIRST + row */
	DEBUG_AREAS_BYTES = 400,
};

/* The command of the line that was parsed last. */
static const char *current_command = "";
static char program[64];

int weft_usage_error(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "weft-%s: ", current_command);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry: weft %s --help\n", current_command);
	return WEFT_EXIT_USAGE;
}

int weft_option_refuse(const struct weft_option *option, const char *value)
{
	if (option->kind == WEFT_OPTION_NUMBER)
		return weft_usage_error("--%s wants %s%" PRIu64 " to %" PRIu64 ", not '%s'",
			option->name, option->wants ? option->wants : "", option->min, option->max,
			value);
	return weft_usage_error("--%s wants %s, not '%s'", option->name, option->wants, value);
}

static bool parse_number(const struct weft_option *option, const char *text, unsigned *ret)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || value < option->min || value > option->max)
		return false;
	*ret = (unsigned)value;
	return true;
}

static bool parse_size(const struct weft_option *option, const char *text, uint64_t *ret)
{
	uint64_t bytes;

	if (weft_parse_size(text, &bytes) < 0 || bytes < option->min ||
		(option->max && bytes > option->max))
		return false;
	*ret = bytes;
	return true;
}

static bool parse_seconds(const struct weft_option *option, const char *text, uint32_t *ret_ms)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0) || value > 86400 || (value == 0 && !option->zero))
		return false;
	*ret_ms = value == 0 ? 0 : (uint32_t)weft_max((uint64_t)(value * 1000), 1);
	return true;
}

static int store(const struct weft_option *option, void *object, char *value)
{
	void *into = (char *)object + option->into;
	bool taken = true;

	switch (option->kind) {
	case WEFT_OPTION_FLAG:
		*(bool *)into = true;
		break;
	case WEFT_OPTION_TEXT:
		*(const char **)into = value;
		break;
	case WEFT_OPTION_NUMBER:
		taken = parse_number(option, value, into);
		break;
	case WEFT_OPTION_SIZE:
		taken = parse_size(option, value, into);
		break;
	case WEFT_OPTION_SECONDS:
		taken = parse_seconds(option, value, into);
		break;
	case WEFT_OPTION_CALL:
		return option->parse(object, option, value);
	default:
		assert(!"a row that is no option");
	}
	return taken ? WEFT_GO_ON : weft_option_refuse(option, value);
}

static int parse_debug(void *into, const struct weft_option *option, char *value)
{
	char unknown[64], areas[DEBUG_AREAS_BYTES];

	if (weft_debug_enable(value, unknown, sizeof(unknown)))
		return WEFT_GO_ON;
	return weft_usage_error("--debug: there is no area '%s'; there are: %s", unknown,
		weft_debug_areas(", ", areas, sizeof(areas)));
}

/* The help text of --debug names the areas of the program that runs. */
static char debug_help[DEBUG_AREAS_BYTES + 80];

enum { DEBUG, HELP };
static const struct weft_option common[] = {
	[DEBUG] = {"debug", "[=AREA,...]", debug_help, .kind = WEFT_OPTION_CALL,
		.parse = parse_debug, .completion = WEFT_COMPLETE_DEBUG},
	[HELP] = {"help", NULL, "show this", .kind = WEFT_OPTION_FLAG},
	{0},
};

static void describe_debug(void)
{
	char areas[DEBUG_AREAS_BYTES];

	weft_debug_areas(", ", areas, sizeof(areas));
	snprintf(debug_help, sizeof(debug_help), "print what is done; all of it, or:\n%s", areas);
}

static bool is_option(const struct weft_option *option)
{
	return option->kind >= WEFT_OPTION_FLAG;
}

/* Adds rows behind the first n; returns the new number. */
static size_t add_rows(
	struct weft_command_line *line, size_t n, const struct weft_option_table *table)
{
	for (const struct weft_option *o = table->options; o->kind != WEFT_OPTION_END; o++) {
		assert(n < WEFT_OPTIONS_MAX);
		line->rows[n] = o;
		line->intos[n++] = table->into;
	}
	return n;
}

static void collect(struct weft_command_line *line)
{
	size_t n = 0;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(line->tables) && line->tables[i].options; i++)
		n = add_rows(line, n, &line->tables[i]);
	n = add_rows(line, n, &(struct weft_option_table){common, NULL});
	for (size_t i = 0, to = 0; i < n; i++)
		if (is_option(line->rows[i]))
			line->longs[to++] = (struct option){line->rows[i]->name,
				weft_option_arity(line->rows[i]), NULL, FIRST + (int)i};
}

static int show(
	const struct weft_command_line *line, void (*print)(const struct weft_command_line *line))
{
	print(line);
	return weft_end_output(program, 0);
}

/* Stores one option that getopt_long(3) has found. */
static int take(struct weft_command_line *line, size_t row, int argc, char **argv)
{
	const struct weft_option *option = line->rows[row];
	char *value = optarg;

	line->given[row] = argv[optind - 1];
	if (!value && option->follows && optind < argc && argv[optind][0] == option->follows)
		value = argv[optind++];
	if (option == &common[HELP])
		return show(line, weft_options_print_help);
	return store(option, line->intos[row], value);
}

/* Stores what is left, or says what is missing or too much. */
static int take_arguments(const struct weft_command_line *line)
{
	char text[512];
	int n = 0;

	for (size_t i = 0; i < WEFT_OPTIONS_MAX && line->rows[i]; i++) {
		const struct weft_option *row = line->rows[i];

		if (row->kind != WEFT_OPTION_ARGUMENT)
			continue;
		if (n < line->nr_arguments)
			*(const char **)((char *)line->intos[i] + row->into) = line->arguments[n++];
		else if (row->wants)
			return weft_usage_error("%s", row->wants);
	}
	if (n == line->nr_arguments)
		return WEFT_GO_ON;
	weft_options_explain(line, n, line->noun, text, sizeof(text));
	return weft_usage_error("%s: %s", line->surplus, text);
}

int weft_options_parse(struct weft_command_line *line, int argc, char **argv)
{
	int c, r;

	current_command = line->command;
	snprintf(program, sizeof(program), "weft-%s", line->command);
	weft_log_init(program, WEFT_LOG_INFO);
	describe_debug();
	collect(line);
	/* This is no option of the table, so that it makes no option's abbreviation ambiguous. */
	if (argc == 2 && strcmp(argv[1], "--completion-table") == 0)
		return show(line, weft_options_print_completion);
	optind = 0; /* starts anew if another line was parsed before (getopt(3), NOTES) */
	const char *shorts = line->runs_program ? "+h" : "h";
	while ((c = getopt_long(argc, argv, shorts, line->longs, NULL)) != -1) {
		if (c == 'h')
			return show(line, weft_options_print_help);
		if (c < FIRST) {
			fprintf(stderr, "Try: weft %s --help\n", line->command);
			return WEFT_EXIT_USAGE;
		}
		r = take(line, (size_t)(c - FIRST), argc, argv);
		if (r != WEFT_GO_ON)
			return r;
	}
	line->arguments = argv + optind;
	line->nr_arguments = argc - optind;
	return line->surplus ? take_arguments(line) : WEFT_GO_ON;
}

const char *weft_option_given(const struct weft_command_line *line, const char *name)
{
	for (size_t i = 0; i < WEFT_OPTIONS_MAX && line->rows[i]; i++)
		if (is_option(line->rows[i]) && strcmp(line->rows[i]->name, name) == 0)
			return line->given[i];
	assert(!"no option of this program");
	return NULL;
}

char *weft_options_explain(
	const struct weft_command_line *line, int wanted, const char *noun, char *buf, size_t len)
{
	return weft_arguments_explain(
		line->arguments, line->nr_arguments, wanted, noun, line->longs, buf, len);
}
