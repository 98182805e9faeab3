/* SPDX-License-Identifier: MIT */
/*
 * weft move --resolve: which of two donors has a region, where they cannot ask each other.  What
 * one has said is brought to the other, as far as the rules allow (tests/model/README.md, "When a
 * region moves"); what cannot be decided is said.  One thread.
 *
 * Invariant: nothing is concluded from silence, nor from a donor that has no note of the move.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/main/move-job.h"

enum {
	ROUNDS = 4,      /* of a look and a step; two are needed */
	SERVE_MS = 5000, /* for the taker to serve after a word */
};

struct side {
	struct move_donor donor;
	const char *region;
	char *text; /* the region's URI there */
	bool answers;
	bool is_there; /* it may have refused to answer */
	struct move_standing is;
	struct weft_error why; /* it does not answer */
};

enum step {
	STEP_NONE,
	STEP_SERVED,  /* the giver lets go of its copy */
	STEP_GIVEN,   /* the taker serves */
	STEP_NEVER,   /* the taker drops its copy */
	STEP_REFUSE,  /* the taker promises never to serve */
	STEP_REFUSED, /* the giver takes back */
	STEP_GONE,    /* the giver lends what it kept, under a new epoch */
	STEP_LOST,    /* the taker takes what has not come for lost */
};

struct resolver {
	struct side giver, taker;
	bool taker_is_gone, giver_is_gone; /* as the operator says */
	bool given_told; /* the taker was told that it has the region, and does not serve it */
	enum step done[ROUNDS];
	unsigned nr_done;
};

/* What is asked for a step, and what was done then: a word, and a text. */
static const struct {
	const char *op, *word, *text;
	bool at_giver;
} steps[] = {
	[STEP_SERVED] = {"give-served", "let-go", "has let go of its copy", true},
	[STEP_GIVEN] = {"resolve-given", "served", "was told that it has the region", false},
	[STEP_NEVER] = {"resolve-never", "dropped",
		"was told that it was not given the region, and drops its copy", false},
	[STEP_REFUSE] = {"resolve-refuse", "refused", "promised never to serve by that move",
		false},
	[STEP_REFUSED] = {"resolve-refused", "taken-back", "has taken the region back", true},
	[STEP_GONE] = {"resolve-gone", "begun-anew",
		"lends the region as it was when it was given away, under a new epoch: whoever "
		"used it is told that its contents are lost, and has to reset (weft reset)",
		true},
	[STEP_LOST] = {"resolve-lost", "absent-lost",
		"takes what has not come for lost: who reads or writes that gets an error", false},
};

static struct side *side_of(struct resolver *r, enum step step)
{
	return steps[step].at_giver ? &r->giver : &r->taker;
}

static bool is(const struct side *s, const char *word)
{
	return s->answers && move_standing_is(&s->is, word);
}

/* A copy that the giver keeps, or nothing of which it is the only one. */
static bool was_given(const struct side *s)
{
	return is(s, "given") || is(s, "gone");
}

static void look_at(struct side *s, const char *move)
{
	s->answers = move_standing_ask(&s->donor, s->region, move, MOVE_FIND_MS,
			     move_until_interrupted(), &s->is, &s->why) == 0;
	s->is_there = s->answers || move_donor_said_so(&s->donor);
}

/* The taker is asked of the move by which the giver gave the region away, if it did. */
static void look(struct resolver *r)
{
	look_at(&r->giver, NULL);
	look_at(&r->taker, was_given(&r->giver) ? r->giver.is.move : NULL);
}

/* A question about the move, whose answer says in `is` what it is; "": it is refused. */
static void ask(struct side *s, const char *op, const char *move, char ret[MOVE_PHASE_MAX])
{
	struct weft_error err;
	json_t *answer;

	ret[0] = '\0';
	int r = move_donor_ask(&s->donor,
		json_pack("{s:s, s:s, s:s}", "op", op, "region", s->region, "move", move),
		MOVE_ANSWER_MS, move_until_interrupted(), &answer, &err);
	if (r < 0) {
		fprintf(stderr, "weft-move: %s: %s\n", s->donor.name, err.message);
		return;
	}
	const char *text = json_string_value(json_object_get(answer, "is"));
	snprintf(ret, MOVE_PHASE_MAX, "%s", text ? text : "done");
	json_decref(answer);
}

/* For a taker that waits: what the giver itself says of that move. */
static enum step step_of_outcome(struct resolver *r)
{
	char outcome[MOVE_PHASE_MAX];

	if (!r->giver.answers || !r->taker.is.move[0])
		return STEP_NONE;
	ask(&r->giver, "give-outcome", r->taker.is.move, outcome);
	if (strcmp(outcome, "given") == 0 || strcmp(outcome, "gone") == 0)
		return STEP_GIVEN;
	return strcmp(outcome, "never") == 0 ? STEP_NEVER : STEP_NONE;
}

/*
 * Only who can say nothing of the move may be gone, and only the donor that the giver names is the
 * one to be gone.
 */
static bool may_begin_anew(const struct resolver *r)
{
	const struct side *giver = &r->giver, *taker = &r->taker;

	return r->taker_is_gone && is(giver, "given") && giver->is.bytes &&
		(!taker->is_there || is(taker, "nothing")) &&
		strcmp(giver->is.to, taker->text) == 0;
}

/* The same of the giver; once. */
static bool may_lose(const struct resolver *r)
{
	const struct side *giver = &r->giver, *taker = &r->taker;

	return r->giver_is_gone && r->nr_done == 0 && is(taker, "filling") && !taker->is.moves &&
		taker->is.move[0] && (!giver->is_there || is(giver, "nothing")) &&
		strcmp(taker->is.from, giver->text) == 0;
}

static enum step next_step(struct resolver *r)
{
	const struct side *giver = &r->giver, *taker = &r->taker;

	if (is(giver, "given") && (is(taker, "owner") || is(taker, "taken")))
		return STEP_SERVED;
	if (is(giver, "given") && is(taker, "refused") && giver->is.bytes)
		return STEP_REFUSED;
	if (may_begin_anew(r))
		return STEP_GONE;
	if (may_lose(r))
		return STEP_LOST;
	if (!is(taker, "prepared") || taker->is.moves)
		return STEP_NONE;
	if (!r->given_told)
		return step_of_outcome(r);
	/* It cannot serve.  The only copy is nothing to be dropped. */
	return is(giver, "given") && giver->is.bytes ? STEP_REFUSE : STEP_NONE;
}

static void wait_until_served(struct resolver *r)
{
	const uint64_t end_ns = weft_now_ns() + SERVE_MS * UINT64_C(1000000);

	r->given_told = true;
	do {
		move_rest(MOVE_PAUSE_MS);
		look_at(&r->taker, r->taker.is.move[0] ? r->taker.is.move : NULL);
	} while (is(&r->taker, "prepared") && weft_now_ns() < end_ns && !move_is_interrupted());
}

static void take_step(struct resolver *r, enum step step)
{
	const char *move = was_given(&r->giver) ? r->giver.is.move : r->taker.is.move;
	char done[MOVE_PHASE_MAX];

	ask(side_of(r, step), steps[step].op, move, done);
	if (done[0])
		r->done[r->nr_done++] = step;
	if (step == STEP_GIVEN || step == STEP_NEVER)
		wait_until_served(r);
}

/* ---- what is concluded ---- */

/* Why nobody is known to have the region, and what can be done about it. */
static void explain(const struct resolver *r, char *buf, size_t size)
{
	const struct side *giver = &r->giver, *taker = &r->taker;
	const char *a = giver->donor.name, *b = taker->donor.name;

	if (r->taker_is_gone && is(giver, "given") && strcmp(giver->is.to, taker->text) != 0)
		snprintf(buf, size,
			"%s gave the region to %s, and not to %s: it is not said of that one that "
			"it is gone",
			a, giver->is.to[0] ? giver->is.to : "another donor", taker->text);
	else if (is(giver, "given") && !taker->answers)
		snprintf(buf, size,
			"%s gave the region away, and only %s can say whether it serves it. Start "
			"the donor there again, with the notes that it has on its disk, and ask "
			"again. As long as it is silent %s keeps its copy and lets nobody in: had "
			"%s served the region, the copy would be older than what was written "
			"there. If %s is gone for good, say so with --taker-is-gone",
			a, b, a, b, b);
	else if (is(giver, "given") && is(taker, "nothing"))
		snprintf(buf, size,
			"%s gave the region to %s, and %s has no note of that move: it served the "
			"region and lost it, or it lost its notes, or it is another donor. It "
			"cannot say that it never served, so that %s keeps its copy and lets "
			"nobody in. If it is another donor, ask the one that took the region; if "
			"its memory is gone for good, say so with --taker-is-gone",
			a, giver->is.to[0] ? giver->is.to : "another donor", b, a);
	else if (is(giver, "given") && is(taker, "refused"))
		snprintf(buf, size,
			"%s gave the region away and lost its bytes since, and %s lost its own: "
			"the contents are gone, unless there is a copy elsewhere",
			a, b);
	else if (is(giver, "giving"))
		snprintf(buf, size,
			"%s cannot say whether its note that it gave the region away reached its "
			"disk; see its log, mend the disk, start it again, and ask again",
			a);
	else if (is(taker, "prepared") && taker->is.moves)
		snprintf(buf, size,
			"a move is under way; weft move joins it, and Ctrl-C there aborts it");
	else if (is(taker, "prepared") && !giver->answers)
		snprintf(buf, size,
			"%s has a copy, and only %s can say whether it gave the region away. Start "
			"the donor there again and ask again. As long as it is silent %s lets "
			"nobody in: the region may have been written at %s since",
			b, a, b, a);
	else if (is(giver, "prepared"))
		snprintf(buf, size,
			"%s waits for a word on another move, of %s: resolve that one first", a,
			giver->is.from[0] ? giver->is.from : "another donor");
	else if (!giver->answers || !taker->answers)
		snprintf(buf, size, "%s does not answer, and %s does not have the region",
			giver->answers ? b : a, giver->answers ? a : b);
	else if (is(giver, "gone"))
		snprintf(buf, size,
			"%s has moved the region to %s, and %s does not have it any more", a,
			giver->is.to[0] ? giver->is.to : b, b);
	else
		snprintf(buf, size, "neither has the region");
}

/* Which side serves the region: NULL, with the reason why that is not known. */
static const struct side *owner_of(struct resolver *r, char *why, size_t size)
{
	/* By that move; who has it now is another question. */
	if (is(&r->taker, "taken") || (was_given(&r->giver) && is(&r->taker, "owner")))
		look_at(&r->taker, NULL);
	if (is(&r->giver, "owner") && is(&r->taker, "owner") &&
		strcmp(r->giver.is.epoch, r->taker.is.epoch) == 0) {
		snprintf(why, size,
			"both say that they have it, which must not be: end one of them before "
			"the region is used");
		return NULL;
	}
	if (is(&r->giver, "owner"))
		return &r->giver;
	if (is(&r->taker, "owner") || is(&r->taker, "filling"))
		return &r->taker;
	if (is(&r->taker, "given") || is(&r->taker, "gone"))
		snprintf(why, size, "%s has moved it on, to %s: ask there", r->taker.donor.name,
			r->taker.is.to);
	else
		explain(r, why, size);
	return NULL;
}

static void tell(const struct side *s)
{
	if (s->answers)
		move_standing_tell(&s->donor, s->region, &s->is);
	else
		fprintf(stderr, "weft-move: what %s has of the region is not known: %s\n",
			s->donor.name, s->why.message);
}

static void report_json(const struct resolver *r, const struct side *owner, const char *why)
{
	json_t *done = json_array();

	for (unsigned i = 0; i < r->nr_done; i++)
		json_array_append_new(done, json_string(steps[r->done[i]].word));
	move_report_json(json_pack("{s:s, s:s, s:s?, s:s?, s:o, s:s?, s:s?}", "from", r->giver.text,
		"to", r->taker.text, "from_is", r->giver.answers ? r->giver.is.is : NULL, "to_is",
		r->taker.answers ? r->taker.is.is : NULL, "done", done, "owner",
		owner ? owner->text : NULL, "error", owner ? NULL : why));
}

static void report(struct resolver *r, const struct side *owner, const char *why)
{
	for (unsigned i = 0; i < r->nr_done; i++)
		fprintf(stderr, "weft-move: %s %s\n", side_of(r, r->done[i])->donor.name,
			steps[r->done[i]].text);
	tell(&r->giver);
	tell(&r->taker);
	if (owner)
		printf("%s is served by %s\n", owner->text, owner->donor.name);
	else
		fprintf(stderr, "weft-move: %s\n", why);
}

/* True: what the operator said is not so, and was told. */
static bool refuses_to_lose(const struct resolver *r)
{
	if (!r->giver_is_gone || r->nr_done > 0 || !is(&r->taker, "filling"))
		return false;
	if (r->giver.is_there)
		fprintf(stderr, "weft-move: nothing is taken for lost: %s is there\n",
			r->giver.donor.name);
	else
		fprintf(stderr,
			"weft-move: nothing is taken for lost: %s waits for nothing of %s\n",
			r->taker.donor.name, r->giver.text);
	return true;
}

static int begin(struct side *s, const struct weft_uri *uri, const struct move_options *options,
	struct weft_error *err)
{
	s->region = uri->region;
	s->text = weft_uri_format(uri);
	return s->text ? move_donor_begin(uri, &options->keys, &s->donor, err)
		       : weft_error_set(err, ENOMEM, "no memory");
}

static void end(struct side *s)
{
	move_donor_end(&s->donor);
	free(s->text);
}

int move_resolve(const struct move_options *options, const struct weft_uri *from,
	const struct weft_uri *to, struct weft_error *err)
{
	struct resolver r = {0};
	struct weft_uri there = *to;
	char why[900] = "";
	enum step step;

	if (!there.region[0])
		there.region = from->region;
	int ret = begin(&r.giver, from, options, err);
	if (ret == 0)
		ret = begin(&r.taker, &there, options, err);
	r.taker_is_gone = options->taker_is_gone;
	r.giver_is_gone = options->giver_is_gone;
	if (ret == 0) {
		look(&r);
		for (int i = 0; i < ROUNDS && (step = next_step(&r)) != STEP_NONE; i++) {
			take_step(&r, step);
			look(&r);
		}
		const struct side *owner = owner_of(&r, why, sizeof(why));
		if (options->json)
			report_json(&r, owner, why);
		else
			report(&r, owner, why);
		ret = owner && !refuses_to_lose(&r) ? 0 : 1;
	}
	end(&r.giver);
	end(&r.taker);
	return ret;
}
