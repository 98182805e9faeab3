/* SPDX-License-Identifier: MIT */
/* The coordinator as a whole: its life, and what comes with time. */
#include "fabric/pool/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"
#include "fabric/pool/shared.h"

enum {
	AUDIT_MAX = 200000, /* rows that are kept */
	PRUNE_MAX = 500,    /* of those beyond that, each second: etcd takes so much at once */
	TICK_MAX = 256,     /* of a kind, each second */
	JUMP_S = 5,         /* that the clock goes ahead or back is more than rounding */
};
#define NS_PER_S UINT64_C(1000000000)

/* ---- life ---- */

static int open_pool(const char *state, struct pool_shared *shared, struct pool **ret,
	struct weft_error *err)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	struct pool_query q;

	if (!pool)
		return weft_error_set(err, ENOMEM, "no memory");
	pool->shared = shared;
	pool_at(pool, weft_now_ns(), (int64_t)time(NULL));
	int r = shared ? pool_db_open_shared(shared, &pool->db, err)
		       : pool_db_open(state, &pool->db, err);
	if (r == 0) {
		for (pool_db_ask(pool->db, &q, "SELECT pool FROM about", ""); pool_db_row(&q);)
			snprintf(pool->id, sizeof(pool->id), "%s", pool_db_text(&q, 0));
		r = pool_donors_load(pool, err);
	}
	if (r < 0)
		pool_close(pool);
	else
		*ret = pool;
	return r;
}

int pool_open(const char *state, struct pool **ret, struct weft_error *err)
{
	return open_pool(state, NULL, ret, err);
}

int pool_open_shared(struct pool_shared *shared, struct pool **ret, struct weft_error *err)
{
	return open_pool(NULL, shared, ret, err);
}

bool pool_leads(const struct pool *pool)
{
	return !pool->shared || pool_shared_leads(pool->shared);
}

void pool_close(struct pool *pool)
{
	if (!pool)
		return;
	while (pool->nr_donors > 0)
		pool_donor_remove(pool, pool->donors[pool->nr_donors - 1]);
	free(pool->donors);
	pool_db_close(pool->db);
	free(pool);
}

void pool_at(struct pool *pool, uint64_t monotonic_ns, int64_t realtime_s)
{
	const int64_t passed_s = (int64_t)((monotonic_ns - pool->now_ns) / NS_PER_S);

	if (llabs(realtime_s - pool->now_s - passed_s) > JUMP_S)
		pool->steady_since_ns = monotonic_ns;
	pool->now_ns = monotonic_ns;
	pool->now_s = realtime_s;
}

/* ---- time ---- */

/*
 * Whether all donors of the lease have spoken since the coordinator was started, and one of them
 * lately, so that it is known whether somebody uses it.  Nobody uses one of which nothing is left.
 */
static bool is_known(struct pool *pool, const char *lease)
{
	struct pool_query q;
	bool known = true, lately = false, has = false;

	for (pool_db_ask(pool->db, &q, "SELECT donor FROM region WHERE lease = ?", "t", lease);
		pool_db_row(&q);) {
		const struct pool_donor *donor = pool_donor_find(pool, pool_db_text(&q, 0));

		has = true;
		known &= donor && donor->last_ns;
		lately |= donor && !pool_donor_is_silent(pool, donor);
	}
	return known && (lately || !has);
}

/*
 * Leases that end when nobody uses them, and nobody has for as long as that.  Of this time the
 * clock must have been steady, and the coordinator there: a clock that is set ends no lease.
 */
static void end_idle(struct pool *pool)
{
	const int64_t steady_s = (int64_t)((pool->now_ns - pool->steady_since_ns) / NS_PER_S);
	struct pool_lease *idle = calloc(TICK_MAX, sizeof(*idle));
	struct pool_query q;
	size_t nr = 0;

	if (!idle)
		return;
	for (pool_db_ask(pool->db, &q,
		     "SELECT " POOL_LEASE_COLUMNS
		     "WHERE idle_s > 0 AND used + idle_s <= ? AND idle_s <= ? AND ends = 0 AND "
		     "NOT EXISTS "
		     "(SELECT 1 FROM region WHERE region.lease = lease.name AND region.used "
		     "AND region.state <> 'lost') "
		     "LIMIT ?",
		     "iii", pool->now_s, steady_s, (int64_t)TICK_MAX);
		pool_db_row(&q);)
		pool_lease_read(&q, &idle[nr++]);
	for (size_t i = 0; i < nr; i++)
		if (is_known(pool, idle[i].name))
			pool_end_lease(pool, "coordinator", &idle[i], 1,
				"nobody has used it for as long as it was to be kept");
	free(idle);
}

/*
 * Regions that a donor does not make, although the coordinator was there, and the clock steady, for
 * as long as it had.
 */
static void replace_late(struct pool *pool)
{
	struct pool_region *late = calloc(TICK_MAX, sizeof(*late));
	struct pool_query q;
	size_t nr = 0;

	if (!late || pool->now_ns - pool->steady_since_ns < POOL_MAKE_S * NS_PER_S) {
		free(late);
		return;
	}
	for (pool_db_ask(pool->db, &q,
		     "SELECT " POOL_REGION_COLUMNS "WHERE state = 'wanted' AND since <= ? LIMIT ?",
		     "ii", pool->now_s - POOL_MAKE_S, (int64_t)TICK_MAX);
		pool_db_row(&q);)
		pool_region_read(&q, &late[nr++]);
	for (size_t i = 0; i < nr; i++)
		pool_replace(pool, &late[i], "did not make it in time");
	free(late);
}

static void forget_old(struct pool *pool)
{
	const int64_t last = pool_db_number(pool->db, 0, "SELECT max(nr) FROM audit", "");

	pool_db_run(pool->db,
		"DELETE FROM audit WHERE nr <= ?1 AND nr < "
		"(SELECT min(nr) FROM audit) + ?2",
		"ii", last - AUDIT_MAX, (int64_t)PRUNE_MAX);
}

/* What donors are to be rid of.  Each in a transaction of its own, which etcd takes at once. */
static void shift_away(struct pool *pool)
{
	struct weft_error err;

	for (size_t i = 0; i < pool->nr_donors; i++) {
		const struct pool_donor *d = pool->donors[i];
		bool shifted = false;

		if (pool_donor_is_silent(pool, d) ||
			(d->give_back_bytes == 0 &&
				(d->state != POOL_DRAINING || d->nr_regions == 0)))
			continue;
		pool_db_begin(pool->db);
		if (d->state == POOL_DRAINING && d->nr_regions > 0)
			shifted = pool_shift(pool, d, UINT64_MAX, "it is drained");
		else if (d->give_back_bytes > 0)
			shifted = pool_shift(pool, d, d->give_back_bytes,
				"its own jobs need the memory");
		if (pool_commit(pool, &err) < 0)
			weft_err("%s", err.message);
		else if (shifted)
			weft_step("pool-shift-noted");
	}
}

void pool_tick(struct pool *pool)
{
	struct weft_error err;

	if (pool->now_ns - pool->ticked_ns < NS_PER_S)
		return;
	pool->ticked_ns = pool->now_ns;
	pool_db_begin(pool->db);
	end_idle(pool);
	replace_late(pool);
	forget_old(pool);
	if (pool_commit(pool, &err) < 0)
		weft_err("%s", err.message);
	shift_away(pool);
}
