/* SPDX-License-Identifier: MIT */
/*
 * Questions to a running bridge whose contents are lost: a rescue of its cache, and a reset. Main
 * thread; a rescue has a thread of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/cache/rescue.h"
#include "nbd-bridge/main/attach.h"

/* ---- saving it while the bridge lives ---- */

struct attach_rescue {
	struct bridge *bridge;
	struct rescue *rescue;
	pthread_t thread;
	atomic_bool ended;
	bool stale; /* it was stale when the rescue began: nothing can have been written since */
	int r;
	struct weft_error err;
};

static void *save(void *ctx)
{
	struct attach_rescue *s = ctx;

	/* It runs to its end, whether or not anybody asks for the progress. */
	s->r = rescue_end(s->rescue, cache_each(bridge_cache(s->bridge), rescue_put, s->rescue),
		&s->err);
	atomic_store(&s->ended, true);
	return NULL;
}

static json_t *failure(const struct weft_error *err)
{
	return json_pack("{s:s, s:i}", "error", err->message, "code", err->code);
}

static json_t *begin(struct attach *a, const char *path)
{
	struct weft_error err = {0};
	struct attach_rescue *s;

	if (!path || path[0] != '/')
		weft_error_set(&err, EINVAL, "the file's path is not absolute");
	else if (!bridge_is_managed(a->bridge))
		weft_error_set(&err, EINVAL,
			"'%s' has no cache: its donor has all that was written", a->options.name);
	if (err.code)
		return failure(&err);
	s = calloc(1, sizeof(*s));
	if (!s)
		return json_pack("{s:s, s:i}", "error", "out of memory", "code", ENOMEM);
	s->bridge = a->bridge;
	s->stale = strcmp(bridge_state(a->bridge, NULL), "stale") == 0;
	int r = rescue_new(path, a->options.uri_text, bridge_info(a->bridge)->size_bytes,
		&s->rescue, &err);
	if (r == 0 && (r = -pthread_create(&s->thread, NULL, save, s)) < 0)
		weft_error_set(&err, -r, "cannot start a thread: %s", strerror(-r));
	if (r < 0) {
		rescue_free(s->rescue);
		free(s);
		return failure(&err);
	}
	a->rescue = s;
	return json_pack("{s:b}", "ended", 0);
}

static json_t *end(struct attach *a)
{
	struct attach_rescue *s = a->rescue;

	pthread_join(s->thread, NULL);
	json_t *json = json_pack("{s:b, s:I, s:I, s:I}", "ended", 1, "clean_bytes",
		(json_int_t)rescue_bytes(s->rescue, CACHE_CONTENT_CLEAN), "dirty_bytes",
		(json_int_t)rescue_bytes(s->rescue, CACHE_CONTENT_DIRTY), "torn_bytes",
		(json_int_t)rescue_bytes(s->rescue, CACHE_CONTENT_TORN));
	if (s->r < 0) {
		json_decref(json);
		json = failure(&s->err);
	} else {
		a->rescued = s->stale;
	}
	rescue_free(s->rescue);
	free(s);
	a->rescue = NULL;
	return json;
}

/* The command that began it may have gone. */
static void forget_ended(struct attach *a)
{
	if (a->rescue && atomic_load(&a->rescue->ended))
		json_decref(end(a));
}

json_t *attach_on_rescue(struct attach *a, const json_t *question)
{
	const char *path = json_string_value(json_object_get(question, "file"));

	if (path)
		forget_ended(a);
	if (path)
		return a->rescue ? json_pack("{s:s, s:i}", "error", "it is being rescued already",
					   "code", EBUSY)
				 : begin(a, path);
	if (!a->rescue)
		return json_pack("{s:s, s:i}", "error", "nothing is being rescued", "code", EINVAL);
	return atomic_load(&a->rescue->ended) ? end(a) : json_pack("{s:b}", "ended", 0);
}

/* ---- a way back ---- */

/*
 * Noted before anything is asked under it: a take-over must ask neither as the same incarnation,
 * nor as one that was never stale.
 */
static void change_incarnation(struct attach *a, void *ctx)
{
	bridge_state_next_incarnation(&a->state);
	a->state.stale = true;
}

static void change_reset(struct attach *a, void *ctx)
{
	attach_change_granted(a, NULL);
	/* A client that comes back to the socket by the old tenure knows other contents. */
	a->state.socket_tenure = weft_random_name();
	atomic_store(&a->socket_tenure.now, a->state.socket_tenure);
}

static int save_granted(void *ctx, struct weft_error *err)
{
	return attach_save_state(ctx, change_reset, NULL, err);
}

/*
 * A dead bridge's cache file belongs to contents that are gone, and must not be used with those of
 * the reset's grant.  *ret: its bytes, before they are given up (discard).
 */
static int left_bytes(const struct attach *a, bool discard, uint64_t *ret, struct weft_error *err)
{
	struct cache_file *file;
	bool there = a->left_cache && access(a->options.cache_file, F_OK) == 0;
	int r = there ? cache_file_open(a->options.cache_file, discard, &file, err) : -ENOENT;

	*ret = 0;
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*ret = cache_file_dirty_bytes(file);
	r = discard && *ret > 0 ? cache_file_discard(file) : 0;
	cache_file_close(file);
	return r < 0 ? weft_error_set(err, -r, "cannot give up what %s holds: %s",
			       a->options.cache_file, strerror(-r))
		     : 0;
}

/* Whether a reset is allowed: 0, with the bytes that it gives up; or why not. */
static int may_reset(struct attach *a, bool discard, uint64_t *ret_given_up, struct weft_error *err)
{
	const char *name = a->options.name, *path = a->options.cache_file,
		   *state = bridge_state(a->bridge, NULL);
	uint64_t dirty = bridge_dirty_bytes(a->bridge), left;
	char users[320], size[32];

	if (strcmp(state, "stale") != 0)
		return weft_error_set(err, EINVAL,
			"'%s' is %s: a reset is for attachments that are stale; weft status shows "
			"whether it becomes so",
			name, state);
	if (a->options.device_wish.kernel_socket)
		return weft_error_set(err, EOPNOTSUPP,
			"'%s' is --kernel-socket, whose device has ended with its contents: end it "
			"with weft detach --force %s, and attach anew",
			name, name);
	/* It would go on with plain bytes. */
	if (a->began_stale && a->options.sealed)
		return weft_error_set(err, EOPNOTSUPP,
			"'%s' was sealed (--%s), and was stale when it was taken over: end it with "
			"weft detach --force %s, and attach anew with --new-contents",
			name, seal_kind_name(a->options.sealed), name);
	if (a->rescue)
		return weft_error_set(err, EBUSY, "'%s' is being rescued", name);
	if (dirty > 0 && !a->rescued && !discard)
		return weft_error_set(err, EBUSY,
			"the cache of '%s' holds %s that were not at the donor; save them first: "
			"weft rescue %s FILE; "
			"or give them up: weft reset --discard %s",
			name, weft_format_size(dirty, size, sizeof(size)), name, name);
	int r = left_bytes(a, false, &left, err);
	if (r < 0)
		return r;
	if (left > 0 && !discard)
		return weft_error_set(err, EBUSY,
			"%s holds %s that were not at the donor; save them first: weft rescue %s "
			"FILE; then give them "
			"up: weft reset --discard %s",
			path, weft_format_size(left, size, sizeof(size)), path, name);
	if (attach_users(a, users, sizeof(users)) > 0)
		return weft_error_set(err, EBUSY,
			"'%s' is in use: %s; they remember the contents that are gone, and would "
			"mix them with the new ones: end that first (unmount, close, disconnect)",
			name, users);
	*ret_given_up = dirty + left;
	return 0;
}

json_t *attach_on_reset(struct attach *a, bool discard)
{
	struct weft_error err = {0};
	uint64_t given_up = 0, left;

	forget_ended(a);
	int r = a->options.copies > 1
		? weft_error_set(&err, EOPNOTSUPP,
			  "copies are not reset; end it: weft detach --force %s; and attach them "
			  "again",
			  a->options.name)
		: may_reset(a, discard, &given_up, &err);
	if (r < 0)
		return failure(&err);
	r = left_bytes(a, true, &left, &err);
	if (r == 0)
		r = attach_save_state(a, change_incarnation, NULL, &err);
	if (r == 0)
		r = bridge_reset(a->bridge, a->state.generation, save_granted, a, &err);
	if (r < 0) {
		weft_error_prefix(&err, "'%s' is stale still", a->options.name);
		return failure(&err);
	}
	a->rescued = a->began_stale = a->left_cache = false;
	return json_pack("{s:I}", "discarded_bytes", (json_int_t)given_up);
}

void attach_end_rescue(struct attach *a)
{
	if (a->rescue)
		json_decref(end(a));
}
