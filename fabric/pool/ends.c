/* SPDX-License-Identifier: MIT */
/*
 * Leases that are released.  Each change is one transaction, with a line in the log; weft_step() is
 * where a test ends the coordinator.
 */
#include <errno.h>
#include <string.h>

#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"

enum { PIECE = 500 }; /* leases of a transaction, which etcd takes at once */

/* A region that was found at a donor and belongs to no lease. */
static int end_unknown(struct pool *pool, const struct pool_caller *caller, const char *region,
	json_t **ret, struct weft_error *err)
{
	pool_db_begin(pool->db);
	pool_region_end(pool, region);
	pool_note(pool, caller->name, "release", region, "it belongs to no lease");
	int r = pool_commit(pool, err);
	if (r < 0)
		return r;
	*ret = json_object();
	return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

int pool_release(struct pool *pool, const struct pool_caller *caller, const char *name, bool force,
	json_t **ret, struct weft_error *err)
{
	struct pool_lease lease;
	int r = pool_lease_find(pool, caller, name, &lease, err);

	if (r < 0 && caller->admin &&
		pool_db_number(pool->db, 0, "SELECT 1 FROM region WHERE name = ? AND lease IS NULL",
			"t", name) == 1)
		return end_unknown(pool, caller, name, ret, err);
	if (r < 0)
		return r;
	if (!force && !lease.ends && pool_lease_is_used(pool, name))
		return weft_error_set(err, EBUSY,
			"lease '%s' is attached; detach it first, or say --force, and whoever has "
			"it loses it",
			name);
	weft_step("pool-release");
	pool_db_begin(pool->db);
	pool_end_lease(pool, caller->name, &lease, force ? 2 : 1,
		force ? "released by force" : "released");
	weft_step("pool-release-changed");
	r = pool_commit(pool, err);
	if (r < 0)
		return r;
	weft_step("pool-release-noted");
	return pool_lease_answer(pool, name, ret, err);
}

/* The job's next, by name; false: there is none. */
static bool next_of_job(struct pool *pool, const char *job, const char *after,
	struct pool_lease *ret)
{
	struct pool_query q;

	pool_db_ask(pool->db, &q,
		"SELECT " POOL_LEASE_COLUMNS "WHERE job = ? AND name > ? ORDER BY name LIMIT 1",
		"tt", job, after);
	if (!pool_db_row(&q))
		return false;
	pool_lease_read(&q, ret);
	pool_db_done(&q);
	return true;
}

/* Those behind *io_name, of which that becomes the last.  Whether there may be more. */
static bool end_piece(struct pool *pool, const struct pool_caller *caller, const char *job,
	bool force, char io_name[POOL_NAME_MAX + 1], int64_t *io_nr)
{
	struct pool_lease lease;

	for (unsigned i = 0; i < PIECE; i++) {
		if (!next_of_job(pool, job, io_name, &lease))
			return false;
		strcpy(io_name, lease.name);
		if (!caller->admin && strcmp(caller->name, lease.owner) != 0)
			continue;
		/* What is attached still ends once nobody has it. */
		pool_end_lease(pool, caller->name, &lease, force ? 2 : 1, "its job has ended");
		(*io_nr)++;
	}
	return true;
}

int pool_end_job(struct pool *pool, const struct pool_caller *caller, const char *job, bool force,
	json_t **ret, struct weft_error *err)
{
	char name[POOL_NAME_MAX + 1] = "";
	int64_t nr = 0;

	if (!pool_name_valid(job))
		return weft_error_set(err, EINVAL, "'%.80s' is no job", job);
	for (bool more = true; more;) {
		pool_db_begin(pool->db);
		more = end_piece(pool, caller, job, force, name, &nr);
		weft_step("pool-job-changed");
		int r = pool_commit(pool, err);
		if (r < 0)
			return r;
		weft_step("pool-job-noted");
	}
	*ret = json_pack("{s:I}", "ended", (json_int_t)nr);
	return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
}
