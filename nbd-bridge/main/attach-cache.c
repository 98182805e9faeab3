/* SPDX-License-Identifier: MIT */
/* The cache file of weft attach, and what an earlier bridge left in it.  Main thread. */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"

/*
 * Whether the file names the contents that it belongs to, and names the same as the state.
 * Otherwise nothing may be written back: a foreign server's contents have no name.
 */
static int check_epoch(const struct attach *a, unsigned i, struct weft_error *err)
{
	const struct bridge_state_file *state = &a->state;
	uint64_t epoch = cache_file_epoch(a->cache_file, i),
		 known = state->takes_over ? state->donors[i].epoch : 0;
	const char *path = cache_file_path(a->cache_file);

	if (a->options.donors[0].uri.foreign || (epoch && (!known || known == epoch)))
		return 0;
	return weft_error_set(err, EUCLEAN,
		"%s %s, and is not written back; save what it holds with: weft rescue %s FILE; "
		"then remove it",
		path,
		epoch ? "is of other contents than the bridge that died had"
		      : "does not say of which contents it is",
		path);
}

/*
 * Takes the identity that wrote the file: the donor lets it go on, unless another could write
 * since.
 */
static int take_identity(struct attach *a, struct weft_error *err)
{
	const struct cache_file_identity *id = cache_file_identity(a->cache_file);
	struct bridge_state_file *state = &a->state;

	for (unsigned i = 0; i < id->nr_donors; i++)
		if ((state->takes_over || attach_has_seal_file(a)) &&
			memcmp(state->donors[i].id, id->ids[i], sizeof(id->ids[i])) != 0)
			return weft_error_set(err, EINVAL,
				"%s was not written by the bridge of '%s' that died; see what each "
				"has with weft rescue",
				cache_file_path(a->cache_file), a->options.name);
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
		state->generation = weft_max(state->generation,
			weft_next_incarnation(cache_file_generation(a->cache_file, i)));
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
	int r = attach_open_seal(a, err);

	if (r == 0 && o->cache_file)
		r = cache_file_open(o->cache_file, true, &a->cache_file, err);
	if (r < 0 || !a->cache_file)
		return r;
	uint64_t dirty = cache_file_dirty_bytes(a->cache_file);
	if (dirty == 0) {
		cache_file_forget(a->cache_file);
		return 0;
	}
	const struct cache_file_identity *id = cache_file_identity(a->cache_file);
	if (strcmp(id->uri, o->uri_text) != 0 || id->nr_donors != o->nr_donors ||
		id->stripe_bytes != o->stripe_bytes)
		why = "another region's";
	else if (attach_has_seal_file(a) && !cache_file_same_boot(a->cache_file))
		return 0; /* it has the bytes of what was being written, and tells which they are */
	else if (!cache_file_same_boot(a->cache_file))
		why = "from before this machine was restarted and may be older than what the donor "
		      "has";
	else if (id->sealed != o->sealed ||
		(o->sealed && !a->state.takes_over && !attach_has_seal_file(a)))
		why = "of contents that were sealed in another way, or whose key is gone";
	else if (o->read_only)
		why = "to be written back, which --read-only forbids";
	if (why)
		return weft_error_set(err, EUCLEAN,
			"%s holds %s that are not at the donor of %.500s, and are %s; save them "
			"with: weft rescue %s FILE; "
			"then remove %s",
			cache_file_path(a->cache_file), weft_format_size(dirty, size, sizeof(size)),
			id->uri, why, cache_file_path(a->cache_file),
			cache_file_path(a->cache_file));
	return take_identity(a, err);
}
