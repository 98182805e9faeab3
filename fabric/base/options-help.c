/* SPDX-License-Identifier: MIT */
/* What a table of options prints: --help, and lines for a shell's completion.  See options.h. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/util.h"

enum {
	LEFT_MAX = 25, /* a longer one is wider than its column */
	LEFT_ROOM = 80,
};

/* "--device [PATH]", or an argument's name; "": neither. */
static const char *left_of(const struct weft_option *o, char *buf)
{
	const char *argument = o->argument ? o->argument : "";

	if (o->kind == WEFT_OPTION_GROUP)
		return "";
	if (o->kind == WEFT_OPTION_ARGUMENT)
		return argument;
	bool apart = argument[0] && strncmp(argument, "[=", 2) != 0;
	snprintf(buf, LEFT_ROOM, "--%s%s%s", o->name, apart ? " " : "", argument);
	return buf;
}

static int column(const struct weft_command_line *line)
{
	char buf[LEFT_ROOM];
	size_t width = 0;

	for (size_t i = 0; i < WEFT_OPTIONS_MAX && line->rows[i]; i++) {
		size_t len = strlen(left_of(line->rows[i], buf));

		if (len <= LEFT_MAX)
			width = weft_max(width, len);
	}
	return (int)width;
}

/* Prints the text; each line but the first begins with `head`. */
static void print_lines(const char *text, const char *head, int indent)
{
	for (; *text; text++) {
		putchar(*text);
		if (*text == '\n')
			printf("%s%*s", head, indent, "");
	}
	putchar('\n');
}

void weft_options_print_help(const struct weft_command_line *line)
{
	char head[64], buf[LEFT_ROOM];
	int width = column(line);

	snprintf(head, sizeof(head), "       weft %s ", line->command);
	printf("usage: weft %s ", line->command);
	print_lines(line->synopsis, head, 0);
	print_lines(line->about, "", 0);
	if (line->rows[0]->kind != WEFT_OPTION_GROUP)
		putchar('\n');
	for (size_t i = 0; i < WEFT_OPTIONS_MAX && line->rows[i]; i++) {
		const struct weft_option *o = line->rows[i];

		if (o->kind == WEFT_OPTION_GROUP) {
			printf("\n%s\n", o->help);
			continue;
		}
		printf("  %-*s  ", width, left_of(o, buf));
		print_lines(o->help, "", width + 4);
	}
	if (line->epilogue) {
		putchar('\n');
		print_lines(line->epilogue, "", 0);
	}
}

/*
 * Prints those words of "NODE|nic|interleave" that are not all capitals: they are meant literally.
 */
static void print_words(const char *argument)
{
	const char *head = "";

	if (!strchr(argument, '|'))
		return;
	while (*argument) {
		size_t len = strcspn(argument, "|"), capitals = 0;

		while (capitals < len && isupper((unsigned char)argument[capitals]))
			capitals++;
		if (capitals < len) {
			printf("%s%.*s", head, (int)len, argument);
			head = " ";
		}
		argument += len + (argument[len] == '|');
	}
}

void weft_options_print_completion(const struct weft_command_line *line)
{
	static const char *const whats[] = {"-", "file", "directory", "attachment", "uri", "debug"};
	static const char *const arities[] = {"none", "required", "optional"};
	char areas[400];

	for (size_t i = 0; i < WEFT_OPTIONS_MAX && line->rows[i]; i++) {
		const struct weft_option *o = line->rows[i];

		if (o->kind == WEFT_OPTION_GROUP)
			continue;
		if (o->kind == WEFT_OPTION_ARGUMENT)
			printf("argument\t-\trequired\t%s\t%s\t", o->argument,
				whats[o->completion]);
		else
			printf("option\t--%s\t%s\t%s\t%s\t", o->name, arities[weft_option_arity(o)],
				o->argument ? o->argument : "-", whats[o->completion]);
		if (o->completion == WEFT_COMPLETE_DEBUG)
			fputs(weft_debug_areas(" ", areas, sizeof(areas)), stdout);
		else if (o->argument)
			print_words(o->argument);
		putchar('\n');
	}
}
