/* SPDX-License-Identifier: MIT */
/*
 * The coordinator's state in the site's etcd, for several coordinators of which one leads.
 *
 *     PREFIX/leader           who leads; goes with a lease of etcd's, which the leader renews
 *     PREFIX/head             which picture is whole: its number, and how many parts it has
 *     PREFIX/state/NR/PART    a picture of the state after change NR: a database of SQLite's
 *     PREFIX/log/NR           change NR: a set of changes of SQLite's session extension
 *
 * The leader has the state in memory, as a database.  Each transaction becomes one entry of the
 * log, written on the condition that the leader's key is still the one that it made: who leads no
 * longer writes nothing.  Once the log is as long as a picture, a new picture takes its place.
 *
 * What was asked of etcd and not answered may have been written or not.  Whoever does not know that
 * gives up leading, and reads the state again when it leads next.  One thread.
 */
#ifndef WEFT_FABRIC_POOL_SHARED_H
#define WEFT_FABRIC_POOL_SHARED_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"

enum { POOL_LEADER_S = 10 }; /* without a sign of life, before another leads */

struct pool_shared;

struct pool_shared_config {
	const char *endpoints, *certificates; /* as etcd_new() */
	const char *prefix;                   /* of keys: "/weft/pool" */
	const char *name;                     /* of this coordinator, for people */
};

int pool_shared_new(const struct pool_shared_config *config, struct pool_shared **ret,
	struct weft_error *err);
/* Leads no longer.  Takes NULL. */
void pool_shared_free(struct pool_shared *shared);

/* Tries to lead: 0; -EBUSY: another does, whom err names; or errors of etcd.h. */
int pool_shared_lead(struct pool_shared *shared, struct weft_error *err);
/* Stays the leader for a while: about once a second. */
void pool_shared_keep(struct pool_shared *shared);
/* Whether it leads for certain, by this machine's clock. */
bool pool_shared_leads(const struct pool_shared *shared);
void pool_shared_resign(struct pool_shared *shared);

/* The state becomes the contents of an empty database: 0; -ENOENT: there is none yet. */
int pool_shared_load(struct pool_shared *shared, sqlite3 *db, struct weft_error *err);
/*
 * A transaction's changes, before they are committed; none: nothing is asked.  0: it is written.
 * Otherwise it is not, or nobody knows, and then this coordinator leads no longer.
 */
int pool_shared_write(struct pool_shared *shared, const void *changes, size_t len,
	struct weft_error *err);
/* After a commit: a new picture, if it is time for one, or there is none. */
int pool_shared_settle(struct pool_shared *shared, sqlite3 *db, struct weft_error *err);

#endif
