/* SPDX-License-Identifier: MIT */
/* What weft push and weft pull have in common; see sync-command.h. */
#include "nbd-bridge/main/sync-command.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/patience.h"
#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge.h"
#include "nbd-bridge/library/weft.h"

#define NS_PER_MS UINT64_C(1000000)

/* A leaf that is hashed lies at one donor. */
#define STRIPE_MIN (64 << 10)
#define STRIPE_WANTS "a power of two from 64K to 1G"

enum { INTERVAL_MS = 1000, PATIENT_MS = 1000, DRAW_MS = 200, LINE_MS = 5000 };

const struct weft_option sync_command_options[] = {
	{"stripe-unit", "SIZE",
		"with several URIs: bytes at one before the next has its turn (default 256K)",
		WEFT_OPTION_SIZE, .into = offsetof(struct sync_command, stripe_bytes),
		.min = STRIPE_MIN, .max = WEFT_GIB, .wants = STRIPE_WANTS},
	{"json", NULL, "say what was done as JSON", WEFT_OPTION_FLAG,
		.into = offsetof(struct sync_command, json)},
	{"key", "FILE",
		"the key that the donor knows (default: $WEFT_KEY,\n"
		"~/.config/weft/key, /etc/weft/key)",
		WEFT_OPTION_TEXT, .into = offsetof(struct sync_command, key_file),
		.completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL, "use no key: in plaintext, with a donor that proves nothing",
		WEFT_OPTION_FLAG, .into = offsetof(struct sync_command, allow_insecure)},
	{0},
};

/* ---- arguments ---- */

/* An argument may be meant as the value of an option that takes none. */
static int refuse_uri(const struct weft_command_line *line, const char *argument)
{
	char text[512];

	weft_options_explain(line, 2, "a URI", text, sizeof(text));
	return strstr(text, ": ") ? weft_usage_error("%s", text)
				  : weft_usage_error("'%s' is no URI of a region", argument);
}

static int check_uris(const struct sync_command *c, const struct weft_command_line *line)
{
	for (unsigned i = 0; i < c->nr_uris; i++) {
		if (!strstr(c->uris[i], "://"))
			return refuse_uri(line, c->uris[i]);
		for (unsigned j = 0; j < i; j++)
			if (strcmp(c->uris[i], c->uris[j]) == 0)
				return weft_usage_error("%s is there twice", c->uris[i]);
	}
	return WEFT_GO_ON;
}

int sync_command_take_arguments(struct sync_command *c, const struct weft_command_line *line,
	bool file_first)
{
	const int nr = line->nr_arguments;

	if (nr < 2)
		return weft_usage_error("%s", line->tables[0].options[nr].wants);
	c->file = line->arguments[file_first ? 0 : nr - 1];
	c->uris = (const char *const *)line->arguments + (file_first ? 1 : 0);
	c->nr_uris = (unsigned)nr - 1;
	if (c->nr_uris == 1 && c->stripe_bytes)
		return weft_usage_error("--stripe-unit is for several URIs");
	if (c->stripe_bytes & (c->stripe_bytes - 1))
		return weft_usage_error("--stripe-unit wants " STRIPE_WANTS);
	return check_uris(c, line);
}

/* All URIs with spaces between; NULL: no memory. */
static char *join_uris(const struct sync_command *c)
{
	size_t len = 0, at = 0;

	for (unsigned i = 0; i < c->nr_uris; i++)
		len += strlen(c->uris[i]) + 1;
	char *text = malloc(len);
	for (unsigned i = 0; text && i < c->nr_uris; i++)
		at += (size_t)snprintf(text + at, len - at, i ? " %s" : "%s", c->uris[i]);
	return text;
}

int sync_command_open(struct sync_command *c, unsigned flags, struct weft_error *err)
{
	const struct weft_options options = {
		.size = sizeof(options),
		.flags = flags | (c->allow_insecure ? WEFT_OPEN_ALLOW_INSECURE : 0),
		.connections = 1,
		.stripe_bytes = c->stripe_bytes,
		.key_file = c->key_file,
	};
	char why[256];

	c->uri = join_uris(c);
	if (!c->uri)
		return weft_error_set(err, ENOMEM, "out of memory");
	c->begin_ns = c->work_ns = weft_now_ns();
	weft_patience_begin("%s: connecting to %s", c->program, c->uri);
	int r = weft_open_regions(c->uris, c->nr_uris, &options, &c->w, why, sizeof(why));
	weft_patience_end();
	if (r < 0)
		return weft_error_set(err, -r, "%s", why);
	c->region_bytes = weft_size(c->w);
	return 0;
}

/* ---- signals ---- */

static volatile sig_atomic_t *to_stop; /* a handler has no argument of ours */

static void on_signal(int signo)
{
	*to_stop = 1;
}

void sync_command_catch_signals(struct sync_command *c)
{
	/* Without SA_RESTART, so that reading a pipe ends; a second signal ends the process. */
	const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	to_stop = &c->stop;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* A reader that has left is an error, after which the region is given back at once. */
	signal(SIGPIPE, SIG_IGN);
}

/* ---- progress ---- */

void sync_command_progress(struct sync_command *c, uint64_t done, uint64_t total)
{
	const uint64_t now_ns = weft_now_ns();
	const uint64_t pause_ns = (c->terminal ? DRAW_MS : LINE_MS) * NS_PER_MS;
	char at[32], of[32];

	if (now_ns - c->work_ns < PATIENT_MS * NS_PER_MS ||
		(c->said_ns && now_ns - c->said_ns < pause_ns))
		return;
	c->said_ns = now_ns;
	c->drawn = true;
	fprintf(stderr, "%s%s: %s%s%s compared%s", c->terminal ? "\r" : "", c->program,
		weft_format_size(done, at, sizeof(at)), total ? " of " : "",
		total ? weft_format_size(total, of, sizeof(of)) : "",
		c->terminal ? "\033[K" : "\n");
}

void sync_command_begin_work(struct sync_command *c)
{
	c->work_ns = weft_now_ns();
}

void sync_command_end_progress(struct sync_command *c)
{
	if (c->terminal && c->drawn)
		fputs("\r\033[K", stderr);
	c->drawn = false;
}

static void on_progress(void *ctx, uint64_t done)
{
	struct sync_command *c = ctx;

	sync_command_progress(c, done, c->total);
}

int sync_command_begin(struct sync_command *c, struct sync_config *config, struct sync **ret,
	struct weft_error *err)
{
	sync_free(c->sync); /* of the state before */
	c->sync = NULL;
	config->w = c->w;
	config->stop = &c->stop;
	config->progress = on_progress;
	config->ctx = c;
	c->total = config->stream ? 0 : config->len;
	c->terminal = isatty(STDERR_FILENO);
	int r = sync_new(config, &c->sync, err);
	if (r < 0)
		return r;
	*ret = c->sync;
	sync_command_catch_signals(c);
	return 0;
}

/* ---- the report ---- */

/* What the donors' connections use: "tcp"; "rdma, tcp" if they differ. */
static const char *transports(const struct sync_command *c, char *buf, size_t size)
{
	char seen[BRIDGE_MAX_DONORS][32];
	unsigned nr = 0;
	size_t at = 0;

	buf[0] = '\0';
	for (unsigned i = 0; i < c->nr_uris; i++) {
		unsigned j = 0;

		weft_transport(c->w, i, seen[nr], sizeof(seen[nr]));
		while (strcmp(seen[j], seen[nr]) != 0)
			j++;
		if (j == nr)
			at = weft_min(size - 1,
				at + (size_t)snprintf(buf + at, size - at, nr++ ? ", %s" : "%s",
					     seen[j]));
	}
	return buf;
}

static void print_json(const struct sync_command *c, const struct sync_totals *t,
	const char *transport, double seconds, bool complete)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:b}", "file", c->file,
		"uri", c->uri, "transport", transport, "region_bytes",
		(json_int_t)c->region_bytes, "compared_bytes", (json_int_t)t->compared,
		"different_bytes", (json_int_t)t->different, "hash_bytes", (json_int_t)t->hashes,
		"seconds", seconds, "complete", complete);

	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
	fflush(stdout);
	json_decref(json);
}

void sync_command_report(struct sync_command *c, const struct sync_totals *t, bool pull,
	bool complete)
{
	const double seconds = (double)(weft_now_ns() - c->begin_ns) / 1e9;
	char transport[128], compared[32], different[32];

	sync_command_end_progress(c);
	transports(c, transport, sizeof(transport));
	if (c->json) {
		print_json(c, t, transport, seconds, complete);
		return;
	}
	weft_format_size(t->compared, compared, sizeof(compared));
	weft_format_size(t->different, different, sizeof(different));
	printf(complete ? "%s: %s compared, " : "%s: stopped after %s were compared, ", c->file,
		compared);
	if (t->different == 0)
		printf("nothing differed");
	else
		printf("%s differed and %s %s", different, pull ? "came from" : "are now at",
			c->uri);
	printf(", in %.1f s over %s\n", seconds, transport);
	fflush(stdout);
}

void sync_command_report_pass(struct sync_command *c, uint64_t different, bool marked)
{
	const double seconds = (double)(weft_now_ns() - c->begin_ns) / 1e9;
	char size[32];

	sync_command_end_progress(c);
	if (c->json)
		printf("{\"different_bytes\": %" PRIu64 ", \"settled\": %s, \"marked\": %s, "
		       "\"seconds\": %.3f}\n",
			different, different ? "false" : "true", marked ? "true" : "false",
			seconds);
	else if (different)
		printf("%s: %s changed and are now at %s\n", c->file,
			weft_format_size(different, size, sizeof(size)), c->uri);
	else
		printf("%s: nothing changed in two passes: %s is what it was between them%s\n",
			c->file, c->uri, marked ? ", and is marked" : "");
	fflush(stdout);
}

void sync_command_report_marked(struct sync_command *c, const struct sync_totals *t,
	const struct weft_mark *mark)
{
	const double seconds = (double)(weft_now_ns() - c->begin_ns) / 1e9;
	char size[32];

	if (c->json)
		printf("{\"event\": \"marked\", \"mark\": \"%016" PRIx64 "\", "
		       "\"marked_ms\": %" PRIu64 ", \"different_bytes\": %" PRIu64
		       ", \"seconds\": %.3f}\n",
			mark->number, mark->age_ms, t->different, seconds);
	else
		printf("%s: %s came: it is %s as marked %.1f s ago\n", c->file,
			weft_format_size(t->different, size, sizeof(size)), c->uri,
			(double)mark->age_ms / 1e3);
	fflush(stdout);
}

void sync_command_report_unmarked(struct sync_command *c, const struct weft_mark *mark)
{
	const double seconds = (double)(weft_now_ns() - c->begin_ns) / 1e9;

	if (c->json)
		printf("{\"event\": \"unmarked\", \"unmarked_ms\": %" PRIu64
		       ", \"seconds\": %.3f}\n",
			mark->age_ms, seconds);
	else
		printf("%s: %s has had no mark for %.1f s; the file stays as it is\n", c->file,
			c->uri, (double)mark->age_ms / 1e3);
	fflush(stdout);
}

void sync_command_report_gone(struct sync_command *c)
{
	const double seconds = (double)(weft_now_ns() - c->begin_ns) / 1e9;

	if (c->json)
		printf("{\"event\": \"gone\", \"seconds\": %.3f}\n", seconds);
	else
		printf("%s: the donor of %s is gone; trying again\n", c->file, c->uri);
	fflush(stdout);
}

void sync_command_rest(const struct sync_command *c, uint32_t ms)
{
	/* Short ones, as a signal may come right before a wait. */
	for (uint32_t done = 0, all = ms ? ms : INTERVAL_MS; done < all && !c->stop; done += 50)
		usleep(1000 * (unsigned)weft_min(50, all - done));
}

void sync_command_fini(struct sync_command *c)
{
	weft_close(c->w);
	sync_free(c->sync);
	free(c->uri);
}
