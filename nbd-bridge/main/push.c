/* SPDX-License-Identifier: MIT */
/*
 * weft push: makes a region the same as a file, and writes only what differs.  One thread, beside
 * the library's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"
#include "nbd-bridge/main/sync-command.h"
#include "nbd-bridge/main/sync.h"

static const struct weft_option options[] = {
	{NULL, "FILE", "a file, a block device, or - for standard input", WEFT_OPTION_ARGUMENT,
		.into = offsetof(struct sync_command, file), .completion = WEFT_COMPLETE_FILE,
		.wants = "what to push, and where to? weft push FILE weft://HOST/REGION"},
	{NULL, "URI", "of the region", WEFT_OPTION_ARGUMENT,
		.into = offsetof(struct sync_command, uri), .completion = WEFT_COMPLETE_URI,
		.wants = "where to? Give the URI of a region as well, such as weft://HOST/REGION"},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct sync_command *c)
{
	struct weft_command_line line = {
		.command = "push",
		.synopsis = "FILE|- URI [--json] [--key FILE | --allow-insecure]",
		.about = "Makes a region the same as FILE, from the beginning of both.  Each side "
			 "hashes what it has, and only the\n"
			 "blocks of 4 KiB that differ are written.",
		.tables = {{options, c}, {sync_command_options, c}},
		.surplus = "one file and one region",
		.noun = "a file and a URI",
	};

	return weft_options_parse(&line, argc, argv);
}

/* The file, and how long it is. */
static int open_file(const struct sync_command *c, struct sync_config *config,
	struct weft_error *err)
{
	const bool is_input = strcmp(c->file, "-") == 0;

	config->name = is_input ? "standard input" : c->file;
	config->fd = is_input ? STDIN_FILENO : open(c->file, O_RDONLY | O_CLOEXEC);
	if (config->fd < 0)
		return weft_error_set(err, errno, "cannot open %s: %s", c->file, strerror(errno));
	off_t len = is_input ? -1 : lseek(config->fd, 0, SEEK_END);
	if (!is_input && len < 0 && errno != ESPIPE)
		return weft_error_set(err, errno, "cannot push %s: %s", c->file, strerror(errno));
	config->stream = len < 0;
	config->len = len < 0 ? 0 : (uint64_t)len;
	return 0;
}

static int check_size(const struct sync_command *c, const struct sync_config *config,
	struct weft_error *err)
{
	char size[32], has[32];

	if (config->len <= c->region_bytes)
		return 0;
	return weft_error_set(err, ENOSPC, "%s has %s, and the region %s: nothing was written",
		c->file, weft_format_size(config->len, size, sizeof(size)),
		weft_format_size(c->region_bytes, has, sizeof(has)));
}

static int flush(struct sync_command *c, struct weft_error *err)
{
	int r = weft_flush(c->w);

	return r < 0 ? weft_error_set(err, -r, "the donor cannot make it durable: %s",
			       strerror(-r))
		     : 0;
}

/* 0; -EINTR: stopped, and what was done is told; or another -errno. */
static int push(struct sync_command *c, struct weft_error *err)
{
	struct sync_config config = {.direction = SYNC_PUSH};
	struct sync *sync;
	int r = open_file(c, &config, err);

	if (r == 0)
		r = sync_command_open(c, 0, err);
	if (r == 0)
		r = check_size(c, &config, err);
	if (r == 0)
		r = sync_command_begin(c, &config, &sync, err);
	if (r < 0)
		return r;
	r = sync_pass(sync, err);
	/* What was written before a stop is kept too. */
	if (r == 0 || r == -EINTR) {
		int flushed = flush(c, err);

		r = flushed < 0 ? flushed : r;
	}
	if (r == 0)
		r = sync_verify(sync, err);
	sync_command_end_progress(c);
	if (r == 0 || r == -EINTR)
		sync_command_report(c, sync_totals(sync), false, r == 0);
	return r;
}

int main(int argc, char **argv)
{
	struct weft_error err = {0};
	struct sync_command c = {.program = "weft-push"};

	weft_process_begin();
	int r = parse(argc, argv, &c);
	if (r != WEFT_GO_ON)
		return r;
	r = push(&c, &err);
	sync_command_fini(&c);
	if (r == -EINTR)
		fprintf(stderr,
			"weft-push: stopped: the region has some blocks of %s and some of before; "
			"the same command goes on\n",
			c.file);
	else if (r < 0)
		fprintf(stderr, "weft-push: %s\n", err.message);
	return weft_end_output("weft-push", r < 0 ? 1 : 0);
}
