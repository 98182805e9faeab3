/* SPDX-License-Identifier: MIT */
/*
 * The state file, which outlives a bridge and whose lock is the attachment's name.  It is written
 * before anything is done that a take-over has to know.  The main thread, except notes of lanes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/key/held.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/main/attach.h"

enum weft_mode attach_mode(const struct attach_options *o)
{
	return o->shared ? WEFT_MODE_SHARED : o->read_only ? WEFT_MODE_READ : WEFT_MODE_WRITE;
}

int attach_save_state(struct attach *a, void (*change)(struct attach *a, void *ctx), void *ctx,
	struct weft_error *err)
{
	pthread_mutex_lock(&a->state_lock);
	if (change)
		change(a, ctx);
	int r = bridge_state_write(&a->state, err);
	if (r == 0)
		r = attach_note_seal(a, err);
	pthread_mutex_unlock(&a->state_lock);
	return r;
}

/* A grant of a lane, and whether it wrote. */
struct noted {
	unsigned donor;
	uint64_t epoch, granted;
	bool wrote;
};

static void change_noted(struct attach *a, void *ctx)
{
	const struct noted *noted = ctx;
	struct bridge_state_donor *donor = &a->state.donors[noted->donor];

	bridge_state_note(donor, noted->epoch, noted->granted, noted->wrote);
	if (a->cache_file)
		cache_file_note_granted(a->cache_file, noted->donor, donor->granted, donor->wrote);
}

/* On a lane's thread. */
int attach_note(void *ctx, unsigned donor, uint64_t epoch, uint64_t granted, bool wrote)
{
	struct noted noted = {donor, epoch, granted, wrote};
	struct weft_error err;
	int r = attach_save_state(ctx, change_noted, &noted, &err);

	if (r < 0)
		weft_warn("%s", err.message);
	return r;
}

bool attach_is_given(const struct attach_options *o, unsigned donor, const char *uri)
{
	struct weft_uri parsed;

	if (strcmp(o->donors[donor].uri_text, uri) == 0)
		return true;
	if (weft_uri_parse(uri, &parsed, NULL) < 0)
		return false;
	bool is = weft_uri_is_same_region(&o->donors[donor].uri, &parsed);
	weft_uri_fini(&parsed);
	return is;
}

/* Where a region is, and where it may be soon. */
struct placed {
	unsigned donor;
	uint64_t nr;
	const char *at, *moving;
};

static void change_place(struct attach *a, void *ctx)
{
	const struct placed *placed = ctx;
	struct bridge_state_donor *donor = &a->state.donors[placed->donor];
	bool given = attach_is_given(&a->options, placed->donor, placed->at);

	if (placed->nr <= a->nr_places[placed->donor])
		return;
	a->nr_places[placed->donor] = placed->nr;
	snprintf(donor->at, sizeof(donor->at), "%s", given ? "" : placed->at);
	snprintf(donor->moving, sizeof(donor->moving), "%s", placed->moving);
}

/* On a lane's thread. */
int attach_note_place(void *ctx, unsigned donor, uint64_t nr, const char *at, const char *moving)
{
	struct placed placed = {donor, nr, at, moving};
	struct weft_error err;
	int r = attach_save_state(ctx, change_place, &placed, &err);

	if (r < 0)
		weft_warn("%s", err.message);
	return r;
}

static void change_tenure(struct attach *a, void *ctx)
{
	a->state.socket_tenure = *(const uint64_t *)ctx;
}

/* On a lane's thread. */
int attach_note_tenure(void *ctx, uint64_t tenure)
{
	struct weft_error err;
	int r = attach_save_state(ctx, change_tenure, &tenure, &err);

	if (r < 0)
		weft_warn("%s", err.message);
	return r;
}

void attach_change_stale(struct attach *a, void *ctx)
{
	a->state.stale = true;
}

/*
 * A take-over must not ask for contents that were refused for good.  A superseded bridge has its
 * successor already.
 */
void attach_keep_stale(struct attach *a)
{
	struct weft_error err;

	if (!attachment_is_superseded(bridge_attachment(a->bridge)) &&
		attach_save_state(a, attach_change_stale, NULL, &err) < 0)
		weft_warn("%s", err.message);
}

/* Whether the state's regions are meant, by where they were, or by where they have moved to. */
static bool is_same(const struct attach *a)
{
	const struct attach_options *o = &a->options;
	const struct bridge_state_file *state = &a->state;
	const char *was = state->uri ? state->uri : "";

	if (state->nr_donors != o->nr_donors)
		return false;
	for (unsigned i = 0; i < o->nr_donors; i++) {
		const char *now = o->donors[i].uri_text, *at = state->donors[i].at;
		size_t len = strcspn(was, " ");

		if ((strlen(now) != len || strncmp(was, now, len) != 0) &&
			(!at[0] || !attach_is_given(o, i, at)))
			return false;
		was += len + (was[len] == ' ');
	}
	return was[0] == '\0';
}

/* A device that a dead bridge left may have users, whose data must not become another region's. */
static int check_left_device(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	struct bridge_state_file *state = &a->state;
	char path[32];

	if (!bridge_device_find(&state->device, path, sizeof(path))) {
		state->unserved_ns = 0;
		return 0;
	}
	if (!state->unserved_ns)
		state->unserved_ns = weft_boottime_ns();
	if (!is_same(a))
		return weft_error_set(err, EBUSY,
			"a bridge named '%s' died and left %s, which is %s; clear it with: weft "
			"detach %s; or give this one another --name",
			o->name, path, state->uri ? state->uri : "another region's", o->name);
	if (!o->device)
		return weft_error_set(err, EBUSY,
			"the bridge that died left %s, which may be in use; take it over with "
			"--device, or clear it with: weft detach %s",
			path, o->name);
	return 0;
}

static void name_device(struct attach *a)
{
	struct bridge_device *device = &a->state.device;
	char key[17];
	uint8_t random[8];

	if (!a->options.device)
		memset(device, 0, sizeof(*device));
	else if (!device->backend[0]) {
		weft_random(random, sizeof(random));
		weft_hex(random, sizeof(random), key);
		snprintf(device->backend, sizeof(device->backend), "weft:%s:%s", a->options.name,
			key);
	}
}

/* Modes as letters in the state. */
static const char mode_letters[] =
	{[WEFT_MODE_READ] = 'r', [WEFT_MODE_SHARED] = 's', [WEFT_MODE_WRITE] = 'w'};

/* Different rules bind readers and writers: one cannot go on as the other. */
static int check_mode(const struct attach *a, struct weft_error *err)
{
	static const char *const options[] = {[WEFT_MODE_READ] = "with --read-only",
		[WEFT_MODE_SHARED] = "with --shared",
		[WEFT_MODE_WRITE] = "to read and write"};
	const char *name = a->options.name;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(mode_letters); i++)
		if (a->state.mode == mode_letters[i] && i != attach_mode(&a->options))
			return weft_error_set(err, EINVAL,
				"the bridge of '%s' that died was attached %s, and is taken over "
				"in the same way only; "
				"or end it: weft detach %s",
				name, options[i], name);
	return 0;
}

/* Sealed contents are taken over by a bridge that seals in the same way, or not at all. */
static int check_sealed(const struct attach *a, bool same, struct weft_error *err)
{
	const struct bridge_state_file *state = &a->state;
	const struct attach_options *o = &a->options;
	const char *name = o->name;

	if (!state->takes_over)
		return 0;
	if (!same && state->sealed)
		return weft_error_set(err, EBUSY,
			"the bridge of '%s' that died has sealed contents at %.500s, whose key "
			"would be lost; go on with them, or give them up: weft detach --force %s",
			name, state->uri ? state->uri : "another region", name);
	if (same && state->sealed != a->options.sealed)
		return weft_error_set(err, EINVAL,
			"the bridge of '%s' that died was attached %s%s, and is taken over in the "
			"same way only; or end it: weft detach --force %s",
			name, state->sealed ? "with --" : "without --verify or --encrypt",
			seal_kind_name(state->sealed), name);
	if (same && state->sealed &&
		(!state->seal_file != !o->seal_file ||
			(o->seal_file && strcmp(state->seal_file, o->seal_file) != 0)))
		return weft_error_set(err, EINVAL,
			"the bridge of '%s' that died was attached %s--%s-key%s%.400s, and is "
			"taken over in the same way only; or end it: weft detach --force %s",
			name, state->seal_file ? "with " : "without ",
			seal_kind_name(state->sealed),
			state->seal_file ? ", and what seals it is in " : "",
			state->seal_file ? state->seal_file : "", name);
	/* The guard keeps the cache, or the file has it: elsewhere its newer blocks are missing. */
	if (same && state->sealed && !state->cache_file != !a->options.cache_file)
		return weft_error_set(err, EINVAL,
			"the bridge of '%s' that died was attached %s--cache-file%s%.500s, and is "
			"taken over in the same way only; or end it: weft detach --force %s",
			name, state->cache_file ? "with " : "without ",
			state->cache_file ? " " : "", state->cache_file ? state->cache_file : "",
			name);
	return 0;
}

/* Clients would miss the blocks that the dead bridge had not written back. */
static int check_left_cache(const struct attach *a, bool same, struct weft_error *err)
{
	const struct bridge_state_file *state = &a->state;
	const char *path = a->options.cache_file;
	struct cache_file *file;
	struct weft_error why;
	char size[32];

	if (!state->takes_over || !state->cache_file ||
		(same && path && strcmp(path, state->cache_file) == 0))
		return 0;
	int r = cache_file_open(state->cache_file, false, &file, &why);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return weft_error_set(err, -r,
			"what the bridge of '%s' that died left in its cache file cannot be seen: "
			"%.500s; mend that, or give "
			"it up with: weft detach --force %s",
			a->options.name, why.message, a->options.name);
	uint64_t dirty = cache_file_dirty_bytes(file);
	cache_file_close(file);
	if (dirty == 0)
		return 0;
	return weft_error_set(err, EBUSY,
		"the bridge of '%s' that died left %s in %s that are not at the donor of %.500s; "
		"go on with "
		"that and --cache-file %s, or save them with weft rescue and give them up with: "
		"weft detach --force %s",
		a->options.name, weft_format_size(dirty, size, sizeof(size)), state->cache_file,
		state->uri, state->cache_file, a->options.name);
}

/*
 * A take-over goes on with the key file that the bridge before had, wherever a key would be looked
 * for now.
 */
static int find_keys(struct attach *a, const char *noted_file, struct weft_error *err)
{
	const struct attach_options *o = &a->options;

	for (unsigned i = 0; i < o->nr_donors; i++)
		a->find.donors[i].uri = &o->donors[i].uri;
	a->find.allow_insecure = o->allow_insecure;
	a->find.key_file = o->key_file || o->allow_insecure ? o->key_file : noted_file;
	int r = bridge_find_keys(&a->find, o->nr_donors, err);
	a->find.key_file = NULL; /* the note's may be freed */
	return r;
}

/* A region that has moved is where it was granted last, with the key that was chosen before. */
int attach_begin_at_places(struct attach *a, struct weft_error *err)
{
	for (unsigned i = 0; i < a->options.nr_donors; i++) {
		char *at = a->state.donors[i].at;

		if (at[0] && attach_is_given(&a->options, i, at))
			at[0] = '\0';
		if (!at[0])
			continue;
		weft_uri_fini(&a->at[i]);
		int r = weft_uri_parse(at, &a->at[i], err);
		if (r < 0)
			return r;
		a->find.donors[i].uri = &a->at[i];
	}
	return 0;
}

/* The kernel's driver keeps no keys. */
static int check_plaintext(const struct attach *a, struct weft_error *err)
{
	const struct weft_held_key *key = a->find.donors[0].key;

	if (!key || !a->options.device_wish.kernel_socket)
		return 0;
	return weft_error_set(err, EINVAL,
		"--kernel-socket is plaintext, and the key of %.300s would encrypt; add "
		"--allow-insecure to go on without it, in a trusted network and with a donor that "
		"has --allow-insecure too; or attach without --kernel-socket",
		weft_held_key_file(key));
}

/* Which keys are used: never what they are. */
static void note_keys(struct attach *a)
{
	struct bridge_state_file *state = &a->state;

	free(state->key_file);
	state->key_file = NULL;
	for (unsigned i = 0; i < a->options.nr_donors; i++) {
		struct weft_held_key *key = a->find.donors[i].key;

		state->donors[i].identity[0] = '\0';
		if (!key)
			continue;
		weft_held_key_identity(key, state->donors[i].identity);
		if (!state->key_file)
			state->key_file = strdup(weft_held_key_file(key));
	}
}

static int refuse_other_copies(const struct attach *a, struct weft_error *err)
{
	const struct bridge_state_file *state = &a->state;

	if (state->copies == 1)
		return weft_error_set(err, EINVAL,
			"the bridge of '%s' that died had no copies: attach without --mirror, or "
			"end it: weft detach %s",
			a->options.name, a->options.name);
	return weft_error_set(err, EINVAL,
		"the bridge of '%s' that died had copies: give --mirror %u --min-copies %u, or end "
		"it: weft detach %s",
		a->options.name, state->copies, state->min_copies, a->options.name);
}

int attach_take_name(struct attach *a, struct weft_error *err)
{
	struct attach_options *o = &a->options;
	struct bridge_state_file *state = &a->state;
	int r = bridge_state_open(o->name, state, err);

	if (r < 0)
		return r;
	a->have_name = true;
	r = check_left_device(a, err);
	if (r < 0)
		return r;
	/* The secret is for that region only. */
	bool same = is_same(a);
	if (state->takes_over && same &&
		(state->copies != o->copies ||
			(o->copies > 1 && state->min_copies != o->min_copies)))
		return refuse_other_copies(a, err);
	if (state->takes_over && same && state->stripe_bytes != o->stripe_bytes)
		return weft_error_set(err, EINVAL,
			"the bridge of '%s' that died had stripes of %" PRIu64
			" bytes: with others its "
			"contents would be scrambled; give --stripe-unit %" PRIu64
			", or end it: weft detach %s",
			o->name, state->stripe_bytes, state->stripe_bytes, o->name);
	if (state->takes_over && same && (o->new_contents || o->from))
		return weft_error_set(err, EINVAL,
			"the bridge of '%s' that died is taken over with the contents that it "
			"knows, without --new-contents and --from; "
			"or end it: weft detach %s",
			o->name, o->name);
	if (state->takes_over && same) {
		r = check_mode(a, err);
		if (r < 0)
			return r;
	}
	r = find_keys(a, state->takes_over && same ? state->key_file : NULL, err);
	if (r == 0)
		r = check_plaintext(a, err);
	if (r == 0)
		r = check_sealed(a, same, err);
	if (r == 0)
		r = check_left_cache(a, same, err);
	if (r < 0)
		return r;
	if (!state->takes_over || !same)
		bridge_state_renew(state, o->nr_donors);
	if (!state->takes_over || !same)
		attach_place_spares(a);
	r = attach_begin_at_places(a, err);
	if (r < 0)
		return r;
	state->stripe_bytes = o->stripe_bytes;
	state->copies = o->copies;
	state->min_copies = o->min_copies;
	r = attach_open_cache(a, err);
	if (r < 0)
		return r;
	if (a->resumes && o->new_contents)
		return weft_error_set(err, EINVAL,
			"%s holds what was written and is not at the donor yet: attach without "
			"--new-contents to write it "
			"back, or remove the file",
			o->cache_file);
	if (!state->mount || !o->mount || strcmp(state->mount, o->mount) != 0)
		state->made_dev = state->made_ino = 0;
	free(state->uri);
	free(state->socket);
	free(state->mount);
	free(state->cache_file);
	free(state->seal_file);
	state->cache_file = o->cache_file ? strdup(o->cache_file) : NULL;
	state->seal_file = o->seal_file ? strdup(o->seal_file) : NULL;
	state->uri = strdup(o->uri_text);
	note_keys(a);
	state->socket = o->socket ? strdup(o->socket) : NULL;
	state->mount = o->mount ? strdup(o->mount) : NULL;
	free(state->again);
	free(state->directory);
	state->again = o->again ? strdup(o->again) : NULL;
	state->directory = getcwd(NULL, 0);
	name_device(a);
	state->mode = mode_letters[attach_mode(o)];
	state->pid = getpid();
	r = bridge_state_write(state, err);
	/* On disk before anything is asked under this incarnation. */
	return r == 0 ? attach_note_seal(a, err) : r;
}

void attach_change_granted(struct attach *a, void *ctx)
{
	struct bridge_attachment *attachment = bridge_attachment(a->bridge);

	/* A copy may be granted, or begin anew, meanwhile. */
	pthread_mutex_lock(&attachment->lock);
	for (unsigned i = 0; i < a->options.nr_donors; i++) {
		struct bridge_state_donor *donor = &a->state.donors[i];

		donor->info = attachment->peers[i].info;
		donor->epoch = donor->info.epoch;
	}
	pthread_mutex_unlock(&attachment->lock);
	a->state.stale = false;
	attach_seal_in_use(a);
}

static void change_device(struct attach *a, void *ctx)
{
	a->state.device = *(const struct bridge_device *)ctx;
}

int attach_save_device(void *ctx, const struct bridge_device *device, struct weft_error *err)
{
	struct attach *a = ctx;

	return attach_save_state(a, change_device, (void *)device, err);
}
