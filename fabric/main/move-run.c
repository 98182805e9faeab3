/* SPDX-License-Identifier: MIT */
/*
 * Moves of one region or several to one donor: some at a time, all of them looked at in turn.  One
 * thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/patience.h"
#include "fabric/base/util.h"
#include "fabric/main/move-job.h"

enum {
	AT_ONCE = 8,         /* moves; as many as a donor has time for */
	FIRST_PAUSE_MS = 10, /* between two looks, then twice that, and so on */
	WAIT_MS = 600000,    /* for borrowers to come, whatever lease the donor says that it has */
};

struct run {
	const struct move_options *options;
	struct move_donor taker;
	struct move_table table;
	struct move_job *jobs;
	unsigned nr, nr_begun;
	char group[MOVE_ID_LEN + 1]; /* "": each has its own bandwidth */
};

/*
 * A question that changes nothing, since its wait can be given up: whether the donor is there, lets
 * us in, and knows of moves.
 */
static int knock(struct run *run, struct weft_error *err)
{
	json_t *answer;

	weft_patience_begin("weft-move: waiting for an answer of %s, up to %d s (Ctrl-C gives up)",
		run->taker.name, MOVE_ANSWER_MS / 1000);
	int r = move_donor_ask(&run->taker, json_pack("{s:s}", "op", "takes"), MOVE_ANSWER_MS,
		move_until_interrupted(), &answer, err);
	weft_patience_end();
	if (r == 0)
		json_decref(answer);
	else if (r != -ENOSYS && move_donor_said_so(&run->taker))
		weft_error_prefix(err, "%s", run->taker.name);
	return r;
}

/* Of one of several, which do not stop for it. */
static void tell_error(struct run *run, const struct weft_error *err)
{
	move_table_clear(&run->table);
	fprintf(stderr, "weft-move: %s\n", err->message);
}

static bool is_under_way(const struct move_job *job)
{
	return job->id[0] && job->result == MOVE_GOES_ON;
}

static unsigned count(const struct run *run, bool (*is)(const struct move_job *job))
{
	unsigned nr = 0;

	for (unsigned i = 0; i < run->nr_begun; i++)
		nr += is(&run->jobs[i]);
	return nr;
}

static bool has_moved(const struct move_job *job)
{
	return job->result == MOVE_MOVED;
}

static void begin_some(struct run *run)
{
	struct weft_error err;

	while (run->nr_begun < run->nr && count(run, is_under_way) < AT_ONCE &&
		!move_is_interrupted()) {
		struct move_job *job = &run->jobs[run->nr_begun++];

		if (move_job_begin(job, run->group, &err) < 0) {
			job->result = MOVE_FAILED;
			tell_error(run, &err);
		}
	}
}

static void draw(struct run *run)
{
	struct move_row rows[AT_ONCE];
	unsigned nr = 0;

	for (unsigned i = 0; i < run->nr_begun; i++)
		if (is_under_way(&run->jobs[i]))
			rows[nr++] =
				(struct move_row){run->jobs[i].from_text, &run->jobs[i].status};
	move_table_draw(&run->table, rows, nr, count(run, has_moved), run->nr);
}

/*
 * Until the next look: short at first, after a move has come to another phase, and when it is about
 * to do so.  *io_ms is what it would be without the latter.
 */
static int next_pause_ms(const struct run *run, int *io_ms)
{
	uint64_t ms = MOVE_PAUSE_MS;

	for (unsigned i = 0; i < run->nr_begun; i++) {
		const struct move_job *job = &run->jobs[i];

		if (!is_under_way(job))
			continue;
		if (job->phase_is_new)
			*io_ms = FIRST_PAUSE_MS;
		if (job->status.eta_ms > 0)
			ms = weft_min(ms,
				weft_max((uint64_t)job->status.eta_ms / 2, FIRST_PAUSE_MS));
	}
	ms = weft_min(ms, (uint64_t)*io_ms);
	*io_ms = (int)weft_min(2 * (uint64_t)*io_ms, MOVE_PAUSE_MS);
	return (int)ms;
}

static void carry_out(struct run *run)
{
	int pause_ms = FIRST_PAUSE_MS;

	for (;;) {
		begin_some(run);
		for (unsigned i = 0; i < run->nr_begun; i++)
			if (is_under_way(&run->jobs[i]))
				move_job_look(&run->jobs[i]);
		if (count(run, is_under_way) == 0) {
			if (run->nr_begun == run->nr || move_is_interrupted())
				break;
			continue;
		}
		draw(run);
		move_rest(next_pause_ms(run, &pause_ms));
	}
	move_table_clear(&run->table);
}

/* ---- borrowers ---- */

/* How many have not come to the donor that has their region now. */
static unsigned ask_who_waits(struct run *run)
{
	struct weft_error err;
	unsigned nr = 0;

	for (unsigned i = 0; i < run->nr; i++) {
		struct move_job *job = &run->jobs[i];

		if (!has_moved(job) || !job->id[0])
			continue;
		/* A donor that has forgotten the move has no borrower of before either. */
		if (move_job_ask_who_waits(job, &err) < 0)
			job->status.waiting = 0;
		nr += job->status.waiting;
	}
	return nr;
}

static void tell_who_waits(const struct run *run, const char *what)
{
	for (unsigned i = 0; i < run->nr; i++) {
		const struct move_job *job = &run->jobs[i];

		if (has_moved(job) && job->status.waiting > 0)
			fprintf(stderr, "weft-move: %s: %s %s\n", job->to_text,
				job->status.who[0] ? job->status.who : "a reader", what);
	}
}

/* Until each borrower is at the other donor, or that one's lease for it is over. */
static void wait_for_borrowers(struct run *run)
{
	const uint64_t begin_ns = weft_now_ns();
	bool told = false;

	while (ask_who_waits(run) > 0 && !move_is_interrupted()) {
		uint64_t ms = (weft_now_ns() - begin_ns) / 1000000;

		if (ms > WAIT_MS)
			break;
		if (!told && ms > 1000) {
			tell_who_waits(run,
				"has not come there yet; waiting for that, up to a "
				"lease (Ctrl-C ends the wait)");
			told = true;
		}
		move_rest(MOVE_PAUSE_MS);
	}
	tell_who_waits(run, "has not come there");
}

/* ---- all ---- */

static int try_all(struct run *run)
{
	struct weft_error err;
	int ret = 0;

	for (unsigned i = 0; i < run->nr; i++) {
		int r = move_job_try(&run->jobs[i], &err);

		if (r < 0)
			tell_error(run, &err);
		ret = r == 0 ? ret : 1;
	}
	return ret;
}

/* Of several: which are where they were.  What became of each has been told. */
static void tell_sum(const struct run *run)
{
	const unsigned moved = count(run, has_moved);

	if (run->nr < 2 || moved == run->nr)
		return;
	fprintf(stderr, "weft-move: %u of %u regions have moved; not:", moved, run->nr);
	for (unsigned i = 0; i < run->nr; i++)
		if (!has_moved(&run->jobs[i]))
			fprintf(stderr, " %s", run->jobs[i].from_text);
	fputc('\n', stderr);
}

static int move_all(struct run *run, struct weft_error *err)
{
	int r = knock(run, err);

	if (r < 0)
		return r;
	if (run->options->dry_run)
		return try_all(run);
	carry_out(run);
	if (run->nr_begun == 0)
		return -ECANCELED;
	if (run->options->wait)
		wait_for_borrowers(run);
	tell_sum(run);
	return count(run, has_moved) == run->nr ? 0 : 1;
}

int move_run(const struct move_options *options, const struct weft_uri *uris, unsigned nr,
	struct weft_error *err)
{
	struct run run = {
		.options = options,
		.table = {.terminal = isatty(STDERR_FILENO), .begin_ns = weft_now_ns()},
		.jobs = calloc(nr + 1, sizeof(*run.jobs)),
	};
	int r = run.jobs ? move_donor_begin(&uris[nr], &options->keys, &run.taker, err)
			 : weft_error_set(err, ENOMEM, "no memory");

	while (r == 0 && run.nr < nr) {
		r = move_job_init(&run.jobs[run.nr], options, &run.taker, &run.table, &uris[run.nr],
			&uris[nr], err);
		run.nr++;
	}
	if (nr > 1 && options->bandwidth)
		snprintf(run.group, sizeof(run.group), "%016llx",
			(unsigned long long)weft_random_name());
	if (r == 0)
		r = move_all(&run, err);
	for (unsigned i = 0; i < run.nr; i++)
		move_job_fini(&run.jobs[i]);
	move_donor_end(&run.taker);
	free(run.jobs);
	return r;
}
