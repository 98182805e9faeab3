/* The cache file of weft attach: what the one before left in it, and saving what a cache holds.  On the main thread, but for the saving. */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/cache/rescue.h"

/* What the bridge that died had not written back would be missed by its clients. */
int attach_check_left_cache(const struct attach *a, bool same, struct weft_error *err)
{
	const struct bridge_state_file *state = &a->state;
	const char *path = a->options.cache_file;
	struct cache_file *file;
	struct weft_error why;
	char size[32];

	if (!state->takes_over || !state->cache_file || (same && path && strcmp(path, state->cache_file) == 0))
		return 0;
	int r = cache_file_open(state->cache_file, false, &file, &why);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return weft_error_set(err, -r, "what the bridge of '%s' that died left in its cache file cannot be seen: %.500s; mend that, or give "
			"it up with: weft detach --force %s", a->options.name, why.message, a->options.name);
	uint64_t dirty = cache_file_dirty_bytes(file);
	cache_file_close(file);
	if (dirty == 0)
		return 0;
	return weft_error_set(err, EBUSY, "the bridge of '%s' that died left %s in %s that are not at the donor of %.500s; go on with "
		"that and --cache-file %s, or save them with weft rescue and give them up with: weft detach --force %s", a->options.name,
		weft_format_size(dirty, size, sizeof(size)), state->cache_file, state->uri, state->cache_file, a->options.name);
}

/*
 * Whether the file says of which contents it is, and the same as the state does.  Nothing else may be written back: a foreign server's contents
 * have no name.
 */
static int check_epoch(const struct attach *a, unsigned i, struct weft_error *err)
{
	const struct bridge_state_file *state = &a->state;
	uint64_t epoch = cache_file_epoch(a->cache_file, i), known = state->takes_over ? state->donors[i].epoch : 0;
	const char *path = a->options.cache_file;

	if (a->options.donors[0].uri.foreign || (epoch && (!known || known == epoch)))
		return 0;
	return weft_error_set(err, EUCLEAN, "%s %s, and is not written back; save what it holds with: weft rescue %s FILE; then remove it", path,
		epoch ? "is of other contents than the bridge that died had" : "does not say of which contents it is", path);
}

/* Who wrote the file: whom the donor lets go on, unless another could write since. */
static int take_identity(struct attach *a, struct weft_error *err)
{
	const struct cache_file_identity *id = cache_file_identity(a->cache_file);
	struct bridge_state_file *state = &a->state;

	for (unsigned i = 0; i < id->nr_donors; i++)
		if (state->takes_over && memcmp(state->donors[i].id, id->ids[i], sizeof(id->ids[i])) != 0)
			return weft_error_set(err, EINVAL, "%s was not written by the bridge of '%s' that died; see what each has with weft rescue",
				a->options.cache_file, a->options.name);
	for (unsigned i = 0; i < id->nr_donors; i++) {
		int r = check_epoch(a, i, err);

		if (r < 0)
			return r;
	}
	for (unsigned i = 0; i < id->nr_donors; i++) {
		struct bridge_state_donor *donor = &state->donors[i];
		bool wrote;
		uint64_t granted = cache_file_granted(a->cache_file, i, &wrote);

		memcpy(donor->id, id->ids[i], sizeof(donor->id));
		/* Where both know it, the state was written last. */
		if (!state->takes_over || donor->epoch == 0) {
			donor->epoch = cache_file_epoch(a->cache_file, i);
			donor->granted = granted;
			donor->wrote = wrote;
		}
		state->generation = weft_max(state->generation, weft_next_incarnation(cache_file_generation(a->cache_file, i)));
	}
	state->nr_donors = id->nr_donors;
	a->resumes = true;
	return 0;
}

int attach_open_cache(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	const char *why = NULL;
	char size[32];
	int r;

	if (!o->cache_file)
		return 0;
	r = cache_file_open(o->cache_file, true, &a->cache_file, err);
	if (r < 0)
		return r;
	uint64_t dirty = cache_file_dirty_bytes(a->cache_file);
	if (dirty == 0) {
		cache_file_forget(a->cache_file);
		return 0;
	}
	const struct cache_file_identity *id = cache_file_identity(a->cache_file);
	if (strcmp(id->uri, o->uri_text) != 0 || id->nr_donors != o->nr_donors || id->stripe_bytes != o->stripe_bytes)
		why = "another region's";
	else if (!cache_file_same_boot(a->cache_file))
		why = "from before this machine was restarted and may be older than what the donor has";
	else if (o->read_only)
		why = "to be written back, which --read-only forbids";
	if (why)
		return weft_error_set(err, EUCLEAN, "%s holds %s that are not at the donor of %.500s, and are %s; save them with: weft rescue %s FILE; "
			"then remove %s", o->cache_file, weft_format_size(dirty, size, sizeof(size)), id->uri, why, o->cache_file,
			o->cache_file);
	return take_identity(a, err);
}

/* ---- saving it while the bridge lives ---- */

struct attach_rescue {
	struct bridge *bridge;
	struct rescue *rescue;
	pthread_t thread;
	atomic_bool ended;
	bool stale; /* when it began: nothing can have been written since */
	int r;
	struct weft_error err;
};

static void *save(void *ctx)
{
	struct attach_rescue *s = ctx;

	/* To its end, whether or not anybody asks how far it is. */
	s->r = rescue_end(s->rescue, cache_each(bridge_cache(s->bridge), rescue_put, s->rescue), &s->err);
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
		weft_error_set(&err, EINVAL, "'%s' has no cache: what it was sent is at its donor", a->options.name);
	if (err.code)
		return failure(&err);
	s = calloc(1, sizeof(*s));
	if (!s)
		return json_pack("{s:s, s:i}", "error", "out of memory", "code", ENOMEM);
	s->bridge = a->bridge;
	s->stale = strcmp(bridge_state(a->bridge, NULL), "stale") == 0;
	int r = rescue_new(path, a->options.uri_text, bridge_info(a->bridge)->size_bytes, &s->rescue, &err);
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
	json_t *json = json_pack("{s:b, s:I, s:I, s:I}", "ended", 1, "clean_bytes", (json_int_t)rescue_bytes(s->rescue, CACHE_CONTENT_CLEAN),
		"dirty_bytes", (json_int_t)rescue_bytes(s->rescue, CACHE_CONTENT_DIRTY), "torn_bytes",
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

/* Whoever began it may have gone. */
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
		return a->rescue ? json_pack("{s:s, s:i}", "error", "it is being rescued already", "code", EBUSY) : begin(a, path);
	if (!a->rescue)
		return json_pack("{s:s, s:i}", "error", "nothing is being rescued", "code", EINVAL);
	return atomic_load(&a->rescue->ended) ? end(a) : json_pack("{s:b}", "ended", 0);
}

/* ---- a way back ---- */

/* Before anything is asked under it: a take-over must not ask as the same, nor as one that was never stale. */
static void change_incarnation(struct attach *a, void *ctx)
{
	bridge_state_next_incarnation(&a->state);
	a->state.stale = true;
}

static void change_reset(struct attach *a, void *ctx)
{
	attach_change_granted(a, NULL);
	/* Whoever comes back to the socket by the old one knows other contents. */
	a->state.socket_tenure = weft_random_name();
	atomic_store(&a->socket_tenure.now, a->state.socket_tenure);
}

static int save_granted(void *ctx, struct weft_error *err)
{
	return attach_save_state(ctx, change_reset, NULL, err);
}

/*
 * What a dead bridge left in its cache file is of contents that are gone: under those that a reset is granted it must not be found any more.
 * *ret: its bytes, before they are given up (discard).
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
	return r < 0 ? weft_error_set(err, -r, "cannot give up what %s holds: %s", a->options.cache_file, strerror(-r)) : 0;
}

/* 0, with what is given up by it; or why not. */
static int may_reset(struct attach *a, bool discard, uint64_t *ret_given_up, struct weft_error *err)
{
	const char *name = a->options.name, *path = a->options.cache_file, *state = bridge_state(a->bridge, NULL);
	uint64_t dirty = bridge_dirty_bytes(a->bridge), left;
	char users[320], size[32];

	if (strcmp(state, "stale") != 0)
		return weft_error_set(err, EINVAL, "'%s' is %s: a reset is for attachments that are stale; weft status shows "
			"whether it becomes so", name, state);
	if (a->rescue)
		return weft_error_set(err, EBUSY, "'%s' is being rescued", name);
	if (dirty > 0 && !a->rescued && !discard)
		return weft_error_set(err, EBUSY, "the cache of '%s' holds %s that were not at the donor; save them first: weft rescue %s FILE; "
			"or give them up: weft reset --discard %s", name, weft_format_size(dirty, size, sizeof(size)), name, name);
	int r = left_bytes(a, false, &left, err);
	if (r < 0)
		return r;
	if (left > 0 && !discard)
		return weft_error_set(err, EBUSY, "%s holds %s that were not at the donor; save them first: weft rescue %s FILE; then give them "
			"up: weft reset --discard %s", path, weft_format_size(left, size, sizeof(size)), path, name);
	if (attach_users(a, users, sizeof(users)) > 0)
		return weft_error_set(err, EBUSY, "'%s' is in use: %s; what they remember is of the contents that are gone, and would be mixed "
			"with the new: end that first (unmount, close, disconnect)", name, users);
	*ret_given_up = dirty + left;
	return 0;
}

json_t *attach_on_reset(struct attach *a, bool discard)
{
	struct weft_error err = {0};
	uint64_t given_up = 0, left;

	forget_ended(a);
	int r = may_reset(a, discard, &given_up, &err);
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
