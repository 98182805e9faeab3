/* SPDX-License-Identifier: MIT */
/* How far a take is: for whoever asks, and for the log. */
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

#define NS_PER_S 1e9

static const char *const phases[] = {
	[TAKE_TRACK] = "track",
	[TAKE_PULL] = "pull",
	[TAKE_CONVERGE] = "converge",
	[TAKE_FINALIZE] = "finalize",
	[TAKE_FILL] = "fill",
	[TAKE_FOLLOW] = "follow",
	[TAKE_DONE] = "done",
	[TAKE_ABORTED] = "aborted",
	[TAKE_FAILED] = "failed",
};

void take_set_phase(struct take *t, enum take_phase phase)
{
	pthread_mutex_lock(&t->moves->lock);
	bool news = t->view.phase != phase;
	t->view.phase = phase;
	pthread_mutex_unlock(&t->moves->lock);
	if (news)
		weft_info("region '%s' from %s: %s", t->name, t->from, phases[phase]);
}

void take_set_waits(struct take *t, bool waits)
{
	pthread_mutex_lock(&t->moves->lock);
	t->view.waits = waits;
	pthread_mutex_unlock(&t->moves->lock);
}

enum take_word take_word_of(struct take *t)
{
	pthread_mutex_lock(&t->moves->lock);
	enum take_word word = t->view.word;
	pthread_mutex_unlock(&t->moves->lock);
	return word;
}

void take_forget_word(struct take *t)
{
	pthread_mutex_lock(&t->moves->lock);
	t->view.word = WORD_NONE;
	pthread_mutex_unlock(&t->moves->lock);
}

bool take_is_over(const struct take *t)
{
	return t->view.phase >= TAKE_DONE;
}

void moves_show_notes(struct weft_moves *moves)
{
	json_t *noted = json_array();

	for (const struct note *n = moves->notes.first; n; n = n->next)
		json_array_append_new(noted,
			json_pack("{s:s, s:s, s:s, s:s, s:o}", "region", n->region, "is",
				note_is_word(n->is), "from", n->from, "to", n->to, "epoch",
				number_json(n->epoch)));
	pthread_mutex_lock(&moves->noted_lock);
	json_decref(moves->noted);
	moves->noted = noted;
	pthread_mutex_unlock(&moves->noted_lock);
}

/* Borrowers that held the region at A, and have not come here yet. */
struct waiting {
	const char *region;
	unsigned nr, nr_readers; /* nr_readers: that are here */
	char who[TAKE_WHO_MAX];
};

static void count_waiting(void *ctx, const struct weft_attachment_status *a)
{
	struct waiting *w = ctx;
	const size_t used = strlen(w->who);

	if (strcmp(a->region, w->region) != 0)
		return;
	if (a->mode == WEFT_MODE_SHARED) {
		w->nr_readers += a->nr_sessions > 0;
	} else if (a->nr_sessions == 0 && a->lease_left_ms > 0) {
		snprintf(w->who + used, sizeof(w->who) - used, "%s'%s'", used > 0 ? ", " : "",
			a->name);
		w->nr++;
	}
}

/*
 * Those that hold the region are known by the table that came with it; of readers it is known how
 * many there were.
 */
static void find_waiting(const struct take *t, struct waiting *ret)
{
	const struct take_view *v = &t->view;

	*ret = (struct waiting){.region = t->name};
	if (v->phase != TAKE_FILL && v->phase != TAKE_FOLLOW && v->phase != TAKE_DONE)
		return;
	weft_donor_status(t->moves->config.donor, count_waiting, ret);
	if (ret->nr_readers < v->nr_readers && weft_now_ns() < v->wait_until_ns)
		ret->nr += (unsigned)v->nr_readers - ret->nr_readers;
}

json_t *take_json(const struct take *t)
{
	struct waiting waiting;
	const struct take_view *v = &t->view;
	bool lives = v->copies;
	uint64_t copied =
			 lives ? atomic_load(&t->pull.copied_bytes) : atomic_load(&t->copied_bytes),
		 checked = lives ? atomic_load(&t->pull.checked_bytes)
				 : atomic_load(&t->checked_bytes);
	uint64_t left =
		v->round == 0 && copied < v->size_bytes ? v->size_bytes - copied : v->left_bytes;

	uint64_t rate = v->rate, ns = weft_now_ns() - v->round_ns;

	if ((v->phase == TAKE_PULL || v->phase == TAKE_CONVERGE) && ns > 100000000 &&
		copied > v->round_bytes)
		rate = (uint64_t)((double)(copied - v->round_bytes) / (double)ns * NS_PER_S);
	find_waiting(t, &waiting);
	return json_pack(
		"{s:o, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:o, s:o, s:I, s:i, "
		"s:i, s:s, s:o}",
		"move", number_json(t->number), "region", t->name, "from", t->from, "to", t->to,
		"phase", phases[v->phase], "size", (json_int_t)v->size_bytes, "copied",
		(json_int_t)copied, "left", (json_int_t)left, "rate", (json_int_t)rate,
		"dirty_rate", (json_int_t)v->dirty_rate, "round", (int)v->round, "eta_ms",
		rate > 0 && !take_is_over(t) ? json_integer((json_int_t)(left * 1000 / rate))
					     : json_null(),
		"downtime_ms", v->downtime_ms >= 0 ? json_real(v->downtime_ms) : json_null(),
		"checked", (json_int_t)checked, "borrowers", (int)v->nr_borrowers, "waiting",
		(int)waiting.nr, "who", waiting.who, "error",
		v->error.code ? json_string(v->error.message) : json_null());
}
