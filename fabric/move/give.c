/* SPDX-License-Identifier: MIT */
/*
 * The giver's answers.  Threads: of the connections that ask.
 *
 * Invariant: nobody is told that the region was given before that is noted, durably; and once it
 * may be noted, nobody is let in any more, unless it is certain that no note says so.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

enum {
	MAX_WINDOW = 1 << 17, /* chunks of one question: 8 GiB */
	FORGET_TRIES = 100,
};

/* One question. */
struct give {
	struct weft_moves *moves;
	struct weft_donor *donor;
	const json_t *question;
	struct weft_region *region; /* NULL: it is not lent here (any more) */
	uint64_t number;
};

static int malformed(const char *field, struct weft_error *err)
{
	return weft_error_set(err, EINVAL, "the question has no good \"%s\"", field);
}

static int no_memory(struct weft_error *err)
{
	return weft_error_set(err, ENOMEM, "no memory");
}

static int answer(json_t *json, json_t **ret, struct weft_error *err)
{
	if (!json)
		return no_memory(err);
	*ret = json;
	return 0;
}

static int give_look(const struct give *g, json_t **ret, struct weft_error *err)
{
	char names[300];
	unsigned nr_follow;
	unsigned nr =
		weft_donor_who_cannot_follow(g->donor, g->region, names, sizeof(names), &nr_follow);

	if (g->region->backing != WEFT_BACKING_MEMORY)
		return weft_error_set(err, EOPNOTSUPP,
			"region '%s' is a file; only regions of memory can move", g->region->name);
	return answer(json_pack("{s:o, s:I, s:b, s:i, s:i, s:s}", "epoch",
			      number_json(g->region->epoch), "size",
			      (json_int_t)g->region->size_bytes, "read_only", g->region->read_only,
			      "follow", (int)nr_follow, "cannot_follow", (int)nr, "names", names),
		ret, err);
}

static bool note_is(struct weft_moves *moves, uint64_t number, enum note_is *ret)
{
	pthread_mutex_lock(&moves->notes_lock);
	const struct note *note = notes_of_move(&moves->notes, number);
	if (note)
		*ret = note->is;
	pthread_mutex_unlock(&moves->notes_lock);
	return note != NULL;
}

static int give_begin(const struct give *g, json_t **ret, struct weft_error *err)
{
	struct weft_moving moving = {.number = g->number};
	bool disconnect = json_is_true(json_object_get(g->question, "disconnect"));
	uint64_t epoch;

	if (!field_place(g->question, "to", moving.to))
		return malformed("to", err);
	if (!field_bytes(g->question, "reader", moving.reader, sizeof(moving.reader)))
		return malformed("reader", err);
	if (!field_number(g->question, "epoch", &epoch) || epoch != g->region->epoch)
		return weft_error_set(err, ESTALE, "region '%s' has other contents than it had",
			g->region->name);
	enum note_is is;
	/* What is noted of another move must not become what is noted of this one. */
	if (note_is(g->moves, g->number, &is))
		return weft_error_set(err, EEXIST, "there was a move of that number: it is '%s'",
			note_is_word(is));
	int r = weft_donor_track(g->donor, g->region, &moving, disconnect, err);
	if (r < 0)
		return r;
	weft_info("region '%s' begins to move to %s", g->region->name, moving.to);
	weft_step("give-begun");
	return answer(json_pack("{}"), ret, err);
}

/* The changes since the last time, of the window that the question names. */
static int changes_json(const struct give *g, json_t **ret, struct weft_error *err)
{
	const uint64_t nr_chunks = weft_region_nr_chunks(g->region);
	uint64_t first, nr;

	if (!field_count(g->question, "first", nr_chunks - 1, &first) || first % 64 != 0)
		return malformed("first", err);
	if (!field_count(g->question, "nr", MAX_WINDOW, &nr) || nr == 0 || nr > nr_chunks - first)
		return malformed("nr", err);
	WEFT_CLEANUP_FREE uint64_t *bits = calloc((nr + 63) / 64, sizeof(*bits));
	if (!bits)
		return no_memory(err);
	if (g->region->changes) /* it is tracked, or was */
		weft_region_take_changes(g->region, first, nr, bits);
	return answer(json_pack("{s:o}", "bits", bits_json(bits, nr)), ret, err);
}

static int give_changes(const struct give *g, json_t **ret, struct weft_error *err)
{
	uint64_t pace;

	if (!weft_donor_is_moving(g->donor, g->region, g->number))
		return weft_error_set(err, ESTALE, "region '%s': that move is over",
			g->region->name);
	if (field_count(g->question, "pace_ns_per_mib", INT32_MAX, &pace))
		atomic_store(&g->region->pace_ns_per_mib, pace);
	return changes_json(g, ret, err);
}

/* What goes with the contents; NULL without memory. */
static json_t *facts_of(const struct give *g)
{
	struct weft_region_facts *facts = calloc(1, sizeof(*facts));
	json_t *json = NULL;

	if (facts) {
		weft_donor_facts(g->donor, g->region, facts);
		json = facts_json(facts);
	}
	free(facts);
	return json;
}

/* The facts go along already now: of this donor's machine nothing may be left after COMMIT. */
static int give_freeze(const struct give *g, json_t **ret, struct weft_error *err)
{
	int r = weft_donor_freeze(g->donor, g->region, g->number, err);

	weft_step("give-frozen");
	if (r == 0)
		r = changes_json(g, ret, err);
	if (r == 0)
		json_object_set_new(*ret, "facts", facts_of(g));
	return r;
}

static int facts_answer(const struct give *g, const char *is, json_t **ret, struct weft_error *err)
{
	return answer(json_pack("{s:s, s:o}", "is", is, "facts", facts_of(g)), ret, err);
}

/* GIVEN, durably.  0; -EIO: it is certain that it is not noted; -EINPROGRESS: it may be. */
static int note_given(const struct give *g, const char *to, const char *from,
	struct weft_error *err)
{
	struct weft_moves *moves = g->moves;
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *note = notes_of_move(&moves->notes, g->number);
	if (!note)
		note = notes_add(&moves->notes, g->region->name, g->number);
	if (!note) {
		r = no_memory(err);
	} else {
		note->is = NOTE_GIVEN;
		note->epoch = g->region->epoch;
		note->size_bytes = g->region->size_bytes;
		strcpy(note->to, to);
		strcpy(note->from, from);
		r = notes_save(&moves->notes, err);
		if (r < 0) {
			notes_remove(&moves->notes, note);
			r = notes_save(&moves->notes, NULL) < 0 ? -EINPROGRESS : -EIO;
		}
	}
	pthread_mutex_unlock(&moves->notes_lock);
	return r == -ENOMEM ? -EIO : r;
}

static int give_commit(const struct give *g, json_t **ret, struct weft_error *err)
{
	char from[WEFT_PLACE_MAX], to[WEFT_PLACE_MAX];

	if (!field_place(g->question, "from", from))
		return malformed("from", err);
	if (!field_place(g->question, "to", to))
		return malformed("to", err);
	int r = weft_donor_begin_giving(g->donor, g->region, g->number, err);
	if (r < 0)
		return r;
	weft_step("give-giving");
	r = note_given(g, to, from, err);
	weft_step("give-noted");
	if (r == -EIO)
		weft_donor_not_given(g->donor, g->region);
	if (r < 0) {
		weft_warn("%s", err->message);
		return -err->code;
	}
	weft_donor_given(g->donor, g->region);
	weft_info("region '%s' is given to %s", g->region->name, to);
	weft_step("give-given");
	return facts_answer(g, "given", ret, err);
}

static int give_abort(const struct give *g, json_t **ret, struct weft_error *err)
{
	int r = weft_donor_unfreeze(g->donor, g->region, g->number, err);

	if (r < 0)
		return r;
	weft_info("region '%s' does not move: the move was called off", g->region->name);
	return answer(json_pack("{}"), ret, err);
}

/* What became of a move, for a taker that does not know. */
static int give_outcome(const struct give *g, json_t **ret, struct weft_error *err)
{
	enum note_is is;

	if (note_is(g->moves, g->number, &is) && is == NOTE_GONE)
		return answer(json_pack("{s:s}", "is", "gone"), ret, err);
	if (note_is(g->moves, g->number, &is) && is == NOTE_GIVEN) {
		if (g->region && weft_donor_is_moving(g->donor, g->region, g->number))
			return facts_answer(g, "given", ret, err);
		/* The machine restarted: the bytes are gone here, and so are their facts. */
		return answer(json_pack("{s:s}", "is", "given"), ret, err);
	}
	bool moves = g->region && weft_donor_is_moving(g->donor, g->region, g->number);
	return answer(json_pack("{s:s}", "is", moves ? "moving" : "never"), ret, err);
}

/* The taker serves: the bytes are not needed here any more. */
static int give_served(const struct give *g, json_t **ret, struct weft_error *err)
{
	struct weft_moves *moves = g->moves;
	struct timespec nap = {.tv_nsec = 20000000};
	uint64_t epoch = 0;
	char to[WEFT_PLACE_MAX] = "";
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *note = notes_of_move(&moves->notes, g->number);
	/* By another move this donor took the region, or is about to: that is nobody's to end. */
	if (!note || (note->is != NOTE_GIVEN && note->is != NOTE_GONE)) {
		r = weft_error_set(err, ESTALE, "this donor gave nothing away by that move");
	} else {
		epoch = note->epoch;
		strcpy(to, note->to);
		const enum note_is was = note->is;
		note->is = NOTE_GONE;
		r = was == NOTE_GONE ? 0 : notes_save(&moves->notes, err);
		if (r < 0)
			note->is = was;
	}
	pthread_mutex_unlock(&moves->notes_lock);
	weft_step("give-noted-gone");
	if (r == 0 && g->region && g->region->epoch == epoch &&
		weft_donor_is_moving(g->donor, g->region, g->number)) {
		r = weft_donor_elsewhere(g->donor, g->region->name, epoch, to);
		if (r < 0)
			no_memory(err);
		/* A thread may still wait to be refused. */
		for (unsigned i = 0; i < FORGET_TRIES && r == 0; i++) {
			if (weft_donor_remove(g->donor, g->region) != -EBUSY)
				break;
			nanosleep(&nap, NULL);
		}
		if (r == 0) {
			weft_info("region '%s' has moved to %s, and its memory is free",
				g->region->name, to);
			moves->config.owner->forget(moves->config.ctx, g->region);
		}
	}
	return r < 0 ? r : answer(json_pack("{}"), ret, err);
}

int give_answer(struct weft_moves *moves, const struct weft_peer *peer, const char *op,
	const json_t *question, json_t **ret, struct weft_error *err)
{
	static const struct {
		const char *op;
		int (*fn)(const struct give *g, json_t **ret, struct weft_error *err);
		bool needs_region, needs_move;
	} ops[] = {
		{"give-look", give_look, true, false},
		{"give-begin", give_begin, true, true},
		{"give-changes", give_changes, true, true},
		{"give-freeze", give_freeze, true, true},
		{"give-commit", give_commit, true, true},
		{"give-abort", give_abort, true, true},
		{"give-outcome", give_outcome, false, true},
		{"give-served", give_served, false, true},
	};
	const char *name = json_string_value(json_object_get(question, "region"));
	struct give g = {.moves = moves, .donor = moves->config.donor, .question = question};
	unsigned i = 0;

	while (i < WEFT_ARRAY_LEN(ops) && strcmp(ops[i].op, op) != 0)
		i++;
	if (i == WEFT_ARRAY_LEN(ops))
		return weft_error_set(err, ENOSYS, "this donor does not know \"%.40s\"", op);
	if (!name)
		return malformed("region", err);
	if (ops[i].needs_move && !field_number(question, "move", &g.number))
		return malformed("move", err);
	int r = weft_donor_find(g.donor, peer, name, &g.region, NULL, err);
	if (r < 0 && (ops[i].needs_region || (r != -ENOENT && r != -WEFT_EMOVED)))
		return r;
	r = ops[i].fn(&g, ret, err);
	weft_region_put(g.region);
	return r;
}
