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
	uint64_t number, turn;
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

static bool is_file(const struct give *g)
{
	return g->region->backing == WEFT_BACKING_FILE;
}

static int give_look(const struct give *g, json_t **ret, struct weft_error *err)
{
	char names[300];
	unsigned nr_follow;
	unsigned nr =
		weft_donor_who_cannot_follow(g->donor, g->region, names, sizeof(names), &nr_follow);

	int r = weft_donor_may_leave(g->donor, g->region, err);

	if (r < 0)
		return r;
	return answer(json_pack("{s:o, s:I, s:b, s:b, s:b, s:i, s:i, s:s}", "epoch",
			      number_json(g->region->epoch), "size",
			      (json_int_t)g->region->size_bytes, "read_only", g->region->read_only,
			      "file", is_file(g), "post_copy", 1, "follow", (int)nr_follow,
			      "cannot_follow", (int)nr, "names", names),
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

static int check_turn(const struct give *g, struct weft_error *err)
{
	return weft_donor_take_changes(g->donor, g->region, g->number, g->turn, 0, 0, NULL, err);
}

/* The changes since the last time, of the window that the question names. */
static int changes_json(const struct give *g, json_t **ret, struct weft_error *err)
{
	const uint64_t nr_chunks = weft_region_nr_chunks(g->region);
	uint64_t first, nr;

	if (!field_count(g->question, "first", nr_chunks - 1, &first) || first % 64 != 0)
		return malformed("first", err);
	/* Whole words, or what is beside it would be lost. */
	if (!field_count(g->question, "nr", MAX_WINDOW, &nr) || nr == 0 || nr > nr_chunks - first ||
		(nr % 64 != 0 && nr < nr_chunks - first))
		return malformed("nr", err);
	WEFT_CLEANUP_FREE uint64_t *bits = calloc((nr + 63) / 64, sizeof(*bits));
	if (!bits)
		return no_memory(err);
	int r = weft_donor_take_changes(g->donor, g->region, g->number, g->turn, first, nr, bits,
		err);
	return r < 0 ? r : answer(json_pack("{s:o}", "bits", bits_json(bits, nr)), ret, err);
}

static int give_changes(const struct give *g, json_t **ret, struct weft_error *err)
{
	uint64_t pace = 0;
	int r = check_turn(g, err);

	if (r < 0)
		return r;
	field_count(g->question, "pace_ns_per_mib", INT32_MAX, &pace);
	r = weft_donor_hold_back(g->donor, g->region, g->number, pace, err);
	if (r == 0)
		r = changes_json(g, ret, err);
	/* The freeze need not wait for what was written until now, nor need this answer. */
	if (r == 0)
		weft_region_begin_flush(g->region, 0, 0);
	return r;
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

struct readers {
	const char *region;
	unsigned nr;
};

static void count_reader(void *ctx, const struct weft_attachment_status *a)
{
	struct readers *readers = ctx;

	readers->nr += strcmp(a->region, readers->region) == 0 && a->mode == WEFT_MODE_SHARED;
}

/* Borrowers that read beside the writer, without the taker. */
static unsigned nr_readers(const struct give *g)
{
	struct readers readers = {.region = g->region->name};

	weft_donor_status(g->donor, count_reader, &readers);
	return readers.nr > 0 ? readers.nr - 1 : 0;
}

/* The facts go along already now: of this donor's machine nothing may be left after COMMIT. */
static int give_freeze(const struct give *g, json_t **ret, struct weft_error *err)
{
	const unsigned nr = nr_readers(g);
	int r = check_turn(g, err);

	if (r == 0)
		r = weft_donor_freeze(g->donor, g->region, g->number, err);
	weft_step("give-frozen");
	if (r == 0)
		r = changes_json(g, ret, err);
	if (r == 0) {
		json_object_set_new(*ret, "facts", facts_of(g));
		json_object_set_new(*ret, "readers", json_integer(nr));
	}
	return r;
}

static int facts_answer(const struct give *g, const char *is, json_t **ret, struct weft_error *err)
{
	return answer(json_pack("{s:s, s:o}", "is", is, "facts", facts_of(g)), ret, err);
}

/* Whether the region, which is here still, was given away by that move. */
static bool is_given(const struct give *g)
{
	uint64_t by;

	return weft_donor_moving_state(g->donor, g->region, &by) == WEFT_WAS_GIVEN &&
		by == g->number;
}

/* Of a file: that whoever opens it has to know these notes.  0; -EIO: it is as it was. */
static int settle(const struct give *g, uint64_t donor, struct weft_error *err)
{
	struct weft_region_facts *facts = calloc(1, sizeof(*facts));
	const struct weft_transfer transfer = {WEFT_LEAVES, donor, g->number};
	int r = -ENOMEM;

	if (facts) {
		weft_donor_facts(g->donor, g->region, facts);
		r = weft_region_settle(g->region, &transfer, facts->table, facts->lease_ms);
	}
	free(facts);
	return r < 0 ? weft_error_set(err, EIO,
			       "region '%s': its file cannot be made durable, with a mark that it "
			       "moves: %s",
			       g->region->name, strerror(-r))
		     : 0;
}

/* The number of this donor, for a mark; 0, or as settle(). */
static int settle_for_us(const struct give *g, struct weft_error *err)
{
	struct weft_moves *moves = g->moves;

	if (!is_file(g) || is_given(g))
		return 0;
	pthread_mutex_lock(&moves->notes_lock);
	int r = notes_name_donor(&moves->notes, err);
	const uint64_t donor = moves->notes.donor;
	pthread_mutex_unlock(&moves->notes_lock);
	if (r < 0)
		return -EIO;
	r = settle(g, donor, err);
	weft_step("give-settled");
	return r;
}

/*
 * Of a file: if it came here by a move, where it is; "": where this donor is told.  Under the lock.
 */
static const char *path_of(const struct weft_moves *moves, const char *name)
{
	const struct note *note = moves->notes.first;

	while (note &&
		!(note->file && strcmp(note->region, name) == 0 &&
			(note->is == NOTE_OWNER || note->is == NOTE_TAKEN)))
		note = note->next;
	return note ? note->file : "";
}

/* GIVEN, durably.  0; -EIO: it is certain that it is not noted; -EINPROGRESS: it may be. */
static int note_given(const struct give *g, const char *to, const char *from, bool fills,
	struct weft_error *err)
{
	struct weft_moves *moves = g->moves;
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *note = notes_of_move(&moves->notes, g->number);
	if (!note)
		note = notes_add(&moves->notes, g->region->name, g->number,
			is_file(g) ? path_of(moves, g->region->name) : NULL);
	if (!note) {
		r = no_memory(err);
	} else if (note->is == NOTE_PREPARED) { /* a new one */
		note->is = NOTE_GIVEN;
		note->epoch = g->region->epoch;
		note->size_bytes = g->region->size_bytes;
		strcpy(note->to, to);
		strcpy(note->from, from);
		if (fills)
			weft_donor_get_reader(g->donor, g->region, g->number, note->reader);
		r = notes_save(&moves->notes, err);
		if (r < 0) {
			notes_remove(&moves->notes, note);
			r = notes_save(&moves->notes, NULL) < 0 ? -EINPROGRESS : -EIO;
		}
	}
	moves_show_notes(moves);
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
	const bool fills = json_is_true(json_object_get(g->question, "fills"));
	int r = weft_donor_begin_giving(g->donor, g->region, g->number, err);
	if (r < 0)
		return r;
	weft_step("give-giving");
	r = settle_for_us(g, err);
	if (r == 0)
		r = note_given(g, to, from, fills, err);
	weft_step("give-noted");
	if (r < 0) {
		weft_donor_not_given(g->donor, g->region, r == -EIO);
		weft_warn("%s", err->message);
		return -err->code;
	}
	weft_donor_given(g->donor, g->region, fills);
	weft_info("region '%s' is given to %s", g->region->name, to);
	weft_step("give-given");
	return facts_answer(g, "given", ret, err);
}

/*
 * Nobody was told that the region was given, and it is not known whether the disk has a note that
 * says so: one without it may reach the disk by now.  True: it is certain that none says so.
 */
static bool note_nothing(const struct give *g)
{
	struct weft_moves *moves = g->moves;

	if (weft_donor_begin_giving(g->donor, g->region, g->number, NULL) < 0)
		return false;
	pthread_mutex_lock(&moves->notes_lock);
	const bool certain = !notes_of_move(&moves->notes, g->number) &&
		notes_save(&moves->notes, NULL) == 0;
	pthread_mutex_unlock(&moves->notes_lock);
	weft_donor_not_given(g->donor, g->region, certain);
	return certain;
}

static int give_abort(const struct give *g, json_t **ret, struct weft_error *err)
{
	int r = weft_donor_unfreeze(g->donor, g->region, g->number, err);

	/* Of a taker that could serve what it has, the commit comes again. */
	if (r == -EBUSY && json_is_true(json_object_get(g->question, "unfinished")) &&
		note_nothing(g))
		r = weft_donor_unfreeze(g->donor, g->region, g->number, err);
	if (r < 0)
		return r;
	weft_info("region '%s' does not move: the move was called off", g->region->name);
	return answer(json_pack("{}"), ret, err);
}

/* What became of a move, for a taker that does not know. */
static int give_outcome(const struct give *g, json_t **ret, struct weft_error *err)
{
	enum note_is is;

	/* From now on questions of earlier connections are late. */
	if (g->region && check_turn(g, NULL) < 0)
		weft_debug("a late question, or one about a move that is over");
	if (note_is(g->moves, g->number, &is) && is == NOTE_GONE)
		return answer(json_pack("{s:s}", "is", "gone"), ret, err);
	if (note_is(g->moves, g->number, &is) && is == NOTE_GIVEN) {
		if (g->region && weft_donor_is_moving(g->donor, g->region, g->number))
			return facts_answer(g, "given", ret, err);
		/* The machine restarted: the bytes are gone here, and so are their facts. */
		return answer(json_pack("{s:s}", "is", "given"), ret, err);
	}
	/* This donor noted that of what it had given: nothing of the former contents is left. */
	if (note_is(g->moves, g->number, &is) && is == NOTE_REFUSED)
		return answer(json_pack("{s:s, s:b}", "is", "never", "anew", 1), ret, err);
	bool moves = g->region && weft_donor_is_moving(g->donor, g->region, g->number);
	return answer(json_pack("{s:s}", "is", moves ? "moving" : "never"), ret, err);
}

/* GONE, durably.  *ret_to: where the region is; *ret_epoch: its epoch. */
static int note_gone(const struct give *g, bool settled, uint64_t *ret_epoch,
	char ret_to[WEFT_PLACE_MAX], struct weft_error *err)
{
	struct weft_moves *moves = g->moves;
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *note = notes_of_move(&moves->notes, g->number);
	/* By another move this donor took the region, or is about to: that is nobody's to end. */
	if (!note || (note->is != NOTE_GIVEN && note->is != NOTE_GONE)) {
		r = weft_error_set(err, ESTALE, "this donor gave nothing away by that move");
	} else {
		*ret_epoch = note->epoch;
		strcpy(ret_to, note->to);
		const enum note_is was = note->is;
		const bool was_settled = note->settled;
		note->is = NOTE_GONE;
		note->settled |= settled;
		r = was == NOTE_GONE && was_settled == note->settled
			? 0
			: notes_save(&moves->notes, err);
		if (r < 0) {
			note->is = was;
			note->settled = was_settled;
		}
	}
	moves_show_notes(moves);
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

/* The region, which went to `to`, is not lent here any more, and its owner lets go of it. */
static int let_go(const struct give *g, uint64_t epoch, const char *to, struct weft_error *err)
{
	const struct weft_moves *moves = g->moves;
	struct timespec nap = {.tv_nsec = 20000000};
	bool used = true;

	if (weft_donor_elsewhere(g->donor, g->region->name, epoch, to) < 0)
		return no_memory(err);
	/* A thread may still wait to be refused. */
	for (unsigned i = 0; i < FORGET_TRIES && used; i++) {
		used = weft_donor_remove(g->donor, g->region) == -EBUSY;
		if (used)
			nanosleep(&nap, NULL);
	}
	if (used)
		return weft_error_set(err, EBUSY, "region '%s': it is used still", g->region->name);
	weft_info("region '%s' has moved to %s%s", g->region->name, to,
		is_file(g) ? "" : ", and its memory is free");
	moves->config.owner->forget(moves->config.ctx, g->region);
	return 0;
}

/* The taker serves: the bytes are not needed here any more. */
static int give_served(const struct give *g, json_t **ret, struct weft_error *err)
{
	const bool is_here = g->region &&
		weft_donor_claim_given(g->donor, g->region, g->number, NULL) == 0;
	char to[WEFT_PLACE_MAX] = "";
	uint64_t epoch = 0;
	bool settled = false;
	int r = 0;

	/* A mark that nobody can go on by, while the note that it was given is there still. */
	if (is_here && is_file(g)) {
		settled = settle(g, 0, err) == 0;
		if (!settled && weft_region_check(g->region, NULL) == 0)
			r = -err->code;
	}
	if (r == 0)
		r = note_gone(g, settled, &epoch, to, err);
	weft_step("give-noted-gone");
	if (r == 0 && is_here && g->region->epoch == epoch)
		r = let_go(g, epoch, to, err);
	if (is_here)
		weft_donor_unclaim(g->donor, g->region);
	return r < 0 ? r : answer(json_pack("{}"), ret, err);
}

/* Of a move by which this donor gave the region away: that is noted no more, durably. */
static int drop_note(struct weft_moves *moves, uint64_t number, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *note = notes_of_move(&moves->notes, number);
	bool removed = false;
	if (!note || note->is != NOTE_GIVEN) {
		r = weft_error_set(err, ESTALE,
			"this donor keeps nothing that it gave away by "
			"that move");
	} else {
		const struct note was = *note;
		WEFT_CLEANUP_FREE char *region = strdup(was.region);
		WEFT_CLEANUP_FREE char *file = was.file ? strdup(was.file) : NULL;

		r = region && (file || !was.file) ? 0 : no_memory(err);
		if (r == 0) {
			removed = true;
			notes_remove(&moves->notes, note);
			r = notes_save(&moves->notes, err);
		}
		/* The disk may have either: closed, as long as that is not known. */
		struct note *again =
			removed && r < 0 ? notes_add(&moves->notes, region, number, file) : NULL;
		if (again) {
			again->is = was.is;
			again->epoch = was.epoch;
			again->size_bytes = was.size_bytes;
			strcpy(again->from, was.from);
			strcpy(again->to, was.to);
			memcpy(again->reader, was.reader, sizeof(again->reader));
		}
	}
	moves_show_notes(moves);
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

/* … or by which nobody will ever serve, durably: nor will this donor go on with what it kept. */
static int refuse_note(struct weft_moves *moves, uint64_t number, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *note = notes_of_move(&moves->notes, number);
	if (!note || note->is != NOTE_GIVEN) {
		r = weft_error_set(err, ESTALE,
			"this donor keeps nothing that it gave away by that move");
	} else {
		note->is = NOTE_REFUSED;
		r = notes_save(&moves->notes, err);
		/* The disk may have either: closed, as long as that is not known. */
		if (r < 0)
			note->is = NOTE_GIVEN;
	}
	moves_show_notes(moves);
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

static int claim_given(const struct weft_moves *moves, struct weft_region *region, const char *name,
	uint64_t number, struct weft_error *err)
{
	if (!region || weft_donor_claim_given(moves->config.donor, region, number, NULL) < 0)
		return weft_error_set(err, ESTALE,
			"this donor keeps nothing of region '%s' that "
			"it gave away by that move",
			name);
	return 0;
}

/* Whether the taker may read what it lacks, as it was noted. */
static bool fills_by(struct weft_moves *moves, uint64_t number)
{
	pthread_mutex_lock(&moves->notes_lock);
	const struct note *note = notes_of_move(&moves->notes, number);
	bool fills = note && note_fills(note);
	pthread_mutex_unlock(&moves->notes_lock);
	return fills;
}

/* Up to the note without which the region is lent again.  If that fails nothing has changed. */
static int prepare_anew(struct weft_moves *moves, struct weft_region *region, uint64_t number,
	struct weft_error *err)
{
	const uint64_t was = region->epoch;
	/* A taker that is not gone, and fills, must not take new contents for the former ones. */
	int r = weft_donor_keep_reader_out(moves->config.donor, region, err);

	if (r < 0)
		return r;
	/* First: what is lent without the note has the new epoch. */
	r = weft_region_begin_epoch(region);
	if (r < 0)
		weft_error_set(err, -r, "region '%s' cannot begin a new epoch: %s", region->name,
			strerror(-r));
	weft_step("give-anew");
	if (r == 0)
		r = refuse_note(moves, number, err);
	/* Nobody was let in: here it is what it was; whoever starts this donor anew has the new. */
	if (r < 0)
		weft_donor_stays_given(moves->config.donor, region, was, fills_by(moves, number));
	return r;
}

int give_begin_anew(struct weft_moves *moves, struct weft_region *region, const char *name,
	uint64_t number, struct weft_error *err)
{
	struct weft_donor *donor = moves->config.donor;
	const uint64_t was = region ? region->epoch : 0;
	int r = claim_given(moves, region, name, number, err);

	if (r < 0)
		return r;
	r = prepare_anew(moves, region, number, err);
	if (r < 0) {
		weft_donor_unclaim(donor, region);
		return r;
	}
	/* Who knows the former contents is told that they are lost, and waits for nobody. */
	weft_donor_not_elsewhere(donor, name, was);
	weft_donor_begin_anew(donor, region);
	return 0;
}

int give_take_back(struct weft_moves *moves, struct weft_region *region, const char *name,
	uint64_t number, struct weft_error *err)
{
	struct weft_donor *donor = moves->config.donor;
	int r = claim_given(moves, region, name, number, err);

	if (r < 0)
		return r;
	/* Its mark names the move; without a note of that the donor that opens it goes on. */
	r = drop_note(moves, number, err);
	if (r < 0) {
		weft_donor_unclaim(donor, region);
		return r;
	}
	weft_donor_not_elsewhere(donor, name, region->epoch);
	weft_donor_take_back(donor, region);
	weft_info("region '%s' is lent here again: the donor to which it was given never served it",
		name);
	return 0;
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
	if (json_object_get(question, "turn") &&
		!field_count(question, "turn", INT64_MAX, &g.turn))
		return malformed("turn", err);
	int r = weft_donor_find(g.donor, peer, name, &g.region, NULL, err);
	if (r < 0 && (ops[i].needs_region || (r != -ENOENT && r != -WEFT_EMOVED)))
		return r;
	r = ops[i].fn(&g, ret, err);
	weft_region_put(g.region);
	return r;
}
