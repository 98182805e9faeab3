/* SPDX-License-Identifier: MIT */
/*
 * Spares: regions that take the place of copies that are lost.  One that has done so is the copy
 * from then on, whatever the command line says.  Main thread, before anything is granted.
 */
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "nbd-bridge/main/attach.h"
#include "nbd-bridge/main/copies-look.h"

/* Where the set's copies are on the command line; -1: none of its regions are there. */
static int first_of(const struct attach_options *o, const struct copies_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		if (set->at[i] >= 0 && (unsigned)set->at[i] < o->nr_donors)
			return set->at[i] - set->at[i] % (int)o->copies;
	return -1;
}

static void put_into_place(struct attach *a, const struct copies_set *set)
{
	const struct attach_options *o = &a->options;
	const int first = first_of(o, set);

	/* Where it is not known which region is the copy, those of the command line are asked. */
	if (set->answer.verdict != AGREE_GO_ON)
		return;
	for (unsigned i = 0; first >= 0 && set->count == o->copies && i < set->count; i++) {
		const unsigned donor = (unsigned)first + i;

		/* One that was replaced is no copy, though the one that is one does not answer. */
		if (set->at[i] < (int)o->nr_donors || set->copies[i].said.of.set != set->set ||
			set->answer.replaced >> i & 1)
			continue;
		const char *uri = o->spares[(unsigned)set->at[i] - o->nr_donors].uri_text;
		if (strcmp(a->state.donors[donor].at, uri) == 0)
			continue;
		weft_info("%s has the place of %s", uri, o->donors[donor].uri_text);
		snprintf(a->state.donors[donor].at, sizeof(a->state.donors[donor].at), "%s", uri);
	}
}

/* Nothing that fails here matters: then the copies are asked as they were given. */
void attach_place_spares(struct attach *a)
{
	static struct copies_look look;
	const struct attach_options *o = &a->options;
	char *uris[BRIDGE_MAX_DONORS];
	struct weft_error why;
	struct copies_set set;
	unsigned nr = 0, next = 0;

	if (o->nr_spares == 0 || o->from)
		return;
	memset(&look, 0, sizeof(look));
	for (unsigned i = 0; i < o->nr_donors; i++)
		uris[nr++] = o->donors[i].uri_text;
	for (unsigned i = 0; i < o->nr_spares; i++)
		uris[nr++] = o->spares[i].uri_text;
	if (copies_look_open(&look, uris, nr, o->key_file, o->allow_insecure, 0, &why) == 0)
		while (copies_look_next(&look, &next, &set))
			put_into_place(a, &set);
	copies_look_close(&look);
}

const char *attach_uri_now(const struct attach *a, unsigned donor)
{
	const char *at = a->state.donors[donor].at;

	return at[0] ? at : a->options.donors[donor].uri_text;
}

static bool is_in_place(const struct attach *a, const char *uri)
{
	for (unsigned i = 0; i < a->options.nr_donors; i++)
		if (strcmp(attach_uri_now(a, i), uri) == 0)
			return true;
	return false;
}

/* Those that are no copies now; of a bridge that is taken over others may be than were given. */
unsigned attach_spares_now(const struct attach *a, const char *ret[BRIDGE_MAX_DONORS])
{
	const struct attach_options *o = &a->options;
	unsigned nr = 0;

	for (unsigned i = 0; i < o->nr_spares; i++)
		if (!is_in_place(a, o->spares[i].uri_text))
			ret[nr++] = o->spares[i].uri_text;
	for (unsigned i = 0; i < o->nr_donors && o->nr_spares > 0; i++)
		if (nr < BRIDGE_MAX_DONORS && !is_in_place(a, o->donors[i].uri_text))
			ret[nr++] = o->donors[i].uri_text;
	return nr;
}
