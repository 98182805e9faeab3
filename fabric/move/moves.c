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
	pthread_mutex_init(&moves->begin_lock, NULL);
	pthread_mutex_init(&moves->lock, NULL);
	pthread_mutex_init(&moves->notes_lock, NULL);
	pthread_mutex_init(&moves->noted_lock, NULL);
	pthread_cond_init(&moves->answered, NULL);
	int r = notes_load(&moves->notes, config->notes, err);
	if (r == 0 && config->take_directory &&
		!(moves->directory = strdup(config->take_directory)))
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r == 0 && config->certificates && !(moves->certificates = strdup(config->certificates)))
		r = weft_error_set(err, ENOMEM, "no memory");
	for (const struct note *n = moves->notes.first; n && r == 0; n = n->next)
		if ((n->is == NOTE_GIVEN || n->is == NOTE_GONE) &&
			notes_standing(&moves->notes, n->region, n->epoch) == n &&
			weft_donor_elsewhere(config->donor, n->region, n->epoch, n->to) < 0)
			r = weft_error_set(err, ENOMEM, "no memory");
	if (r < 0) {
		weft_moves_free(moves);
		return r;
	}
	moves_show_notes(moves);
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

static void wake_all(struct take *takes)
{
	for (struct take *t = takes; t; t = t->next) {
		int r = take_wake(t);

		if (r < 0)
			weft_warn("a move cannot be ended: %s", strerror(-r));
	}
}

void weft_moves_stop(struct weft_moves *moves)
{
	struct take *t;

	pthread_mutex_lock(&moves->lock);
	moves->stopping = true;
	wake_all(moves->takes);
	wake_all(moves->trials);
	while (moves->nr_questions > 0)
		pthread_cond_wait(&moves->answered, &moves->lock);
	pthread_mutex_unlock(&moves->lock);
	/* Nobody asks any more. */
	while ((t = moves->takes) != NULL) {
		moves->takes = t->next;
		take_free(t);
	}
}

void weft_moves_free(struct weft_moves *moves)
{
	if (!moves)
		return;
	weft_moves_stop(moves);
	for (unsigned i = 0; i < moves->nr_waiting; i++)
		weft_region_put(moves->waiting[i].region);
	notes_fini(&moves->notes);
	pthread_mutex_destroy(&moves->begin_lock);
	pthread_mutex_destroy(&moves->lock);
	pthread_mutex_destroy(&moves->notes_lock);
	pthread_mutex_destroy(&moves->noted_lock);
	json_decref(moves->noted);
	pthread_cond_destroy(&moves->answered);
	free(moves->certificates);
	free(moves->directory);
	free(moves);
}

/* ---- at the start ---- */

enum weft_moves_kept weft_moves_look(const struct weft_moves *moves, const char *name,
	char ret_place[WEFT_PLACE_MAX])
{
	const struct note *note = notes_standing(&moves->notes, name, 0);

	if (!note)
		return WEFT_MOVES_NOTHING;
	if (note->is != NOTE_GIVEN && note->is != NOTE_GONE)
		return WEFT_MOVES_HERE;
	strcpy(ret_place, note->to);
	return WEFT_MOVES_AWAY;
}

const char *weft_moves_file(const struct weft_moves *moves, const char *name)
{
	const struct note *note = notes_standing(&moves->notes, name, 0);

	return note && note->is != NOTE_GONE && note->file && note->file[0] ? note->file : NULL;
}

int weft_moves_each(const struct weft_moves *moves,
	int (*fn)(void *ctx, const char *name, uint64_t size_bytes, const char *file), void *ctx)
{
	int r = 0;

	for (const struct note *n = moves->notes.first; n && r == 0; n = n->next)
		/* What was given and is a file is where the donor is told that it is. */
		if (n->is != NOTE_GONE && notes_standing(&moves->notes, n->region, 0) == n &&
			!(n->file && n->file[0] == '\0'))
			r = fn(ctx, n->region, n->size_bytes, n->file);
	return r;
}

int weft_moves_give_up(struct weft_moves *moves, const char *name, struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *note = notes_standing(&moves->notes, name, 0);
	if (note && note->is == NOTE_TAKEN) {
		notes_remove(&moves->notes, note);
		r = notes_save(&moves->notes, err);
	} else if (note && note->is != NOTE_GONE) {
		r = weft_error_set(err, EBUSY, "region '%s' is moving still", name);
	}
	moves_show_notes(moves);
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

void weft_moves_opened(struct weft_moves *moves, struct weft_region *region)
{
	const struct weft_transfer *transfer = &region->marked_transfer;
	const struct note *note = notes_of_move(&moves->notes, transfer->move);
	bool is_ours;

	if (transfer->donor == 0 || transfer->donor != moves->notes.donor)
		return;
	/* The giver marks its file before it notes that it gave it away. */
	if (transfer->way == WEFT_LEAVES)
		is_ours = !note || note->is == NOTE_GIVEN;
	else
		is_ours = note &&
			(note->is == NOTE_PREPARED || note->is == NOTE_OWNER ||
				note->is == NOTE_TAKEN);
	if (is_ours)
		weft_region_go_on(region);
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
		weft_warn("region '%s', which came from %s, is lost: %s%s", note->region,
			note->from,
			note->file ? "there is no file "
				   : "this machine was restarted, or its memory was not kept",
			note->file ? note->file : "");
		notes_remove(&moves->notes, note);
	}
	if (notes_save(&moves->notes, &err) < 0)
		weft_warn("%s", err.message);
	moves_show_notes(moves);
}

/* A file that has another epoch than the note says. */
static enum weft_moves_wish recovered_other_life(struct weft_moves *moves, struct note *note,
	const struct weft_region *region)
{
	switch (note->is) {
	case NOTE_PREPARED:
		lost(moves, note);
		/* The giver need not wait until its taker is silent for long enough. */
		wait_for_outcome(moves, note, NULL);
		return region->marked_epoch == note->epoch ? WEFT_MOVES_REMOVE : WEFT_MOVES_DROP;
	case NOTE_GIVEN:
		/* Of another time: it was begun anew, since its taker is gone. */
		if (region->marked_epoch && region->marked_epoch != note->epoch)
			return WEFT_MOVES_LEND;
		/* fallthrough */
	case NOTE_GONE:
		return WEFT_MOVES_DROP;
	case NOTE_OWNER:
		/* It was lent, and written when this donor ended: as any file, it begins anew. */
		wait_for_outcome(moves, note, NULL);
		return WEFT_MOVES_LEND;
	default:
		return WEFT_MOVES_LEND;
	}
}

static enum weft_moves_wish recovered(struct weft_moves *moves, const char *name,
	struct weft_region *region)
{
	struct note *note = notes_standing(&moves->notes, name, 0);
	struct weft_moving moving;

	if (note && note->file && region && region->epoch != note->epoch)
		return recovered_other_life(moves, note, region);
	/* Contents of another time have nothing to do with the note. */
	if (!note || (region && region->epoch != note->epoch))
		return WEFT_MOVES_LEND;
	switch (note->is) {
	case NOTE_GONE:
		return WEFT_MOVES_DROP;
	case NOTE_GIVEN:
		if (!region)
			return WEFT_MOVES_DROP;
		/* It has its name, and is closed; whoever took it says when it may be dropped. */
		moving = (struct weft_moving){.number = note->move, .fills = note_fills(note)};
		memcpy(moving.reader, note->reader, sizeof(moving.reader));
		strcpy(moving.to, note->to);
		return weft_donor_was_given(moves->config.donor, region, &moving) < 0
			? WEFT_MOVES_KEEP
			: WEFT_MOVES_LEND;
	case NOTE_PREPARED:
		if (region) {
			wait_for_outcome(moves, note, region);
			return WEFT_MOVES_KEEP;
		}
		lost(moves, note);
		/* It is as if nothing had been about to come. */
		return recovered(moves, name, NULL);
	default:
		if (!region)
			lost(moves, note);
		else if (note->is == NOTE_OWNER || note->is == NOTE_FILLING)
			wait_for_outcome(moves, note, note->is == NOTE_FILLING ? region : NULL);
		else if (weft_region_is_filling(region)) /* the giver was lost before that ended */
			weft_region_lose_absent(region);
		return WEFT_MOVES_LEND;
	}
}

enum weft_moves_wish weft_moves_recovered(struct weft_moves *moves, const char *name,
	struct weft_region *region)
{
	const enum weft_moves_wish wish = recovered(moves, name, region);
	uint64_t number;

	if (region && wish == WEFT_MOVES_LEND &&
		weft_donor_moving_state(moves->config.donor, region, &number) == WEFT_STAYS)
		weft_region_release(region);
	return wish;
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

void weft_moves_close(struct weft_moves *moves, bool closed)
{
	pthread_mutex_lock(&moves->lock);
	moves->closed = closed;
	pthread_mutex_unlock(&moves->lock);
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
	bool many = nr_running(moves) >= MAX_RUNNING, closed = moves->closed;
	pthread_mutex_unlock(&moves->lock);
	if (closed)
		return weft_error_set(err, EBUSY, "this donor is about to end, and takes nothing");
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

static int add_region(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	return json_array_append_new(ctx,
		       json_pack("{s:s, s:I}", "name", name, "size", (json_int_t)size_bytes)) < 0
		? -ENOMEM
		: 0;
}

/* What a peer may have here, but for what was given away. */
static int on_regions(struct weft_moves *moves, const struct weft_peer *peer, json_t **ret,
	struct weft_error *err)
{
	json_t *regions = json_array();
	int r = weft_donor_list(moves->config.donor, peer, add_region, regions, err);

	for (size_t i = json_array_size(regions); r == 0 && i-- > 0;) {
		const char *name =
			json_string_value(json_object_get(json_array_get(regions, i), "name"));

		if (weft_donor_gave(moves->config.donor, name))
			json_array_remove(regions, i);
	}
	if (r < 0) {
		json_decref(regions);
		return weft_error_set(err, -r, "the regions cannot be listed: %s", strerror(-r));
	}
	*ret = json_pack("{s:o}", "regions", regions);
	return 0;
}

static int answer(struct weft_moves *moves, const struct weft_peer *peer, const json_t *question,
	json_t **ret_answer, struct weft_error *err)
{
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
	else if (strcmp(op, "regions") == 0)
		r = on_regions(moves, peer, ret_answer, err);
	else if (strncmp(op, "resolve", 7) == 0)
		r = resolve_answer(moves, peer, op, question, ret_answer, err);
	else
		return weft_error_set(err, ENOSYS, "this donor does not know \"%.40s\"", op);
	if (r == 0 && !*ret_answer)
		r = weft_error_set(err, ENOMEM, "no memory");
	return r;
}

int weft_moves_question(void *ctx, const struct weft_peer *peer, const json_t *question,
	json_t **ret_answer, struct weft_error *err)
{
	struct weft_moves *moves = ctx;

	pthread_mutex_lock(&moves->lock);
	const bool stops = moves->stopping;
	moves->nr_questions += !stops;
	pthread_mutex_unlock(&moves->lock);
	if (stops)
		return weft_error_set(err, ESHUTDOWN, "this donor is stopping");
	int r = answer(moves, peer, question, ret_answer, err);
	pthread_mutex_lock(&moves->lock);
	moves->nr_questions--;
	pthread_cond_broadcast(&moves->answered);
	pthread_mutex_unlock(&moves->lock);
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
	pthread_mutex_lock(&moves->noted_lock);
	json_t *noted = json_deep_copy(moves->noted);
	pthread_mutex_unlock(&moves->noted_lock);
	json_t *takes = takes_json(moves, NULL), *take;
	size_t at;

	json_array_foreach(takes, at, take)
		name_units(take);
	return json_pack("{s:o, s:o}", "taking", takes, "noted", noted);
}
