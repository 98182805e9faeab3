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

struct push {
	struct sync_command c;
	bool watch, mark, new_contents;
	bool marked;     /* the mark is set, … */
	uint64_t number; /* … and this */
	uint32_t interval_ms;
};

static const struct weft_option options[] = {
	{NULL, "FILE", "a file, a block device, or - for standard input", WEFT_OPTION_ARGUMENT,
		.completion = WEFT_COMPLETE_FILE,
		.wants = "what to push, and where to? weft push FILE weft://HOST/REGION"},
	{NULL, "URI", "of the region; several are one, striped over them", WEFT_OPTION_ARGUMENT,
		.completion = WEFT_COMPLETE_URI,
		.wants = "where to? Give the URI of a region as well, such as weft://HOST/REGION"},
	{"mark", NULL, "FILE is not written meanwhile: mark the region for those who follow it",
		WEFT_OPTION_FLAG, .into = offsetof(struct push, mark)},
	{"watch", NULL, "go on: look at FILE again and again, and push what changed",
		WEFT_OPTION_FLAG, .into = offsetof(struct push, watch)},
	{"interval", "SECONDS", "with --watch, between two looks (1)", WEFT_OPTION_SECONDS,
		.into = offsetof(struct push, interval_ms), .wants = "seconds"},
	{"new-contents", NULL,
		"with several URIs: give up what the regions hold as parts of another device, or "
		"alone",
		WEFT_OPTION_FLAG, .into = offsetof(struct push, new_contents)},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct push *p)
{
	struct weft_command_line line = {
		.command = "push",
		.synopsis = "FILE|- URI... [--mark | --watch [--interval SECONDS]] [--json]\n"
			    "     [--stripe-unit SIZE] [--new-contents] "
			    "[--key FILE | --allow-insecure]",
		.about = "Makes a region the same as FILE, from the beginning of both.  Each side "
			 "hashes what it has, and only the\n"
			 "blocks of 4 KiB that differ are written.",
		.tables = {{options, p}, {sync_command_options, &p->c}},
	};
	int r = weft_options_parse(&line, argc, argv);

	if (r == WEFT_GO_ON)
		r = sync_command_take_arguments(&p->c, &line, true);
	if (r == WEFT_GO_ON && p->new_contents && p->c.nr_uris == 1)
		return weft_usage_error("--new-contents is for several URIs");
	if (r == WEFT_GO_ON && p->watch && strcmp(p->c.file, "-") == 0)
		return weft_usage_error("--watch wants a file, which can be read again");
	if (r == WEFT_GO_ON && p->watch && p->mark)
		return weft_usage_error("--watch sets marks by itself, when FILE has not changed");
	if (r == WEFT_GO_ON && p->interval_ms && !p->watch)
		return weft_usage_error("--interval belongs to --watch");
	return r;
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

/* A pass whose bytes are at the donor in the end.  0; -EINTR: stopped; or another -errno. */
static int pass(struct push *p, struct sync *sync, struct weft_error *err)
{
	const uint64_t before = sync_totals(sync)->different;
	int r = sync_pass(sync, err);

	/* What was written before a stop is kept too. */
	if ((r == 0 || r == -EINTR) && sync_totals(sync)->different > before) {
		int flushed = flush(&p->c, err);

		r = flushed < 0 ? flushed : r;
	}
	return r < 0 ? r : sync_verify(sync, err);
}

/* ---- the mark ---- */

/* Sets it, and notes which it is. */
static int set_mark(struct push *p)
{
	struct weft_mark mark = {.size = sizeof(mark)};
	int r = weft_mark(p->c.w);

	if (r == 0)
		r = weft_mark_look(p->c.w, &mark);
	p->marked = r == 0 && mark.is_set;
	p->number = mark.number;
	return r;
}

/* Whether it is still set: a donor that started anew has none. */
static int keep_mark(struct push *p)
{
	struct weft_mark mark = {.size = sizeof(mark)};
	int r = p->marked ? weft_mark_look(p->c.w, &mark) : 0;

	return r < 0 || (p->marked && mark.is_set && mark.number == p->number) ? r : set_mark(p);
}

static int mark_error(int r, struct weft_error *err)
{
	return weft_error_set(err, -r, "the region cannot be marked: %s",
		r == -EOPNOTSUPP ? "its donor runs an older weft" : strerror(-r));
}

/* ---- passes ---- */

static int check_length(const struct push *p, const struct sync_config *config,
	struct weft_error *err)
{
	const off_t len = lseek(config->fd, 0, SEEK_END);

	if (len == (off_t)config->len)
		return 0;
	return weft_error_set(err, EIO, "%s has another length than before; push it anew",
		p->c.file);
}

/* Until it is asked to stop, between two passes or in one. */
static int watch(struct push *p, struct sync *sync, const struct sync_config *config,
	struct weft_error *err)
{
	uint64_t before = sync_totals(sync)->different;
	bool settled = false, can_mark = true;
	int r = 0;

	while (r == 0 && !p->c.stop) {
		sync_command_rest(&p->c, p->interval_ms);
		if (p->c.stop)
			break;
		sync_command_begin_work(&p->c);
		r = check_length(p, config, err);
		if (r == 0)
			r = pass(p, sync, err);
		const uint64_t different = sync_totals(sync)->different - before;
		const bool was_marked = p->marked && different == 0;
		if (r == 0 && different == 0 && can_mark)
			r = keep_mark(p);
		else if (different > 0)
			p->marked = false; /* the first write took it away */
		if (r == -EOPNOTSUPP) {
			can_mark = false;
			r = 0;
		}
		if (r < 0 && r != -EINTR && err->code == 0)
			mark_error(r, err);
		if (r == 0 && (different > 0 || !settled || p->marked != was_marked))
			sync_command_report_pass(&p->c, different, p->marked);
		settled = different == 0;
		before += different;
	}
	return r;
}

/* 0; -EINTR: stopped in a pass, and what was done is told; or another -errno. */
static int push(struct push *p, struct weft_error *err)
{
	struct sync_config config = {.direction = SYNC_PUSH};
	struct sync *sync;
	int r = open_file(&p->c, &config, err);

	if (r == 0 && p->watch && config.stream)
		r = weft_error_set(err, ESPIPE, "%s cannot be read again, as --watch does",
			p->c.file);
	config.again = p->watch;
	if (r == 0)
		r = sync_command_open(&p->c, p->new_contents ? WEFT_OPEN_NEW_CONTENTS : 0, err);
	if (r == 0)
		r = check_size(&p->c, &config, err);
	if (r == 0)
		r = sync_command_begin(&p->c, &config, &sync, err);
	if (r < 0)
		return r;
	r = pass(p, sync, err);
	if (r == 0 && p->mark) {
		r = weft_mark(p->c.w);
		r = r < 0 ? mark_error(r, err) : 0;
	}
	sync_command_end_progress(&p->c);
	if (r == 0 || r == -EINTR)
		sync_command_report(&p->c, sync_totals(sync), false, r == 0);
	return r == 0 && p->watch ? watch(p, sync, &config, err) : r;
}

int main(int argc, char **argv)
{
	struct weft_error err = {0};
	struct push p = {.c = {.program = "weft-push"}};

	weft_process_begin();
	int r = parse(argc, argv, &p);
	if (r != WEFT_GO_ON)
		return r;
	r = push(&p, &err);
	sync_command_fini(&p.c);
	if (r == -EINTR)
		fprintf(stderr,
			"weft-push: stopped: the region has some blocks of %s and some of before; "
			"the same command goes on\n",
			p.c.file);
	else if (r < 0)
		fprintf(stderr, "weft-push: %s\n", err.message);
	return weft_end_output("weft-push", r < 0 ? 1 : 0);
}
