/* SPDX-License-Identifier: MIT */
/*
 * The thread of a take, from its first question to the end.
 *
 * Invariants: this donor serves the region only after A has said that it gave it away by this very
 * move, and after that is noted here.  As long as it is not known whether A gave the region away,
 * nothing is dropped and nothing is served.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

static int note(struct take *t, enum note_is is, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *n = notes_of_move(&moves->notes, t->number);
	if (!n && (n = notes_add(&moves->notes, t->name, t->number, t->file)) == NULL) {
		r = weft_error_set(err, ENOMEM, "no memory");
	} else if (n->is == NOTE_REFUSED) {
		r = weft_error_set(err, ECANCELED, "this donor promised never to serve it");
	} else {
		const enum note_is was = n->is; /* PREPARED, of a new one */

		n->is = is;
		n->epoch = t->epoch;
		n->size_bytes = t->view.size_bytes;
		strcpy(n->from, t->from);
		strcpy(n->to, t->to);
		if (t->fills)
			memcpy(n->reader, t->reader, sizeof(n->reader));
		r = notes_save(&moves->notes, err);
		/* Nobody is told what may not be on the disk. */
		if (r < 0)
			n->is = was;
	}
	moves_show_notes(moves);
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

/* A promise never to serve by this move is kept. */
static void drop_note(struct take *t)
{
	struct weft_moves *moves = t->moves;
	struct weft_error err;

	pthread_mutex_lock(&moves->notes_lock);
	struct note *n = notes_of_move(&moves->notes, t->number);
	if (n && n->is != NOTE_REFUSED) {
		notes_remove(&moves->notes, n);
		if (notes_save(&moves->notes, &err) < 0)
			weft_warn("%s", err.message);
	}
	moves_show_notes(moves);
	pthread_mutex_unlock(&moves->notes_lock);
}

/* What has come here, or is about to; under the moves' lock. */
static uint64_t taken_bytes(const struct weft_moves *moves, const struct take *but)
{
	uint64_t bytes = 0;

	for (const struct take *t = moves->takes; t; t = t->next)
		if (t != but && !take_is_over(t) && !t->file)
			bytes += t->view.size_bytes;
	return bytes;
}

static int check_disk(const struct take *t, uint64_t size, uint64_t *ret_free,
	struct weft_error *err)
{
	char have[32], want[32];
	struct statvfs st;

	if (access(t->file, F_OK) == 0)
		return weft_error_set(err, EEXIST, "there is a file %s already", t->file);
	if (statvfs(t->moves->directory, &st) < 0)
		return weft_error_set(err, errno, "cannot look at %s: %s", t->moves->directory,
			strerror(errno));
	*ret_free = (uint64_t)st.f_bavail * st.f_frsize;
	if (size <= *ret_free)
		return 0;
	return weft_error_set(err, ENOSPC, "%s has room for %s, and this region has %s",
		t->moves->directory, weft_format_size(*ret_free, have, sizeof(have)),
		weft_format_size(size, want, sizeof(want)));
}

/* 0 with how much may still come here; or it is too little for the region. */
int take_check_room(struct take *t, uint64_t size, uint64_t *ret_free, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	char have[32], gone[32], want[32];

	if (t->file)
		return check_disk(t, size, ret_free, err);
	if (moves->config.take_bytes == 0)
		return weft_error_set(err, EPERM,
			"this donor takes no memory: start it with weft serve --take SIZE");
	pthread_mutex_lock(&moves->lock);
	uint64_t used = taken_bytes(moves, t);
	pthread_mutex_unlock(&moves->lock);
	pthread_mutex_lock(&moves->notes_lock);
	for (const struct note *n = moves->notes.first; n; n = n->next)
		/* It is here still. */
		if (n->is == NOTE_TAKEN && !n->file &&
			notes_standing(&moves->notes, n->region, 0) == n)
			used += n->size_bytes;
	pthread_mutex_unlock(&moves->notes_lock);
	*ret_free = moves->config.take_bytes - weft_min(used, moves->config.take_bytes);
	if (moves->config.owner->room) {
		const uint64_t now = moves->config.owner->room(moves->config.ctx);

		*ret_free = weft_min(*ret_free, now);
		if (size > now)
			return weft_error_set(err, ENOSPC,
				"this donor can lend %s more now, and this region has %s",
				weft_format_size(now, have, sizeof(have)),
				weft_format_size(size, want, sizeof(want)));
	}
	if (size <= *ret_free)
		return 0;
	return weft_error_set(err, ENOSPC,
		"this donor takes %s in sum (weft serve --take), has taken %s, and this region has "
		"%s",
		weft_format_size(moves->config.take_bytes, have, sizeof(have)),
		weft_format_size(used, gone, sizeof(gone)),
		weft_format_size(size, want, sizeof(want)));
}

/* By what the mark of a file says that its contents come here. */
static int find_transfer(struct take *t, struct weft_transfer *ret, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	int r = 0;

	pthread_mutex_lock(&moves->notes_lock);
	if (t->file)
		r = notes_name_donor(&moves->notes, err);
	*ret = (struct weft_transfer){WEFT_COMES, moves->notes.donor, t->number};
	pthread_mutex_unlock(&moves->notes_lock);
	return r;
}

/* A file and its mark are on the disk before A is asked to give the region away. */
static int settle(struct take *t, struct weft_error *err)
{
	struct weft_transfer transfer;
	int r = find_transfer(t, &transfer, err);

	if (r == 0 && t->file) {
		r = weft_region_settle(t->region, &transfer, t->region->generations,
			t->region->promised_lease_ms);
		if (r < 0)
			weft_error_set(err, -r, "%s cannot be made durable, with its mark: %s",
				t->file, strerror(-r));
		weft_step("take-settled");
	}
	return r;
}

static int make_room(struct take *t, uint64_t size, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	struct weft_transfer transfer;
	uint64_t room;
	int r = take_check_room(t, size, &room, err);

	if (r == 0)
		r = find_transfer(t, &transfer, err);
	/* At first: memory that outlives a crash must not be taken for a region. */
	if (r == 0)
		r = note(t, NOTE_PREPARED, err);
	weft_step("take-prepared");
	if (r == 0)
		r = moves->config.owner->make(moves->config.ctx, t->name, size, t->epoch,
			t->file ? &transfer : NULL, t->fills, &t->region, err);
	if (r < 0)
		return r;
	if (t->region->size_bytes != size)
		return weft_error_set(err, EOPNOTSUPP,
			"its size, %" PRIu64 " bytes, is no multiple of this donor's pages", size);
	return 0;
}

static int begin(struct take *t, struct weft_error *err)
{
	json_t *question = take_question(t, "give-begin");

	json_object_set_new(question, "to", json_string(t->to));
	json_object_set_new(question, "epoch", number_json(t->epoch));
	json_object_set_new(question, "reader", bytes_json(t->reader, sizeof(t->reader)));
	json_object_set_new(question, "disconnect", json_boolean(t->disconnect));
	/*
	 * An abort waits for the answer: A could get the word that calls the move off before the
	 * question that begins it.
	 */
	return take_ask_to_the_end(t, question, NULL, err);
}

/* Serves from now on. */
static int serve(struct take *t, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	struct weft_donor *donor = moves->config.donor;
	int r = note(t, t->fills ? NOTE_FILLING : NOTE_OWNER, err);

	if (r < 0)
		return r;
	weft_step("take-owner");
	weft_region_release(t->region);
	weft_donor_not_elsewhere(donor, t->name, t->epoch);
	r = weft_donor_add(donor, t->region, err);
	if (r < 0)
		return r;
	weft_donor_not_elsewhere(donor, t->name, 0);
	pthread_mutex_lock(&moves->lock);
	if (t->frozen_ns)
		t->view.downtime_ms = (double)(weft_now_ns() - t->frozen_ns) / 1e6;
	t->view.left_bytes = t->fills ? t->view.size_bytes : 0;
	t->view.wait_until_ns = weft_now_ns() + t->region->promised_lease_ms * UINT64_C(1000000);
	pthread_mutex_unlock(&moves->lock);
	weft_info("region '%s' from %s is served here now", t->name, t->from);
	return 0;
}

enum outcome { GIVEN, NEVER, UNKNOWN };

/* Whether that says what became of the move. */
static bool was_told(struct take *t, enum outcome *ret, struct weft_error *err)
{
	const enum take_word word = take_word_of(t);

	*ret = word == WORD_GIVEN ? GIVEN : NEVER;
	if (word == WORD_NEVER)
		weft_error_set(err, ESTALE, "%s did not give the region away", t->from);
	if (word == WORD_REFUSED)
		weft_error_set(err, ECANCELED, "this donor was asked never to serve it");
	return word != WORD_NONE;
}

/*
 * Asks A until it says whether it gave the region away, however long that takes: nobody else can
 * know.  UNKNOWN: this donor stops.
 */
static enum outcome find_out(struct take *t, struct weft_error *err)
{
	const bool copied = !t->resumes; /* by this process: all is here */
	enum outcome outcome;
	bool told_log = false, again = false; /* again: a commit that was lost, or may be noted */

	for (int ms = TAKE_RETRY_MS; !was_told(t, &outcome, err); ms = ms < 5000 ? ms * 2 : ms) {
		json_t *told = NULL;
		json_t *question = take_question(t, t->resumes ? "give-outcome" : "give-commit");

		if (!t->resumes) {
			json_object_set_new(question, "from", json_string(t->from));
			json_object_set_new(question, "to", json_string(t->to));
			json_object_set_new(question, "fills", json_boolean(t->fills));
		}
		int r = take_ask_with(t, question, t->cancel_fd, &told, err);
		if (!t->resumes)
			again = take_is_of_link(r);
		const char *is = json_string_value(json_object_get(told, "is"));
		/* Gone: A was told that this donor serves, and that is not noted here. */
		if (r == 0 && is && (strcmp(is, "given") == 0 || strcmp(is, "gone") == 0) &&
			(json_object_get(told, "facts") ? take_apply(t, told, err) == 0
							: t->resumes)) {
			json_decref(told);
			return GIVEN;
		}
		bool never = r == 0 && is && strcmp(is, "never") == 0,
		     moving = r == 0 && is && strcmp(is, "moving") == 0;
		json_decref(told);
		/*
		 * The copy may be unfinished: A is to go on alone.  An A that refuses that does not
		 * know itself yet whether its note says that it gave the region away.
		 */
		if (moving && !again) {
			question = take_question(t, "give-abort");
			json_object_set_new(question, "unfinished", json_boolean(!copied));
			r = take_ask_with(t, question, -1, NULL, err);
			never = r == 0 || r == -ESTALE;
			again = copied && r == -EBUSY;
		}
		if (never) {
			weft_error_set(err, ESTALE, "%s did not give the region away", t->from);
			return NEVER;
		}
		/*
		 * A refused the commit, or it is not known: its note says.  Where the question was
		 * lost, or A could not write its note, A is asked for the commit again.
		 */
		t->resumes = !moving || !again;
		if (r == 0 && !moving)
			weft_error_set(err, EPROTO, "%s answers what makes no sense", t->from);
		pthread_mutex_lock(&t->moves->lock);
		t->view.error = *err;
		pthread_mutex_unlock(&t->moves->lock);
		if (!told_log)
			weft_warn("region '%s': whether %s gave it away is not known yet (%s); "
				  "nobody is let in before it is",
				t->name, t->from, err->message);
		told_log = true;
		if (!take_rest(t, ms))
			return UNKNOWN;
	}
	return outcome;
}

/* Until A knows that it may let go. */
static void tell_served(struct take *t)
{
	struct weft_error err;

	for (int ms = TAKE_RETRY_MS;; ms = ms < 5000 ? ms * 2 : ms) {
		int r = take_ask_with(t, take_question(t, "give-served"), t->cancel_fd, NULL, &err);

		/* A that knows of no such move has nothing to let go of. */
		if (r == 0 || r == -ESTALE) {
			weft_step("take-told-served");
			if (note(t, NOTE_TAKEN, &err) < 0)
				weft_warn("%s", err.message);
			return;
		}
		if (!take_rest(t, ms))
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
	take_set_phase(t, phase);
	if (err)
		weft_warn("region '%s' from %s does not come here: %s", t->name, t->from,
			err->message);
}

/* A decides alone: nothing of the region stays here. */
static void undo(struct take *t, const struct weft_error *err)
{
	struct weft_moves *moves = t->moves;
	struct weft_error ignored;

	if (t->region && take_word_of(t) == WORD_NONE)
		take_ask_with(t, take_question(t, "give-abort"), -1, NULL, &ignored);
	/* The note goes last: without it what is left of the region would be one like any other. */
	if (!t->region || moves->config.owner->forget(moves->config.ctx, t->region) == 0)
		drop_note(t);
	weft_donor_not_elsewhere(moves->config.donor, t->name, 0);
	set_end(t, atomic_load(&t->aborts) ? TAKE_ABORTED : TAKE_FAILED, err);
}

/* Up to the moment from which on A decides no more. */
static int prepare(struct take *t, struct weft_error *err)
{
	char names[TAKE_WHO_MAX];
	uint64_t size, cannot;
	int r = take_look(t, &size, &cannot, names, err);

	/* Before anything is noted, which may be by whom a region is to be filled. */
	weft_random(t->reader, sizeof(t->reader));
	if (r == 0)
		r = take_check_who_follows(t, cannot, names, err);
	if (r == 0)
		r = make_room(t, size, err);
	if (r == 0)
		r = pull_init(&t->pull, t->region, t->cancel_fd, err);
	if (t->pull.region) {
		pthread_mutex_lock(&t->moves->lock);
		t->view.copies = true;
		pthread_mutex_unlock(&t->moves->lock);
	}
	if (r == 0 && !(t->changed = calloc(t->pull.nr_words, sizeof(*t->changed))))
		r = weft_error_set(err, ENOMEM, "no memory");
	t->pull.bandwidth = t->bandwidth;
	t->pull.pace = &t->group->pace;
	weft_step("take-room");
	if (r == 0)
		r = begin(t, err);
	weft_step("take-begun");
	if (r == 0)
		r = take_connect_reader(t, err);
	if (r < 0)
		return r;
	/* All of it is absent at first. */
	if (t->fills) {
		weft_region_begin_fill(t->region);
	} else {
		take_set_phase(t, TAKE_PULL);
		r = take_converge(t, err);
		weft_step("take-pulled");
	}
	if (r == 0)
		r = take_freeze(t, err);
	weft_step("take-copied");
	return r == 0 ? settle(t, err) : r;
}

/* Nothing of it is here any more, and that is noted. */
static void tell_lost(struct take *t)
{
	struct weft_error err = {0};

	take_ask_with(t, take_question(t, "give-abort"), t->cancel_fd, NULL, &err);
	weft_error_set(&err, ESTALE, "this donor ended before all of it was here");
	set_end(t, TAKE_FAILED, &err);
}

static void run(struct take *t)
{
	struct weft_error err = {0};

	if (t->resumes && !t->region && t->view.phase < TAKE_FILL) {
		tell_lost(t);
		return;
	}

	if (!t->resumes) {
		int r = prepare(t, &err);

		if (r < 0) {
			undo(t, &err);
			return;
		}
	}
	if (t->view.phase < TAKE_FILL) {
		take_set_phase(t, TAKE_FINALIZE);
		take_set_waits(t, true);
		enum outcome outcome = find_out(t, &err);

		take_set_waits(t, false);
		if (outcome == UNKNOWN)
			return;
		weft_step("take-told");
		if (outcome == NEVER) {
			undo(t, &err);
			return;
		}
		/* A has fenced itself: this has to succeed, sooner or later. */
		for (int r; (r = serve(t, &err)) < 0;) {
			if (r == -ECANCELED) {
				undo(t, &err);
				return;
			}
			weft_err("region '%s' cannot be served: %s", t->name, err.message);
			if (!take_rest(t, 1000))
				return;
		}
		take_set_phase(t, t->fills ? TAKE_FILL : TAKE_FOLLOW);
		weft_step("take-serves");
	}
	if (t->view.phase == TAKE_FILL) {
		int r = take_fill(t, &err);

		if (r == -ESTALE) {
			/* A has nothing to let go of, and is not asked any more. */
			struct weft_error ignored;

			if (note(t, NOTE_TAKEN, &ignored) < 0)
				weft_warn("%s", ignored.message);
			set_end(t, TAKE_FAILED, &err);
		}
		if (r < 0)
			return;
		weft_step("take-filled");
		/* A may let go only of what is noted to be here. */
		while (note(t, NOTE_OWNER, &err) < 0) {
			weft_warn("%s", err.message);
			if (!take_rest(t, 1000))
				return;
		}
		take_set_phase(t, TAKE_FOLLOW);
	}
	tell_served(t);
	set_end(t, TAKE_DONE, NULL);
}

void *take_thread(void *arg)
{
	struct take *t = arg;

	run(t);
	pthread_mutex_lock(&t->moves->lock);
	bool copies = t->view.copies;
	if (copies) {
		atomic_store(&t->copied_bytes, atomic_load(&t->pull.copied_bytes));
		atomic_store(&t->checked_bytes, atomic_load(&t->pull.checked_bytes));
	}
	t->view.copies = false;
	pthread_mutex_unlock(&t->moves->lock);
	if (copies)
		pull_fini(&t->pull);
	if (t->talk)
		tp_base_driver()->hang_up(t->talk);
	t->talk = NULL;
	return NULL;
}
