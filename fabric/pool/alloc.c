/* SPDX-License-Identifier: MIT */
/* Leases that begin, or get another size: whether they may, where they go, and why not. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"

#define JOB_HEAD "job-"

/* ---- quotas ---- */

/* most < 0: as many as they like. */
static int check_bound(struct pool *pool, const char *kind, const char *name, int64_t most,
	int64_t more, struct weft_error *err)
{
	const int64_t has = most < 0 ? 0 : pool_held_by(pool, kind, name);
	char quota[32], held[32], wanted[32];
	int r = pool_db_check(pool->db, err);

	if (r < 0 || most < 0 || has + more <= most)
		return r;
	return weft_error_set(err, EDQUOT,
		"%s '%s' may have %s of the pool, and has %s: %s more is too much", kind, name,
		weft_format_size((uint64_t)most, quota, sizeof(quota)),
		weft_format_size((uint64_t)has, held, sizeof(held)),
		weft_format_size((uint64_t)more, wanted, sizeof(wanted)));
}

static int check_quota(struct pool *pool, const char *kind, const char *name, int64_t more,
	struct weft_error *err)
{
	const int64_t quota = pool_db_number(pool->db, -1,
		"SELECT quota FROM account WHERE kind = ? AND name = ? AND quota IS NOT NULL", "tt",
		kind, name);

	return check_bound(pool, kind, name, quota, more, err);
}

static int check_quotas(struct pool *pool, const struct pool_caller *caller,
	const struct pool_lease *lease, int64_t more, struct weft_error *err)
{
	/* What is asked for in another's name is not the key's. */
	const bool own = caller->max_bytes > 0 && strcmp(caller->name, lease->owner) == 0;
	int r = check_bound(pool, "user", lease->owner, own ? caller->max_bytes : -1, more, err);

	if (r == 0)
		r = check_quota(pool, "user", lease->owner, more, err);
	return r < 0 ? r : check_quota(pool, "project", lease->project, more, err);
}

static int may_have_any(const struct pool_caller *caller, struct weft_error *err)
{
	if (!caller->limited)
		return 0;
	return weft_error_set(err, EACCES,
		"the key '%s' is to read only, or for some regions: it gets none of the pool's",
		caller->name);
}

/*
 * Who belongs to a project, a scheduler knows, and nobody here: what a project may have at most is
 * not for everybody to use up.
 */
static int check_project(struct pool *pool, const struct pool_caller *caller, const char *project,
	struct weft_error *err)
{
	if (caller->admin || !project[0] ||
		pool_db_number(pool->db, 0,
			"SELECT 1 FROM account WHERE kind = 'project' AND name = ? AND "
			"quota IS NOT NULL",
			"t", project) == 0)
		return 0;
	return weft_error_set(err, EACCES,
		"the project '%s' has a quota: to use it needs a key with the right admin, as a "
		"scheduler's scripts have",
		project);
}

/* ---- what is asked for ---- */

struct alloc {
	struct pool_lease lease;
	char at[POOL_NAME_MAX + 1];
	bool dry_run, explain;
	struct pool_place *places;
	size_t chosen[POOL_COPIES_MAX];
};

static int read_optional(const json_t *wish, const char *key, char ret[POOL_NAME_MAX + 1],
	struct weft_error *err)
{
	if (json_object_get(wish, key) &&
		(!pool_field_text(wish, key, ret) || !pool_name_valid(ret)))
		return weft_error_set(err, EINVAL, "\"%s\" is no name", key);
	return 0;
}

/* size is at most POOL_SIZE_MAX. */
static int64_t whole_pages(int64_t size)
{
	return (size + 4095) / 4096 * 4096;
}

static int read_wish(const struct pool_caller *caller, const char *name, const json_t *wish,
	struct alloc *a, struct weft_error *err)
{
	struct pool_lease *lease = &a->lease;
	char spread[POOL_NAME_MAX + 1] = "donor";
	int r;

	if (!pool_name_valid(name))
		return weft_error_set(err, EINVAL,
			"'%.80s' is no name of a lease: up to %d of a-z A-Z 0-9 . _ -", name,
			POOL_NAME_MAX);
	/* A node takes such a lease for its job's. */
	if (strncmp(name, JOB_HEAD, sizeof(JOB_HEAD) - 1) == 0 && !caller->admin)
		return weft_error_set(err, EACCES,
			"leases called " JOB_HEAD "… are a scheduler's; that needs a key with the "
			"right admin");
	strcpy(lease->name, name);
	strcpy(lease->owner, caller->name);
	lease->copies = 1;
	if (!pool_field_size(wish, "size_bytes", POOL_SIZE_MAX, &lease->size) || lease->size == 0)
		return weft_error_set(err, EINVAL, "\"size_bytes\" is how much it is to have");
	lease->size = whole_pages(lease->size);
	if (json_object_get(wish, "copies") &&
		(!pool_field_size(wish, "copies", POOL_COPIES_MAX, &lease->copies) ||
			lease->copies == 0))
		return weft_error_set(err, EINVAL, "\"copies\" are 1 to %d", POOL_COPIES_MAX);
	if (json_object_get(wish, "idle_s") &&
		!pool_field_size(wish, "idle_s", INT32_MAX, &lease->idle_s))
		return weft_error_set(err, EINVAL, "\"idle_s\" are seconds");
	r = read_optional(wish, "spread", spread, err);
	if (r == 0 && strcmp(spread, "rack") != 0 && strcmp(spread, "donor") != 0)
		r = weft_error_set(err, EINVAL, "copies are spread over donors, or racks");
	lease->racks = strcmp(spread, "rack") == 0;
	if (r == 0)
		r = read_optional(wish, "project", lease->project, err);
	if (r == 0)
		r = read_optional(wish, "job", lease->job, err);
	if (r == 0)
		r = read_optional(wish, "at", a->at, err);
	if (r == 0)
		r = read_optional(wish, "owner", lease->owner, err);
	if (r == 0 && strcmp(lease->owner, caller->name) != 0 && !caller->admin)
		r = pool_refuse(err);
	a->dry_run = json_is_true(json_object_get(wish, "dry_run"));
	a->explain = json_is_true(json_object_get(wish, "explain"));
	return r;
}

static bool is_same(const struct pool_lease *a, const struct pool_lease *b)
{
	return strcmp(a->owner, b->owner) == 0 && strcmp(a->project, b->project) == 0 &&
		strcmp(a->job, b->job) == 0 && a->size == b->size && a->copies == b->copies &&
		a->racks == b->racks && a->idle_s == b->idle_s;
}

/* Each donor, and what speaks against it. */
static json_t *explain_donors(const struct pool *pool, const struct alloc *a,
	const struct pool_wish *wish, bool placed)
{
	json_t *list = json_array();

	for (size_t i = 0; i < pool->nr_donors; i++) {
		const struct pool_place *d = &a->places[i];
		enum pool_why why = pool_why_not(a->places, pool->nr_donors, i, wish, NULL, 0);
		json_t *copy = json_null();

		for (unsigned c = 0; placed && c < wish->copies; c++)
			if (a->chosen[c] == i)
				copy = json_integer(c);
		if (why == POOL_FITS && placed && json_is_null(copy))
			why = pool_why_not(a->places, pool->nr_donors, i, wish, a->chosen,
				wish->copies);
		json_array_append_new(list,
			json_pack("{s:s, s:s?, s:I, s:I, s:i, s:o, s:b, s:s}", "donor", d->name,
				"rack", d->rack[0] ? d->rack : NULL, "lent_bytes",
				(json_int_t)d->lent_bytes, "room_bytes", (json_int_t)pool_room(d),
				"regions", (int)d->nr_regions, "copy", copy, "fits",
				why == POOL_FITS, "why",
				placed && json_is_integer(copy) ? "has most room of those that fit"
					: why == POOL_FITS      ? "others have more room"
								: pool_why_text(why)));
	}
	return list;
}

static json_t *criterion(const char *name, int r, const struct weft_error *why)
{
	return json_pack("{s:s, s:b, s:s?}", "criterion", name, "met", r == 0, "why",
		r == 0 ? NULL : why->message);
}

/* Why the copies have no place: what keeps most donors out. */
static int refuse_place(const struct pool *pool, const struct alloc *a,
	const struct pool_wish *wish, struct weft_error *err)
{
	unsigned nr[POOL_NR_WHYS] = {0}, fit;
	char text[300] = "", size[32];
	size_t used = 0;

	for (size_t i = 0; i < pool->nr_donors; i++)
		nr[pool_why_not(a->places, pool->nr_donors, i, wish, NULL, 0)]++;
	fit = nr[POOL_FITS];
	for (int i = POOL_FITS + 1; i < POOL_NR_WHYS && used < sizeof(text) - 60; i++)
		if (nr[i])
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u %s",
				used ? "; " : ": ", nr[i], pool_why_text((enum pool_why)i));
	weft_format_size(wish->size_bytes, size, sizeof(size));
	if (wish->copies == 1)
		return weft_error_set(err, ENOSPC, "none of %zu donors has room for %s%s",
			pool->nr_donors, size, text);
	return weft_error_set(err, ENOSPC,
		"%u copies of %s each want as many donors%s; of %zu donors %u fit%s%s",
		wish->copies, size, wish->spread_racks ? " in racks of their own" : "",
		pool->nr_donors, fit, fit == 1 ? "s" : "", text);
}

static struct pool_wish wish_of(const struct alloc *a)
{
	return (struct pool_wish){
		.size_bytes = (uint64_t)a->lease.size,
		.copies = (unsigned)a->lease.copies,
		.spread_racks = a->lease.racks,
		.at = a->at[0] ? a->at : NULL,
	};
}

/* Looks at everything, so that an explanation has all of it.  The first that is not met is told. */
static int decide(struct pool *pool, const struct pool_caller *caller, struct alloc *a,
	json_t **ret_explained, struct weft_error *err)
{
	const struct pool_wish wish = wish_of(a);
	struct weft_error quota = {0}, place = {0};
	int by_quota, by_place;

	a->places = pool_places(pool, NULL);
	if (!a->places)
		return weft_error_set(err, ENOMEM, "no memory");
	by_quota = check_quotas(pool, caller, &a->lease, a->lease.size * a->lease.copies, &quota);
	by_place = pool_place(a->places, pool->nr_donors, &wish, a->chosen);
	if (by_place < 0)
		by_place = refuse_place(pool, a, &wish, &place);
	if (a->explain)
		*ret_explained = json_pack("{s:[o, o], s:o}", "criteria",
			criterion("quota", by_quota, &quota), criterion("room", by_place, &place),
			"donors", explain_donors(pool, a, &wish, by_place == 0));
	if (by_quota < 0 || by_place < 0) {
		if (err)
			*err = by_quota < 0 ? quota : place;
		return by_quota < 0 ? by_quota : by_place;
	}
	return 0;
}

/* The intent: from now on the regions have an owner. */
static int note_alloc(struct pool *pool, const struct pool_caller *caller, const struct alloc *a,
	struct weft_error *err)
{
	const struct pool_lease *l = &a->lease;
	char size[32];

	weft_step("pool-alloc");
	pool_db_begin(pool->db);
	pool_db_run(pool->db, "INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '')",
		"ttttiiiiiii", l->name, l->owner, l->project, l->job, l->size, l->copies,
		(int64_t)l->racks, l->idle_s, pool->now_s, pool->now_s, pool->now_s);
	for (int64_t copy = 0; copy < l->copies; copy++)
		pool_region_want(pool, l, copy, pool->donors[a->chosen[copy]]->name);
	struct pool_lease held = *l;
	held.counted = pool->now_s;
	pool_account(pool, &held);
	pool_note(pool, caller->name, "alloc", l->name, "%s for %s, %" PRId64 " cop%s%s%s",
		weft_format_size((uint64_t)l->size, size, sizeof(size)), l->owner, l->copies,
		l->copies == 1 ? "y" : "ies", l->job[0] ? ", job " : "", l->job);
	weft_step("pool-alloc-changed");
	int r = pool_commit(pool, err);
	if (r == 0)
		weft_step("pool-alloc-noted");
	return r;
}

static int alloc(struct pool *pool, const struct pool_caller *caller, struct alloc *a, json_t **ret,
	struct weft_error *err)
{
	json_t *explained = NULL;
	struct pool_lease there;
	int r = 0;

	/* A caller that has not heard the answer asks again. */
	if (!a->dry_run && pool_lease_get(pool, a->lease.name, &there)) {
		if (!is_same(&a->lease, &there) || there.ends)
			return weft_error_set(err, EEXIST, "there is a lease '%s'%s", there.name,
				there.ends ? ", which is ending" : " already");
		*ret = pool_lease_json(pool, &there);
		return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
	}
	r = check_project(pool, caller, a->lease.project, err);
	if (r < 0)
		return r;
	r = decide(pool, caller, a, &explained, err);
	if ((r == -EDQUOT || r == -ENOSPC) && a->dry_run && a->explain) {
		/* That is what was asked for. */
		*ret = json_pack("{s:b, s:s, s:o}", "could", false, "why", err->message,
			"explained", explained);
		return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
	}
	if (r == 0 && !a->dry_run)
		r = note_alloc(pool, caller, a, err);
	if (r < 0) {
		json_decref(explained);
		return r;
	}
	if (a->dry_run)
		*ret = json_pack("{s:b, s:n}", "could", true, "why");
	else if (pool_lease_get(pool, a->lease.name, &there))
		*ret = pool_lease_json(pool, &there);
	if (*ret && explained)
		json_object_set(*ret, "explained", explained);
	json_decref(explained);
	return *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
}

int pool_alloc(struct pool *pool, const struct pool_caller *caller, const char *name,
	const json_t *wish, json_t **ret, struct weft_error *err)
{
	struct alloc a = {0};
	struct weft_error why = {0};
	int r = may_have_any(caller, &why);

	if (r == 0)
		r = read_wish(caller, name, wish, &a, &why);
	*ret = NULL;
	if (r == 0)
		r = alloc(pool, caller, &a, ret, &why);
	free(a.places);
	if (r < 0 && err)
		*err = why;
	return r;
}

/* ---- resize ---- */

/* Regions have the size that they were made with, so that others take their place. */
static int note_resize(struct pool *pool, const struct pool_caller *caller, struct alloc *a,
	const struct pool_lease *was, struct weft_error *err)
{
	char from[32], to[32];

	pool_db_begin(pool->db);
	pool_db_run(pool->db, "UPDATE region SET state = 'ending', since = ? WHERE lease = ?", "it",
		pool->now_s, was->name);
	pool_account(pool, was);
	pool_db_run(pool->db, "UPDATE lease SET size = ?, used = ? WHERE name = ?", "iit",
		a->lease.size, pool->now_s, was->name);
	pool_db_run(pool->db, "DELETE FROM refusal WHERE lease = ?", "t", was->name);
	for (int64_t copy = 0; copy < was->copies; copy++)
		pool_region_want(pool, &a->lease, copy, pool->donors[a->chosen[copy]]->name);
	pool_note(pool, caller->name, "resize", was->name, "from %s to %s",
		weft_format_size((uint64_t)was->size, from, sizeof(from)),
		weft_format_size((uint64_t)a->lease.size, to, sizeof(to)));
	weft_step("pool-resize-changed");
	int r = pool_commit(pool, err);
	if (r == 0)
		weft_step("pool-resize-noted");
	return r;
}

int pool_resize(struct pool *pool, const struct pool_caller *caller, const char *name,
	const json_t *wish, json_t **ret, struct weft_error *err)
{
	struct alloc a = {0};
	struct pool_lease was;
	int r = may_have_any(caller, err);

	if (r == 0)
		r = pool_lease_find(pool, caller, name, &was, err);
	if (r < 0)
		return r;
	a.lease = was;
	if (!pool_field_size(wish, "size_bytes", POOL_SIZE_MAX, &a.lease.size) || a.lease.size == 0)
		return weft_error_set(err, EINVAL, "\"size_bytes\" is how much it is to have");
	a.lease.size = whole_pages(a.lease.size);
	if (was.ends)
		return weft_error_set(err, EBUSY, "lease '%s' is ending", name);
	if (pool_lease_is_used(pool, name))
		return weft_error_set(err, EBUSY,
			"lease '%s' is attached, and a region has the size that it was made with; "
			"detach it first",
			name);
	if (pool_db_number(pool->db, 1,
		    "SELECT count(*) FROM region WHERE lease = ? AND target IS NOT NULL", "t",
		    name) > 0)
		return weft_error_set(err, EBUSY, "a region of lease '%s' is moving", name);
	if (a.lease.size == was.size)
		return pool_lease_answer(pool, name, ret, err);
	if (!json_is_true(json_object_get(wish, "discard")))
		return weft_error_set(err, EBUSY,
			"a region of another size has none of these contents; say that they may be "
			"lost: --discard");
	weft_step("pool-resize");
	const struct pool_wish place = wish_of(&a);
	const int64_t more = (a.lease.size - was.size) * was.copies;
	if (more > 0)
		r = check_quotas(pool, caller, &was, more, err);
	a.places = r == 0 ? pool_places(pool, NULL) : NULL;
	if (r == 0 && !a.places)
		r = weft_error_set(err, ENOMEM, "no memory");
	if (r == 0 && pool_place(a.places, pool->nr_donors, &place, a.chosen) < 0)
		r = refuse_place(pool, &a, &place, err);
	if (r == 0)
		r = note_resize(pool, caller, &a, &was, err);
	free(a.places);
	return r < 0 ? r : pool_lease_answer(pool, name, ret, err);
}
