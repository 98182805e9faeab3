/* SPDX-License-Identifier: MIT */
/*
 * What a donor says each second, and what it is told.  A report is all that the donor has when it
 * sends it, and a donor carries out one answer before it reports again.  So what an answer told it
 * to make, and a later report does not have, is not made and will not be.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/step.h"
#include "fabric/base/util.h"
#include "fabric/pool/pool-private.h"

enum {
	URI_MAX = 300,
	LISTED_MAX = 1024, /* regions of a report */
	ARRIVE_S = 60,     /* between a region's leaving its donor and its arrival */
};

/* What a report changed, for the steps at which a test ends the coordinator. */
enum change { MADE, GONE, MOVED, NR_CHANGES };

struct report {
	struct pool *pool;
	struct pool_donor *donor;
	json_t *has;     /* by name: what the donor has */
	json_t *refused; /* by name: why it could not make it */
	json_t *stays;   /* by name: why it could not move it */
	json_t *make, *end, *move;
	bool changed[NR_CHANGES];
	char words[160];
};

/* ---- what is trusted of it ---- */

static bool is_region_name(const char *name)
{
	const size_t head = sizeof(POOL_REGION_HEAD) - 1;

	return strncmp(name, POOL_REGION_HEAD, head) == 0 && strlen(name) == head + 16 &&
		strspn(name + head, "0123456789abcdef") == 16;
}

/* A list of objects with a name becomes an object of them by name.  NULL: it is no such list. */
static json_t *by_name(const json_t *list)
{
	json_t *ret = json_object(), *one;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > LISTED_MAX)
		goto bad;
	json_array_foreach(list, i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));

		if (!name || !is_region_name(name) || json_object_set(ret, name, one) < 0)
			goto bad;
	}
	return ret;
bad:
	json_decref(ret);
	return NULL;
}

/*
 * The donor's own words, which go into the log, and to people's terminals: printable ASCII.  Until
 * the next call.
 */
static const char *words_of(struct report *r, const json_t *one, const char *key,
	const char *otherwise)
{
	const char *text = json_string_value(json_object_get(one, key));

	if (!text)
		return otherwise;
	snprintf(r->words, sizeof(r->words), "%s", text);
	for (char *p = r->words; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return r->words;
}

/* "": it says none. */
static const char *epoch_of(const json_t *one)
{
	const char *text = json_string_value(json_object_get(one, "epoch"));

	return text && strspn(text, "0123456789abcdef") == 16 && !text[16] ? text : "";
}

static bool is_uri(const char *uri)
{
	if (!uri || strlen(uri) > URI_MAX || strncmp(uri, "weft://", 7) != 0)
		return false;
	for (const char *p = uri; *p; p++)
		if (*p <= ' ' || *p > '~')
			return false;
	return true;
}

static int read_report(struct report *r, const json_t *report, struct weft_error *err)
{
	r->has = by_name(json_object_get(report, "regions"));
	r->refused = by_name(json_object_get(report, "refused"));
	r->stays = by_name(json_object_get(report, "stays"));
	r->make = json_array();
	r->end = json_array();
	r->move = json_array();
	if (!r->make || !r->end || !r->move)
		return weft_error_set(err, ENOMEM, "no memory");
	if (!r->has || !r->refused || !r->stays)
		return weft_error_set(err, EINVAL, "the report has no good lists of regions");
	return 0;
}

static void end_report(struct report *r)
{
	json_decref(r->has);
	json_decref(r->refused);
	json_decref(r->stays);
	json_decref(r->make);
	json_decref(r->end);
	json_decref(r->move);
}

/* ---- regions ---- */

static void set_state(struct report *r, const struct pool_region *region, const char *state,
	const char *what, const char *detail)
{
	pool_db_run(r->pool->db, "UPDATE region SET state = ?, since = ? WHERE name = ?", "tit",
		state, r->pool->now_s, region->name);
	pool_note(r->pool, r->donor->name, what, region->name, "lease %s%s%s", region->lease,
		detail[0] ? ": " : "", detail);
	pool_donor_count(r->pool, region->donor);
	pool_donor_count(r->pool, region->target);
}

static void see_use(struct report *r, const struct pool_region *region, const json_t *has)
{
	const bool used = json_is_true(json_object_get(has, "used"));

	if (used == region->used)
		return;
	pool_db_run(r->pool->db, "UPDATE region SET used = ? WHERE name = ?", "it", (int64_t)used,
		region->name);
	pool_db_run(r->pool->db, "UPDATE lease SET used = ? WHERE name = ?", "it", r->pool->now_s,
		region->lease);
	pool_note(r->pool, r->donor->name, used ? "attached" : "detached", region->name, "lease %s",
		region->lease);
}

static bool is_being_made(const json_t *has)
{
	return json_is_true(json_object_get(has, "making"));
}

static void see_wanted(struct report *r, const struct pool_region *region, const json_t *has)
{
	const json_t *refused = json_object_get(r->refused, region->name);

	if (is_being_made(has)) {
		/* It takes as long as it takes; that is not silence. */
		if (r->pool->now_s - region->since > POOL_MAKE_S / 2)
			pool_db_run(r->pool->db, "UPDATE region SET since = ? WHERE name = ?", "it",
				r->pool->now_s, region->name);
	} else if (has) {
		pool_db_run(r->pool->db, "UPDATE region SET epoch = ? WHERE name = ?", "tt",
			epoch_of(has), region->name);
		set_state(r, region, "there", "made", "");
		see_use(r, region, has);
		r->changed[MADE] = true;
	} else if (refused) {
		pool_replace(r->pool, region, words_of(r, refused, "why", "could not make it"));
	} else {
		json_array_append_new(r->make,
			json_pack("{s:s, s:I}", "name", region->name, "size_bytes",
				(json_int_t)region->size));
	}
}

/* It is to move; its donor does that, and says so if it cannot. */
static void see_moving(struct report *r, const struct pool_region *region)
{
	const struct pool_donor *to = pool_donor_find(r->pool, region->target);
	const json_t *stays = json_object_get(r->stays, region->name);

	if (to && !stays) {
		json_array_append_new(r->move,
			json_pack("{s:s, s:s}", "name", region->name, "to", to->uri));
		return;
	}
	pool_db_run(r->pool->db, "UPDATE region SET target = NULL WHERE name = ?", "t",
		region->name);
	pool_db_run(r->pool->db, "INSERT OR REPLACE INTO refusal VALUES (?, ?, ?)", "tti",
		region->lease, region->target, r->pool->now_s);
	pool_note(r->pool, r->donor->name, "stays", region->name, "did not move to %s: %s",
		region->target, stays ? words_of(r, stays, "why", "?") : "it is no donor any more");
	pool_donor_count(r->pool, region->target);
}

static void see_there(struct report *r, const struct pool_region *region, const json_t *has)
{
	const bool moves = region->target[0] != '\0';

	if (has && strcmp(epoch_of(has), region->epoch) != 0) {
		set_state(r, region, "lost", "lost", "the donor has other contents");
		return;
	}
	if (has) {
		see_use(r, region, has);
		if (moves)
			see_moving(r, region);
		return;
	}
	/* What is on its way is at neither end for a moment. */
	if (moves)
		set_state(r, region, "between", "leaves", "");
	else
		set_state(r, region, "lost", "lost", "the donor has it no longer");
}

static bool lease_ends(struct report *r, const struct pool_region *region, int how)
{
	struct pool_lease lease;

	return pool_lease_get(r->pool, region->lease, &lease) && lease.ends >= how;
}

static void go(struct report *r, const struct pool_region *region)
{
	pool_region_gone(r->pool, region);
	r->changed[GONE] = true;
}

/* It has left its donor, and is not known to have arrived. */
static void see_between(struct report *r, const struct pool_region *region, const json_t *has)
{
	const struct pool_donor *to = pool_donor_find(r->pool, region->target);
	const bool ends = lease_ends(r, region, 1);

	if (has)
		set_state(r, region, ends ? "ending" : "there", "came back", "");
	else if (r->pool->now_s - region->since <= ARRIVE_S ||
		(to && pool_donor_is_silent(r->pool, to)))
		return; /* it may say so yet */
	else if (ends)
		go(r, region);
	else
		set_state(r, region, "lost", "lost", "it left its donor and did not arrive");
}

/* The lease is over, or has another region in its place. */
static void see_ending(struct report *r, const struct pool_region *region, const json_t *has)
{
	if (has) {
		if (!is_being_made(has))
			see_use(r, region, has);
		json_array_append_new(r->end,
			json_pack("{s:s, s:b}", "name", region->name, "force",
				lease_ends(r, region, 2)));
	} else if (region->target[0]) {
		set_state(r, region, "between", "leaves", "");
	} else {
		go(r, region);
	}
}

static void see(struct report *r, const struct pool_region *region)
{
	const json_t *has = json_object_get(r->has, region->name);

	if (!region->lease[0] && !has) {
		/* It was nobody's: nobody looks for it. */
		go(r, region);
	} else if (strcmp(region->state, "wanted") == 0) {
		see_wanted(r, region, has);
	} else if (strcmp(region->state, "there") == 0) {
		see_there(r, region, has);
	} else if (strcmp(region->state, "lost") == 0) {
		/* A donor that was asked before it had looked at what it has. */
		if (has && strcmp(epoch_of(has), region->epoch) == 0)
			set_state(r, region, "there", "found", "");
	} else if (strcmp(region->state, "between") == 0) {
		see_between(r, region, has);
	} else {
		see_ending(r, region, has);
	}
}

/* Other contents under the name are not the region's: they are no arrival. */
static void see_arrival(struct report *r, const struct pool_region *region)
{
	const json_t *has = json_object_get(r->has, region->name);

	if (!has || strcmp(epoch_of(has), region->epoch) != 0)
		return;
	pool_db_run(r->pool->db,
		"UPDATE region SET donor = target, target = NULL, state = ? WHERE name = ?", "tt",
		lease_ends(r, region, 1) ? "ending" : "there", region->name);
	pool_note(r->pool, r->donor->name, "moved", region->name, "lease %s: from %s",
		region->lease, region->donor);
	pool_donor_count(r->pool, region->donor);
	pool_donor_count(r->pool, r->donor->name);
	r->changed[MOVED] = true;
}

/*
 * Of a region that is another donor's, as the state has it, this donor has the very contents: a
 * move of which the state had given up hope went on.
 */
static void see_found(struct report *r, const struct pool_region *region, const json_t *has)
{
	if (strcmp(region->donor, r->donor->name) == 0 || !region->epoch[0] ||
		strcmp(epoch_of(has), region->epoch) != 0 ||
		(strcmp(region->state, "lost") != 0 && strcmp(region->state, "between") != 0))
		return;
	pool_db_run(r->pool->db,
		"UPDATE region SET donor = ?, target = NULL, state = ?, since = ? WHERE name = ?",
		"ttit", r->donor->name, lease_ends(r, region, 1) ? "ending" : "there",
		r->pool->now_s, region->name);
	pool_note(r->pool, r->donor->name, "found", region->name, "lease %s: was at %s",
		region->lease, region->donor);
	pool_donor_count(r->pool, region->donor);
	pool_donor_count(r->pool, region->target);
	pool_donor_count(r->pool, r->donor->name);
	r->changed[MOVED] = true;
}

/*
 * Regions of which the state knows nothing: whose they are, is not known; so they stay.  Of a donor
 * with more than it may have the rest is not looked at.
 */
static void see_strange(struct report *r)
{
	struct pool_region region;
	struct pool_query q;
	const char *name, *first = NULL;
	unsigned nr = 0;
	json_t *one;

	json_object_foreach(r->has, name, one) {
		int64_t size = 0;

		if (is_being_made(one))
			continue;
		pool_db_ask(r->pool->db, &q, "SELECT " POOL_REGION_COLUMNS "WHERE name = ?", "t",
			name);
		if (pool_db_row(&q)) {
			pool_region_read(&q, &region);
			pool_db_done(&q);
			see_found(r, &region, one);
			continue;
		}
		if (r->donor->nr_regions >= POOL_REGIONS_MAX)
			continue;
		pool_field_size(one, "size_bytes", POOL_SIZE_MAX, &size);
		pool_db_run(r->pool->db,
			"INSERT INTO region VALUES (?, NULL, 0, ?, NULL, ?, 'there', ?, ?, 0)",
			"ttiti", name, r->donor->name, size, epoch_of(one),
			r->pool->now_s);
		pool_donor_count(r->pool, r->donor->name);
		first = first ? first : name;
		nr++;
	}
	if (nr > 0)
		pool_note(r->pool, r->donor->name, "unknown", first,
			"regions that belong to no lease: %u", nr);
}

static void see_all(struct report *r)
{
	struct pool_region *regions;
	const size_t nr = pool_regions_of(r->pool, r->donor->name, &regions);

	for (size_t i = 0; i < nr; i++)
		if (strcmp(regions[i].donor, r->donor->name) == 0)
			see(r, &regions[i]);
		else
			see_arrival(r, &regions[i]);
	free(regions);
	see_strange(r);
}

/* ---- the donor ---- */

static int set_texts(struct pool_donor *d, const char *uri, const char *rack)
{
	char *new_uri = strdup(uri), *new_rack = strdup(rack);

	if (!new_uri || !new_rack) {
		free(new_uri);
		free(new_rack);
		return -ENOMEM;
	}
	free(d->uri);
	free(d->rack);
	d->uri = new_uri;
	d->rack = new_rack;
	return 0;
}

static int know(struct pool *pool, const char *name, const json_t *report, struct pool_donor **ret,
	struct weft_error *err)
{
	const char *uri = json_string_value(json_object_get(report, "uri"));
	char rack[POOL_NAME_MAX + 1] = "";
	int64_t lent = 0, since = 0, give_back = 0, nr = 0;

	if (!pool_name_valid(name))
		return weft_error_set(err, EINVAL, "'%.80s' is no name of a donor", name);
	pool_field_text(report, "rack", rack);
	pool_field_size(report, "give_back_bytes", INT64_MAX, &give_back);
	pool_field_size(report, "nr", INT64_MAX, &nr);
	if (!is_uri(uri) || !pool_field_size(report, "lent_bytes", INT64_MAX, &lent) ||
		!pool_field_size(report, "since", INT64_MAX, &since))
		return weft_error_set(err, EINVAL,
			"a report has \"uri\", \"lent_bytes\" and \"since\"");
	struct pool_donor *d = pool_donor_find(pool, name);
	if (d && since < d->since && !pool_donor_is_silent(pool, d))
		return weft_error_set(err, ESTALE,
			"another process reports for the donor '%s' since later", name);
	/* The donor has given this one up, and may have done since what it knows nothing of. */
	if (d && since == d->since && nr > 0 && nr <= d->nr)
		return weft_error_set(err, ESTALE, "the donor '%s' has reported since", name);
	const bool is_new = !d;
	if (is_new)
		d = pool_donor_add(pool, name);
	const bool differs =
		d && (!d->is_noted || strcmp(d->uri, uri) != 0 || strcmp(d->rack, rack) != 0);
	if (!d || (differs && set_texts(d, uri, rack) < 0)) {
		if (d && is_new)
			pool_donor_remove(pool, d);
		return weft_error_set(err, ENOMEM, "no memory");
	}
	d->lent_bytes = (uint64_t)lent;
	d->give_back_bytes = (uint64_t)give_back;
	d->pressed = json_is_true(json_object_get(report, "pressed"));
	d->since = since;
	d->nr = nr;
	d->is_noted = d->is_noted && !differs; /* until it is committed */
	if (differs) {
		pool_db_run(pool->db,
			"INSERT INTO donor VALUES (?1, ?2, ?3, ?4, 'open') ON CONFLICT DO UPDATE "
			"SET uri = ?2, rack = ?3, lent = ?4",
			"ttti", name, uri, rack, lent);
		pool_note(pool, name, "donor", name, "%s %s", is_new ? "joins at" : "is at", uri);
	}
	*ret = d;
	return 0;
}

static void step(const struct report *r, bool noted)
{
	static const char *const steps[NR_CHANGES][2] = {
		[MADE] = {"pool-made-changed", "pool-made-noted"},
		[GONE] = {"pool-gone-changed", "pool-gone-noted"},
		[MOVED] = {"pool-moved-changed", "pool-moved-noted"},
	};

	for (unsigned i = 0; i < NR_CHANGES; i++)
		if (r->changed[i])
			weft_step(steps[i][noted]);
}

int pool_report(struct pool *pool, const struct pool_caller *caller, const char *donor,
	const json_t *report, json_t **ret, struct weft_error *err)
{
	struct report r = {.pool = pool};

	if (!caller->admin && (!caller->donor || strcmp(caller->name, donor) != 0))
		return weft_error_set(err, EACCES,
			"to report as the donor '%.80s' needs its key: weft key new %.80s "
			"--pool-donor",
			donor, donor);
	int code = read_report(&r, report, err);
	if (code == 0) {
		pool_db_begin(pool->db);
		code = know(pool, donor, report, &r.donor, err);
		if (code < 0)
			pool_db_rollback(pool->db);
	}
	if (code == 0) {
		see_all(&r);
		/* Its jobs do not wait for the next tick. */
		if (r.donor->give_back_bytes > 0 && r.donor->state != POOL_DRAINING)
			pool_shift(pool, r.donor, r.donor->give_back_bytes,
				"its own jobs need the memory");
		step(&r, false);
		code = pool_commit(pool, err);
	}
	if (code == 0) {
		r.donor->is_noted = true;
		step(&r, true);
		r.donor->last_ns = pool->now_ns;
		*ret = json_pack("{s:s, s:i, s:O, s:O, s:O}", "pool", pool->id, "report_s",
			POOL_REPORT_S, "make", r.make, "end", r.end, "move", r.move);
		code = *ret ? 0 : weft_error_set(err, ENOMEM, "no memory");
	}
	end_report(&r);
	return code;
}
