/* SPDX-License-Identifier: MIT */
/*
 * Copying a region while it is written: rounds, until what is left is little; and the last one, in
 * which nobody writes.  On the take's thread.
 *
 * Invariant: what the giver said had changed is copied again, and each chunk is compared after
 * that.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/move/moves-private.h"

#define NS_PER_S 1e9

enum {
	/* as long A is asked again before it is given up: less than A's patience */
	RESUME_MS = 15000,
	MAX_ROUNDS = 40,
	SLOW_ROUNDS = 3,      /* rounds that do not shrink, before writers are held back */
	COMMIT_MS = 15,       /* of the downtime, for two notes and three questions */
	PACE_MAX = 200000000, /* ns a MiB: 5 MiB/s */
};

static void begin_round(struct take *t, uint64_t now_ns, uint64_t copied)
{
	pthread_mutex_lock(&t->moves->lock);
	t->view.round_ns = now_ns;
	t->view.round_bytes = copied;
	pthread_mutex_unlock(&t->moves->lock);
}

static void show_round(struct take *t, unsigned round, double seconds, uint64_t copied)
{
	uint64_t left = pull_dirty_bytes(&t->pull);

	pthread_mutex_lock(&t->moves->lock);
	t->view.round = round;
	t->view.left_bytes = left;
	if (seconds > 0) {
		t->view.rate = (uint64_t)((double)copied / seconds);
		t->view.dirty_rate = (uint64_t)((double)left / seconds);
	}
	pthread_mutex_unlock(&t->moves->lock);
}

/* After the way to A was lost: whether the move is still on, and what differs. */
static int resume(struct take *t, struct weft_error *err)
{
	uint64_t until_ns = weft_now_ns() + RESUME_MS * UINT64_C(1000000);
	int r = -ETIMEDOUT;

	weft_warn("region '%s' from %s: %s; connecting anew", t->name, t->from, err->message);
	while (weft_now_ns() < until_ns) {
		json_t *told = NULL;

		if (!take_nap(t, TAKE_RETRY_MS))
			return weft_error_set(err, ECANCELED, "aborted");
		/* A question that is under way still must not take changes after this one. */
		t->turn++;
		r = take_ask(t, take_question(t, "give-outcome"), &told, err);
		const char *is = json_string_value(json_object_get(told, "is"));
		if (r == 0 && (!is || strcmp(is, "moving") != 0))
			r = weft_error_set(err, ESTALE,
				"%s has forgotten the move: it was started anew, or somebody ended "
				"it",
				t->from);
		json_decref(told);
		if (r == 0)
			r = take_connect_reader(t, err);
		/* What A told, and we did not hear, is lost: so all is compared. */
		if (r == 0)
			r = pull_compare(&t->pull, err);
		if (r == 0 || !take_is_of_link(r))
			return r;
	}
	return r;
}

/* One round, whatever happens to the way: 0, or an error that ends the move. */
static int copy_round(struct take *t, const char *op, uint64_t pace, struct weft_error *err)
{
	for (;;) {
		int r = pull_round(&t->pull, err);

		/* The last copy is what has to reach the disk while nobody writes. */
		if (r == 0 && (r = weft_region_flush(t->region)) < 0)
			return weft_error_set(err, EIO, "%s cannot be made durable: %s", t->file,
				strerror(-r));
		if (r == 0)
			r = take_ask_changes(t, op, pace, err);
		if (r == 0)
			return pull_judge(&t->pull, t->changed, err);
		if (!take_is_of_link(r))
			return r;
		r = resume(t, err);
		if (r < 0)
			return r;
	}
}

/* Rounds until the rest can be copied while A is frozen. */
int take_converge(struct take *t, struct weft_error *err)
{
	struct pull *pull = &t->pull;
	uint64_t pace = 0, before = UINT64_MAX;
	unsigned slow = 0;

	for (unsigned round = 1; round <= MAX_ROUNDS; round++) {
		uint64_t start_ns = weft_now_ns(), start = atomic_load(&pull->copied_bytes);

		begin_round(t, start_ns, start);
		int r = copy_round(t, "give-changes", pace, err);

		if (r < 0)
			return r;
		double seconds = (double)(weft_now_ns() - start_ns) / NS_PER_S;
		uint64_t copied = atomic_load(&pull->copied_bytes) - start;
		uint64_t left = pull_dirty_bytes(pull);
		/* A short round says nothing of the rate. */
		double rate =
			copied > 4 * WEFT_MIB ? (double)copied / seconds : (double)t->view.rate;
		show_round(t, round, copied > 4 * WEFT_MIB ? seconds : 0, copied);
		double rest_ms = rate > 0 ? (double)left / rate * 1e3 : left > 0 ? 1e9 : 0;

		weft_debug("region '%s': round %u copied %" PRIu64 " bytes in %.3f s, %" PRIu64
			   " were written meanwhile",
			t->name, round, copied, seconds, left);
		if (rest_ms + COMMIT_MS <= t->downtime_ms)
			return 0;
		take_set_phase(t, TAKE_CONVERGE);
		slow = left > before / 2 ? slow + 1 : 0;
		before = left;
		if (slow < SLOW_ROUNDS || pace >= PACE_MAX)
			continue;
		/* At first to half of what is copied, then to a half of that. */
		pace = pace
			? pace * 2
			: (uint64_t)(NS_PER_S * (double)WEFT_MIB / weft_max((uint64_t)rate / 2, 1));
		pace = weft_min(pace, PACE_MAX);
		weft_info(
			"region '%s': it is written as fast as it is copied; its writers are held "
			"back to %.0f MiB/s each",
			t->name, NS_PER_S / (double)pace);
		slow = 0;
	}
	weft_warn("region '%s': in %d rounds what was written meanwhile did not become little "
		  "enough; its borrowers wait for longer than %u ms",
		t->name, MAX_ROUNDS, t->downtime_ms);
	return 0;
}

/* A is frozen afterwards, and all that it has is here. */
int take_freeze(struct take *t, struct weft_error *err)
{
	int r;

	take_set_phase(t, TAKE_FINALIZE);
	t->frozen_ns = weft_now_ns();
	/* What was written until now is at A, as all of it is. */
	if (t->fills) {
		r = take_ask_changes(t, "give-freeze", 0, err);
		weft_step("take-frozen");
		return r;
	}
	/* Whether A is frozen is not known after a loss. */
	while (take_is_of_link(r = take_ask_changes(t, "give-freeze", 0, err)))
		if ((r = resume(t, err)) < 0)
			break;
	if (r == 0)
		r = pull_judge(&t->pull, t->changed, err);
	weft_step("take-frozen");
	/* Nothing is written any more: each round is the last, but for what came wrong. */
	memset(t->changed, 0, t->pull.nr_words * sizeof(*t->changed));
	while (r == 0 && pull_nr_dirty(&t->pull) > 0) {
		r = pull_round(&t->pull, err);
		if (r == 0)
			r = pull_judge(&t->pull, t->changed, err);
		else if (take_is_of_link(r))
			r = resume(t, err);
	}
	return r;
}
