/* SPDX-License-Identifier: MIT */
/* weft-serve's command line.  Main thread, before anything else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "fabric/base/options.h"
#include "fabric/main/serve.h"
#include "fabric/uri.h"

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

static int parse_backend(void *into, const struct weft_option *option, char *text)
{
	const char *equals = strchr(text, '=');
	struct serve_region *w;
	char *uri;

	if (!is_pair(text, equals) || !strstr(equals, "://"))
		return weft_option_refuse(option, text);
	int r = want(into, text, equals, &w, &uri);
	if (r != WEFT_GO_ON)
		return r;
	w->path = uri;
	w->is_backend = true;
	return WEFT_GO_ON;
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

/* A size, or, with a slash in it, a directory. */
static int parse_take(void *into, const struct weft_option *option, char *value)
{
	struct serve *s = into;
	struct stat st;

	if (!strchr(value, '/')) {
		if (weft_parse_size(value, &s->take_bytes) < 0 || s->take_bytes == 0)
			return weft_option_refuse(option, value);
		return WEFT_GO_ON;
	}
	if (s->take_directory)
		return weft_usage_error("--take can be given once for memory, and once for files");
	/* Notes of what comes name it, whatever the next donor's working directory is. */
	s->take_directory = realpath(value, NULL);
	if (!s->take_directory || stat(s->take_directory, &st) < 0 || !S_ISDIR(st.st_mode))
		return weft_usage_error("--take %s: it is no directory", value);
	return WEFT_GO_ON;
}

static int parse_drain(void *into, const struct weft_option *option, char *value)
{
	struct serve *s = into;
	struct weft_error err;
	struct weft_uri uri;

	if (weft_uri_parse(value, &uri, &err) < 0)
		return weft_usage_error("--drain: %s", err.message);
	const bool good = !uri.driver && !uri.transport && !uri.region[0];
	weft_uri_fini(&uri);
	if (!good)
		return weft_option_refuse(option, value);
	s->drain_to = value;
	return WEFT_GO_ON;
}

static int parse_lend(void *into, const struct weft_option *option, char *value)
{
	struct serve_pool_wish *wish = &((struct serve *)into)->pool_wish;

	wish->idle = strcmp(value, "idle") == 0;
	if (!wish->idle && (weft_parse_size(value, &wish->lend_bytes) < 0 || wish->lend_bytes == 0))
		return weft_option_refuse(option, value);
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
	{"backend", "NAME=URI",
		"lend what an NBD server keeps, from memory; a flush brings changes there",
		.kind = WEFT_OPTION_CALL, .parse = parse_backend,
		.wants = "NAME=URI, such as disk=nbd://host/export"},
	{"backend-stable", NULL,
		"nobody but this donor changes backends: keep their epochs over a clean stop",
		.kind = WEFT_OPTION_FLAG, INTO(backend_stable)},
	{"take", "SIZE|DIRECTORY",
		"take in regions that are moved here from other donors (weft move): up to\n"
		"SIZE of memory in sum; or files, into DIRECTORY, such as ./files",
		.kind = WEFT_OPTION_CALL, .parse = parse_take,
		.completion = WEFT_COMPLETE_DIRECTORY,
		.wants = "a size, such as 64G, or a directory with a slash in it"},
	{"drain", "URI",
		"when it is told to end, move all regions to the donor at URI, weft://B,\n"
		"and end once their borrowers are there",
		.kind = WEFT_OPTION_CALL, .parse = parse_drain, .completion = WEFT_COMPLETE_URI,
		.wants = "the URI of a donor, such as weft://B"},
	{"read-only", NULL, "let nobody write", .kind = WEFT_OPTION_FLAG, INTO(read_only)},
	{.kind = WEFT_OPTION_GROUP, .help = "To a pool:"},
	{"pool", "URL",
		"join the pool of the coordinator at URL: https://HOST[:PORT], unix:/PATH,\n"
		"http://127.0.0.1:PORT",
		.kind = WEFT_OPTION_TEXT, INTO(pool_wish.url)},
	{"lend", "SIZE|idle", "how much to lend there: SIZE, or what the machine does not need",
		.kind = WEFT_OPTION_CALL, .parse = parse_lend,
		.wants = "a size, such as 64G, or 'idle'"},
	{"reserve", "SIZE", "idle: how much stays available to the machine's own jobs (8G)",
		.kind = WEFT_OPTION_SIZE, INTO(pool_wish.reserve_bytes),
		.wants = "a size, such as 8G"},
	{"reclaim-deadline", "SECONDS",
		"idle: give regions up, which whoever has them loses, if the machine has missed\n"
		"memory for so long (default: never)",
		.kind = WEFT_OPTION_SECONDS, INTO(pool_wish.deadline_ms), .wants = "seconds"},
	{"pool-name", "NAME", "this donor's name in the pool (the machine's)",
		.kind = WEFT_OPTION_TEXT, INTO(pool_wish.name)},
	{"pool-key", "FILE",
		"the key that the coordinator knows (default: $WEFT_KEY, ~/.config/weft/key,\n"
		"/etc/weft/key)",
		.kind = WEFT_OPTION_TEXT, INTO(pool_wish.key), .completion = WEFT_COMPLETE_FILE},
	{"rack", "NAME", "in which rack it is, for copies that are to be in others",
		.kind = WEFT_OPTION_TEXT, INTO(pool_wish.rack)},
	{.kind = WEFT_OPTION_GROUP, .help = "To whom:"},
	{"listen", "ADDRESS[:PORT]",
		"or unix:PATH; port 0: any that is free (default 127.0.0.1:10809)",
		.kind = WEFT_OPTION_CALL, .parse = parse_listen},
	{"keys", "DIR",
		"lend to those who have a key of this store of weft key (default\n"
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

static int check_pool(const struct serve *s)
{
	const struct serve_pool_wish *wish = &s->pool_wish;

	if (wish->url && !wish->idle && !wish->lend_bytes)
		return weft_usage_error("how much is lent to the pool? Say --lend SIZE, or --lend "
					"idle");
	if (!wish->url && (wish->idle || wish->lend_bytes || wish->name || wish->rack || wish->key))
		return weft_usage_error("to which pool? Say --pool URL");
	if (!wish->idle && wish->deadline_ms)
		return weft_usage_error("--reclaim-deadline belongs to --lend idle");
	return WEFT_GO_ON;
}

int serve_parse_options(struct serve *s, int argc, char **argv)
{
	struct weft_command_line line = {
		.command = "serve",
		.synopsis = "[--memory NAME=SIZE]... [--file NAME=PATH]... "
			    "[--backend NAME=URI]... [--directory PATH] [OPTION]...",
		.about = "Lends memory, files, the files of a directory, or what NBD servers keep "
			 "to borrowers on the network.",
	};

	set_tables(s, line.tables);
	int r = weft_options_parse(&line, argc, argv);

	if (r != WEFT_GO_ON)
		return r;
	if (line.nr_arguments > 0)
		return weft_usage_error("'%s' is no option; regions are named with --memory, "
					"--file, --backend or --directory",
			line.arguments[0]);
	r = check_pool(s);
	if (r != WEFT_GO_ON)
		return r;
	if (s->nr_wanted == 0 && !s->directory && !s->take_bytes && !s->take_directory &&
		!s->pool_wish.url)
		return weft_usage_error("nothing to lend: say --memory NAME=SIZE, "
					"--file NAME=PATH, --backend NAME=URI or --directory PATH");
	return WEFT_GO_ON;
}
