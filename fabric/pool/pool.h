/* SPDX-License-Identifier: MIT */
/*
 * The coordinator of a pool: which donor lends what to which lease.  It decides, and keeps what it
 * decided; donors ask what they are to do, and say what they have.  No data passes here: without a
 * coordinator what is attached goes on, and nothing new is decided.
 *
 * A lease is so many copies of a region of one size, each at another donor.  Of each region the
 * state (db.h) says first what is to become of it, and a donor does that afterwards:
 *
 *     wanted    the lease and its regions are noted in one transaction; the donor is told to make
 *               the region, as often as it asks, until it says that it has it
 *     there     the donor has it, and whoever has the lease may use it
 *     ending    the lease is over, or another donor was chosen: the donor is told to end the
 * region, until it says that it has it no longer; then the row goes lost      the donor says that
 * it has it no longer, and nobody has told it to end it between   its donor has it no longer, and
 * it was to move: the target may have it
 *
 * A region that is to move has a target besides: its donor is told to move it there until the
 * target says that it has it.  So a coordinator that is killed anywhere goes on where it was.  A
 * region's name is random and never used again.
 *
 * What is asked and answered is JSON, which weft-pool(1) describes; what comes from a peer is
 * checked here.  One thread.  pool_at() says what time it is, for all that follows.
 */
#ifndef WEFT_FABRIC_POOL_POOL_H
#define WEFT_FABRIC_POOL_POOL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"

enum {
	POOL_NAME_MAX = 63, /* of a lease, a donor, a job, a project */
	POOL_REPORT_S = 1,  /* between two reports of a donor */
	POOL_SILENT_S = 15, /* without one */
	POOL_MAKE_S = 60,   /* for a region to be made, before another donor is asked */
	POOL_AGAIN_S = 10,  /* before a donor that could not have a region is asked again */
};
#define POOL_SIZE_MAX (INT64_C(1) << 50) /* of a lease's copy */

/* Names of regions of a pool begin with it; nobody else's do. */
#define POOL_REGION_HEAD "pool-"

/* Who asks. */
struct pool_caller {
	char name[POOL_NAME_MAX + 1];
	bool admin; /* may do all */
	bool donor; /* may report as the donor of its name */
	bool limited; /* its key is for some regions, or to read: it gets none of the pool's */
	int64_t max_bytes; /* that its leases may have at a time; 0: as many as its quota says */
};

struct pool;
struct pool_shared;

/* state: as pool_db_open().  0, or its errors. */
int pool_open(const char *state, struct pool **ret, struct weft_error *err);
/* The same of a state at etcd, of a coordinator that leads (shared.h). */
int pool_open_shared(struct pool_shared *shared, struct pool **ret, struct weft_error *err);
/* Whether it may decide: it leads, or the state is a file. */
bool pool_leads(const struct pool *pool);
void pool_close(struct pool *pool); /* takes NULL */
void pool_at(struct pool *pool, uint64_t monotonic_ns, int64_t realtime_s);
/* About once a second: what becomes of donors that are silent and leases that nobody uses. */
void pool_tick(struct pool *pool);

/*
 * Requests.  0 with a new reference in *ret; -EACCES: the caller may not; -ENOENT: there is no such
 * lease or donor, for this caller; -EINVAL: what is asked makes no sense; -EEXIST: the name is
 * taken; -EBUSY: it is used; -ENOSPC: no donor has room; -EDQUOT: a quota is reached; -EIO: the
 * state cannot be kept, and nothing has changed, or of one at etcd, this is not known; -EAGAIN:
 * this coordinator leads no longer, and nothing has changed; -ENOMEM.
 */
int pool_alloc(struct pool *pool, const struct pool_caller *caller, const char *name,
	const json_t *wish, json_t **ret, struct weft_error *err);
int pool_lease(struct pool *pool, const struct pool_caller *caller, const char *name, json_t **ret,
	struct weft_error *err);
/* force: although somebody uses it, who loses it. */
int pool_release(struct pool *pool, const struct pool_caller *caller, const char *name, bool force,
	json_t **ret, struct weft_error *err);
/* All leases of a job. */
int pool_end_job(struct pool *pool, const struct pool_caller *caller, const char *job, bool force,
	json_t **ret, struct weft_error *err);
/* The regions of a lease that nobody uses become others of that size, whose contents are none. */
int pool_resize(struct pool *pool, const struct pool_caller *caller, const char *name,
	const json_t *wish, json_t **ret, struct weft_error *err);
/* wish: which copy ("copy", 0 unless said), and perhaps "to" which donor. */
int pool_move(struct pool *pool, const struct pool_caller *caller, const char *name,
	const json_t *wish, json_t **ret, struct weft_error *err);
/* A donor says what it has, and is told what to do. */
int pool_report(struct pool *pool, const struct pool_caller *caller, const char *donor,
	const json_t *report, json_t **ret, struct weft_error *err);
/* state: "open", "cordoned" or "draining". */
int pool_set_donor(struct pool *pool, const struct pool_caller *caller, const char *donor,
	const char *state, json_t **ret, struct weft_error *err);
/* A donor that has nothing of any lease, and is silent, is known no more. */
int pool_forget_donor(struct pool *pool, const struct pool_caller *caller, const char *donor,
	json_t **ret, struct weft_error *err);
/* kind: "user" or "project"; bytes < 0: no quota. */
int pool_set_quota(struct pool *pool, const struct pool_caller *caller, const char *kind,
	const char *name, int64_t bytes, json_t **ret, struct weft_error *err);

/* What there is to see. */
int pool_status(struct pool *pool, const struct pool_caller *caller, json_t **ret,
	struct weft_error *err);
int pool_donors(struct pool *pool, const struct pool_caller *caller, json_t **ret,
	struct weft_error *err);
/* By name, behind the name `after`, at most `most`; of this job alone if job is not NULL. */
int pool_leases(struct pool *pool, const struct pool_caller *caller, const char *job,
	const char *after, int64_t most, json_t **ret, struct weft_error *err);
int pool_quotas(struct pool *pool, const struct pool_caller *caller, json_t **ret,
	struct weft_error *err);
/* Those after number `after`, at most `most`. */
int pool_audit(struct pool *pool, const struct pool_caller *caller, int64_t after, int64_t most,
	json_t **ret, struct weft_error *err);

#endif
