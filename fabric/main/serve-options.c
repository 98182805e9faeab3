/* SPDX-License-Identifier: MIT */
/* weft-serve's command line.  Main thread, before anything else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fabric/base/options.h"
#include "fabric/main/serve.h"

/* `--file NAME=PATH`: the name, up to `equals`, and the value behind it go to a new entry. */
static int want(struct serve *s, const char *text, const char *equals, struct serve_region **ret,
	char **ret_value)
{
	WEFT_CLEANUP_FREE char *name = strndup(text, (size_t)(equals - text));
	WEFT_CLEANUP_FREE char *value = strdup(equals + 1);

	if (s->nr_wanted == SERVE_MAX_REGIONS)
		return weft_usage_error("more than %d regions", SERVE_MAX_REGIONS);
	if (!name || !value) {
		fputs("weft-serve: out of memory\n", stderr);
		return WEFT_EXIT_USAGE;
	}
	for (unsigned i = 0; i < s->nr_wanted; i++)
		if (strcmp(s->wanted[i].name, name) == 0)
			return weft_usage_error("there are two regions named '%s'", name);
	*ret = &s->wanted[s->nr_wanted++];
	(*ret)->name = name;
	*ret_value = value;
	name = value = NULL;
	return WEFT_GO_ON;
}

/* Neither the name nor the value is empty. */
static bool is_pair(const char *text, const char *equals)
{
	return equals && equals != text && equals[1] != '\0';
}

static int parse_memory(void *into, const struct weft_option *option, char *text)
{
	WEFT_CLEANUP_FREE char *size = NULL;
	const char *equals = strrchr(text, '=');
	struct serve_region *w;

	if (!is_pair(text, equals))
		return weft_option_refuse(option, text);
	int r = want(into, text, equals, &w, &size);
	if (r != WEFT_GO_ON)
		return r;
	if (weft_parse_size(size, &w->size_bytes) < 0 || w->size_bytes == 0)
		return weft_usage_error(
			"--memory %s: '%s' is no size; say 64M, 4G or 1.5T", text, size);
	return WEFT_GO_ON;
}

static int parse_file(void *into, const struct weft_option *option, char *text)
{
	const char *equals = strchr(text, '=');
	struct serve_region *w;
	char *path;

	if (!is_pair(text, equals))
		return weft_option_refuse(option, text);
	int r = want(into, text, equals, &w, &path);
	if (r == WEFT_GO_ON)
		w->path = path;
	return r;
}

static int parse_directory(void *into, const struct weft_option *option, char *value)
{
	struct serve *s = into;

	if (s->directory)
		return weft_usage_error("--directory can be given only once");
	s->directory = value;
	return WEFT_GO_ON;
}

static int parse_hugepages(void *into, const struct weft_option *option, char *value)
{
	struct serve *s = into;

	if (strcasecmp(value, "2M") == 0)
		s->hugepage_bytes = 2 * WEFT_MIB;
	else if (strcasecmp(value, "1G") == 0)
		s->hugepage_bytes = WEFT_GIB;
	else
		return weft_option_refuse(option, value);
	return WEFT_GO_ON;
}

static int parse_numa(void *into, const struct weft_option *option, char *value)
{
	struct serve *s = into;
	char *end;

	if (strcmp(value, "nic") == 0) {
		s->numa = WEFT_NUMA_NIC;
	} else if (strcmp(value, "interleave") == 0) {
		s->numa = WEFT_NUMA_INTERLEAVE;
	} else {
		unsigned long v = strtoul(value, &end, 10);

		if (value[0] < '0' || value[0] > '9' || *end || v > 4095)
			return weft_option_refuse(option, value);
		s->numa = WEFT_NUMA_NODE;
		s->numa_node = (unsigned)v;
	}
	return WEFT_GO_ON;
}

static int parse_listen(void *into, const struct weft_option *option, char *value)
{
	struct serve *s = into;

	if (s->nr_listen == SERVE_MAX_LISTEN)
		return weft_usage_error("--listen can be given %d times at most", SERVE_MAX_LISTEN);
	s->listen[s->nr_listen++] = value;
	return WEFT_GO_ON;
}

#define INTO(member) .into = offsetof(struct serve, member)

static const struct weft_option options[] = {
	{.kind = WEFT_OPTION_GROUP, .help = "What is lent:"},
	{"memory", "NAME=SIZE",
		"lend SIZE bytes (K, M, G, T) of memory; taken and cleared up front",
		.kind = WEFT_OPTION_CALL, .parse = parse_memory,
		.wants = "NAME=SIZE, such as scratch=4G"},
	{"hugepages", "2M|1G", "take memory in huge pages", .kind = WEFT_OPTION_CALL,
		.parse = parse_hugepages, .wants = "2M or 1G"},
	{"numa", "NODE|nic|interleave",
		"take memory on one NUMA node, on the network card's, or on all",
		.kind = WEFT_OPTION_CALL, .parse = parse_numa,
		.wants = "a node's number, 'nic' or 'interleave'"},
	{"overcommit", NULL, "lend more memory than is available", .kind = WEFT_OPTION_FLAG,
		INTO(overcommit)},
	{"file", "NAME=PATH", "lend a file's content", .kind = WEFT_OPTION_CALL,
		.parse = parse_file, .completion = WEFT_COMPLETE_FILE, .wants = "NAME=PATH"},
	{"directory", "PATH", "lend each regular file below PATH, by its relative path",
		.kind = WEFT_OPTION_CALL, .parse = parse_directory,
		.completion = WEFT_COMPLETE_DIRECTORY},
	{"take", "SIZE",
		"take in regions that are moved here from other donors (weft move), up to\n"
		"SIZE of memory in sum",
		.kind = WEFT_OPTION_SIZE, INTO(take_bytes), .wants = "a size, such as 64G"},
	{"read-only", NULL, "let nobody write", .kind = WEFT_OPTION_FLAG, INTO(read_only)},
	{.kind = WEFT_OPTION_GROUP, .help = "To whom:"},
	{"listen", "ADDRESS[:PORT]",
		"or unix:PATH; port 0: any that is free (default 127.0.0.1:10809)",
		.kind = WEFT_OPTION_CALL, .parse = parse_listen},
	{"keys", "DIR", "lend to those who have a key of this store of weft key (default\n"
		"/etc/weft/keys for root, ~/.config/weft/keys for others)",
		.kind = WEFT_OPTION_TEXT, INTO(keys_dir), .completion = WEFT_COMPLETE_DIRECTORY},
	{"tls-certificates", "DIR",
		"lend to those who show a certificate of DIR/ca-cert.pem over TLS",
		.kind = WEFT_OPTION_TEXT, INTO(tls_certificates),
		.completion = WEFT_COMPLETE_DIRECTORY},
	{"allow-insecure", NULL, "lend to whoever comes, from other machines too, without a key",
		.kind = WEFT_OPTION_FLAG, INTO(allow_insecure)},
	{"lease", "SECONDS",
		"how long a region is reserved for a borrower that is silent (default 30)",
		.kind = WEFT_OPTION_NUMBER, INTO(lease_s), .min = 1, .max = WEFT_LEASE_MAX_S,
		.wants = "seconds, "},
	{"keep", "SECONDS", "how long memory is kept after a crash of this program (default 300)",
		.kind = WEFT_OPTION_NUMBER, INTO(keep_s), .max = 31536000, .wants = "seconds, "},
	{"watchdog", "SECONDS",
		"be killed after not running for so long, so that others learn of it\n"
		"(default: never)",
		.kind = WEFT_OPTION_NUMBER, INTO(watchdog_s), .min = 5, .max = 86400,
		.wants = "seconds, "},
	{0},
};

static const struct weft_option others[] = {
	{.kind = WEFT_OPTION_GROUP, .help = "Other:"},
	{0},
};

/* The tables of weft-serve, and between them each transport's. */
static void set_tables(struct serve *s, struct weft_option_table tables[WEFT_OPTION_TABLES_MAX])
{
	unsigned n = 0;

	tables[n++] = (struct weft_option_table){options, s};
	for (const struct tp_driver *const *at = tp_drivers; *at && n < WEFT_OPTION_TABLES_MAX - 1;
		at++)
		if ((*at)->listen_options)
			tables[n++] = (struct weft_option_table){
				(*at)->listen_options, (*at)->listen_settings};
	tables[n] = (struct weft_option_table){others, s};
}

int serve_parse_options(struct serve *s, int argc, char **argv)
{
	struct weft_command_line line = {
		.command = "serve",
		.synopsis = "[--memory NAME=SIZE]... [--file NAME=PATH]... "
			    "[--directory PATH] [OPTION]...",
		.about = "Lends memory, files, or the files of a directory "
			 "to borrowers on the network.",
	};

	set_tables(s, line.tables);
	int r = weft_options_parse(&line, argc, argv);

	if (r != WEFT_GO_ON)
		return r;
	if (line.nr_arguments > 0)
		return weft_usage_error("'%s' is no option; regions are named with --memory, "
					"--file or --directory",
			line.arguments[0]);
	if (s->nr_wanted == 0 && !s->directory && !s->take_bytes)
		return weft_usage_error("nothing to lend: say --memory NAME=SIZE, "
					"--file NAME=PATH or --directory PATH");
	return WEFT_GO_ON;
}
