/* SPDX-License-Identifier: MIT */
/*
 * Following a region; see pull-watch.h.  What is read between two looks at the mark that find it
 * set, with the same number, is the marked state (tests/model/marks.pml); anything else is read
 * again, and never shown.  One thread.
 */
#include "nbd-bridge/main/pull-watch.h"

#include <errno.h>
#include <string.h>

#include "nbd-bridge/library/weft.h"
#include "nbd-bridge/main/work-file.h"

struct follower {
	struct sync_command *c;
	struct work_file file;
	uint32_t interval_ms;
	bool has_shown, told_unmarked, told_gone;
	uint64_t shown; /* the mark of the file */
};

static int look(struct follower *f, struct weft_mark *ret, struct weft_error *err)
{
	*ret = (struct weft_mark){.size = sizeof(*ret)};
	int r = weft_mark_look(f->c->w, ret);

	if (r == 0 || r == -ENOTCONN || r == -ETIMEDOUT)
		return r;
	return weft_error_set(err, -r, "%s",
		r == -EOPNOTSUPP ? "the donor keeps no marks: it runs an older weft"
		: r == -ESTALE   ? "the region's contents are gone"
				 : strerror(-r));
}

/* The donor may come back with the same contents. */
static int is_gone(struct follower *f)
{
	if (!f->told_gone)
		sync_command_report_gone(f->c);
	f->told_gone = true;
	return 0;
}

/* 0: the file to come is what the region has; or as sync_pass(). */
static int pull_once(struct follower *f, struct sync_totals *ret, struct weft_error *err)
{
	struct sync_config config = {
		.direction = SYNC_PULL,
		.fd = f->file.fd,
		.name = f->file.work,
		.len = f->c->region_bytes,
	};
	struct sync *sync;

	sync_command_begin_work(f->c);
	int r = sync_command_begin(f->c, &config, &sync, err);

	if (r == 0)
		r = sync_pass(sync, err);
	if (r == 0)
		*ret = *sync_totals(sync);
	sync_command_end_progress(f->c);
	return r;
}

/* A state that is marked, and is not the one that is shown. */
static int follow(struct follower *f, const struct weft_mark *mark, struct weft_error *err)
{
	struct sync_totals totals;
	struct weft_mark now;
	int r = f->file.fd < 0 ? work_file_open(&f->file, f->c->region_bytes, err) : 0;

	if (r == 0)
		r = pull_once(f, &totals, err);
	if (r == 0)
		r = look(f, &now, err);
	if (r < 0 || !now.is_set || now.number != mark->number)
		return r; /* it is another by now: from the beginning */
	r = work_file_show(&f->file, f->c->region_bytes, err);
	if (r < 0)
		return r;
	f->has_shown = true;
	f->shown = now.number;
	f->told_unmarked = false;
	sync_command_report_marked(f->c, &totals, &now);
	return 0;
}

static int step(struct follower *f, struct weft_error *err)
{
	struct weft_mark mark;
	int r = look(f, &mark, err);

	if (r == 0 && f->told_gone)
		f->told_gone = false;
	if (r == 0 && mark.is_set && !(f->has_shown && f->shown == mark.number))
		r = follow(f, &mark, err);
	else if (r == 0 && mark.is_set)
		f->told_unmarked = false;
	if (r == 0 && !mark.is_set && !f->told_unmarked) {
		sync_command_report_unmarked(f->c, &mark);
		f->told_unmarked = true;
	}
	return r == -ENOTCONN || r == -ETIMEDOUT ? is_gone(f) : r;
}

int pull_watch(struct sync_command *c, uint32_t interval_ms, struct weft_error *err)
{
	struct follower f = {.c = c, .interval_ms = interval_ms};
	int r = work_file_init(&f.file, c->file, err);

	sync_command_catch_signals(c);
	while (r == 0 && !c->stop) {
		r = step(&f, err);
		if (r == 0)
			sync_command_rest(c, f.interval_ms);
	}
	work_file_fini(&f.file);
	return r == -EINTR ? 0 : r;
}
