/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the coordinator share.  From the bottom: db.c, notes.c; donors.c, leases.c
 * (what there is); shows.c; alloc.c, ends.c, moves.c, settings.c, reports.c (what is asked);
 * pool.c.
 */
#ifndef WEFT_FABRIC_POOL_POOL_PRIVATE_H
#define WEFT_FABRIC_POOL_POOL_PRIVATE_H

#include "fabric/pool/db.h"
#include "fabric/pool/placement.h"
#include "fabric/pool/pool.h"

enum pool_donor_state { POOL_OPEN, POOL_CORDONED, POOL_DRAINING, POOL_NR_STATES };

/* What the state has of a donor, and what it said last. */
struct pool_donor {
	char name[POOL_NAME_MAX + 1];
	char *uri, *rack;
	uint64_t lent_bytes, used_bytes; /* used: the sum of its regions, and of those that come */
	unsigned nr_regions;
	enum pool_donor_state state;
	uint64_t last_ns; /* of its last report; 0: none since the coordinator was started */
	int64_t since;    /* of its process: a later one takes its place */
	int64_t nr;       /* of its last report, which only goes up; 0: it does not count them */
	uint64_t give_back_bytes; /* that its own jobs need */
	bool pressed;
	bool is_noted; /* in the state, as it is here */
};

struct pool {
	struct pool_db *db;
	struct pool_shared *shared; /* NULL: the state is a file */
	char id[17];
	uint64_t now_ns;
	int64_t now_s;
	struct pool_donor **donors; /* by name */
	size_t nr_donors, room;
	uint64_t ticked_ns;
	uint64_t steady_since_ns; /* since then the clock has not been set */
};

/* Of a row of "region". */
struct pool_region {
	char name[sizeof(POOL_REGION_HEAD) + 16];
	char lease[POOL_NAME_MAX + 1];
	char donor[POOL_NAME_MAX + 1], target[POOL_NAME_MAX + 1]; /* target "": none */
	char state[8], epoch[17];
	int64_t copy, size, since;
	bool used;
};
#define POOL_REGION_COLUMNS                                                                        \
	"name, lease, copy, donor, target, size, state, epoch, since, used FROM region "
void pool_region_read(const struct pool_query *q, struct pool_region *ret);
/* Of a donor, and those that are to move there; *ret is to be freed. */
size_t pool_regions_of(struct pool *pool, const char *donor, struct pool_region **ret);

/* Of a row of "lease". */
struct pool_lease {
	char name[POOL_NAME_MAX + 1], owner[POOL_NAME_MAX + 1], project[POOL_NAME_MAX + 1];
	char job[POOL_NAME_MAX + 1], why[200];
	int64_t size, copies, idle_s, made, used;
	int64_t counted; /* until when its cost is in the accounts */
	bool racks;
	int ends; /* 1: once nobody uses it; 2: whoever uses it */
};
#define POOL_LEASE_COLUMNS                                                                         \
	"name, owner, project, job, size, copies, racks, idle_s, made, used, counted, ends, "      \
	"why FROM lease "
void pool_lease_read(const struct pool_query *q, struct pool_lease *ret);
/* False: there is none. */
bool pool_lease_get(struct pool *pool, const char *name, struct pool_lease *ret);
/* For this caller: 0, or -ENOENT. */
int pool_lease_find(struct pool *pool, const struct pool_caller *caller, const char *name,
	struct pool_lease *ret, struct weft_error *err);

/* notes.c */
void pool_note(struct pool *pool, const char *who, const char *what, const char *object,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
bool pool_name_valid(const char *name);
/* A text of at most POOL_NAME_MAX bytes, without control characters: false with *ret untouched. */
bool pool_field_text(const json_t *json, const char *key, char ret[POOL_NAME_MAX + 1]);
bool pool_field_size(const json_t *json, const char *key, int64_t most, int64_t *ret);
int pool_refuse(struct weft_error *err);
char *pool_time_text(int64_t seconds, char ret[40]);

/* donors.c */
int pool_donors_load(struct pool *pool, struct weft_error *err);
struct pool_donor *pool_donor_find(const struct pool *pool, const char *name);
/* NULL: no memory. */
struct pool_donor *pool_donor_add(struct pool *pool, const char *name);
void pool_donor_remove(struct pool *pool, struct pool_donor *donor);
/* Its regions are others than before. */
void pool_donor_count(struct pool *pool, const char *name);
bool pool_donor_is_silent(const struct pool *pool, const struct pool_donor *donor);
const char *pool_donor_state_name(enum pool_donor_state state);
bool pool_donor_state_parse(const char *name, enum pool_donor_state *ret);
/* Ends a transaction: 0; -EIO: nothing has changed. */
int pool_commit(struct pool *pool, struct weft_error *err);
/* For placement, in the donors' order; lease NULL: of none.  To be freed; NULL: no memory. */
struct pool_place *pool_places(struct pool *pool, const char *lease);

/* Whether somebody has attached it, as its donors said last, or if that cannot be read. */
bool pool_lease_is_used(struct pool *pool, const char *lease);

/* leases.c; in a transaction. */
void pool_region_want(struct pool *pool, const struct pool_lease *lease, int64_t copy,
	const char *donor);
void pool_region_end(struct pool *pool, const char *region);
/* Its donor has it no longer.  The lease goes with its last region. */
void pool_region_gone(struct pool *pool, const struct pool_region *region);
/* Another donor is to make the copy; the lease is over if there is none. */
void pool_replace(struct pool *pool, const struct pool_region *region, const char *why);
void pool_end_lease(struct pool *pool, const char *who, const struct pool_lease *lease, int how,
	const char *why);
void pool_account_add(struct pool *pool, const char *kind, const char *name, int64_t spent_mib_s);
/* In the accounts of who has the lease its cost up to now is counted. */
void pool_account(struct pool *pool, const struct pool_lease *lease);
/*
 * What their leases have at donors, or are to get there; of what is released, what somebody still
 * has attached.  As SQL, of a name or a column.
 */
int64_t pool_held_by(struct pool *pool, const char *kind, const char *name);
#define POOL_HELD                                                                                  \
	"(SELECT coalesce(sum(region.size), 0) FROM lease JOIN region ON "                         \
	"region.lease = lease.name WHERE (region.state <> 'ending' OR region.used) AND "
#define POOL_HELD_BY_USER(name) POOL_HELD "lease.owner = " name ")"
#define POOL_HELD_BY_PROJECT(name)                                                                 \
	POOL_HELD "lease.project <> '' AND lease.project = " name ")"

/* moves.c; in a transaction. */
/*
 * As many of the donor's regions as have so many bytes go elsewhere, if there is room.  Whether any
 * begins to.
 */
bool pool_shift(struct pool *pool, const struct pool_donor *donor, uint64_t bytes, const char *why);

/* shows.c */
/* What a request about the lease is answered: what became of it; {} once it is gone. */
int pool_lease_answer(struct pool *pool, const char *name, json_t **ret, struct weft_error *err);
json_t *pool_lease_json(struct pool *pool, const struct pool_lease *lease);
json_t *pool_donor_json(const struct pool *pool, const struct pool_donor *donor);

#endif
