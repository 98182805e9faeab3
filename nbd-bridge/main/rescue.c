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
};

static const struct weft_option options[] = {
	{NULL, "NAME|CACHE-FILE", "an attachment, or a cache file that a bridge left",
		WEFT_OPTION_ARGUMENT, .into = offsetof(struct rescue_options, what),
		.completion = WEFT_COMPLETE_ATTACHMENT,
		.wants = "name an attachment or a cache file, and the file to save to"},
	{NULL, "FILE", "where to save it", WEFT_OPTION_ARGUMENT,
		.into = offsetof(struct rescue_options, path), .completion = WEFT_COMPLETE_FILE,
		.wants = "name the file to save to as well"},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct rescue_options *o)
{
	struct weft_command_line line = {
		.command = "rescue",
		.synopsis = "NAME|CACHE-FILE FILE",
		.about = "Saves what the cache of an attachment holds, or a "
			 "cache file that a bridge left, to FILE, which has the region's\n"
			 "size and holes where nothing is known; "
			 "FILE.map tells what is known, and whether the donor has it.",
		.tables = {{options, o}},
		.surplus = "one attachment and one file",
		.noun = "a file",
	};

	return weft_options_parse(&line, argc, argv);
}

int main(int argc, char **argv)
{
	struct weft_error err = {0};
	struct rescue_options o = {0};

	weft_process_begin();
	int r = parse(argc, argv, &o);
	if (r != WEFT_GO_ON)
		return r;
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
