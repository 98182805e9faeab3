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
	char names[TAKE_WHO_MAX];
	uint64_t size, cannot, room;
	int r = take_look(t, &size, &cannot, names, err);

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

	if (take_is_over(t))
		return 0;
	if (t->view.phase >= TAKE_FINALIZE)
		return weft_error_set(err, EBUSY,
			"region '%s' is being handed over: it is too late to call that off",
			t->name);
	atomic_store(&t->aborts, true);
	return write(t->cancel_fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}
