/* SPDX-License-Identifier: MIT */
/* Takes: begun, gone on with after a restart, called off.  Threads: of those who ask. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/move/fields.h"
#include "fabric/move/moves-private.h"

struct take *take_find(const struct weft_moves *moves, uint64_t number)
{
	struct take *t = moves->takes;

	while (t && t->number != number)
		t = t->next;
	return t;
}

static int start(struct take *t)
{
	int r = pthread_create(&t->thread, NULL, take_thread, t);

	t->has_thread = r == 0;
	return -r;
}

/* The one of that number, which may be new: with one move more.  NULL: no memory. */
static struct take_group *group_get(struct weft_moves *moves, uint64_t number)
{
	pthread_mutex_lock(&moves->lock);
	struct take_group *group = number ? moves->groups : NULL;
	while (group && group->number != number)
		group = group->next;
	if (!group && (group = calloc(1, sizeof(*group))) != NULL) {
		group->number = number;
		group->next = moves->groups;
		moves->groups = group;
	}
	if (group)
		group->nr++;
	pthread_mutex_unlock(&moves->lock);
	return group;
}

static void group_put(struct weft_moves *moves, struct take_group *group)
{
	if (!group)
		return;
	pthread_mutex_lock(&moves->lock);
	if (--group->nr == 0) {
		struct take_group **at = &moves->groups;

		while (*at != group)
			at = &(*at)->next;
		*at = group->next;
		free(group);
	}
	pthread_mutex_unlock(&moves->lock);
}

void take_free(struct take *t)
{
	if (!t)
		return;
	if (t->has_thread)
		pthread_join(t->thread, NULL);
	group_put(t->moves, t->group);
	weft_region_put(t->region);
	weft_uri_fini(&t->uri);
	weft_close_fd(t->cancel_fd);
	free(t->changed);
	free(t->file);
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
		if (!take_is_over(t) && strcmp(t->name, name) == 0 && strcmp(t->from, from) == 0)
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
	uint64_t downtime_ms = 50, group = 0;

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
	t->fills = json_is_true(json_object_get(question, "post_copy"));
	if (json_object_get(question, "group") && !field_number(question, "group", &group))
		return weft_error_set(err, EINVAL, "the question has no good \"group\"");
	t->name = strdup(name);
	t->group = group_get(t->moves, group);
	return t->name && t->group ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

/* A stop ends its wait. */
static int begin_trial(struct take *t, struct weft_error *err)
{
	struct weft_moves *moves = t->moves;

	pthread_mutex_lock(&moves->lock);
	const bool stops = moves->stopping;
	if (!stops) {
		t->next = moves->trials;
		moves->trials = t;
	}
	pthread_mutex_unlock(&moves->lock);
	return stops ? weft_error_set(err, ESHUTDOWN, "this donor is stopping") : 0;
}

static void end_trial(struct take *t)
{
	struct take **at = &t->moves->trials;

	pthread_mutex_lock(&t->moves->lock);
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	pthread_mutex_unlock(&t->moves->lock);
}

/* Whether it could be moved: asks, and changes nothing. */
static int try_only(struct take *t, json_t **ret, struct weft_error *err)
{
	struct weft_error why = {0};
	char names[TAKE_WHO_MAX];
	uint64_t size, cannot, room;
	int r = begin_trial(t, err);

	if (r < 0)
		return r;
	r = take_look(t, &size, &cannot, names, err);
	end_trial(t);
	tp_base_driver()->hang_up(t->talk);
	t->talk = NULL;
	if (r < 0)
		return r;
	bool could = take_check_who_follows(t, cannot, names, &why) == 0;
	could = take_check_room(t, size, &room, &why) == 0 && could;
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

/*
 * 0 with the number: of one that is under way already, or of *io_take, which is the moves' then,
 * and NULL here.  begin_lock is held, so that a name comes here once.
 */
static int begin(struct weft_moves *moves, struct take **io_take, uint64_t *ret_number,
	struct weft_error *err)
{
	struct take *t = *io_take;

	pthread_mutex_lock(&moves->lock);
	const struct take *other = same(moves, t->name, t->from);
	const uint64_t number = other ? other->number : weft_random_name();
	pthread_mutex_unlock(&moves->lock);
	int r = other ? 0 : check_name(moves, t->name, err);
	if (!other && r == 0 && weft_donor_elsewhere(moves->config.donor, t->name, 0, t->to) < 0)
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r == 0)
		*ret_number = number;
	if (other || r < 0)
		return r;
	t->number = number;
	pthread_mutex_lock(&moves->lock);
	r = moves->stopping ? weft_error_set(err, ESHUTDOWN, "this donor is stopping") : start(t);
	if (r == 0) {
		t->next = moves->takes;
		moves->takes = t;
		*io_take = NULL;
	}
	pthread_mutex_unlock(&moves->lock);
	if (r < 0)
		weft_donor_not_elsewhere(moves->config.donor, t->name, 0);
	return r;
}

int take_begin(struct weft_moves *moves, const json_t *question, json_t **ret,
	struct weft_error *err)
{
	char from[WEFT_PLACE_MAX];
	uint64_t number = 0;

	if (moves->config.take_bytes == 0 && !moves->directory)
		return weft_error_set(err, EPERM,
			"this donor takes no regions: start it with weft serve --take SIZE");
	if (!field_place(question, "from", from))
		return weft_error_set(err, EINVAL, "the question does not say from where");
	struct take *t = take_new(moves, from, err);
	if (!t)
		return err->code ? -err->code : weft_error_set(err, ENOMEM, "no memory");
	int r = read_question(t, question, err);
	if (r == 0 && json_is_true(json_object_get(question, "dry_run"))) {
		r = check_name(moves, t->name, err);
		if (r == 0)
			r = try_only(t, ret, err);
	} else if (r == 0) {
		pthread_mutex_lock(&moves->begin_lock);
		r = begin(moves, &t, &number, err);
		pthread_mutex_unlock(&moves->begin_lock);
		if (r == 0)
			r = answer_number(number, ret, err);
	}
	take_free(t);
	return r;
}

int take_resume(struct weft_moves *moves, const struct note *note, struct weft_region *region)
{
	struct weft_error err = {0};
	struct take *t = take_new(moves, note->from, &err);

	if (!t || !(t->name = strdup(note->region)) ||
		(note->file && !(t->file = strdup(note->file))) ||
		!(t->group = group_get(moves, 0))) {
		take_free(t);
		return -ENOMEM;
	}
	t->number = note->move;
	t->epoch = note->epoch;
	strcpy(t->to, note->to);
	t->resumes = true;
	t->region = region;
	t->view.size_bytes = note->size_bytes;
	t->fills = note_fills(note);
	memcpy(t->reader, note->reader, sizeof(t->reader));
	t->view.phase = note->is == NOTE_OWNER ? TAKE_FOLLOW
		: note->is == NOTE_FILLING     ? TAKE_FILL
					       : TAKE_FINALIZE;
	if (note->is == NOTE_PREPARED && region)
		weft_donor_elsewhere(moves->config.donor, t->name, 0, t->to);
	pthread_mutex_lock(&moves->lock);
	int r = start(t);
	if (r == 0) {
		t->next = moves->takes;
		moves->takes = t;
	}
	pthread_mutex_unlock(&moves->lock);
	if (r < 0) {
		t->region = NULL; /* the caller's still */
		take_free(t);
	}
	return r;
}

int take_wake(struct take *t)
{
	uint64_t one = 1;

	return write(t->cancel_fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}

int take_abort(struct take *t, struct weft_error *err)
{
	if (take_is_over(t))
		return 0;
	if (t->view.phase >= TAKE_FINALIZE)
		return weft_error_set(err, EBUSY,
			"region '%s' is being handed over: it is too late to call that off",
			t->name);
	atomic_store(&t->aborts, true);
	return take_wake(t);
}
