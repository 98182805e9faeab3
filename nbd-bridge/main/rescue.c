/* SPDX-License-Identifier: MIT */
/*
 * weft rescue: saves what a cache holds to a file.  A living bridge does that itself; the cache
 * file of a dead one is read here.  One thread.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/control.h"
#include "fabric/base/options.h"
#include "fabric/base/patience.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/cache/rescue.h"
#include "nbd-bridge/main/rescue-copies.h"
#include "nbd-bridge/main/state.h"

enum { ANSWER_MS = 10000 };

/* Bytes of each kind that were in the cache. */
struct saved {
	uint64_t dirty, clean, torn, unknown;
};

static void report(const char *what, const char *file, const struct saved *saved)
{
	char size[32], more[32];

	printf("%s is saved in %s: %s that were not at the donor, %s that were\n", what, file,
		weft_format_size(saved->dirty, size, sizeof(size)),
		weft_format_size(saved->clean, more, sizeof(more)));
	if (saved->torn > 0)
		printf("  %s more that were not at the donor are lost: they cannot be read, or "
		       "were not whole when the machine stopped; the map calls "
		       "them torn\n",
			weft_format_size(saved->torn, size, sizeof(size)));
	if (saved->unknown > 0)
		printf("  the table of %s more cannot be read: what of them was not at the donor "
		       "is lost, and the map does not name it\n",
			weft_format_size(saved->unknown, size, sizeof(size)));
	printf("  %s.map lists which parts are known\n", file);
}

static int from_file(const char *path, const char *file, struct weft_error *err)
{
	struct cache_file *from;
	struct rescue *rescue;
	int r = cache_file_open(path, false, &from, err);

	if (r < 0)
		return r;
	const struct cache_file_identity *id = cache_file_identity(from);
	if (!id || cache_file_dirty_bytes(from) == 0) {
		cache_file_close(from);
		return weft_error_set(err, ENODATA,
			"%s holds nothing that is not at the donor: there is nothing to rescue",
			path);
	}
	r = rescue_new(file, id->uri, id->size_bytes, &rescue, err);
	if (r == 0) {
		struct saved saved = {0};

		r = rescue_end(rescue, cache_file_each(from, rescue_put, rescue, &saved.unknown),
			err);
		saved.dirty = rescue_bytes(rescue, CACHE_CONTENT_DIRTY);
		saved.torn = rescue_bytes(rescue, CACHE_CONTENT_TORN);
		if (r == 0)
			report(path, file, &saved);
		rescue_free(rescue);
	}
	cache_file_close(from);
	return r;
}

static int from_bridge(const char *name, const char *file, struct weft_error *err)
{
	char control[WEFT_NAME_MAX + 32];
	json_t *question = json_pack("{s:s, s:s}", "op", "rescue", "file", file), *answer = NULL;
	int r;

	snprintf(control, sizeof(control), "attach-%s.sock", name);
	weft_patience_begin("weft-rescue: saving what the cache of '%s' holds to %s", name, file);
	for (;;) {
		r = weft_control_ask(control, question, ANSWER_MS, &answer, err);
		if (r < 0 || json_is_true(json_object_get(answer, "ended")))
			break;
		json_decref(answer);
		answer = NULL;
		json_object_del(question, "file"); /* from now on, ask for the progress */
		usleep(20000);
	}
	weft_patience_end();
	if (r == 0)
		report(name, file,
			&(struct saved){
				.dirty = (uint64_t)json_integer_value(
					json_object_get(answer, "dirty_bytes")),
				.clean = (uint64_t)json_integer_value(
					json_object_get(answer, "clean_bytes")),
				.torn = (uint64_t)json_integer_value(
					json_object_get(answer, "torn_bytes")),
			});
	json_decref(answer);
	json_decref(question);
	return r;
}

static int from_name(const char *name, const char *file, struct weft_error *err)
{
	struct bridge_state_file state;
	bool alive;
	int r = bridge_state_peek(name, &state, &alive, err);

	if (r < 0 && access(name, F_OK) == 0)
		return from_file(name, file, err);
	if (r < 0)
		return weft_error_set(err, ENOENT,
			"there is no attachment '%s', and no such file; weft status shows all "
			"attachments",
			name);
	if (alive)
		r = from_bridge(name, file, err);
	else if (state.cache_file)
		r = from_file(state.cache_file, file, err);
	else
		r = weft_error_set(err, ENODATA,
			"the bridge of '%s' died, and its cache with it: it had no --cache-file",
			name);
	bridge_state_fini(&state);
	return r;
}

/* The absolute path of a file that does not exist yet. */
static char *absolute(const char *path)
{
	char *dir = path[0] == '/' ? NULL : getcwd(NULL, 0), *ret = NULL;

	if (path[0] == '/')
		ret = strdup(path);
	else if (dir && asprintf(&ret, "%s/%s", dir, path) < 0)
		ret = NULL;
	free(dir);
	return ret;
}

struct rescue_options {
	const char *what; /* a name, or a cache file */
	const char *path;
	bool copies; /* look at the copies that the arguments name, instead */
	struct rescue_copies look;
	char **uris;
	unsigned nr_uris;
};

static const char which_file[] = "name an attachment or a cache file, and the file to save to";

static const struct weft_option options[] = {
	{NULL, "NAME|CACHE-FILE", "an attachment, or a cache file that a bridge left",
		WEFT_OPTION_ARGUMENT, .completion = WEFT_COMPLETE_ATTACHMENT},
	{NULL, "FILE", "where to save it", WEFT_OPTION_ARGUMENT,
		.completion = WEFT_COMPLETE_FILE},
	{"copies", NULL, "say which of these regions are current copies, and change nothing",
		WEFT_OPTION_FLAG, .into = offsetof(struct rescue_options, copies)},
	{"json", NULL, "with --copies: as JSON", WEFT_OPTION_FLAG,
		.into = offsetof(struct rescue_options, look.json)},
	{"key", "FILE",
		"with --copies: the key that the donors know (default: $WEFT_KEY,\n"
		"~/.config/weft/key, /etc/weft/key)",
		WEFT_OPTION_TEXT, .into = offsetof(struct rescue_options, look.key_file),
		.completion = WEFT_COMPLETE_FILE},
	{"allow-insecure", NULL,
		"with --copies: use no key: in plaintext, with a donor that proves nothing",
		WEFT_OPTION_FLAG, .into = offsetof(struct rescue_options, look.allow_insecure)},
	{0},
};

static int take_uris(struct rescue_options *o, const struct weft_command_line *line)
{
	o->uris = line->arguments;
	o->nr_uris = (unsigned)line->nr_arguments;
	if (o->nr_uris == 0)
		return weft_usage_error("which regions? Give the URI of each copy");
	if (o->nr_uris > BRIDGE_MAX_DONORS)
		return weft_usage_error("at most %d URIs", BRIDGE_MAX_DONORS);
	return WEFT_GO_ON;
}

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct rescue_options *o)
{
	struct weft_command_line line = {
		.command = "rescue",
		.synopsis = "NAME|CACHE-FILE FILE\n"
			    "--copies URI... [--json] [--key FILE | --allow-insecure]",
		.about = "Saves what the cache of an attachment holds, or a "
			 "cache file that a bridge left, to FILE, which has the region's\n"
			 "size and holes where nothing is known; "
			 "FILE.map tells what is known, and whether the donor has it.\n"
			 "With --copies, says which copies of a device are current, by what their "
			 "donors have noted.",
		.tables = {{options, o}},
	};
	char text[512];
	int r = weft_options_parse(&line, argc, argv);

	if (r != WEFT_GO_ON)
		return r;
	if (o->copies)
		return take_uris(o, &line);
	if (o->look.json || o->look.key_file || o->look.allow_insecure)
		return weft_usage_error("--json, --key and --allow-insecure are for --copies");
	if (line.nr_arguments > 2)
		return weft_usage_error("one attachment and one file: %s",
			weft_options_explain(&line, 2, "a file", text, sizeof(text)));
	if (line.nr_arguments < 2)
		return weft_usage_error("%s",
			line.nr_arguments == 0 ? which_file : "name the file to save to as well");
	o->what = line.arguments[0];
	o->path = line.arguments[1];
	return WEFT_GO_ON;
}

int main(int argc, char **argv)
{
	struct weft_error err = {0};
	struct rescue_options o = {0};

	weft_process_begin();
	int r = parse(argc, argv, &o);
	if (r != WEFT_GO_ON)
		return r;
	if (o.copies)
		return weft_end_output("weft-rescue",
			rescue_copies(&o.look, o.uris, o.nr_uris));
	WEFT_CLEANUP_FREE char *file = absolute(o.path);
	if (!file)
		r = weft_error_set(&err, ENOMEM, "out of memory");
	else if (strchr(o.what, '/') || !weft_name_valid(o.what))
		r = from_file(o.what, file, &err);
	else
		r = from_name(o.what, file, &err);
	if (r < 0)
		fprintf(stderr, "weft-rescue: %s\n", err.message);
	return weft_end_output("weft-rescue", r < 0 ? 1 : 0);
}
