/* SPDX-License-Identifier: MIT */
/* Leases and their regions, as the state has them, and how that changes. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"

/* ---- rows ---- */

static void take_text(char *ret, size_t len, const struct pool_query *q, int column)
{
	snprintf(ret, len, "%s", pool_db_text(q, column));
}

void pool_region_read(const struct pool_query *q, struct pool_region *ret)
{
	take_text(ret->name, sizeof(ret->name), q, 0);
	take_text(ret->lease, sizeof(ret->lease), q, 1);
	ret->copy = pool_db_int(q, 2);
	take_text(ret->donor, sizeof(ret->donor), q, 3);
	take_text(ret->target, sizeof(ret->target), q, 4);
	ret->size = pool_db_int(q, 5);
	take_text(ret->state, sizeof(ret->state), q, 6);
	take_text(ret->epoch, sizeof(ret->epoch), q, 7);
	ret->since = pool_db_int(q, 8);
	ret->used = pool_db_int(q, 9) != 0;
}

void pool_lease_read(const struct pool_query *q, struct pool_lease *ret)
{
	take_text(ret->name, sizeof(ret->name), q, 0);
	take_text(ret->owner, sizeof(ret->owner), q, 1);
	take_text(ret->project, sizeof(ret->project), q, 2);
	take_text(ret->job, sizeof(ret->job), q, 3);
	ret->size = pool_db_int(q, 4);
	ret->copies = pool_db_int(q, 5);
	ret->racks = pool_db_int(q, 6) != 0;
	ret->idle_s = pool_db_int(q, 7);
	ret->made = pool_db_int(q, 8);
	ret->used = pool_db_int(q, 9);
	ret->counted = pool_db_int(q, 10);
	ret->ends = (int)pool_db_int(q, 11);
	take_text(ret->why, sizeof(ret->why), q, 12);
}

size_t pool_regions_of(struct pool *pool, const char *donor, struct pool_region **ret)
{
	struct pool_region *regions = NULL, *more;
	struct pool_query q;
	size_t nr = 0, room = 0;

	for (pool_db_ask(pool->db, &q,
		     "SELECT " POOL_REGION_COLUMNS "WHERE donor = ?1 OR target = ?1", "t", donor);
		pool_db_row(&q);) {
		if (nr == room) {
			room = room ? 2 * room : 64;
			more = reallocarray(regions, room, sizeof(*regions));
			if (!more)
				break;
			regions = more;
		}
		pool_region_read(&q, &regions[nr++]);
	}
	pool_db_done(&q);
	*ret = regions;
	return nr;
}

bool pool_lease_get(struct pool *pool, const char *name, struct pool_lease *ret)
{
	struct pool_query q;

	pool_db_ask(pool->db, &q, "SELECT " POOL_LEASE_COLUMNS "WHERE name = ?", "t", name);
	if (!pool_db_row(&q))
		return false;
	pool_lease_read(&q, ret);
	pool_db_done(&q);
	return true;
}

int pool_lease_find(struct pool *pool, const struct pool_caller *caller, const char *name,
	struct pool_lease *ret, struct weft_error *err)
{
	if (pool_lease_get(pool, name, ret) &&
		(caller->admin || strcmp(caller->name, ret->owner) == 0))
		return 0;
	int r = pool_db_check(pool->db, err);
	return r < 0 ? r : weft_error_set(err, ENOENT, "there is no lease '%.80s' of yours", name);
}

/* ---- accounts ---- */

void pool_account_add(struct pool *pool, const char *kind, const char *name, int64_t spent)
{
	if (name[0])
		pool_db_run(pool->db,
			"INSERT INTO account (kind, name, spent) VALUES (?1, ?2, ?3) "
			"ON CONFLICT DO UPDATE SET spent = spent + ?3",
			"tti", kind, name, spent);
}

int64_t pool_held_by(struct pool *pool, const char *kind, const char *name)
{
	return strcmp(kind, "user") == 0
		? pool_db_number(pool->db, 0, "SELECT " POOL_HELD_BY_USER("?"), "t", name)
		: pool_db_number(pool->db, 0, "SELECT " POOL_HELD_BY_PROJECT("?"), "t", name);
}

void pool_account(struct pool *pool, const struct pool_lease *lease)
{
	const int64_t seconds = pool->now_s > lease->counted ? pool->now_s - lease->counted : 0;
	const int64_t spent = (int64_t)(lease->size / (int64_t)WEFT_MIB) * lease->copies * seconds;

	pool_account_add(pool, "user", lease->owner, spent);
	pool_account_add(pool, "project", lease->project, spent);
	pool_db_run(pool->db, "UPDATE lease SET counted = ? WHERE name = ?", "it", pool->now_s,
		lease->name);
}

/* ---- regions ---- */

void pool_region_want(struct pool *pool, const struct pool_lease *lease, int64_t copy,
	const char *donor)
{
	const uint64_t number = weft_random_name();
	char name[sizeof(POOL_REGION_HEAD) + 16];

	strcpy(name, POOL_REGION_HEAD);
	weft_hex(&number, sizeof(number), name + strlen(name));
	pool_db_run(pool->db, "INSERT INTO region VALUES (?, ?, ?, ?, NULL, ?, 'wanted', '', ?, 0)",
		"ttitii", name, lease->name, copy, donor, lease->size, pool->now_s);
	pool_donor_count(pool, donor);
}

void pool_region_end(struct pool *pool, const char *region)
{
	pool_db_run(pool->db, "UPDATE region SET state = 'ending', since = ? WHERE name = ?", "it",
		pool->now_s, region);
}

/* A lease that ends is over once none of its regions is left. */
static void end_without_regions(struct pool *pool, const char *name)
{
	struct pool_lease lease;

	if (!pool_lease_get(pool, name, &lease) || !lease.ends ||
		pool_db_number(pool->db, 1, "SELECT count(*) FROM region WHERE lease = ?", "t",
			name) > 0)
		return;
	pool_db_run(pool->db, "DELETE FROM refusal WHERE lease = ?", "t", name);
	pool_db_run(pool->db, "DELETE FROM lease WHERE name = ?", "t", name);
	pool_note(pool, "coordinator", "ended", name, "%s", lease.why);
}

void pool_region_gone(struct pool *pool, const struct pool_region *region)
{
	pool_db_run(pool->db, "DELETE FROM region WHERE name = ?", "t", region->name);
	pool_donor_count(pool, region->donor);
	pool_donor_count(pool, region->target);
	if (region->lease[0])
		end_without_regions(pool, region->lease);
}

void pool_end_lease(struct pool *pool, const char *who, const struct pool_lease *lease, int how,
	const char *why)
{
	if (lease->ends >= how)
		return;
	if (!lease->ends)
		pool_account(pool, lease);
	pool_db_run(pool->db, "UPDATE lease SET ends = ?, why = ? WHERE name = ?", "itt",
		(int64_t)how, why, lease->name);
	pool_db_run(pool->db, "UPDATE region SET state = 'ending', since = ? WHERE lease = ?", "it",
		pool->now_s, lease->name);
	pool_note(pool, who, "release", lease->name, "%s", why);
	/* Its donors may have been forgotten. */
	end_without_regions(pool, lease->name);
}

void pool_replace(struct pool *pool, const struct pool_region *region, const char *why)
{
	struct pool_lease lease;
	size_t chosen[POOL_COPIES_MAX];
	char text[300];

	pool_region_end(pool, region->name);
	pool_note(pool, region->donor, "refused", region->name, "lease %s: %s", region->lease, why);
	pool_db_run(pool->db, "INSERT OR REPLACE INTO refusal VALUES (?, ?, ?)", "tti",
		region->lease, region->donor, pool->now_s);
	if (!pool_lease_get(pool, region->lease, &lease) || lease.ends)
		return;
	const struct pool_wish wish = {
		.size_bytes = (uint64_t)lease.size,
		.copies = 1,
		.spread_racks = lease.racks,
	};
	WEFT_CLEANUP_FREE struct pool_place *places = pool_places(pool, lease.name);
	if (places && pool_place(places, pool->nr_donors, &wish, chosen) == 0) {
		pool_region_want(pool, &lease, region->copy, pool->donors[chosen[0]]->name);
		return;
	}
	snprintf(text, sizeof(text), "donor %s %.120s, and no other has room", region->donor, why);
	pool_end_lease(pool, "coordinator", &lease, 1, text);
}

bool pool_lease_is_used(struct pool *pool, const char *lease)
{
	return pool_db_number(pool->db, 1,
		       "SELECT count(*) FROM region WHERE lease = ? AND used AND state <> 'lost'",
		       "t", lease) > 0;
}
