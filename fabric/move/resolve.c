/* SPDX-License-Identifier: MIT */
/*
 * What an operator asks when it is not known which donor has a region (weft move --resolve), and
 * what one donor said that the operator brings to the other.  tests/model/README.md, "When a region
 * moves", has why such a word may come late, or twice.  Threads: of the connections that ask.
 *
 * Invariant: the giver takes back only what the taker will never serve, which the taker has noted
 * before it says so; and whoever knows nothing of a move has not said that.  Without that word it
 * lends what it kept as new contents alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

/* One question. */
struct resolve {
	struct weft_moves *moves;
	const char *name;
	struct weft_region *region; /* NULL: it is not here */
	uint64_t number;
};

static int answer(json_t *json, json_t **ret, struct weft_error *err)
{
	if (!json)
		return weft_error_set(err, ENOMEM, "no memory");
	*ret = json;
	return 0;
}

/* Of a region that is known by its name here: whether it was given, or did not come yet. */
static bool is_closed(const struct note *n, const struct weft_region *region)
{
	return n && n->epoch == region->epoch &&
		(n->is == NOTE_GIVEN || n->is == NOTE_GONE || n->is == NOTE_PREPARED);
}

/* What this donor has, in a word. */
static const char *standing_of(const struct resolve *q, const struct note *n,
	enum weft_moving_state state)
{
	if (!q->number && state == WEFT_IS_GIVEN_NOW)
		return "giving";
	/* Whoever hears that may not let go of what is absent here. */
	if (q->region && weft_region_is_filling(q->region))
		return "filling";
	/* Whether it ever moved or not. */
	if (!q->number && q->region && !is_closed(n, q->region))
		return "owner";
	return n ? note_is_word(n->is) : "nothing";
}

/* A move that needs nobody's word. */
static bool goes_on(struct weft_moves *moves, uint64_t number)
{
	pthread_mutex_lock(&moves->lock);
	const struct take *t = take_find(moves, number);
	bool does = t && !take_is_over(t) && !t->view.waits;
	pthread_mutex_unlock(&moves->lock);
	return does;
}

static int resolve(const struct resolve *q, json_t **ret, struct weft_error *err)
{
	struct weft_moves *moves = q->moves;
	uint64_t by = 0, epoch = q->region ? q->region->epoch : 0, number = 0;
	const enum weft_moving_state state = q->region
		? weft_donor_moving_state(moves->config.donor, q->region, &by)
		: WEFT_STAYS;

	pthread_mutex_lock(&moves->notes_lock);
	const struct note *n = q->number ? notes_of_move(&moves->notes, q->number)
					 : notes_of(&moves->notes, q->name, 0);
	if (n && strcmp(n->region, q->name) != 0)
		n = NULL;
	json_t *json = json_pack("{s:s}", "is", standing_of(q, n, state));
	if (n) {
		number = n->move;
		epoch = epoch ? epoch : n->epoch;
		json_object_set_new(json, "from", json_string(n->from));
		json_object_set_new(json, "to", json_string(n->to));
		json_object_set_new(json, "move", number_json(number));
	}
	pthread_mutex_unlock(&moves->notes_lock);
	if (epoch)
		json_object_set_new(json, "epoch", number_json(epoch));
	json_object_set_new(json, "bytes", json_boolean(q->region != NULL));
	json_object_set_new(json, "moves",
		json_boolean(state == WEFT_MOVES || (n && goes_on(moves, number))));
	return answer(json, ret, err);
}

/* Gives the word to the thread that waits for it. */
static int bring(const struct resolve *q, enum take_word word, struct weft_error *err)
{
	struct weft_moves *moves = q->moves;
	int r = 0;

	pthread_mutex_lock(&moves->lock);
	struct take *t = take_find(moves, q->number);
	if (!t || take_is_over(t) || (t->view.phase == TAKE_FILL) != (word == WORD_LOST)) {
		r = weft_error_set(err, ESTALE, "this donor waits for nothing of that move");
	} else if (!t->view.waits) {
		r = weft_error_set(err, EBUSY, "that move goes on here, and needs no word");
	} else {
		/* While it is filled no other word counts any more. */
		if (t->view.word == WORD_NONE || word == WORD_LOST)
			t->view.word = word;
		r = take_wake(t);
	}
	pthread_mutex_unlock(&moves->lock);
	return r;
}

static int resolve_given(const struct resolve *q, json_t **ret, struct weft_error *err)
{
	int r = bring(q, WORD_GIVEN, err);

	return r < 0 ? r : answer(json_pack("{}"), ret, err);
}

static int resolve_never(const struct resolve *q, json_t **ret, struct weft_error *err)
{
	int r = bring(q, WORD_NEVER, err);

	return r < 0 ? r : answer(json_pack("{}"), ret, err);
}

/* PREPARED becomes REFUSED, durably: the note that this donor owns the region is refused then. */
static int promise(const struct resolve *q, struct weft_error *err)
{
	struct weft_moves *moves = q->moves;
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *n = notes_of_move(&moves->notes, q->number);
	if (!n || strcmp(n->region, q->name) != 0) {
		r = weft_error_set(err, ESTALE,
			"this donor has no note of that move, and cannot "
			"say that it never served by it");
	} else if (n->is == NOTE_PREPARED) {
		n->is = NOTE_REFUSED;
		r = notes_save(&moves->notes, err);
		if (r < 0)
			n->is = NOTE_PREPARED;
	} else if (n->is != NOTE_REFUSED) {
		r = weft_error_set(err, EBUSY, "this donor cannot promise that: it is '%s'",
			note_is_word(n->is));
	}
	moves_show_notes(moves);
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

static int resolve_refuse(const struct resolve *q, json_t **ret, struct weft_error *err)
{
	struct weft_error why;

	if (goes_on(q->moves, q->number))
		return weft_error_set(err, EBUSY, "that move goes on here: abort it");
	int r = promise(q, err);
	if (r < 0)
		return r;
	weft_info("region '%s': this donor was asked never to serve it by a move, and will not",
		q->name);
	/* Whoever does not wait for a word any more finds the note. */
	if (bring(q, WORD_REFUSED, &why) < 0)
		weft_debug("%s", why.message);
	return answer(json_pack("{s:s}", "is", "refused"), ret, err);
}

/* An operator says that the giver is gone for good, with what has not come here. */
static int resolve_lost(const struct resolve *q, json_t **ret, struct weft_error *err)
{
	int r = bring(q, WORD_LOST, err);

	return r < 0 ? r : answer(json_pack("{}"), ret, err);
}

static int resolve_refused(const struct resolve *q, json_t **ret, struct weft_error *err)
{
	int r = give_take_back(q->moves, q->region, q->name, q->number, err);

	return r < 0 ? r : answer(json_pack("{s:s}", "is", "owner"), ret, err);
}

/* Whoever asks says so; nobody else can know. */
static int resolve_gone(const struct resolve *q, json_t **ret, struct weft_error *err)
{
	const uint64_t was = q->region ? q->region->epoch : 0;
	int r = give_begin_anew(q->moves, q->region, q->name, q->number, err);

	if (r < 0)
		return r;
	weft_warn("region '%s': an operator says that the donor to which it was given is gone for "
		  "good; it is lent here again as it was when it was given, under epoch "
		  "%016" PRIx64 ": who used it under epoch %016" PRIx64 " is told that it is lost",
		q->name, q->region->epoch, was);
	return answer(json_pack("{s:s}", "is", "owner"), ret, err);
}

int resolve_answer(struct weft_moves *moves, const struct weft_peer *peer, const char *op,
	const json_t *question, json_t **ret, struct weft_error *err)
{
	static const struct {
		const char *op;
		int (*fn)(const struct resolve *q, json_t **ret, struct weft_error *err);
		bool needs_move;
	} ops[] = {
		{"resolve", resolve, false},
		{"resolve-given", resolve_given, true},
		{"resolve-never", resolve_never, true},
		{"resolve-refuse", resolve_refuse, true},
		{"resolve-refused", resolve_refused, true},
		{"resolve-lost", resolve_lost, true},
		{"resolve-gone", resolve_gone, true},
	};
	struct resolve q = {.moves = moves,
		.name = json_string_value(json_object_get(question, "region"))};
	unsigned i = 0;

	while (i < WEFT_ARRAY_LEN(ops) && strcmp(ops[i].op, op) != 0)
		i++;
	if (i == WEFT_ARRAY_LEN(ops))
		return weft_error_set(err, ENOSYS, "this donor does not know \"%.40s\"", op);
	if (!q.name)
		return weft_error_set(err, EINVAL, "the question has no good \"region\"");
	if (!field_number(question, "move", &q.number) &&
		(ops[i].needs_move || json_object_get(question, "move")))
		return weft_error_set(err, EINVAL, "the question has no good \"move\"");
	if (weft_donor_find(moves->config.donor, peer, q.name, &q.region, NULL, NULL) < 0)
		q.region = NULL;
	int r = ops[i].fn(&q, ret, err);
	weft_region_put(q.region);
	return r;
}
