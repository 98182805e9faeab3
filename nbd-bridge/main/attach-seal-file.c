/* SPDX-License-Identifier: MIT */
/*
 * Contents of weft attach that are sealed with a key of the user's, and outlive a restart of the
 * machine: who we are at the donors, and what we remember, is then in the file that seals them, as
 * the state file ends with the boot.  Main thread, but for notes.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/key/file.h"
#include "nbd-bridge/cache/seal.h"
#include "nbd-bridge/main/attach.h"

bool attach_has_seal_file(const struct attach *a)
{
	return a->seal && seal_identity(a->seal);
}

static int check_whose(const struct attach *a, const struct seal_identity *id,
	struct weft_error *err)
{
	const struct attach_options *o = &a->options;

	if (strcmp(id->uri, o->uri_text) != 0 || id->nr_donors != o->nr_donors)
		return weft_error_set(err, EINVAL,
			"%s seals the contents of %.500s; give another --cache-file, or begin "
			"empty contents with --new-contents",
			o->seal_file, id->uri);
	if (id->stripe_bytes != o->stripe_bytes)
		return weft_error_set(err, EINVAL,
			"%s seals contents in stripes of %llu bytes: give --stripe-unit %llu",
			o->seal_file, (unsigned long long)id->stripe_bytes,
			(unsigned long long)id->stripe_bytes);
	for (unsigned i = 0; i < o->nr_donors && a->state.takes_over; i++)
		if (memcmp(a->state.donors[i].id, id->donors[i].id, WEFT_ID_BYTES) != 0)
			return weft_error_set(err, EINVAL,
				"%s was not written by the bridge of '%s' that died; end that: "
				"weft detach --force %s",
				o->seal_file, o->name, o->name);
	return 0;
}

static const char no_boot[] = "?"; /* another than any */

_Static_assert((int)SEAL_BOOT >= (int)WEFT_BOOT_ID_BYTES, "a boot's name has room");

static void name_boot(char ret[SEAL_BOOT])
{
	weft_boot_id(ret, SEAL_BOOT);
	if (!ret[0])
		strcpy(ret, no_boot);
}

/* As a take-over: the donor refuses if another could write since. */
static void take_identity(struct attach *a, const struct seal_identity *id)
{
	struct bridge_state_file *state = &a->state;
	char boot[SEAL_BOOT];

	name_boot(boot);
	memcpy(a->seal_boot, id->boot, sizeof(a->seal_boot));
	a->restarted = id->boot[0] &&
		(strcmp(id->boot, boot) != 0 || strcmp(boot, no_boot) == 0);
	state->nr_donors = (unsigned)id->nr_donors;
	for (unsigned i = 0; i < state->nr_donors; i++) {
		struct bridge_state_donor *donor = &state->donors[i];
		const struct seal_donor *known = &id->donors[i];

		memcpy(donor->id, known->id, sizeof(donor->id));
		/* Where both know it, the state was written last. */
		if (!state->takes_over || donor->epoch == 0) {
			donor->epoch = known->epoch;
			donor->granted = known->granted;
			donor->wrote = known->wrote != 0;
		}
		state->generation = weft_max(state->generation,
			weft_next_incarnation(known->generation));
	}
}

int attach_open_seal_file(struct attach *a, struct weft_error *err)
{
	const struct attach_options *o = &a->options;
	/* A bridge that died before it had a grant has left no contents. */
	const bool anew = o->new_contents ||
		(a->state.takes_over && a->state.donors[0].epoch == 0 &&
			access(o->seal_file, F_OK) < 0);
	uint8_t key[SEAL_KEY_BYTES];

	int r = weft_secret_file_read(o->seal_key, key, sizeof(key), err);
	if (r < 0)
		return r;
	r = seal_open(o->seal_file, key, o->sealed, anew, &a->seal, err);
	explicit_bzero(key, sizeof(key));
	if (r == -EKEYREJECTED)
		return weft_error_set(err, EKEYREJECTED,
			"the key of %.300s is not the one that %.300s was begun with; nothing was "
			"changed",
			o->seal_key, o->seal_file);
	if (r < 0)
		return r;
	const struct seal_identity *id = seal_identity(a->seal);
	r = id ? check_whose(a, id, err) : 0;
	if (id && r == 0)
		take_identity(a, id);
	return r;
}

int attach_note_seal(struct attach *a, struct weft_error *err)
{
	const struct bridge_state_file *state = &a->state;
	struct seal_identity id = {0};

	if (!a->seal || !seal_path(a->seal))
		return 0;
	snprintf(id.uri, sizeof(id.uri), "%s", a->options.uri_text);
	id.stripe_bytes = state->stripe_bytes;
	id.nr_donors = state->nr_donors;
	for (unsigned i = 0; i < state->nr_donors; i++) {
		const struct bridge_state_donor *donor = &state->donors[i];
		struct seal_donor *noted = &id.donors[i];

		memcpy(noted->id, donor->id, sizeof(noted->id));
		noted->generation = state->generation;
		noted->epoch = donor->epoch;
		noted->granted = donor->granted;
		noted->wrote = donor->wrote;
	}
	memcpy(id.boot, a->seal_boot, sizeof(id.boot));
	return seal_note(a->seal, &id, err);
}

void attach_seal_in_use(struct attach *a)
{
	name_boot(a->seal_boot);
}

void attach_seal_is_flushed(struct attach *a)
{
	struct weft_error err;

	pthread_mutex_lock(&a->state_lock);
	/* If nobody was told of a restart, the next attach tells. */
	strcpy(a->seal_boot, a->restarted && !a->attached ? no_boot : "");
	if (attach_note_seal(a, &err) < 0)
		weft_warn("%s", err.message);
	pthread_mutex_unlock(&a->state_lock);
}
