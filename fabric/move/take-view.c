/* SPDX-License-Identifier: MIT */
/* How far a take is: for whoever asks, and for the log. */
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

bool take_is_over(const struct take *t)
{
	return t->view.phase >= TAKE_DONE;
}

json_t *take_json(const struct take *t)
{
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
	return json_pack(
		"{s:o, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:o, s:o, s:I, s:i, "
		"s:o}",
		"move", number_json(t->number), "region", t->name, "from", t->from, "to", t->to,
		"phase", phases[v->phase], "size", (json_int_t)v->size_bytes, "copied",
		(json_int_t)copied, "left", (json_int_t)left, "rate", (json_int_t)rate,
		"dirty_rate", (json_int_t)v->dirty_rate, "round", (int)v->round, "eta_ms",
		rate > 0 && !take_is_over(t) ? json_integer((json_int_t)(left * 1000 / rate))
					     : json_null(),
		"downtime_ms", v->downtime_ms >= 0 ? json_real(v->downtime_ms) : json_null(),
		"checked", (json_int_t)checked, "borrowers", (int)v->nr_borrowers, "error",
		v->error.code ? json_string(v->error.message) : json_null());
}
