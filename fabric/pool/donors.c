/* SPDX-License-Identifier: MIT */
/* The pool's donors, as the coordinator knows them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"

static const char *const state_names[POOL_NR_STATES] = {
	[POOL_OPEN] = "open",
	[POOL_CORDONED] = "cordoned",
	[POOL_DRAINING] = "draining",
};

const char *pool_donor_state_name(enum pool_donor_state state)
{
	return state_names[state];
}

bool pool_donor_state_parse(const char *name, enum pool_donor_state *ret)
{
	for (unsigned i = 0; i < POOL_NR_STATES; i++)
		if (strcmp(state_names[i], name) == 0) {
			*ret = (enum pool_donor_state)i;
			return true;
		}
	return false;
}

/* Where it is, or belongs. */
static size_t place_of(const struct pool *pool, const char *name)
{
	size_t low = 0, high = pool->nr_donors;

	while (low < high) {
		const size_t middle = (low + high) / 2;

		if (strcmp(pool->donors[middle]->name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct pool_donor *pool_donor_find(const struct pool *pool, const char *name)
{
	const size_t i = place_of(pool, name);

	return i < pool->nr_donors && strcmp(pool->donors[i]->name, name) == 0 ? pool->donors[i]
									       : NULL;
}

struct pool_donor *pool_donor_add(struct pool *pool, const char *name)
{
	const size_t at = place_of(pool, name);

	if (pool->nr_donors == pool->room) {
		const size_t room = pool->room ? 2 * pool->room : 16;
		struct pool_donor **more = reallocarray(pool->donors, room, sizeof(*more));

		if (!more)
			return NULL;
		pool->donors = more;
		pool->room = room;
	}
	struct pool_donor *donor = calloc(1, sizeof(*donor));
	if (!donor)
		return NULL;
	snprintf(donor->name, sizeof(donor->name), "%s", name);
	memmove(pool->donors + at + 1, pool->donors + at,
		(pool->nr_donors - at) * sizeof(*pool->donors));
	pool->donors[at] = donor;
	pool->nr_donors++;
	return donor;
}

void pool_donor_remove(struct pool *pool, struct pool_donor *donor)
{
	const size_t at = place_of(pool, donor->name);

	pool->nr_donors--;
	memmove(pool->donors + at, pool->donors + at + 1,
		(pool->nr_donors - at) * sizeof(*pool->donors));
	free(donor->uri);
	free(donor->rack);
	free(donor);
}

void pool_donor_count(struct pool *pool, const char *name)
{
	struct pool_donor *donor = pool_donor_find(pool, name);
	struct pool_query q;

	if (!donor)
		return;
	donor->used_bytes = 0;
	donor->nr_regions = 0;
	for (pool_db_ask(pool->db, &q,
		     "SELECT coalesce(sum(size), 0), count(*) FROM region WHERE "
		     "(donor = ?1 OR target = ?1) AND state <> 'lost'",
		     "t", name);
		pool_db_row(&q);) {
		donor->used_bytes = (uint64_t)pool_db_int(&q, 0);
		donor->nr_regions = (unsigned)pool_db_int(&q, 1);
	}
}

bool pool_donor_is_silent(const struct pool *pool, const struct pool_donor *donor)
{
	return !donor->last_ns ||
		pool->now_ns - donor->last_ns > POOL_SILENT_S * UINT64_C(1000000000);
}

int pool_donors_load(struct pool *pool, struct weft_error *err)
{
	struct pool_query q;
	bool good = true;

	for (pool_db_ask(pool->db, &q, "SELECT name, uri, rack, lent, state FROM donor", "");
		pool_db_row(&q);) {
		struct pool_donor *d = pool_donor_add(pool, pool_db_text(&q, 0));

		good = good && d != NULL;
		if (!d)
			continue;
		d->uri = strdup(pool_db_text(&q, 1));
		d->rack = strdup(pool_db_text(&q, 2));
		d->lent_bytes = (uint64_t)pool_db_int(&q, 3);
		d->is_noted = true;
		pool_donor_state_parse(pool_db_text(&q, 4), &d->state);
		good = good && d->uri && d->rack;
	}
	for (size_t i = 0; good && i < pool->nr_donors; i++)
		pool_donor_count(pool, pool->donors[i]->name);
	if (!good)
		return weft_error_set(err, ENOMEM, "no memory");
	return pool_db_check(pool->db, err);
}

struct pool_place *pool_places(struct pool *pool, const char *lease)
{
	struct pool_place *places = calloc(pool->nr_donors + 1, sizeof(*places));
	struct pool_query q;

	if (!places)
		return NULL;
	for (size_t i = 0; i < pool->nr_donors; i++) {
		const struct pool_donor *d = pool->donors[i];

		places[i] = (struct pool_place){
			.name = d->name,
			.rack = d->rack,
			.lent_bytes = d->lent_bytes,
			.used_bytes = d->used_bytes,
			.nr_regions = d->nr_regions,
			.silent = pool_donor_is_silent(pool, d),
			.cordoned = d->state == POOL_CORDONED,
			.draining = d->state == POOL_DRAINING,
			.pressed = d->pressed,
		};
	}
	if (!lease)
		return places;
	for (pool_db_ask(pool->db, &q,
		     "SELECT donor, 1 FROM refusal WHERE lease = ?1 AND at > ?2 UNION ALL "
		     "SELECT donor, 0 FROM region WHERE lease = ?1 AND state <> 'ending' UNION ALL "
		     "SELECT target, 0 FROM region WHERE lease = ?1 AND target IS NOT NULL",
		     "ti", lease, pool->now_s - POOL_AGAIN_S);
		pool_db_row(&q);) {
		const size_t i = place_of(pool, pool_db_text(&q, 0));

		if (i == pool->nr_donors || strcmp(places[i].name, pool_db_text(&q, 0)) != 0)
			continue;
		places[i].refused |= pool_db_int(&q, 1) == 1;
		places[i].has_copy |= pool_db_int(&q, 1) == 0;
	}
	return places;
}

/* What was counted of donors in memory is as in the state, whatever became of the transaction. */
int pool_commit(struct pool *pool, struct weft_error *err)
{
	int r = pool_db_commit(pool->db, err);

	for (size_t i = 0; r < 0 && i < pool->nr_donors; i++)
		pool_donor_count(pool, pool->donors[i]->name);
	return r;
}
