/* SPDX-License-Identifier: MIT */
/*
 * The command line of a program, as one table.  The table parses (on getopt_long(3)), prints --help
 * and tells a shell what it can complete; tests/shell/house-manuals-match-help.sh holds it against
 * the manual.
 *
 * One thread, before anything is started.
 */
#ifndef WEFT_FABRIC_BASE_OPTIONS_H
#define WEFT_FABRIC_BASE_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WEFT_OPTIONS_MAX = 64,
	WEFT_OPTION_TABLES_MAX = 8,
	WEFT_GO_ON = -1,     /* no exit status: the program goes on */
	WEFT_EXIT_USAGE = 2, /* the command line was not understood */
};

enum weft_option_kind {
	WEFT_OPTION_END,   /* the row behind the last one */
	WEFT_OPTION_GROUP, /* no option: `help` is a heading above the rows that follow */
	/*
	 * No option: what an argument of the program stands for.  The first such row is of the
	 * first argument, and so on.  `into` of the table's object stores it as a const char *,
	 * unless the program itself looks at the arguments.
	 */
	WEFT_OPTION_ARGUMENT,
	/* Options.  `into` of the table's object stores: */
	WEFT_OPTION_FLAG,    /* a bool, which becomes true */
	WEFT_OPTION_TEXT,    /* a const char *, which points into argv */
	WEFT_OPTION_NUMBER,  /* an unsigned int, from min to max */
	WEFT_OPTION_SIZE,    /* a uint64_t of bytes ("64K"), from min to max; max 0: no limit */
	WEFT_OPTION_SECONDS, /* a uint32_t of ms, from 1 to 86400000; 0 too if `zero` */
	WEFT_OPTION_CALL,    /* wherever parse() stores it */
};

/*
 * What a shell offers for an argument.  It offers the words of "auto|rdma|NODE" in any case, except
 * those in capitals.
 */
enum weft_option_completion {
	WEFT_COMPLETE_NOTHING,
	WEFT_COMPLETE_FILE,
	WEFT_COMPLETE_DIRECTORY,
	WEFT_COMPLETE_ATTACHMENT, /* the name of an attachment of this user */
	WEFT_COMPLETE_URI,        /* of a region of this user's donors */
	WEFT_COMPLETE_DEBUG,      /* an area of --debug */
};

struct weft_option {
	const char *name;     /* without the "--" */
	/* As help shows it, "SIZE"; NULL: takes none; "[PATH]", "[=FILE]": may be left out. */
	const char *argument;
	const char *help;     /* lines, with '\n' between them */
	enum weft_option_kind kind;
	enum weft_option_completion completion;
	size_t into; /* offsetof() */
	uint64_t min, max;
	bool zero;
	/*
	 * The argument is optional, and the word behind the option is taken for it if that word
	 * begins with this character; 0: never.
	 */
	char follows;
	/*
	 * "--NAME wants WANTS, not 'VALUE'", when VALUE is refused.  A number's is "WANTS MIN to
	 * MAX", and may be NULL.  An ARGUMENT's is what is said where there is none; NULL: it may
	 * be left out.
	 */
	const char *wants;
	/*
	 * CALL.  into is the table's object.  value is the argument (NULL: none); it may be written
	 * to and lives as long as argv.  Returns WEFT_GO_ON, or the exit status after saying why
	 * with weft_usage_error() or weft_option_refuse().
	 */
	int (*parse)(void *into, const struct weft_option *option, char *value);
};

/* Rows, and the object that their values are stored in. */
struct weft_option_table {
	const struct weft_option *options; /* up to WEFT_OPTION_END */
	void *into;
};

struct weft_command_line {
	const char *command;  /* "attach": the program is weft-attach */
	const char *synopsis; /* behind "weft COMMAND"; a line for each form */
	const char *about;    /* what it does; lines */
	const char *epilogue; /* the last lines of the help; NULL: none */
	/*
	 * In the order of the help; several, so that a program can take rows from elsewhere.
	 * --debug and --help come by themselves.
	 */
	struct weft_option_table tables[WEFT_OPTION_TABLES_MAX];
	/*
	 * A line with more arguments than the tables have rows for is refused: "SURPLUS: 'x' is
	 * one too many", or as weft_arguments_explain() says; noun is what the arguments are, "a
	 * URI".  surplus NULL: the program itself looks at the arguments.
	 */
	const char *surplus, *noun;
	/*
	 * The first argument is a program to run; all arguments and options behind it are that
	 * program's.
	 */
	bool runs_program;

	/* Set by weft_options_parse(): the arguments that are no options; they point into argv. */
	char **arguments;
	int nr_arguments;

	/* Private. */
	struct option longs[WEFT_OPTIONS_MAX + 1];
	const struct weft_option *rows[WEFT_OPTIONS_MAX];
	void *intos[WEFT_OPTIONS_MAX];
	const char *given[WEFT_OPTIONS_MAX];
};

/*
 * Parses argv, which getopt_long(3) puts into another order, and begins the log under the
 * program's name (weft_log_init()).  Returns WEFT_GO_ON when all options
 * are stored; otherwise the exit status, after printing the help or saying what is wrong.
 */
int weft_options_parse(struct weft_command_line *line, int argc, char **argv);

/*
 * NULL: the option was not given.  Otherwise the last word of argv that belongs to it: the option
 * itself if it takes no argument.
 */
const char *weft_option_given(const struct weft_command_line *line, const char *name);

/*
 * Prints "weft-attach: …" and "Try: weft attach --help" on standard error, for the command of the
 * line that was parsed last.  Returns WEFT_EXIT_USAGE.
 */
int weft_usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same: "--NAME wants WANTS, not 'VALUE'". */
int weft_option_refuse(const struct weft_option *option, const char *value);

/*
 * Says which of the arguments the user meant as something else, in a program that takes `wanted` of
 * them: see weft_arguments_explain().  Returns buf.
 */
char *weft_options_explain(const struct weft_command_line *line, int wanted, const char *noun,
	char *buf, size_t len);

/* On standard output: the text of --help; the lines that fabric/completion/weft reads. */
void weft_options_print_help(const struct weft_command_line *line);
void weft_options_print_completion(const struct weft_command_line *line);

/* What the option takes, for getopt_long(3): no_argument, required_argument, optional_argument. */
static inline int weft_option_arity(const struct weft_option *option)
{
	if (!option->argument)
		return no_argument;
	return option->argument[0] == '[' ? optional_argument : required_argument;
}

#endif
