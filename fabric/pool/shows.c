/* SPDX-License-Identifier: MIT */
/* What there is to see of the pool, as JSON; weft-pool(1) has the words. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"

#define MIB_S_PER_GIB_H (1024.0 * 3600.0)

static json_t *time_json(int64_t seconds)
{
	char text[40];

	return seconds ? json_string(pool_time_text(seconds, text)) : json_null();
}

static const char *or_null(const char *text)
{
	return text[0] ? text : NULL;
}

/* Takes the object, which says what is in the state if that could be read. */
static int answer(struct pool *pool, json_t *json, json_t **ret, struct weft_error *err)
{
	int r = pool_db_check(pool->db, err);

	if (r == 0 && !json)
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r < 0)
		json_decref(json);
	else
		*ret = json;
	return r;
}

/* ---- leases ---- */

/* How a lease's regions are. */
struct tally {
	unsigned nr, wanted, lost, silent;
};

static const char *state_of(const struct pool_lease *lease, const struct tally *t)
{
	const unsigned copies = (unsigned)lease->copies;
	/* A copy of which nothing is known any more went with its donor. */
	const unsigned lost = t->lost + (t->nr < copies ? copies - t->nr : 0);

	if (lease->ends)
		return "ending";
	if (lost + t->silent >= copies)
		return lost >= copies ? "lost" : "silent";
	if (t->wanted > 0)
		return "making";
	return lost + t->silent > 0 ? "degraded" : "ready";
}

/* weft://HOST:PORT/REGION */
static json_t *uri_of(const struct pool_donor *donor, const char *region)
{
	return donor ? json_sprintf("%s/%s", donor->uri, region) : json_null();
}

static json_t *region_json(const struct pool *pool, const struct pool_region *region,
	struct tally *t)
{
	const struct pool_donor *donor = pool_donor_find(pool, region->donor);
	const bool silent = !donor || pool_donor_is_silent(pool, donor);
	const bool lost = strcmp(region->state, "lost") == 0;

	/* What is ending beside others has had its place taken. */
	if (strcmp(region->state, "ending") != 0) {
		t->nr++;
		t->lost += lost;
		t->wanted += strcmp(region->state, "wanted") == 0;
		t->silent += !lost && silent;
	}
	return json_pack("{s:s, s:i, s:s, s:o, s:s, s:I, s:b, s:b, s:s?}", "region", region->name,
		"copy", (int)region->copy, "donor", region->donor, "uri",
		uri_of(donor, region->name), "state", region->state, "size_bytes",
		(json_int_t)region->size, "used", region->used, "silent", silent, "moving_to",
		or_null(region->target));
}

json_t *pool_lease_json(struct pool *pool, const struct pool_lease *lease)
{
	json_t *regions = json_array();
	struct pool_region region;
	struct pool_query q;
	struct tally tally = {0};

	for (pool_db_ask(pool->db, &q,
		     "SELECT " POOL_REGION_COLUMNS "WHERE lease = ? ORDER BY copy, state DESC", "t",
		     lease->name);
		pool_db_row(&q);) {
		pool_region_read(&q, &region);
		json_array_append_new(regions, region_json(pool, &region, &tally));
	}
	return json_pack("{s:s, s:s, s:s?, s:s?, s:I, s:i, s:s, s:s, s:s?, s:o, s:o, s:o, s:o}",
		"lease", lease->name, "owner", lease->owner, "project", or_null(lease->project),
		"job", or_null(lease->job), "size_bytes", (json_int_t)lease->size, "copies",
		(int)lease->copies, "spread", lease->racks ? "rack" : "donor", "state",
		state_of(lease, &tally), "why", or_null(lease->why), "made", time_json(lease->made),
		"used", time_json(lease->used), "idle_s",
		lease->idle_s ? json_integer(lease->idle_s) : json_null(), "regions", regions);
}

int pool_lease(struct pool *pool, const struct pool_caller *caller, const char *name, json_t **ret,
	struct weft_error *err)
{
	struct pool_lease lease;
	int r = pool_lease_find(pool, caller, name, &lease, err);

	return r < 0 ? r : answer(pool, pool_lease_json(pool, &lease), ret, err);
}

int pool_lease_answer(struct pool *pool, const char *name, json_t **ret, struct weft_error *err)
{
	struct pool_lease lease;

	return answer(pool,
		pool_lease_get(pool, name, &lease) ? pool_lease_json(pool, &lease) : json_object(),
		ret, err);
}

int pool_leases(struct pool *pool, const struct pool_caller *caller, const char *job,
	const char *after, int64_t most, json_t **ret, struct weft_error *err)
{
	json_t *list = json_array();
	struct pool_lease lease;
	struct pool_query q;

	for (pool_db_ask(pool->db, &q,
		     "SELECT " POOL_LEASE_COLUMNS
		     "WHERE name > ?1 AND (?2 IS NULL OR job = ?2) AND "
		     "(?3 IS NULL OR owner = ?3) ORDER BY name LIMIT ?4",
		     "ttti", after, job, caller->admin ? NULL : caller->name, most);
		pool_db_row(&q);) {
		pool_lease_read(&q, &lease);
		json_array_append_new(list, pool_lease_json(pool, &lease));
	}
	return answer(pool, json_pack("{s:o}", "leases", list), ret, err);
}

/* ---- donors ---- */

json_t *pool_donor_json(const struct pool *pool, const struct pool_donor *d)
{
	return json_pack("{s:s, s:s, s:s?, s:s, s:b, s:b, s:o, s:I, s:I, s:I, s:i}", "donor",
		d->name, "uri", d->uri, "rack", or_null(d->rack), "state",
		pool_donor_state_name(d->state), "silent", pool_donor_is_silent(pool, d), "pressed",
		d->pressed, "silent_s",
		d->last_ns ? json_real((double)(pool->now_ns - d->last_ns) / 1e9) : json_null(),
		"lent_bytes", (json_int_t)d->lent_bytes, "used_bytes", (json_int_t)d->used_bytes,
		"give_back_bytes", (json_int_t)d->give_back_bytes, "regions", (int)d->nr_regions);
}

int pool_donors(struct pool *pool, const struct pool_caller *caller, json_t **ret,
	struct weft_error *err)
{
	json_t *list = json_array();

	for (size_t i = 0; i < pool->nr_donors; i++)
		json_array_append_new(list, pool_donor_json(pool, pool->donors[i]));
	return answer(pool, json_pack("{s:o}", "donors", list), ret, err);
}

/* ---- the whole ---- */

static json_t *count_donors(const struct pool *pool)
{
	int silent = 0, cordoned = 0, draining = 0, pressed = 0;

	for (size_t i = 0; i < pool->nr_donors; i++) {
		const struct pool_donor *d = pool->donors[i];

		silent += pool_donor_is_silent(pool, d);
		cordoned += d->state == POOL_CORDONED;
		draining += d->state == POOL_DRAINING;
		pressed += d->pressed;
	}
	return json_pack("{s:i, s:i, s:i, s:i, s:i}", "known", (int)pool->nr_donors, "silent",
		silent, "cordoned", cordoned, "draining", draining, "pressed", pressed);
}

int pool_status(struct pool *pool, const struct pool_caller *caller, json_t **ret,
	struct weft_error *err)
{
	uint64_t lent = 0, used = 0, room = 0;

	for (size_t i = 0; i < pool->nr_donors; i++) {
		const struct pool_donor *d = pool->donors[i];
		const struct pool_place place = {
			.lent_bytes = d->lent_bytes,
			.used_bytes = d->used_bytes,
		};

		if (pool_donor_is_silent(pool, d))
			continue;
		lent += d->lent_bytes;
		used += d->used_bytes;
		if (d->state == POOL_OPEN && !d->pressed)
			room += pool_room(&place);
	}
	/* A table that is counted is one that fits into memory. */
	const int64_t leases = pool_db_number(pool->db, 0, "SELECT count(*) FROM lease", "");
	const int64_t wanted = pool_db_number(pool->db, 0,
		"SELECT count(*) FROM region WHERE state = 'wanted'", "");
	const int64_t lost =
		pool_db_number(pool->db, 0, "SELECT count(*) FROM region WHERE state = 'lost'", "");
	const int64_t ending = pool_db_number(pool->db, 0,
		"SELECT count(*) FROM region WHERE state = 'ending'", "");
	const int64_t unknown =
		pool_db_number(pool->db, 0, "SELECT count(*) FROM region WHERE lease IS NULL", "");

	return answer(pool,
		json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}}", "pool",
			pool->id, "version", WEFT_VERSION, "donors", count_donors(pool),
			"lent_bytes", (json_int_t)lent, "used_bytes", (json_int_t)used,
			"room_bytes", (json_int_t)room, "leases", (json_int_t)leases, "regions",
			"wanted", (json_int_t)wanted, "lost", (json_int_t)lost, "ending",
			(json_int_t)ending, "unknown", (json_int_t)unknown),
		ret, err);
}

int pool_quotas(struct pool *pool, const struct pool_caller *caller, json_t **ret,
	struct weft_error *err)
{
	json_t *list = json_array();
	struct pool_query q;

	/* What live leases have cost since it was counted last comes on top. */
	for (pool_db_ask(pool->db, &q,
		     "SELECT kind, name, quota, CASE kind WHEN 'user' THEN " POOL_HELD_BY_USER(
			     "account.name") " ELSE " POOL_HELD_BY_PROJECT("account.name") " END, "
		     "spent + coalesce((SELECT sum((size / "
		     "1048576) "
		     "* copies * max(?1 - counted, 0)) FROM lease WHERE ends = 0 AND "
		     "CASE kind WHEN 'user' THEN owner ELSE project END = account.name), 0) "
		     "FROM account WHERE ?2 IS NULL OR kind = 'user' AND name = ?2 "
		     "ORDER BY kind DESC, name",
		     "it", pool->now_s, caller->admin ? NULL : caller->name);
		pool_db_row(&q);) {
		const bool has = sqlite3_column_type(q.statement, 2) != SQLITE_NULL;

		json_array_append_new(list,
			json_pack("{s:s, s:s, s:o, s:I, s:f}", "kind", pool_db_text(&q, 0), "name",
				pool_db_text(&q, 1), "quota_bytes",
				has ? json_integer(pool_db_int(&q, 2)) : json_null(), "held_bytes",
				(json_int_t)pool_db_int(&q, 3), "spent_gib_h",
				(double)pool_db_int(&q, 4) / MIB_S_PER_GIB_H));
	}
	return answer(pool, json_pack("{s:o}", "quotas", list), ret, err);
}

int pool_audit(struct pool *pool, const struct pool_caller *caller, int64_t after, int64_t most,
	json_t **ret, struct weft_error *err)
{
	json_t *list = json_array();
	struct pool_query q;

	if (!caller->admin) {
		json_decref(list);
		return pool_refuse(err);
	}
	for (pool_db_ask(pool->db, &q,
		     "SELECT nr, at, who, what, object, detail FROM audit WHERE nr > ? "
		     "ORDER BY nr LIMIT ?",
		     "ii", after, most);
		pool_db_row(&q);)
		json_array_append_new(list,
			json_pack("{s:I, s:o, s:s, s:s, s:s, s:s}", "nr",
				(json_int_t)pool_db_int(&q, 0), "at", time_json(pool_db_int(&q, 1)),
				"who", pool_db_text(&q, 2), "what", pool_db_text(&q, 3), "object",
				pool_db_text(&q, 4), "detail", pool_db_text(&q, 5)));
	return answer(pool, json_pack("{s:o}", "audit", list), ret, err);
}
