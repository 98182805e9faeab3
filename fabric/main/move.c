/* SPDX-License-Identifier: MIT */
/*
 * weft move: regions go over to another donor while they are used.  The donors do the work: this
 * program asks the one that takes a region to do so, and shows what it says.  If this program ends,
 * the moves go on; the same command joins them.  This file is the command line.  One thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "fabric/main/move.h"

enum {
	DOWNTIME_MS = 50,
	DOWNTIME_MAX_MS = 60000,
};

/* A number of s or ms, into a number of ms. */
static int parse_downtime(void *into, const struct weft_option *option, char *value)
{
	char *end;
	double ms = strtod(value, &end);

	if (strcmp(end, "s") == 0)
		ms *= 1000;
	else if (strcmp(end, "ms") != 0)
		return weft_option_refuse(option, value);
	if (end == value || !(ms >= 1 && ms <= DOWNTIME_MAX_MS))
		return weft_option_refuse(option, value);
	((struct move_options *)into)->downtime_ms = (unsigned)ms;
	return WEFT_GO_ON;
}

#define INTO(field) .into = offsetof(struct move_options, field)
static const struct weft_option options[] = {
	{NULL, "URI",
		"of the regions, weft://A/REGION, and of the donor that takes them,\n"
		"weft://B, or weft://B/NAME to call a region otherwise there",
		WEFT_OPTION_ARGUMENT, .completion = WEFT_COMPLETE_URI},
	{"dry-run", NULL, "say whether it could be done, and do nothing", WEFT_OPTION_FLAG,
		INTO(dry_run)},
	{"bandwidth", "RATE", "copy at most so many bytes a second, such as 200M (no limit)",
		WEFT_OPTION_SIZE, INTO(bandwidth), .min = 1 << 16,
		.wants = "bytes a second, 64K or more, such as 200M"},
	{"downtime", "TIME", "for how long its borrowers may have to wait (50ms)", WEFT_OPTION_CALL,
		.parse = parse_downtime, .wants = "a time of 1ms to 60s, such as 50ms"},
	{"disconnect", NULL, "move although some borrowers cannot follow, and cut these off",
		WEFT_OPTION_FLAG, INTO(disconnect)},
	{"post-copy", NULL,
		"let the other donor serve the region at once, and copy it then; a loss of the\n"
		"first one meanwhile loses what was not copied",
		WEFT_OPTION_FLAG, INTO(post_copy)},
	{"all", NULL, "move all regions of the donor at the first URI, weft://A, and wait",
		WEFT_OPTION_FLAG, INTO(all)},
	{"wait", NULL, "wait until all borrowers are at the other donor", WEFT_OPTION_FLAG,
		INTO(wait)},
	{"resolve", NULL,
		"say which donor has the region, where they cannot ask each other, and end\n"
		"what can be ended",
		WEFT_OPTION_FLAG, INTO(resolve)},
	{"taker-is-gone", NULL,
		"with --resolve: the donor that took the region is gone for good; lend what\n"
		"the other one kept as new contents, and tell who used the region that it is lost",
		WEFT_OPTION_FLAG, INTO(taker_is_gone)},
	{"giver-is-gone", NULL,
		"with --resolve, of a region that moved with --post-copy: the donor that gave it\n"
		"is gone for good; take what has not come from there for lost",
		WEFT_OPTION_FLAG, INTO(giver_is_gone)},
	{"json", NULL, "say what is done as JSON, an object for each phase", WEFT_OPTION_FLAG,
		INTO(json)},
	{"key", "FILE",
		"the key that the donor at the last URI knows (default: $WEFT_KEY,\n"
		"~/.config/weft/key, /etc/weft/key)",
		WEFT_OPTION_TEXT, INTO(keys.file), .completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL, "use no key: in plaintext, with a donor that proves nothing",
		WEFT_OPTION_FLAG, INTO(keys.allow_insecure)},
	{0},
};

/* Of a donor on the network.  WEFT_GO_ON, or the exit status. */
static int parse_uri(const char *text, struct weft_uri *ret)
{
	struct weft_error err;

	if (weft_uri_parse(text, ret, &err) < 0)
		return weft_usage_error("%s", err.message);
	if (ret->transport)
		return weft_usage_error("'%s': transport= says how a borrower reaches a region, "
					"and it moves without",
			text);
	if (ret->driver)
		return weft_usage_error("'%s': a region moves between donors on the network, "
					"such as weft://HOST/REGION",
			text);
	return WEFT_GO_ON;
}

static bool is_same_donor(const struct weft_uri *a, const struct weft_uri *b)
{
	return strcmp(a->host, b->host) == 0 && strcmp(a->port, b->port) == 0;
}

/* uris: of zeros, one for each argument; the last is of the donor that takes. */
static int check_uris(const struct move_options *o, const struct weft_command_line *line,
	struct weft_uri *uris)
{
	const int last = line->nr_arguments - 1;
	int r = WEFT_GO_ON;

	for (int i = 0; i <= last && r == WEFT_GO_ON; i++)
		r = parse_uri(line->arguments[i], &uris[i]);
	if (r != WEFT_GO_ON)
		return r;
	if (o->taker_is_gone && !o->resolve)
		return weft_usage_error("--taker-is-gone belongs to --resolve");
	if (o->giver_is_gone && !o->resolve)
		return weft_usage_error("--giver-is-gone belongs to --resolve");
	if (o->giver_is_gone && o->taker_is_gone)
		return weft_usage_error("if both donors are gone, nothing is left of the region");
	if (o->all && (last != 1 || uris[0].region[0] || uris[1].region[0]))
		return weft_usage_error("--all moves from one donor to another: weft move --all "
					"weft://A weft://B");
	if (o->resolve && (o->all || o->wait || o->dry_run || o->disconnect || o->bandwidth))
		return weft_usage_error("--resolve moves nothing: of the other options only those "
					"of keys, and --json, go with it");
	if (o->resolve && last != 1)
		return weft_usage_error("--resolve is about one region: weft move --resolve "
					"weft://A/REGION weft://B");
	if (uris[last].region[0] && last > 1)
		return weft_usage_error("several regions cannot have one name: leave '%s' out",
			uris[last].region);
	for (int i = 0; i < last; i++) {
		if (!uris[i].region[0] && !o->all)
			return weft_usage_error("which region of '%s'?", line->arguments[i]);
		if (is_same_donor(&uris[i], &uris[last]))
			return weft_usage_error("'%s' is at the donor that takes it already",
				line->arguments[i]);
	}
	return WEFT_GO_ON;
}

/* What --all stands for. */
static int move_all(struct move_options *o, const struct weft_uri *from, const struct weft_uri *to,
	struct weft_error *err)
{
	struct weft_uri *uris;
	unsigned nr;
	int r = move_list_all(o, from, &uris, &nr, err);

	if (r == 0 && nr == 0 && !o->json)
		puts("nothing to move");
	if (r == 0 && nr > 0) {
		uris[nr] = *to;
		r = move_run(o, uris, nr, err);
	}
	for (unsigned i = 0; i < nr; i++)
		weft_uri_fini(&uris[i]);
	free(uris);
	return r;
}

/* 0, or 1: it has been told why. */
static int carry_out(struct move_options *o, const struct weft_uri *uris, unsigned last)
{
	struct weft_error err = {0};
	int r = move_catch_signals(&err);

	o->wait |= o->all;
	if (r == 0 && o->resolve)
		r = move_resolve(o, &uris[0], &uris[1], &err);
	else if (r == 0 && o->all)
		r = move_all(o, &uris[0], &uris[1], &err);
	else if (r == 0)
		r = move_run(o, uris, last, &err);
	if (r < 0)
		fprintf(stderr, "weft-move: %s\n", r == -ECANCELED ? "given up" : err.message);
	move_release_signals();
	return r == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct move_options o = {.downtime_ms = DOWNTIME_MS};
	struct weft_command_line line = {
		.command = "move",
		.synopsis = "URI... weft://B[:PORT][/NAME] [OPTION]...",
		.about = "Moves regions to another donor while they are used.\n"
			 "Several move at a time; one that does not stops no other.",
		.tables = {{options, &o}},
	};
	struct weft_uri *uris = NULL;

	weft_process_begin();
	int r = weft_options_parse(&line, argc, argv);
	if (r != WEFT_GO_ON)
		return r;
	if (line.nr_arguments < 2)
		return weft_usage_error(line.nr_arguments
				? "where to? Give the URI of the donor that takes it, "
				  "such as weft://HOST"
				: "what to move, and where to: weft://A/REGION weft://B");
	uris = calloc((size_t)line.nr_arguments, sizeof(*uris));
	if (!uris) {
		fputs("weft-move: no memory\n", stderr);
		return 1;
	}
	r = check_uris(&o, &line, uris);
	if (r == WEFT_GO_ON)
		r = carry_out(&o, uris, (unsigned)line.nr_arguments - 1);
	for (int i = 0; i < line.nr_arguments; i++)
		weft_uri_fini(&uris[i]);
	free(uris);
	return weft_end_output("weft-move", r);
}
