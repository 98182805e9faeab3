/* SPDX-License-Identifier: MIT */
/* What whoever runs the pool says of donors, and of how much anybody may have. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/step.h"
#include "fabric/pool/pool-private.h"

static int find_for(struct pool *pool, const struct pool_caller *caller, const char *name,
	struct pool_donor **ret, struct weft_error *err)
{
	if (!caller->admin)
		return pool_refuse(err);
	*ret = pool_donor_find(pool, name);
	return *ret ? 0 : weft_error_set(err, ENOENT, "there is no donor '%s'", name);
}

int pool_set_donor(struct pool *pool, const struct pool_caller *caller, const char *name,
	const char *state, json_t **ret, struct weft_error *err)
{
	enum pool_donor_state wanted;
	struct pool_donor *donor;
	int r = find_for(pool, caller, name, &donor, err);

	if (r < 0)
		return r;
	if (!pool_donor_state_parse(state, &wanted))
		return weft_error_set(err, EINVAL, "a donor is open, cordoned or draining");
	pool_db_begin(pool->db);
	pool_db_run(pool->db, "UPDATE donor SET state = ? WHERE name = ?", "tt", state, name);
	if (wanted != donor->state)
		pool_note(pool, caller->name, "donor", name, "%s, was %s", state,
			pool_donor_state_name(donor->state));
	/* What is under way is a move of two donors, and goes on. */
	weft_step("pool-donor-changed");
	r = pool_commit(pool, err);
	if (r < 0)
		return r;
	weft_step("pool-donor-noted");
	donor->state = wanted;
	*ret = pool_donor_json(pool, donor);
	return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

int pool_forget_donor(struct pool *pool, const struct pool_caller *caller, const char *name,
	json_t **ret, struct weft_error *err)
{
	struct pool_donor *donor;
	int r = find_for(pool, caller, name, &donor, err);

	if (r < 0)
		return r;
	if (!pool_donor_is_silent(pool, donor))
		return weft_error_set(err, EBUSY,
			"the donor '%s' reports, and would be known again; end it first", name);
	if (pool_db_number(pool->db, 1,
		    "SELECT count(*) FROM region WHERE donor = ? AND "
		    "state NOT IN ('lost', 'ending')",
		    "t", name) > 0)
		return weft_error_set(err, EBUSY,
			"the donor '%s' has regions of leases; release these first", name);
	pool_db_begin(pool->db);
	struct pool_region *regions;
	const size_t nr = pool_regions_of(pool, name, &regions);
	/* What was to come here is looked for at its donor alone. */
	for (size_t i = 0; i < nr; i++)
		if (strcmp(regions[i].donor, name) == 0)
			pool_region_gone(pool, &regions[i]);
	free(regions);
	pool_db_run(pool->db, "UPDATE region SET target = NULL WHERE target = ?", "t", name);
	pool_db_run(pool->db, "DELETE FROM donor WHERE name = ?", "t", name);
	pool_note(pool, caller->name, "donor", name, "forgotten");
	r = pool_commit(pool, err);
	if (r < 0)
		return r;
	pool_donor_remove(pool, donor);
	*ret = json_object();
	return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

int pool_set_quota(struct pool *pool, const struct pool_caller *caller, const char *kind,
	const char *name, int64_t bytes, json_t **ret, struct weft_error *err)
{
	if (!caller->admin)
		return pool_refuse(err);
	if ((strcmp(kind, "user") != 0 && strcmp(kind, "project") != 0) || !pool_name_valid(name))
		return weft_error_set(err, EINVAL, "a quota is a user's or a project's");
	pool_db_begin(pool->db);
	pool_account_add(pool, kind, name, 0);
	if (bytes < 0)
		pool_db_run(pool->db, "UPDATE account SET quota = NULL WHERE kind = ? AND name = ?",
			"tt", kind, name);
	else
		pool_db_run(pool->db, "UPDATE account SET quota = ? WHERE kind = ? AND name = ?",
			"itt", bytes, kind, name);
	pool_note(pool, caller->name, "quota", name, "%s, %" PRId64 " bytes", kind, bytes);
	int r = pool_commit(pool, err);
	return r < 0 ? r : pool_quotas(pool, caller, ret, err);
}
