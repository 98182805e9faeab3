/* SPDX-License-Identifier: MIT */
/*
 * weft pull: makes a file the same as a region, and reads only what differs.  One thread, beside
 * the library's.
 *
 * A file that is there is changed in place.  A file that is new gets its name once it is complete;
 * until then, and after a pull that was cut off, it is called NAME.weft-pull, where the next one
 * goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"
#include "nbd-bridge/main/pull-watch.h"
#include "nbd-bridge/main/sync-command.h"
#include "nbd-bridge/main/sync.h"
#include "nbd-bridge/main/work-file.h"

enum {
	MAX_PASSES = 8, /* beside a writer */
	PIECE_BYTES = 1 << 20,
	NR_PIECES = 64, /* for standard output: a round trip of 25 ms at 2.6 GB/s */
};

struct pull {
	struct sync_command c;
	bool shared, watch;
	uint32_t interval_ms;
	int fd;
	bool is_regular;
	char *partial; /* what the file is called until it is complete; NULL: it is there */
};

static const struct weft_option options[] = {
	{NULL, "URI", "of the region; several are one, striped over them", WEFT_OPTION_ARGUMENT,
		.completion = WEFT_COMPLETE_URI,
		.wants = "what to pull, and where to? weft pull weft://HOST/REGION FILE"},
	{NULL, "FILE", "a file, a block device, or - for standard output", WEFT_OPTION_ARGUMENT,
		.completion = WEFT_COMPLETE_FILE,
		.wants = "where to? Name a file as well, or - for standard output"},
	{"shared", NULL,
		"although somebody may be writing to the region: until a pass finds\n"
		"nothing new, or in vain",
		WEFT_OPTION_FLAG, .into = offsetof(struct pull, shared)},
	{"watch", NULL,
		"go on: FILE becomes each state of the region that its writer marks,\n"
		"at once and as a whole",
		WEFT_OPTION_FLAG, .into = offsetof(struct pull, watch)},
	{"interval", "SECONDS", "with --watch, between two looks at the mark (1)",
		WEFT_OPTION_SECONDS, .into = offsetof(struct pull, interval_ms),
		.wants = "seconds"},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct pull *p)
{
	struct weft_command_line line = {
		.command = "pull",
		.synopsis = "URI... FILE|- [--shared | --watch [--interval SECONDS]] [--json]\n"
			    "     [--stripe-unit SIZE] [--key FILE | --allow-insecure]",
		.about = "Makes FILE the same as a region.  Each side hashes what it has, and only "
			 "the blocks of 4 KiB that differ\n"
			 "are read.",
		.tables = {{options, p}, {sync_command_options, &p->c}},
	};
	int r = weft_options_parse(&line, argc, argv);

	if (r == WEFT_GO_ON)
		r = sync_command_take_arguments(&p->c, &line, false);
	if (r == WEFT_GO_ON && p->c.json && strcmp(p->c.file, "-") == 0)
		return weft_usage_error("--json and - both want standard output");
	if (r == WEFT_GO_ON && p->watch && strcmp(p->c.file, "-") == 0)
		return weft_usage_error("--watch wants a file, which can be replaced");
	if (r == WEFT_GO_ON && p->interval_ms && !p->watch)
		return weft_usage_error("--interval belongs to --watch");
	return r;
}

/* ---- the file ---- */

static int file_error(const struct pull *p, const char *what, struct weft_error *err)
{
	const int code = errno;

	return weft_error_set(err, code, "cannot %s %s: %s", what,
		p->partial ? p->partial : p->c.file, strerror(code));
}

static int open_file(struct pull *p, struct weft_error *err)
{
	struct stat st;

	p->fd = open(p->c.file, O_RDWR | O_CLOEXEC);
	if (p->fd < 0 && errno == ENOENT) {
		if (asprintf(&p->partial, "%s.weft-pull", p->c.file) < 0) {
			p->partial = NULL;
			return weft_error_set(err, ENOMEM, "out of memory");
		}
		p->fd = open(p->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	}
	if (p->fd < 0)
		return file_error(p, "open", err);
	if (fstat(p->fd, &st) < 0)
		return file_error(p, "look at", err);
	p->is_regular = S_ISREG(st.st_mode);
	if (!p->is_regular && !S_ISBLK(st.st_mode))
		return weft_error_set(err, EINVAL,
			"%s is neither a file nor a block device; - is standard output",
			p->c.file);
	return 0;
}

/* What is behind the region's end would be cut off, or is not there to be written. */
static int check_size(const struct pull *p, struct weft_error *err)
{
	const off_t len = lseek(p->fd, 0, SEEK_END);
	char size[32], has[32];

	if (len < 0)
		return file_error(p, "look at", err);
	if (p->is_regular ? (uint64_t)len <= p->c.region_bytes
			  : (uint64_t)len >= p->c.region_bytes)
		return 0;
	return weft_error_set(err, EINVAL, "%s has %s, and the region %s: nothing was changed",
		p->partial ? p->partial : p->c.file,
		weft_format_size((uint64_t)len, size, sizeof(size)),
		weft_format_size(p->c.region_bytes, has, sizeof(has)));
}

/* Its length, on disk; complete: under its own name. */
static int finish_file(struct pull *p, bool complete, struct weft_error *err)
{
	if (complete && p->is_regular && ftruncate(p->fd, (off_t)p->c.region_bytes) < 0)
		return file_error(p, "set the length of", err);
	if (fsync(p->fd) < 0)
		return file_error(p, "make durable", err);
	if (!complete || !p->partial)
		return 0;
	if (rename(p->partial, p->c.file) < 0)
		return file_error(p, "rename", err);
	return work_file_sync_name(p->c.file, err);
}

/* ---- pulling ---- */

/* 0, or -EAGAIN: a writer never paused; or as sync_pass(). */
static int pull_passes(struct pull *p, struct sync *sync, struct weft_error *err)
{
	for (unsigned i = 0; i < MAX_PASSES; i++) {
		const uint64_t before = sync_totals(sync)->different;
		int r = sync_pass(sync, err);

		if (r < 0)
			return r;
		if (!p->shared && sync_totals(sync)->unsettled > 0)
			return weft_error_set(err, EIO,
				"what came from the donor is not what it had hashed");
		if (!p->shared || sync_totals(sync)->different == before)
			return 0;
	}
	return weft_error_set(err, EAGAIN,
		"the region changed in each of %d passes: %s has blocks of several moments; pull "
		"while its writer pauses",
		MAX_PASSES, p->partial ? p->partial : p->c.file);
}

static int pull_file(struct pull *p, struct weft_error *err)
{
	struct sync_config config = {
		.direction = SYNC_PULL,
		.fd = p->fd,
		.name = p->partial ? p->partial : p->c.file,
		.len = p->c.region_bytes,
	};
	struct sync *sync;
	int r = check_size(p, err);

	if (r == 0)
		r = sync_command_begin(&p->c, &config, &sync, err);
	if (r < 0)
		return r;
	r = pull_passes(p, sync, err);
	if (r == 0 || r == -EINTR || r == -EAGAIN) {
		struct weft_error why;
		int finished = finish_file(p, r == 0, &why);

		if (finished < 0) {
			*err = why;
			return finished;
		}
	}
	if (r == 0 || r == -EINTR)
		sync_command_report(&p->c, sync_totals(sync), true, r == 0);
	return r;
}

struct piece {
	int64_t cookie;
	uint64_t off;
	uint32_t len;
};

static int begin_piece(struct pull *p, struct piece *piece, uint8_t *to, uint64_t off)
{
	piece->off = off;
	piece->len = (uint32_t)weft_min(PIECE_BYTES, p->c.region_bytes - off);
	piece->cookie = weft_aio_pread(p->c.w, to, piece->len, off, NULL);
	return piece->cookie < 0 ? (int)piece->cookie : 0;
}

/* All of it, in order. */
static int pull_stream(struct pull *p, struct weft_error *err)
{
	const uint64_t nr = (p->c.region_bytes + PIECE_BYTES - 1) / PIECE_BYTES;
	WEFT_CLEANUP_FREE uint8_t *data = malloc((size_t)NR_PIECES * PIECE_BYTES);
	struct piece pieces[NR_PIECES];
	uint64_t begun = 0, ended = 0;
	int r = data ? 0 : weft_error_set(err, ENOMEM, "out of memory");

	sync_command_catch_signals(&p->c);
	while (r == 0 && ended < nr && !p->c.stop) {
		for (; r == 0 && begun < nr && begun < ended + NR_PIECES; begun++)
			r = begin_piece(p, &pieces[begun % NR_PIECES],
				data + begun % NR_PIECES * PIECE_BYTES, begun * PIECE_BYTES);
		const struct piece *piece = &pieces[ended % NR_PIECES];
		if (r == 0)
			r = weft_aio_wait(p->c.w, piece->cookie);
		if (r < 0) {
			weft_error_set(err, -r, "cannot read the region: %s", strerror(-r));
			break;
		}
		r = weft_write_all(STDOUT_FILENO, data + ended % NR_PIECES * PIECE_BYTES,
			piece->len);
		if (r < 0)
			weft_error_set(err, -r, "cannot write to standard output: %s",
				strerror(-r));
		ended++;
	}
	/* What is in flight ends with the handle, before its buffers do. */
	weft_close(p->c.w);
	p->c.w = NULL;
	return r < 0 ? r : p->c.stop ? -EINTR : 0;
}

static int pull(struct pull *p, struct weft_error *err)
{
	const bool stream = strcmp(p->c.file, "-") == 0, beside = p->shared || p->watch;
	int r = stream || p->watch ? 0 : open_file(p, err);

	if (r == 0)
		r = sync_command_open(&p->c,
			WEFT_OPEN_READ_ONLY | (beside ? WEFT_OPEN_SHARED : 0), err);
	if (r == 0 && p->watch)
		return pull_watch(&p->c, p->interval_ms, err);
	if (r == 0)
		r = stream ? pull_stream(p, err) : pull_file(p, err);
	return r;
}

int main(int argc, char **argv)
{
	struct weft_error err = {0};
	struct pull p = {.c = {.program = "weft-pull"}, .fd = -1};

	weft_process_begin();
	int r = parse(argc, argv, &p);
	if (r != WEFT_GO_ON)
		return r;
	r = pull(&p, &err);
	sync_command_end_progress(&p.c);
	sync_command_fini(&p.c);
	if (r == -EINTR)
		fprintf(stderr,
			"weft-pull: stopped: %s has some blocks of the region and some of before; "
			"the same command goes on\n",
			p.partial ? p.partial : p.c.file);
	else if (r < 0)
		fprintf(stderr, "weft-pull: %s\n", err.message);
	weft_close_fd(p.fd);
	free(p.partial);
	return weft_end_output("weft-pull", r < 0 ? 1 : 0);
}
