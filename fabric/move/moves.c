/* SPDX-License-Identifier: MIT */
#include "fabric/move/moves.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

enum { MAX_TAKES = 64, MAX_RUNNING = 16 };

int weft_moves_new(const struct weft_moves_config *config, struct weft_moves **ret,
	struct weft_error *err)
{
	struct weft_moves *moves = calloc(1, sizeof(*moves));

	if (!moves)
		return weft_error_set(err, ENOMEM, "no memory");
	moves->config = *config;
	moves->config.notes = NULL;
	pthread_mutex_init(&moves->lock, NULL);
	pthread_mutex_init(&moves->notes_lock, NULL);
	int r = notes_load(&moves->notes, config->notes, err);
	if (r == 0 && config->certificates && !(moves->certificates = strdup(config->certificates)))
		r = weft_error_set(err, ENOMEM, "no memory");
	for (const struct note *n = moves->notes.first; n && r == 0; n = n->next)
		if ((n->is == NOTE_GIVEN || n->is == NOTE_GONE) &&
			notes_of(&moves->notes, n->region, n->epoch) == n &&
			weft_donor_elsewhere(config->donor, n->region, n->epoch, n->to) < 0)
			r = weft_error_set(err, ENOMEM, "no memory");
	if (r < 0) {
		weft_moves_free(moves);
		return r;
	}
	*ret = moves;
	return 0;
}

/*
 * Frees takes that are over, but for the newest; under the lock, which they do not want any more.
 */
static void prune(struct weft_moves *moves, unsigned keep)
{
	unsigned nr = 0;

	for (struct take **at = &moves->takes; *at;) {
		struct take *t = *at;

		if (t->view.phase < TAKE_DONE || ++nr <= keep) {
			at = &t->next;
			continue;
		}
		*at = t->next;
		pthread_mutex_unlock(&moves->lock);
		take_free(t);
		pthread_mutex_lock(&moves->lock);
		at = &moves->takes;
		nr = 0;
	}
}

void weft_moves_free(struct weft_moves *moves)
{
	const uint64_t one = 1;
	struct take *t;

	if (!moves)
		return;
	pthread_mutex_lock(&moves->lock);
	moves->stopping = true;
	for (t = moves->takes; t; t = t->next)
		if (write(t->cancel_fd, &one, sizeof(one)) < 0)
			weft_warn("a move cannot be ended: %s", strerror(errno));
	pthread_mutex_unlock(&moves->lock);
	while ((t = moves->takes) != NULL) {
		moves->takes = t->next;
		take_free(t);
	}
	for (unsigned i = 0; i < moves->nr_waiting; i++)
		weft_region_put(moves->waiting[i].region);
	notes_fini(&moves->notes);
	pthread_mutex_destroy(&moves->lock);
	pthread_mutex_destroy(&moves->notes_lock);
	free(moves->certificates);
	free(moves);
}

/* ---- at the start ---- */

enum weft_moves_kept weft_moves_look(const struct weft_moves *moves, const char *name,
	char ret_place[WEFT_PLACE_MAX])
{
	const struct note *note = notes_of(&moves->notes, name, 0);

	if (!note || note->is == NOTE_REFUSED)
		return WEFT_MOVES_NOTHING;
	if (note->is != NOTE_GIVEN && note->is != NOTE_GONE)
		return WEFT_MOVES_HERE;
	strcpy(ret_place, note->to);
	return WEFT_MOVES_AWAY;
}

void weft_moves_each(const struct weft_moves *moves,
	int (*fn)(void *ctx, const char *name, uint64_t size_bytes), void *ctx)
{
	for (const struct note *n = moves->notes.first; n; n = n->next)
		if (n->is != NOTE_GONE && n->is != NOTE_REFUSED &&
			notes_of(&moves->notes, n->region, 0) == n)
			if (fn(ctx, n->region, n->size_bytes) != 0)
				return;
}

static void wait_for_outcome(struct weft_moves *moves, const struct note *note,
	struct weft_region *region)
{
	if (moves->nr_waiting == WEFT_ARRAY_LEN(moves->waiting)) {
		weft_warn("region '%s': there are too many moves; this one is left alone",
			note->region);
		return;
	}
	moves->waiting[moves->nr_waiting].region = region ? weft_region_get(region) : NULL;
	moves->waiting[moves->nr_waiting++].number = note->move;
}

/* What came here, and is not there any more. */
static void lost(struct weft_moves *moves, struct note *note)
{
	struct weft_error err;

	if (note->is == NOTE_PREPARED) {
		/* It can never be served by that move, and whoever asks is told so. */
		note->is = NOTE_REFUSED;
	} else {
		weft_warn("region '%s', which came from %s, is lost: this machine was restarted, "
			  "or its "
			  "memory was not kept",
			note->region, note->from);
		notes_remove(&moves->notes, note);
	}
	if (notes_save(&moves->notes, &err) < 0)
		weft_warn("%s", err.message);
}

enum weft_moves_wish weft_moves_recovered(struct weft_moves *moves, const char *name,
	struct weft_region *region)
{
	struct note *note = notes_of(&moves->notes, name, 0);
	struct weft_moving moving;

	/* Contents of another time have nothing to do with the note. */
	if (!note || note->is == NOTE_REFUSED || (region && region->epoch != note->epoch))
		return WEFT_MOVES_LEND;
	switch (note->is) {
	case NOTE_GONE:
		return WEFT_MOVES_DROP;
	case NOTE_GIVEN:
		if (!region)
			return WEFT_MOVES_DROP;
		/* It has its name, and is closed; whoever took it says when it may be dropped. */
		moving = (struct weft_moving){.number = note->move};
		strcpy(moving.to, note->to);
		return weft_donor_was_given(moves->config.donor, region, &moving) < 0
			? WEFT_MOVES_KEEP
			: WEFT_MOVES_LEND;
	case NOTE_PREPARED:
		if (region)
			wait_for_outcome(moves, note, region);
		else
			lost(moves, note);
		return WEFT_MOVES_KEEP;
	default:
		if (!region)
			lost(moves, note);
		else if (note->is == NOTE_OWNER)
			wait_for_outcome(moves, note, NULL);
		return region ? WEFT_MOVES_LEND : WEFT_MOVES_KEEP;
	}
}

void weft_moves_start(struct weft_moves *moves)
{
	for (unsigned i = 0; i < moves->nr_waiting; i++) {
		pthread_mutex_lock(&moves->notes_lock);
		const struct note *found = notes_of_move(&moves->notes, moves->waiting[i].number);
		struct note note = found ? *found : (struct note){0};
		pthread_mutex_unlock(&moves->notes_lock);
		if (!found || take_resume(moves, &note, moves->waiting[i].region) < 0) {
			weft_warn("a move cannot be gone on with: no memory");
			weft_region_put(moves->waiting[i].region);
		}
	}
	moves->nr_waiting = 0;
}

/* ---- questions ---- */

static unsigned nr_running(const struct weft_moves *moves)
{
	unsigned nr = 0;

	for (const struct take *t = moves->takes; t; t = t->next)
		nr += t->view.phase < TAKE_DONE;
	return nr;
}

static int on_take(struct weft_moves *moves, const json_t *question, json_t **ret,
	struct weft_error *err)
{
	pthread_mutex_lock(&moves->lock);
	prune(moves, MAX_TAKES);
	bool many = nr_running(moves) >= MAX_RUNNING;
	pthread_mutex_unlock(&moves->lock);
	if (many)
		return weft_error_set(err, EBUSY, "%d regions come here at once, and more cannot",
			MAX_RUNNING);
	return take_begin(moves, question, ret, err);
}

/* peer: those that are for it; NULL: all. */
static json_t *takes_json(struct weft_moves *moves, const struct weft_peer *peer)
{
	json_t *takes = json_array();

	pthread_mutex_lock(&moves->lock);
	for (const struct take *t = moves->takes; t; t = t->next)
		if (weft_donor_may_have(moves->config.donor, peer, t->name, NULL) == 0)
			json_array_append_new(takes, take_json(t));
	pthread_mutex_unlock(&moves->lock);
	return takes;
}

static int on_one_take(struct weft_moves *moves, const struct weft_peer *peer, const char *op,
	const json_t *question, json_t **ret, struct weft_error *err)
{
	uint64_t number;
	int r = 0;

	if (!field_number(question, "move", &number))
		return weft_error_set(err, EINVAL, "the question has no good \"move\"");
	pthread_mutex_lock(&moves->lock);
	struct take *t = take_find(moves, number);
	if (!t)
		r = weft_error_set(err, ENOENT, "this donor knows of no such move");
	else
		r = weft_donor_may_have(moves->config.donor, peer, t->name, err);
	if (r == 0 && strcmp(op, "take-abort") == 0)
		r = take_abort(t, err);
	if (r == 0)
		*ret = take_json(t);
	pthread_mutex_unlock(&moves->lock);
	return r;
}

/* Of a region that is known by its name here: whether it was given, or did not come yet. */
static bool is_closed(const struct note *n, const struct weft_region *region)
{
	return n && n->epoch == region->epoch &&
	       (n->is == NOTE_GIVEN || n->is == NOTE_GONE || n->is == NOTE_PREPARED);
}

static int on_resolve(struct weft_moves *moves, const struct weft_peer *peer,
	const json_t *question, json_t **ret, struct weft_error *err)
{
	const char *name = json_string_value(json_object_get(question, "region"));
	struct weft_region *region;

	if (!name)
		return weft_error_set(err, EINVAL, "the question has no good \"region\"");
	if (weft_donor_find(moves->config.donor, peer, name, &region, NULL, NULL) < 0)
		region = NULL;
	pthread_mutex_lock(&moves->notes_lock);
	const struct note *n = notes_of(&moves->notes, name, 0);
	/* Whether it ever moved or not. */
	const bool owner = region && !is_closed(n, region);
	const char *is = owner ? "owner" : n ? note_is_word(n->is) : "nothing";
	*ret = n
		? json_pack("{s:s, s:s, s:s, s:o, s:o}", "is", is, "from", n->from,
			  "to", n->to, "move", number_json(n->move), "epoch", number_json(n->epoch))
		: json_pack("{s:s}", "is", is);
	pthread_mutex_unlock(&moves->notes_lock);
	weft_region_put(region);
	return 0;
}

int weft_moves_question(void *ctx, const struct weft_peer *peer, const json_t *question,
	json_t **ret_answer, struct weft_error *err)
{
	struct weft_moves *moves = ctx;
	const char *op = json_string_value(json_object_get(question, "op"));
	const char *region = json_string_value(json_object_get(question, "region"));
	int r = 0;

	*ret_answer = NULL;
	if (!op)
		return weft_error_set(err, EINVAL, "the question has no \"op\"");
	if (region)
		r = weft_donor_may_have(moves->config.donor, peer, region, err);
	if (r < 0)
		return r;
	if (strncmp(op, "give-", 5) == 0)
		r = give_answer(moves, peer, op, question, ret_answer, err);
	else if (strcmp(op, "take") == 0)
		r = on_take(moves, question, ret_answer, err);
	else if (strcmp(op, "take-status") == 0 || strcmp(op, "take-abort") == 0)
		r = on_one_take(moves, peer, op, question, ret_answer, err);
	else if (strcmp(op, "takes") == 0)
		*ret_answer = json_pack("{s:o}", "takes", takes_json(moves, peer));
	else if (strcmp(op, "resolve") == 0)
		r = on_resolve(moves, peer, question, ret_answer, err);
	else
		return weft_error_set(err, ENOSYS, "this donor does not know \"%.40s\"", op);
	if (r == 0 && !*ret_answer)
		r = weft_error_set(err, ENOMEM, "no memory");
	return r;
}

/* As status has it everywhere: with the units in the names, and times in seconds. */
static void name_units(json_t *take)
{
	static const char *const bytes[] = {"size", "copied", "left", "checked"};
	static const char *const times[] = {"eta", "downtime"};
	char was[32], is[32];

	for (unsigned i = 0; i < WEFT_ARRAY_LEN(bytes); i++) {
		snprintf(is, sizeof(is), "%s_bytes", bytes[i]);
		json_object_set(take, is, json_object_get(take, bytes[i]));
		json_object_del(take, bytes[i]);
	}
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(times); i++) {
		snprintf(was, sizeof(was), "%s_ms", times[i]);
		snprintf(is, sizeof(is), "%s_s", times[i]);
		const json_t *ms = json_object_get(take, was);
		json_object_set_new(take, is,
			json_is_number(ms) ? json_real(json_number_value(ms) / 1e3) : json_null());
		json_object_del(take, was);
	}
	json_object_set(take, "bytes_per_s", json_object_get(take, "rate"));
	json_object_set(take, "dirty_bytes_per_s", json_object_get(take, "dirty_rate"));
	json_object_del(take, "rate");
	json_object_del(take, "dirty_rate");
}

json_t *weft_moves_status(struct weft_moves *moves)
{
	json_t *noted = json_array();

	pthread_mutex_lock(&moves->notes_lock);
	for (const struct note *n = moves->notes.first; n; n = n->next)
		json_array_append_new(noted,
			json_pack("{s:s, s:s, s:s, s:s, s:o}", "region", n->region, "is",
				note_is_word(n->is), "from", n->from, "to", n->to, "epoch",
				number_json(n->epoch)));
	pthread_mutex_unlock(&moves->notes_lock);
	json_t *takes = takes_json(moves, NULL), *take;
	size_t at;

	json_array_foreach(takes, at, take)
		name_units(take);
	return json_pack("{s:o, s:o}", "taking", takes, "noted", noted);
}
