/* SPDX-License-Identifier: MIT */
/*
 * The taker: a thread for each region that comes here.
 *
 * Invariants: this donor serves the region only after A has said that it gave it away by this very
 * move, and after that is noted here.  What A said it had changed is copied again, and each chunk
 * is compared after that.  As long as it is not known whether A gave the region away, nothing is
 * dropped and nothing is served.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/key/find.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

#define NS_PER_S 1e9

enum {
	ASK_MS = 15000, /* A may have to wait for sessions to end */
	RETRY_MS = 250, /* after A did not answer */
	RESUME_MS =
		15000, /* as long A is asked again before it is given up; less than its patience */
	WINDOW = 1 << 17, /* chunks, as the giver allows */
	MAX_ROUNDS = 40,
	SLOW_ROUNDS = 3,      /* rounds that do not shrink, before writers are held back */
	COMMIT_MS = 15,       /* of the downtime, for two notes and three questions */
	PACE_MAX = 200000000, /* ns a MiB: 5 MiB/s */
	WHO_MAX = 320,        /* names of those who cannot follow */
};

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

static void set_phase(struct take *t, enum take_phase phase)
{
	pthread_mutex_lock(&t->moves->lock);
	bool news = t->view.phase != phase;
	t->view.phase = phase;
	pthread_mutex_unlock(&t->moves->lock);
	if (news)
		weft_info("region '%s' from %s: %s", t->name, t->from, phases[phase]);
}

static bool is_over(const struct take *t)
{
	return t->view.phase >= TAKE_DONE;
}

/* False: it is aborted, or the donor stops. */
static bool nap(const struct take *t, int ms)
{
	struct pollfd p = {.fd = t->cancel_fd, .events = POLLIN};

	return poll(&p, 1, ms) == 0;
}

/* ---- asking A ---- */

/* Whether the error is of the way to A, and not A's answer. */
static bool is_of_link(int r)
{
	switch (-r) {
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case ENOTCONN:
	case EPIPE:
	case ETIMEDOUT:
	case ESHUTDOWN:
		return true;
	default:
		return false;
	}
}

static int with_key(const struct take *t, struct weft_key *key, const struct weft_key **ret,
	struct weft_error *err)
{
	int r;

	*ret = NULL;
	if (t->moves->certificates)
		return 0;
	r = weft_key_find(NULL, t->uri.identity[0] ? t->uri.identity : NULL, key, err);
	if (r == 0)
		*ret = key;
	return r == -ENOENT && !t->uri.identity[0] ? 0 : r;
}

/* Takes over the question.  once: cancelling does not end it. */
static int ask_with(struct take *t, json_t *question, int cancel_fd, json_t **ret,
	struct weft_error *err)
{
	struct weft_key key = {0};
	const struct weft_key *proof;
	json_t *ours = NULL;
	int r = question ? with_key(t, &key, &proof, err)
			 : weft_error_set(err, ENOMEM, "no memory");

	if (r == 0)
		r = tp_base_driver()->question(&t->uri, proof, t->moves->certificates, ASK_MS,
			cancel_fd, &t->talk, question, &ours, err);
	json_decref(question);
	weft_key_wipe(&key);
	if (r == 0 && ret)
		*ret = ours;
	else
		json_decref(ours);
	return r;
}

static int ask(struct take *t, json_t *question, json_t **ret, struct weft_error *err)
{
	int r = ask_with(t, question, t->cancel_fd, ret, err);

	if (r == -ENOSYS)
		return weft_error_set(err, ENOSYS, "%s is at a weft that cannot move regions",
			t->from);
	/* Where it is not A's own word. */
	return r < 0 && !t->talk ? weft_error_prefix(err, "cannot ask for %s", t->from) : r;
}

static json_t *question_of(const struct take *t, const char *op)
{
	return json_pack("{s:s, s:s, s:o}", "op", op, "region", t->uri.region, "move",
		number_json(t->number));
}

static int unintelligible(const struct take *t, struct weft_error *err)
{
	return weft_error_set(err, EPROTO, "%s answers what makes no sense", t->from);
}

/* What goes with the contents, from A's answer. */
static int apply(struct take *t, const json_t *told, struct weft_error *err)
{
	struct weft_region_facts *facts = calloc(1, sizeof(*facts));
	struct weft_region *region = t->region;
	bool good = facts && field_facts(told, "facts", facts);

	if (good) {
		memcpy(region->generations, facts->table, sizeof(facts->table));
		weft_region_set_id_key(region, facts->id_key);
		weft_region_note_stripe(region, &facts->stripe);
		region->promised_lease_ms = facts->lease_ms;
	}
	free(facts);
	return good ? 0 : unintelligible(t, err);
}

/* All changes since the last time, by "or" into t->changed; op: give-changes, give-freeze. */
static int ask_changes(struct take *t, const char *op, uint64_t pace, struct weft_error *err)
{
	struct pull *pull = &t->pull;

	memset(t->changed, 0, pull->nr_words * sizeof(*t->changed));
	for (uint64_t first = 0, nr; first < pull->nr_chunks; first += nr) {
		json_t *question = question_of(t, first == 0 ? op : "give-changes"), *told;

		nr = weft_min(WINDOW, pull->nr_chunks - first);
		json_object_set_new(question, "first", json_integer((json_int_t)first));
		json_object_set_new(question, "nr", json_integer((json_int_t)nr));
		json_object_set_new(question, "pace_ns_per_mib", json_integer((json_int_t)pace));
		int r = ask(t, question, &told, err);
		if (r < 0)
			return r;
		if (!field_bits(told, "bits", nr, t->changed + first / 64))
			r = unintelligible(t, err);
		else if (json_object_get(told, "facts"))
			r = apply(t, told, err);
		json_decref(told);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- notes ---- */

static int note(struct take *t, enum note_is is, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *n = notes_of_move(&moves->notes, t->number);
	if (!n && (n = notes_add(&moves->notes, t->name, t->number)) == NULL) {
		r = weft_error_set(err, ENOMEM, "no memory");
	} else {
		n->is = is;
		n->epoch = t->epoch;
		n->size_bytes = t->region ? t->region->size_bytes : n->size_bytes;
		strcpy(n->from, t->from);
		strcpy(n->to, t->to);
		r = notes_save(&moves->notes, err);
	}
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

static void drop_note(struct take *t)
{
	struct weft_moves *moves = t->moves;
	struct weft_error err;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *n = notes_of_move(&moves->notes, t->number);
	if (n) {
		notes_remove(&moves->notes, n);
		if (notes_save(&moves->notes, &err) < 0)
			weft_warn("%s", err.message);
	}
	pthread_mutex_unlock(&moves->notes_lock);
}

/* ---- beginning ---- */

/* Who cannot follow: ret_names, of WHO_MAX, is for people. */
static int look(struct take *t, uint64_t *ret_size, uint64_t *ret_cannot, char *ret_names,
	struct weft_error *err)
{
	uint64_t follow, cannot;
	json_t *told;
	int r = ask(t, question_of(t, "give-look"), &told, err);

	if (r < 0)
		return r;
	if (!field_number(told, "epoch", &t->epoch) ||
		!field_count(told, "size", INT64_MAX, ret_size) || *ret_size == 0 ||
		!field_count(told, "follow", UINT32_MAX, &follow) ||
		!field_count(told, "cannot_follow", UINT32_MAX, &cannot))
		r = unintelligible(t, err);
	else if (json_is_true(json_object_get(told, "read_only")))
		r = weft_error_set(err, EOPNOTSUPP,
			"a region that is lent read-only does not move");
	if (r == 0) {
		const char *names = json_string_value(json_object_get(told, "names"));

		*ret_cannot = cannot;
		snprintf(ret_names, WHO_MAX, "%s", names ? names : "");
	}
	json_decref(told);
	pthread_mutex_lock(&t->moves->lock);
	t->view.size_bytes = t->view.left_bytes = r == 0 ? *ret_size : 0;
	t->view.nr_borrowers = r == 0 ? (unsigned)follow : 0;
	pthread_mutex_unlock(&t->moves->lock);
	return r;
}

static int check_who_follows(const struct take *t, uint64_t cannot, const char *names,
	struct weft_error *err)
{
	if (cannot == 0 || t->disconnect)
		return 0;
	return weft_error_set(err, EBUSY,
		"it is used by who cannot follow: %.200s; with --disconnect they lose it", names);
}

/* What has come here, or is about to; under the moves' lock. */
static uint64_t taken_bytes(const struct weft_moves *moves, const struct take *but)
{
	uint64_t bytes = 0;

	for (const struct take *t = moves->takes; t; t = t->next)
		if (t != but && !is_over(t))
			bytes += t->view.size_bytes;
	return bytes;
}

/* 0 with how much may still come here; or it is too little for the region. */
static int check_room(struct take *t, uint64_t size, uint64_t *ret_free, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	char have[32], gone[32], want[32];

	pthread_mutex_lock(&moves->lock);
	uint64_t used = taken_bytes(moves, t);
	pthread_mutex_unlock(&moves->lock);
	pthread_mutex_lock(&moves->notes_lock);
	for (const struct note *n = moves->notes.first; n; n = n->next)
		if (n->is == NOTE_TAKEN)
			used += n->size_bytes;
	pthread_mutex_unlock(&moves->notes_lock);
	*ret_free = moves->config.take_bytes - weft_min(used, moves->config.take_bytes);
	if (size <= *ret_free)
		return 0;
	return weft_error_set(err, ENOSPC,
		"this donor takes %s in sum (weft serve --take), has taken %s, and this region has "
		"%s",
		weft_format_size(moves->config.take_bytes, have, sizeof(have)),
		weft_format_size(used, gone, sizeof(gone)),
		weft_format_size(size, want, sizeof(want)));
}

static int make_room(struct take *t, uint64_t size, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	uint64_t room;
	int r = check_room(t, size, &room, err);

	if (r == 0)
		r = moves->config.owner->make(moves->config.ctx, t->name, size, t->epoch,
			&t->region, err);
	if (r < 0)
		return r;
	if (t->region->size_bytes != size)
		return weft_error_set(err, EOPNOTSUPP,
			"its size, %" PRIu64 " bytes, is no multiple of this donor's pages", size);
	return 0;
}

static int begin(struct take *t, struct weft_error *err)
{
	json_t *question = question_of(t, "give-begin");

	weft_random(t->reader, sizeof(t->reader));
	json_object_set_new(question, "to", json_string(t->to));
	json_object_set_new(question, "epoch", number_json(t->epoch));
	json_object_set_new(question, "reader", bytes_json(t->reader, sizeof(t->reader)));
	json_object_set_new(question, "disconnect", json_boolean(t->disconnect));
	return ask(t, question, NULL, err);
}

static int connect_reader(struct take *t, struct weft_error *err)
{
	struct weft_key key = {0};
	const struct weft_key *proof;
	int r = with_key(t, &key, &proof, err);

	if (r == 0)
		r = pull_connect(&t->pull, &t->uri, proof, t->moves->certificates, t->reader,
			t->epoch, err);
	weft_key_wipe(&key);
	return r;
}

/* ---- copying ---- */

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

		if (!nap(t, RETRY_MS))
			return weft_error_set(err, ECANCELED, "aborted");
		r = ask(t, question_of(t, "give-outcome"), &told, err);
		const char *is = json_string_value(json_object_get(told, "is"));
		if (r == 0 && (!is || strcmp(is, "moving") != 0))
			r = weft_error_set(err, ESTALE,
				"%s has forgotten the move: it was started anew, or somebody ended "
				"it",
				t->from);
		json_decref(told);
		if (r == 0)
			r = connect_reader(t, err);
		/* What A told, and we did not hear, is lost: so all is compared. */
		if (r == 0)
			r = pull_compare(&t->pull, err);
		if (r == 0 || !is_of_link(r))
			return r;
	}
	return r;
}

/* One round, whatever happens to the way: 0, or an error that ends the move. */
static int copy_round(struct take *t, const char *op, uint64_t pace, struct weft_error *err)
{
	for (;;) {
		int r = pull_round(&t->pull, err);

		if (r == 0)
			r = ask_changes(t, op, pace, err);
		if (r == 0)
			return pull_judge(&t->pull, t->changed, err);
		if (!is_of_link(r))
			return r;
		r = resume(t, err);
		if (r < 0)
			return r;
	}
}

/* Rounds until the rest can be copied while A is frozen. */
static int converge(struct take *t, struct weft_error *err)
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
		set_phase(t, TAKE_CONVERGE);
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

/* ---- handing over ---- */

/* A is frozen afterwards, and all that it has is here. */
static int freeze(struct take *t, struct weft_error *err)
{
	int r;

	set_phase(t, TAKE_FINALIZE);
	t->frozen_ns = weft_now_ns();
	r = ask_changes(t, "give-freeze", 0, err);
	if (r == 0)
		r = pull_judge(&t->pull, t->changed, err);
	else if (is_of_link(r))
		r = resume(t, err);
	weft_step("take-frozen");
	/* Nothing is written any more: each round is the last, but for what came wrong. */
	memset(t->changed, 0, t->pull.nr_words * sizeof(*t->changed));
	while (r == 0 && pull_nr_dirty(&t->pull) > 0) {
		r = pull_round(&t->pull, err);
		if (r == 0)
			r = pull_judge(&t->pull, t->changed, err);
		else if (is_of_link(r))
			r = resume(t, err);
	}
	return r;
}

/* Serves from now on. */
static int serve(struct take *t, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	struct weft_donor *donor = moves->config.donor;
	int r = note(t, NOTE_OWNER, err);

	if (r < 0)
		return r;
	weft_step("take-owner");
	weft_donor_not_elsewhere(donor, t->name, t->epoch);
	r = weft_donor_add(donor, t->region, err);
	if (r < 0)
		return r;
	weft_donor_not_elsewhere(donor, t->name, 0);
	pthread_mutex_lock(&moves->lock);
	if (t->frozen_ns)
		t->view.downtime_ms = (double)(weft_now_ns() - t->frozen_ns) / 1e6;
	t->view.left_bytes = 0;
	pthread_mutex_unlock(&moves->lock);
	weft_info("region '%s' from %s is served here now", t->name, t->from);
	return 0;
}

enum outcome { GIVEN, NEVER, UNKNOWN };

/*
 * Asks A until it says whether it gave the region away, however long that takes: nobody else can
 * know.  UNKNOWN: this donor stops.
 */
static enum outcome find_out(struct take *t, struct weft_error *err)
{
	bool told_log = false;

	for (int ms = RETRY_MS;; ms = ms < 5000 ? ms * 2 : ms) {
		json_t *told = NULL;
		json_t *question = question_of(t, t->resumes ? "give-outcome" : "give-commit");

		if (!t->resumes) {
			json_object_set_new(question, "from", json_string(t->from));
			json_object_set_new(question, "to", json_string(t->to));
		}
		int r = ask_with(t, question, -1, &told, err);
		const char *is = json_string_value(json_object_get(told, "is"));
		if (r == 0 && is && strcmp(is, "given") == 0 &&
			(json_object_get(told, "facts") ? apply(t, told, err) == 0 : t->resumes)) {
			json_decref(told);
			return GIVEN;
		}
		bool never = r == 0 && is && strcmp(is, "never") == 0,
		     moving = r == 0 && is && strcmp(is, "moving") == 0;
		json_decref(told);
		/*
		 * The copy may be unfinished: A is to go on alone.  An A that refuses that does not know
		 * itself yet whether its note says that it gave the region away.
		 */
		if (t->resumes && moving) {
			r = ask_with(t, question_of(t, "give-abort"), -1, NULL, err);
			never = r == 0 || r == -ESTALE;
		}
		if (never) {
			weft_error_set(err, ESTALE, "%s did not give the region away", t->from);
			return NEVER;
		}
		/* A refused the commit, or it is not known: its note says. */
		t->resumes = true;
		pthread_mutex_lock(&t->moves->lock);
		t->view.error = *err;
		pthread_mutex_unlock(&t->moves->lock);
		if (!told_log && r < 0)
			weft_warn("region '%s': whether %s gave it away is not known yet (%s); "
				  "nobody is let in before it is",
				t->name, t->from, err->message);
		told_log = true;
		struct pollfd p = {.fd = t->cancel_fd, .events = POLLIN};
		poll(&p, 1, ms);
		pthread_mutex_lock(&t->moves->lock);
		bool stops = t->moves->stopping;
		pthread_mutex_unlock(&t->moves->lock);
		if (stops)
			return UNKNOWN;
		if (p.revents) { /* an abort, which comes too late, or not */
			struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};

			nanosleep(&pause, NULL);
		}
	}
}

/* Until A knows that it may let go. */
static void tell_served(struct take *t)
{
	struct weft_error err;

	for (int ms = RETRY_MS;; ms = ms < 5000 ? ms * 2 : ms) {
		int r = ask_with(t, question_of(t, "give-served"), -1, NULL, &err);

		/* A that knows of no such move has nothing to let go of. */
		if (r == 0 || r == -ESTALE) {
			weft_step("take-told-served");
			if (note(t, NOTE_TAKEN, &err) < 0)
				weft_warn("%s", err.message);
			return;
		}
		struct pollfd p = {.fd = t->cancel_fd, .events = POLLIN};
		poll(&p, 1, ms);
		pthread_mutex_lock(&t->moves->lock);
		bool stops = t->moves->stopping;
		pthread_mutex_unlock(&t->moves->lock);
		if (stops)
			return;
	}
}

static void set_end(struct take *t, enum take_phase phase, const struct weft_error *err)
{
	pthread_mutex_lock(&t->moves->lock);
	if (err)
		t->view.error = *err;
	else
		t->view.error.code = 0;
	pthread_mutex_unlock(&t->moves->lock);
	set_phase(t, phase);
	if (err)
		weft_warn("region '%s' from %s does not come here: %s", t->name, t->from,
			err->message);
}

/* A decides alone: nothing of the region stays here. */
static void undo(struct take *t, const struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	struct weft_error ignored;

	if (t->region)
		ask_with(t, question_of(t, "give-abort"), -1, NULL, &ignored);
	drop_note(t);
	if (t->region)
		moves->config.owner->forget(moves->config.ctx, t->region);
	weft_donor_not_elsewhere(moves->config.donor, t->name, 0);
	set_end(t, atomic_load(&t->aborts) ? TAKE_ABORTED : TAKE_FAILED, err);
}

/* Up to the moment from which on A decides no more. */
static int prepare(struct take *t, struct weft_error *err)
{
	char names[WHO_MAX];
	uint64_t size, cannot;
	int r = look(t, &size, &cannot, names, err);

	if (r == 0)
		r = check_who_follows(t, cannot, names, err);
	if (r == 0)
		r = make_room(t, size, err);
	if (r == 0)
		r = pull_init(&t->pull, t->region, t->cancel_fd, err);
	if (r == 0 && !(t->changed = calloc(t->pull.nr_words, sizeof(*t->changed))))
		r = weft_error_set(err, ENOMEM, "no memory");
	t->pull.bandwidth = t->bandwidth;
	weft_step("take-room");
	if (r == 0)
		r = note(t, NOTE_PREPARED, err);
	weft_step("take-prepared");
	if (r == 0)
		r = begin(t, err);
	weft_step("take-begun");
	if (r == 0)
		r = connect_reader(t, err);
	if (r < 0)
		return r;
	set_phase(t, TAKE_PULL);
	r = converge(t, err);
	weft_step("take-pulled");
	if (r == 0)
		r = freeze(t, err);
	weft_step("take-copied");
	return r;
}

static void run(struct take *t)
{
	struct weft_error err = {0};

	if (!t->resumes) {
		int r = prepare(t, &err);

		if (r < 0) {
			undo(t, &err);
			return;
		}
	}
	if (t->view.phase < TAKE_FOLLOW) {
		set_phase(t, TAKE_FINALIZE);
		enum outcome outcome = find_out(t, &err);

		if (outcome == UNKNOWN)
			return;
		weft_step("take-told");
		if (outcome == NEVER) {
			undo(t, &err);
			return;
		}
		/* A has fenced itself: this has to succeed, sooner or later. */
		while (serve(t, &err) < 0) {
			weft_err("region '%s' cannot be served: %s", t->name, err.message);
			nap(t, 1000);
			pthread_mutex_lock(&t->moves->lock);
			bool stops = t->moves->stopping;
			pthread_mutex_unlock(&t->moves->lock);
			if (stops)
				return;
		}
		set_phase(t, TAKE_FOLLOW);
		weft_step("take-serves");
	}
	tell_served(t);
	set_end(t, TAKE_DONE, NULL);
}

static void *thread(void *arg)
{
	struct take *t = arg;

	run(t);
	if (t->pull.region) {
		atomic_store(&t->copied_bytes, atomic_load(&t->pull.copied_bytes));
		atomic_store(&t->checked_bytes, atomic_load(&t->pull.checked_bytes));
		pull_fini(&t->pull);
		t->pull.region = NULL;
	}
	if (t->talk)
		tp_base_driver()->hang_up(t->talk);
	t->talk = NULL;
	return NULL;
}

/* ---- what others call ---- */

struct take *take_find(const struct weft_moves *moves, uint64_t number)
{
	struct take *t = moves->takes;

	while (t && t->number != number)
		t = t->next;
	return t;
}

static int start(struct take *t)
{
	int r = pthread_create(&t->thread, NULL, thread, t);

	t->has_thread = r == 0;
	return -r;
}

void take_free(struct take *t)
{
	if (!t)
		return;
	if (t->has_thread)
		pthread_join(t->thread, NULL);
	weft_region_put(t->region);
	weft_uri_fini(&t->uri);
	weft_close_fd(t->cancel_fd);
	free(t->changed);
	free(t->name);
	free(t);
}

static struct take *take_new(struct weft_moves *moves, const char *from, struct weft_error *err)
{
	struct take *t = calloc(1, sizeof(*t));

	if (!t || weft_uri_parse(from, &t->uri, err) < 0) {
		free(t);
		return NULL;
	}
	t->moves = moves;
	strcpy(t->from, from);
	t->view.downtime_ms = -1;
	t->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return t;
}

/* The one that is asked for already, if there is one; under the lock. */
static struct take *same(const struct weft_moves *moves, const char *name, const char *from)
{
	for (struct take *t = moves->takes; t; t = t->next)
		if (!is_over(t) && strcmp(t->name, name) == 0 && strcmp(t->from, from) == 0)
			return t;
	return NULL;
}

static int check_name(struct weft_moves *moves, const char *name, struct weft_error *err)
{
	struct weft_region *region;
	int r = weft_donor_find(moves->config.donor, NULL, name, &region, NULL, err);

	if (r == 0) {
		weft_region_put(region);
		return weft_error_set(err, EEXIST, "a region '%s' is lent here already", name);
	}
	/* Contents that were here once may come back. */
	return r == -ENOENT || r == -WEFT_EMOVED ? 0 : r;
}

static int read_question(struct take *t, const json_t *question, struct weft_error *err)
{
	const char *name = json_string_value(json_object_get(question, "region"));
	uint64_t downtime_ms = 50;

	if (!name || !weft_region_name_valid(name, WEFT_MEMORY_NAME_MAX))
		return weft_error_set(err, EINVAL,
			"the question names no region that could be here");
	if (!field_place(question, "as", t->to))
		return weft_error_set(err, EINVAL,
			"the question does not say by which URI this donor "
			"is known");
	if (json_object_get(question, "bandwidth") &&
		!field_count(question, "bandwidth", INT64_MAX, &t->bandwidth))
		return weft_error_set(err, EINVAL, "the question has no good \"bandwidth\"");
	if (json_object_get(question, "downtime_ms") &&
		!field_count(question, "downtime_ms", 3600000, &downtime_ms))
		return weft_error_set(err, EINVAL, "the question has no good \"downtime_ms\"");
	t->downtime_ms = (uint32_t)weft_max(downtime_ms, 1);
	t->disconnect = json_is_true(json_object_get(question, "disconnect"));
	t->name = strdup(name);
	return t->name ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

/* Whether it could be moved: asks, and changes nothing. */
static int try_only(struct take *t, json_t **ret, struct weft_error *err)
{
	struct weft_error why = {0};
	char names[WHO_MAX];
	uint64_t size, cannot, room;
	int r = look(t, &size, &cannot, names, err);

	tp_base_driver()->hang_up(t->talk);
	t->talk = NULL;
	if (r < 0)
		return r;
	bool could = check_who_follows(t, cannot, names, &why) == 0;
	could = check_room(t, size, &room, &why) == 0 && could;
	json_t *who = json_array();
	if (cannot > 0)
		json_array_append_new(who, json_string(names));
	*ret = json_pack("{s:b, s:o, s:I, s:I, s:i, s:o}", "could", could, "why",
		could ? json_null() : json_string(why.message), "size", (json_int_t)size, "free",
		(json_int_t)room, "borrowers", (int)(t->view.nr_borrowers + cannot),
		"cannot_follow", who);
	return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

static int answer_number(uint64_t number, json_t **ret, struct weft_error *err)
{
	*ret = json_pack("{s:o}", "move", number_json(number));
	return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

int take_begin(struct weft_moves *moves, const json_t *question, json_t **ret,
	struct weft_error *err)
{
	char from[WEFT_PLACE_MAX];

	if (moves->config.take_bytes == 0)
		return weft_error_set(err, EPERM,
			"this donor takes no regions: start it with weft serve --take SIZE");
	if (!field_place(question, "from", from))
		return weft_error_set(err, EINVAL, "the question does not say from where");
	struct take *t = take_new(moves, from, err);
	if (!t)
		return err->code ? -err->code : weft_error_set(err, ENOMEM, "no memory");
	int r = read_question(t, question, err);
	if (r < 0) {
		take_free(t);
		return r;
	}
	pthread_mutex_lock(&moves->lock);
	struct take *other = same(moves, t->name, t->from);
	uint64_t number = other ? other->number : 0;
	pthread_mutex_unlock(&moves->lock);
	if (number) {
		take_free(t);
		return answer_number(number, ret, err);
	}
	r = check_name(moves, t->name, err);
	if (r == 0 && json_is_true(json_object_get(question, "dry_run"))) {
		r = try_only(t, ret, err);
		take_free(t);
		return r;
	}
	if (r == 0 && weft_donor_elsewhere(moves->config.donor, t->name, 0, t->to) < 0)
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r < 0) {
		take_free(t);
		return r;
	}
	t->number = number = weft_random_name();
	pthread_mutex_lock(&moves->lock);
	r = moves->stopping ? weft_error_set(err, ESHUTDOWN, "this donor is stopping") : start(t);
	if (r == 0) {
		t->next = moves->takes;
		moves->takes = t;
	}
	pthread_mutex_unlock(&moves->lock);
	if (r < 0) {
		weft_donor_not_elsewhere(moves->config.donor, t->name, 0);
		take_free(t);
		return r;
	}
	return answer_number(number, ret, err);
}

int take_resume(struct weft_moves *moves, const struct note *note, struct weft_region *region)
{
	struct weft_error err = {0};
	struct take *t = take_new(moves, note->from, &err);

	if (!t || !(t->name = strdup(note->region))) {
		take_free(t);
		return -ENOMEM;
	}
	t->number = note->move;
	t->epoch = note->epoch;
	strcpy(t->to, note->to);
	t->resumes = true;
	t->region = region;
	t->view.size_bytes = note->size_bytes;
	t->view.phase = note->is == NOTE_OWNER ? TAKE_FOLLOW : TAKE_FINALIZE;
	if (note->is == NOTE_PREPARED)
		weft_donor_elsewhere(moves->config.donor, t->name, 0, t->to);
	pthread_mutex_lock(&moves->lock);
	int r = start(t);
	if (r == 0) {
		t->next = moves->takes;
		moves->takes = t;
	}
	pthread_mutex_unlock(&moves->lock);
	if (r < 0)
		take_free(t);
	return r;
}

int take_abort(struct take *t, struct weft_error *err)
{
	uint64_t one = 1;

	if (is_over(t))
		return 0;
	if (t->view.phase >= TAKE_FINALIZE)
		return weft_error_set(err, EBUSY,
			"region '%s' is being handed over: it is too late to call that off",
			t->name);
	atomic_store(&t->aborts, true);
	return write(t->cancel_fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}

json_t *take_json(const struct take *t)
{
	const struct take_view *v = &t->view;
	bool lives = t->pull.region != NULL;
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
		rate > 0 && !is_over(t) ? json_integer((json_int_t)(left * 1000 / rate))
					: json_null(),
		"downtime_ms", v->downtime_ms >= 0 ? json_real(v->downtime_ms) : json_null(),
		"checked", (json_int_t)checked, "borrowers", (int)v->nr_borrowers, "error",
		v->error.code ? json_string(v->error.message) : json_null());
}
