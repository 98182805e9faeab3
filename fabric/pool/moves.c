/* SPDX-License-Identifier: MIT */
/* Regions that are to go to other donors.  The donor that has one moves it, as weft move does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"

enum { AT_ONCE = 4 }; /* regions that leave a donor */

/*
 * Another donor for the region, or this one; NULL: there is none.  *ret_why: what speaks against
 * the one that is asked for; POOL_NR_WHYS: there is no such donor.
 */
static const struct pool_donor *another(struct pool *pool, const struct pool_region *region,
	const char *at, enum pool_why *ret_why)
{
	WEFT_CLEANUP_FREE struct pool_place *places = pool_places(pool, region->lease);
	struct pool_lease lease;
	size_t chosen[POOL_COPIES_MAX];

	*ret_why = POOL_NR_WHYS;
	if (!places || !pool_lease_get(pool, region->lease, &lease))
		return NULL;
	const struct pool_wish wish = {
		.size_bytes = (uint64_t)region->size,
		.copies = 1,
		.spread_racks = lease.racks,
		.at = at,
	};
	/* The rack that it leaves is free for it. */
	for (size_t i = 0; i < pool->nr_donors; i++)
		if (strcmp(places[i].name, region->donor) == 0) {
			places[i].has_copy = false;
			places[i].cordoned = true;
		}
	for (size_t i = 0; at && i < pool->nr_donors; i++)
		if (strcmp(places[i].name, at) == 0)
			*ret_why = pool_why_not(places, pool->nr_donors, i, &wish, NULL, 0);
	return pool_place(places, pool->nr_donors, &wish, chosen) == 0 ? pool->donors[chosen[0]]
								       : NULL;
}

static void note_move(struct pool *pool, const char *who, const struct pool_region *region,
	const struct pool_donor *to, const char *why)
{
	pool_db_run(pool->db, "UPDATE region SET target = ? WHERE name = ? AND target IS NULL",
		"tt", to->name, region->name);
	pool_donor_count(pool, to->name);
	pool_note(pool, who, "move", region->name, "lease %s: from %s to %s%s%s", region->lease,
		region->donor, to->name, why[0] ? ": " : "", why);
}

/* Largest first, so that few have to go. */
static int compare(const void *a, const void *b)
{
	const struct pool_region *x = a, *y = b;

	return x->size == y->size ? strcmp(x->name, y->name) : x->size < y->size ? 1 : -1;
}

bool pool_shift(struct pool *pool, const struct pool_donor *donor, uint64_t bytes, const char *why)
{
	struct pool_region *regions;
	const size_t nr = pool_regions_of(pool, donor->name, &regions);
	uint64_t going = 0;
	unsigned nr_going = 0;
	bool begun = false;

	for (size_t i = 0; i < nr; i++) {
		const bool goes = strcmp(regions[i].donor, donor->name) == 0 &&
			(regions[i].target[0] || strcmp(regions[i].state, "ending") == 0);

		if (goes)
			going += (uint64_t)regions[i].size;
		nr_going += goes && regions[i].target[0];
	}
	if (nr > 0)
		qsort(regions, nr, sizeof(*regions), compare);
	for (size_t i = 0; i < nr && going < bytes && nr_going < AT_ONCE; i++) {
		const struct pool_region *region = &regions[i];
		enum pool_why unused;

		if (strcmp(region->donor, donor->name) != 0 || region->target[0] ||
			!region->lease[0] || strcmp(region->state, "there") != 0)
			continue;
		const struct pool_donor *to = another(pool, region, NULL, &unused);
		if (!to)
			continue;
		note_move(pool, "coordinator", region, to, why);
		going += (uint64_t)region->size;
		nr_going++;
		begun = true;
		weft_step("pool-shift-changed");
	}
	free(regions);
	return begun;
}

static int find_copy(struct pool *pool, const char *lease, int64_t copy, struct pool_region *ret,
	struct weft_error *err)
{
	struct pool_query q;

	pool_db_ask(pool->db, &q,
		"SELECT " POOL_REGION_COLUMNS "WHERE lease = ? AND copy = ? AND state = 'there'",
		"ti", lease, copy);
	if (!pool_db_row(&q))
		return weft_error_set(err, ENOENT, "lease '%s' has no copy %lld that could move",
			lease, (long long)copy);
	pool_region_read(&q, ret);
	pool_db_done(&q);
	return 0;
}

/* In a transaction. */
static int choose(struct pool *pool, const struct pool_region *region, const char *at,
	const struct pool_donor **ret, struct weft_error *err)
{
	enum pool_why why;

	if (at && strcmp(at, region->donor) == 0)
		return weft_error_set(err, EEXIST, "the donor '%s' has it already", at);
	/* Who could not take it before may now. */
	pool_db_run(pool->db, "DELETE FROM refusal WHERE lease = ?", "t", region->lease);
	*ret = another(pool, region, at, &why);
	if (*ret)
		return 0;
	if (at && why == POOL_NR_WHYS)
		return weft_error_set(err, ENOENT, "there is no donor '%s'", at);
	if (at)
		return weft_error_set(err, ENOSPC, "the donor '%s' cannot have it: %s", at,
			pool_why_text(why));
	return weft_error_set(err, ENOSPC, "no other donor has room for it");
}

int pool_move(struct pool *pool, const struct pool_caller *caller, const char *name,
	const json_t *wish, json_t **ret, struct weft_error *err)
{
	const struct pool_donor *to;
	char at[POOL_NAME_MAX + 1] = "";
	struct pool_region region;
	struct pool_lease lease;
	int64_t copy = 0;
	int r = pool_lease_find(pool, caller, name, &lease, err);

	if (r < 0)
		return r;
	pool_field_size(wish, "copy", POOL_COPIES_MAX - 1, &copy);
	if (json_object_get(wish, "to") && !pool_field_text(wish, "to", at))
		return weft_error_set(err, EINVAL, "\"to\" is no donor's name");
	if (lease.ends)
		return weft_error_set(err, EBUSY, "lease '%s' is ending", name);
	r = find_copy(pool, name, copy, &region, err);
	if (r < 0)
		return r;
	if (region.target[0])
		return weft_error_set(err, EBUSY, "it is moving from %s to %s already",
			region.donor, region.target);
	weft_step("pool-move");
	pool_db_begin(pool->db);
	r = choose(pool, &region, at[0] ? at : NULL, &to, err);
	if (r < 0) {
		pool_db_rollback(pool->db);
		return r;
	}
	note_move(pool, caller->name, &region, to, "");
	weft_step("pool-move-changed");
	r = pool_commit(pool, err);
	if (r < 0)
		return r;
	weft_step("pool-move-noted");
	return pool_lease_answer(pool, name, ret, err);
}
