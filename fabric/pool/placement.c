/* SPDX-License-Identifier: MIT */
#include "fabric/pool/placement.h"

#include <errno.h>
#include <string.h>

const char *pool_why_text(enum pool_why why)
{
	static const char *const texts[POOL_NR_WHYS] = {
		[POOL_FITS] = "fits",
		[POOL_IS_OTHER] = "not the one that is asked for",
		[POOL_IS_SILENT] = "silent",
		[POOL_IS_CORDONED] = "cordoned",
		[POOL_IS_DRAINING] = "being drained",
		[POOL_IS_PRESSED] = "short of memory",
		[POOL_REFUSED] = "unable to make a region of this lease",
		[POOL_HAS_A_COPY] = "with a copy already",
		[POOL_SAME_RACK] = "in the rack of another copy",
		[POOL_NO_RACK] = "of no known rack",
		[POOL_TOO_MANY] = "with as many regions as can be",
		[POOL_TOO_SMALL] = "with too little room",
	};

	return texts[why];
}

static bool is_chosen(size_t i, const size_t *chosen, size_t nr_chosen)
{
	for (size_t j = 0; j < nr_chosen; j++)
		if (chosen[j] == i)
			return true;
	return false;
}

/* A copy that stays, or one that was chosen. */
static bool rack_is_taken(const struct pool_place *donors, size_t nr, const char *rack,
	const size_t *chosen, size_t nr_chosen)
{
	for (size_t j = 0; j < nr; j++)
		if (donors[j].has_copy && strcmp(donors[j].rack, rack) == 0)
			return true;
	for (size_t j = 0; j < nr_chosen; j++)
		if (strcmp(donors[chosen[j]].rack, rack) == 0)
			return true;
	return false;
}

enum pool_why pool_why_not(const struct pool_place *donors, size_t nr, size_t i,
	const struct pool_wish *wish, const size_t *chosen, size_t nr_chosen)
{
	const struct pool_place *d = &donors[i];

	if (wish->at && strcmp(wish->at, d->name) != 0)
		return POOL_IS_OTHER;
	if (d->silent)
		return POOL_IS_SILENT;
	if (d->cordoned)
		return POOL_IS_CORDONED;
	if (d->draining)
		return POOL_IS_DRAINING;
	if (d->pressed)
		return POOL_IS_PRESSED;
	if (d->refused)
		return POOL_REFUSED;
	if (d->has_copy || is_chosen(i, chosen, nr_chosen))
		return POOL_HAS_A_COPY;
	if (wish->spread_racks && !d->rack[0])
		return POOL_NO_RACK;
	if (wish->spread_racks && rack_is_taken(donors, nr, d->rack, chosen, nr_chosen))
		return POOL_SAME_RACK;
	if (d->nr_regions >= POOL_REGIONS_MAX)
		return POOL_TOO_MANY;
	return pool_room(d) < wish->size_bytes ? POOL_TOO_SMALL : POOL_FITS;
}

static bool is_better(const struct pool_place *a, const struct pool_place *b)
{
	if (pool_room(a) != pool_room(b))
		return pool_room(a) > pool_room(b);
	if (a->nr_regions != b->nr_regions)
		return a->nr_regions < b->nr_regions;
	return strcmp(a->name, b->name) < 0;
}

/*
 * The best first, then the best of what that leaves.  With racks it finds a place for all copies
 * if there is one: any donor that fits stands for its rack.
 */
int pool_place(const struct pool_place *donors, size_t nr, const struct pool_wish *wish,
	size_t ret[POOL_COPIES_MAX])
{
	size_t chosen[POOL_COPIES_MAX], nr_chosen = 0;

	for (; nr_chosen < wish->copies; nr_chosen++) {
		size_t best = nr;

		for (size_t i = 0; i < nr; i++)
			if (pool_why_not(donors, nr, i, wish, chosen, nr_chosen) == POOL_FITS &&
				(best == nr || is_better(&donors[i], &donors[best])))
				best = i;
		if (best == nr)
			return -ENOSPC;
		chosen[nr_chosen] = best;
	}
	memcpy(ret, chosen, nr_chosen * sizeof(*chosen));
	return 0;
}
