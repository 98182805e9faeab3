/* SPDX-License-Identifier: MIT */
/*
 * weft: finds and runs sub-commands, as git does.  `weft serve …` becomes `weft-serve …`, looked
 * for beside this program and then where they are installed, libexec/weft.  One thread.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/process.h"
#include "fabric/base/util.h"

static const struct command {
	const char *name, *what;
} commands[] = {
	{"serve", "lend memory, files or a directory of files"},
	{"key", "say who may use what this machine lends"},
	{"list", "show what a donor lends"},
	{"attach", "map a region as a socket, a file or a block device"},
	{"detach", "end an attachment"},
	{"push", "make a region the same as a file, by what differs"},
	{"pull", "make a file the same as a region, by what differs"},
	{"move", "move a region to another donor while it is used"},
	{"pool", "lease memory of all donors of a cluster, and show who has what"},
	{"swap", "use donors' memory as swap space"},
	{"rescue", "save what a dead bridge had not written back"},
	{"reset", "go on with what a region holds now, after its contents were lost"},
	{"verify", "compare the copies of a device"},
	{"status", "show attachments and donors on this machine"},
	{"bench", "measure a region over every path to it"},
	{"line", "join two network namespaces by a line with a delay, to measure on"},
	{"doctor", "show what this machine can do, and how to get the rest"},
};

static void usage(FILE *out)
{
	fputs("usage: weft COMMAND [ARGUMENT]…\n"
	      "Lends memory to other machines on the network, and maps it.\n\n",
		out);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(commands); i++)
		fprintf(out, "    %-8s %s\n", commands[i].name, commands[i].what);
	fputs("\n    help COMMAND     the command's manual\n"
	      "    COMMAND --help   its options\n"
	      "    --version        this version\n",
		out);
}

/* The directory of this program, without a trailing '/', into dir of PATH_MAX bytes. */
static int own_directory(char *dir)
{
	ssize_t n = readlink("/proc/self/exe", dir, PATH_MAX - 1);

	if (n < 0)
		return -errno;
	dir[n] = '\0';
	*strrchr(dir, '/') = '\0';
	return 0;
}

/*
 * "<dir>/<sub>/<leaf>" into path of PATH_MAX bytes; true if it is there, with the rights of mode.
 */
static bool find(char *path, const char *dir, const char *sub, const char *leaf, int mode)
{
	int n;

	if (sub[0] == '/')
		n = snprintf(path, PATH_MAX, "%s/%s", sub, leaf);
	else
		n = snprintf(path, PATH_MAX, "%s/%s/%s", dir, sub, leaf);
	return n < PATH_MAX && access(path, mode) == 0;
}

static bool find_command(char *path, const char *dir, const char *name)
{
	char leaf[64];

	if (!name[0] || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(name) ||
		snprintf(leaf, sizeof(leaf), "weft-%s", name) >= (int)sizeof(leaf))
		return false;
	return find(path, dir, ".", leaf, X_OK) ||
		find(path, dir, WEFT_LIBEXEC_FROM_BIN, leaf, X_OK);
}

/* Levenshtein's distance; b is at most 31 bytes long. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[32], n = (unsigned)strlen(b);

	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = (unsigned)weft_min(change, weft_min(row[j], row[j - 1]) + 1);
		}
	}
	return row[n];
}

static int unknown(const char *name)
{
	const char *best = NULL;
	unsigned least = 3;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(commands); i++) {
		unsigned d = distance(name, commands[i].name);

		if (d < least) {
			least = d;
			best = commands[i].name;
		}
	}
	if (least == 0) {
		fprintf(stderr,
			"weft: the program weft-%s is not installed: it belongs beside weft, or in "
			"its libexec/weft.\n",
			name);
		return 1;
	}
	fprintf(stderr, "weft: there is no command '%s'.", name);
	if (best)
		fprintf(stderr, " Did you mean 'weft %s'?", best);
	fputs(" 'weft help' lists them.\n", stderr);
	return 2;
}

/* Shows a manual page with man(1), or the command's --help where there is no man(1) or no page. */
static int help(const char *dir, const char *name)
{
	static const char *const sections[] = {"1", "7"};
	char path[PATH_MAX], leaf[64];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(sections); i++) {
		const char *s = sections[i];

		if (!strcmp(name, "weft"))
			snprintf(leaf, sizeof(leaf), "man%s/weft.%s", s, s);
		else
			snprintf(leaf, sizeof(leaf), "man%s/weft-%.32s.%s", s, name, s);
		if (!strchr(name, '/') && find(path, dir, WEFT_MAN_FROM_BIN, leaf, R_OK))
			execlp("man", "man", path, (char *)NULL);
	}
	if (!strcmp(name, "weft")) {
		usage(stdout);
		return weft_end_output("weft", 0);
	}
	if (!find_command(path, dir, name))
		return unknown(name);
	execl(path, path, "--help", (char *)NULL);
	fprintf(stderr, "weft: cannot run %s: %s\n", path, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "help";
	char dir[PATH_MAX], path[PATH_MAX];
	int r;

	weft_process_begin();
	if (!strcmp(name, "--version")) {
		puts("weft " WEFT_VERSION);
		return weft_end_output("weft", 0);
	}
	r = own_directory(dir);
	if (r < 0) {
		fprintf(stderr,
			"weft: cannot tell where this program is: reading /proc/self/exe: %s\n",
			strerror(-r));
		return 1;
	}
	if (!strcmp(name, "--completion-table")) {
		for (size_t i = 0; i < WEFT_ARRAY_LEN(commands); i++)
			printf("command\t%s\t%s\n", commands[i].name, commands[i].what);
		return weft_end_output("weft", 0);
	}
	if (!strcmp(name, "help") && argc > 2)
		return help(dir, argv[2]);
	if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) {
		usage(stdout);
		return weft_end_output("weft", 0);
	}
	if (!find_command(path, dir, name))
		return unknown(name);
	argv[1] = strrchr(path, '/') + 1; /* what getopt(3) calls it in its messages */
	execv(path, argv + 1);
	fprintf(stderr, "weft: cannot run %s: %s\n", path, strerror(errno));
	return 1;
}
