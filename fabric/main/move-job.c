/* SPDX-License-Identifier: MIT */
#include "fabric/main/move-job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/patience.h"
#include "fabric/base/util.h"

enum {
	TAKE_MS = 60000, /* for a question that makes the donor ask the other one */
	LOST_MS = 10000, /* for a donor that does not answer to come back */
};

int move_job_init(struct move_job *j, const struct move_options *options, struct move_donor *taker,
	struct move_table *table, const struct weft_uri *from, const struct weft_uri *to,
	struct weft_error *err)
{
	*j = (struct move_job){
		.options = options,
		.taker = taker,
		.table = table,
		.from = *from,
		.to = *to,
		.status = {.phase = "asked", .eta_ms = -1, .downtime_ms = -1},
	};
	if (!j->to.region[0])
		j->to.region = j->from.region;
	j->from_text = weft_uri_format(&j->from);
	j->to_text = weft_uri_format(&j->to);
	j->report = (struct move_report){
		.from = j->from_text,
		.to = j->to_text,
		.id = j->id,
		.json = options->json,
		.begin_ns = weft_now_ns(),
	};
	if (!j->from_text || !j->to_text)
		return weft_error_set(err, ENOMEM, "no memory");
	return move_donor_begin(&j->from, &options->keys, &j->giver, err);
}

void move_job_fini(struct move_job *j)
{
	move_donor_end(&j->giver);
	free(j->from_text);
	free(j->to_text);
}

/* ---- asking ---- */

static int ask_status(struct move_job *j, const char *op, struct weft_error *err)
{
	json_t *answer;
	int r = move_donor_ask(j->taker, json_pack("{s:s, s:s}", "op", op, "move", j->id),
		MOVE_ANSWER_MS, move_until_interrupted(), &answer, err);

	if (r < 0)
		return r;
	r = move_status_read(answer, &j->status, err);
	json_decref(answer);
	return r;
}

static int take(struct move_job *j, const char *group, json_t **ret, struct weft_error *err)
{
	const struct move_options *o = j->options;
	WEFT_CLEANUP_FREE char *as = NULL;
	struct weft_uri to = j->to;

	/* Borrowers have keys of their own. */
	to.identity[0] = '\0';
	as = weft_uri_format(&to);
	json_t *question = as
		? json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:b, s:b}", "op", "take", "from",
			  j->from_text, "region", j->to.region, "as", as, "bandwidth",
			  (json_int_t)o->bandwidth, "downtime_ms", (int)o->downtime_ms,
			  "disconnect", o->disconnect, "dry_run", o->dry_run)
		: NULL;

	if (o->post_copy)
		json_object_set_new(question, "post_copy", json_true());
	if (o->post_copy && !o->dry_run)
		fprintf(stderr,
			"weft-move: %s serves %s before it has it; as long as that is not over, a "
			"loss of %s loses what has not been copied\n",
			j->taker->name, j->to_text, j->giver.name);
	if (group[0])
		json_object_set_new(question, "group", json_string(group));
	weft_patience_begin("weft-move: waiting for an answer of %s, up to %d s", j->taker->name,
		TAKE_MS / 1000);
	int r = move_donor_ask(j->taker, question, TAKE_MS, -1, ret, err);
	weft_patience_end();
	if (r < 0 && r != -ENOSYS && move_donor_said_so(j->taker))
		weft_error_prefix(err, "cannot move %s to %s", j->from_text, j->to_text);
	return r;
}

/* ---- who has it ---- */

static int find_out_of(struct move_donor *d, const char *region, struct move_standing *ret)
{
	struct weft_error err;
	int r = move_standing_ask(d, region, NULL, MOVE_FIND_MS, move_until_interrupted(), ret,
		&err);

	if (r == 0)
		move_standing_tell(d, region, ret);
	else
		fprintf(stderr, "weft-move: what %s has of the region is not known: %s\n", d->name,
			err.message);
	return r;
}

/*
 * The donor that takes the region does not answer, or knows nothing of the move, or says that it
 * failed: the two are asked what they have, and it is told.  Returns what became of the move.
 */
static enum move_result find_out(struct move_job *j)
{
	struct move_standing taker, giver;
	const int r = find_out_of(j->taker, j->to.region, &taker);

	if (r == 0 && move_standing_is(&taker, "owner"))
		return MOVE_MOVED;
	const int s = find_out_of(&j->giver, j->from.region, &giver);
	/* As long as the one is prepared, or silent, the other may yet be told. */
	return r == 0 && s == 0 && move_standing_is(&giver, "owner") &&
			!move_standing_is(&taker, "prepared")
		? MOVE_FAILED
		: MOVE_UNKNOWN;
}

/* ---- how far it is ---- */

/*
 * The connection to the donor that takes the region is lost.  It is asked again for some time.  0;
 * -ENOENT: it knows nothing of the move; or another -errno: it is not to be had.
 */
static int ask_again(struct move_job *j, struct weft_error *err)
{
	const uint64_t end_ns = weft_now_ns() + LOST_MS * UINT64_C(1000000);
	int r = -err->code;

	/* One job has waited for it. */
	if (j->taker->is_lost)
		return r;
	move_table_clear(j->table);
	fprintf(stderr, "weft-move: %s; trying again for %d s\n", err->message, LOST_MS / 1000);
	/* Whoever has told it to abort waits for what became of that. */
	while (r < 0 && !move_donor_said_so(j->taker) && weft_now_ns() < end_ns &&
		(!move_is_interrupted() || j->abort_sent)) {
		move_rest(MOVE_PAUSE_MS);
		r = ask_status(j, "take-status", err);
	}
	j->taker->is_lost = r < 0 && !move_donor_said_so(j->taker);
	return r;
}

static void call_off(struct move_job *j)
{
	struct weft_error err;

	move_table_clear(j->table);
	j->abort_sent = true;
	int r = ask_status(j, "take-abort", &err);
	if (r < 0)
		fprintf(stderr, "weft-move: cannot abort the move: %s; waiting for its end\n",
			err.message);
}

/* r: as take-status had it, 0 or -errno with the error. */
static void tell_end(struct move_job *j, int r, const struct weft_error *err)
{
	enum move_result result = move_result_of(&j->status);

	move_table_clear(j->table);
	if (r < 0) {
		/* That it does not answer is told with what is not known. */
		if (move_donor_said_so(j->taker))
			fprintf(stderr, "weft-move: %s\n", err->message);
		result = find_out(j);
	}
	const char *why = r == 0 ? j->status.error : "";
	if (result == MOVE_ABORTED)
		fprintf(stderr, "weft-move: aborted: %s still has the region, nothing was lost\n",
			j->giver.name);
	if (result == MOVE_FAILED)
		fprintf(stderr,
			"weft-move: the move of %s to %s failed%s%s; the same command "
			"begins again\n",
			j->from_text, j->to_text, why[0] ? ": " : "", why);
	if (result == MOVE_FAILED && r == 0)
		find_out(j);
	if (result == MOVE_UNKNOWN)
		fprintf(stderr,
			"weft-move: the move may go on: the same command asks what became "
			"of it, and weft move --resolve who has the region\n");
	move_report_end(&j->report, &j->status, result);
	j->result = result;
}

void move_job_look(struct move_job *j)
{
	struct weft_error err;
	char before[MOVE_PHASE_MAX];

	memcpy(before, j->status.phase, sizeof(before));
	int r = ask_status(j, "take-status", &err);
	j->phase_is_new = strcmp(before, j->status.phase) != 0;

	if (r == -ECANCELED && !move_donor_said_so(j->taker))
		r = 0; /* a signal */
	if (r < 0 && !move_donor_said_so(j->taker))
		r = ask_again(j, &err);
	if (r < 0 || move_result_of(&j->status) != MOVE_GOES_ON) {
		tell_end(j, r, &err);
		return;
	}
	if (move_is_interrupted() && !j->abort_sent) {
		call_off(j);
		return;
	}
	move_report_phase(&j->report, &j->status);
}

int move_job_ask_who_waits(struct move_job *j, struct weft_error *err)
{
	return ask_status(j, "take-status", err);
}

/* ---- the beginning ---- */

int move_job_try(struct move_job *j, struct weft_error *err)
{
	struct move_trial trial;
	json_t *answer;
	int r = take(j, "", &answer, err);

	if (r < 0)
		return r;
	r = move_trial_read(answer, &trial, err);
	json_decref(answer);
	if (r < 0)
		return r;
	move_report_trial(&j->report, &trial);
	json_decref(trial.cannot_follow);
	return trial.possible ? 0 : 1;
}

static bool says(const json_t *json, const char *name, const char *text)
{
	const char *value = json_string_value(json_object_get(json, name));

	return value && strcmp(value, text) == 0;
}

/*
 * There is a region of that name at the taker: it may have come there by this very move, which went
 * on when another weft move had ended.
 */
static bool has_moved_already(struct move_job *j)
{
	struct weft_error err;
	json_t *answer, *one;
	bool found = false;
	size_t i;

	if (move_donor_ask(j->taker, json_pack("{s:s}", "op", "takes"), MOVE_ANSWER_MS,
		    move_until_interrupted(), &answer, &err) < 0)
		return false;
	json_array_foreach(json_object_get(answer, "takes"), i, one)
		found = found ||
			(says(one, "from", j->from_text) && says(one, "phase", "done") &&
				says(one, "region", j->to.region) &&
				move_id_read(one, j->id, &err) == 0 &&
				move_status_read(one, &j->status, &err) == 0);
	json_decref(answer);
	return found;
}

int move_job_begin(struct move_job *j, const char *group, struct weft_error *err)
{
	json_t *answer;

	j->report.begin_ns = weft_now_ns();
	int r = take(j, group, &answer, err);
	if (r == -EEXIST && has_moved_already(j)) {
		j->report.before = true;
		j->result = MOVE_MOVED;
		move_table_clear(j->table);
		move_report_end(&j->report, &j->status, j->result);
		return 0;
	}
	if (r < 0)
		return r;
	r = move_id_read(answer, j->id, err);
	json_decref(answer);
	if (r == 0)
		weft_debug("the move of %s is %s", j->from_text, j->id);
	return r;
}
