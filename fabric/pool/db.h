/* SPDX-License-Identifier: MIT */
/*
 * The coordinator's state: tables in a file of SQLite's, or at etcd (shared.h).  A change is a
 * transaction, which is on the disk, or at etcd, when pool_db_commit() returns, or has not been. An
 * error in a transaction sticks: what follows does nothing, and the commit fails.  One thread.
 */
#ifndef WEFT_FABRIC_POOL_DB_H
#define WEFT_FABRIC_POOL_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"

struct pool_db;
struct pool_shared;

/*
 * path: a file that nobody else may use, made if it is not there; ":memory:" for tests.  0; -EBUSY:
 * another process has it; -EPROTONOSUPPORT: a newer weft wrote it; -EPERM: others can write to it;
 * -EBADMSG: it is damaged, or something else; or -errno.
 */
int pool_db_open(const char *path, struct pool_db **ret, struct weft_error *err);
/* The state at etcd, of a coordinator that leads.  It stays the caller's. */
int pool_db_open_shared(struct pool_shared *shared, struct pool_db **ret, struct weft_error *err);
void pool_db_close(struct pool_db *db); /* takes NULL */

/* They do not nest. */
void pool_db_begin(struct pool_db *db);
/* 0; or -EIO, with nothing changed: err says what SQLite said. */
int pool_db_commit(struct pool_db *db, struct weft_error *err);
void pool_db_rollback(struct pool_db *db);
/* 0, or -EIO: something has failed since pool_db_begin(), or outside of a transaction. */
int pool_db_check(struct pool_db *db, struct weft_error *err);

/*
 * A statement.  sql is a literal, whose address it is known by.  types has a letter for each value
 * that follows: 't' a const char * (NULL: NULL), 'i' an int64_t.
 *
 *     for (pool_db_ask(db, &q, "SELECT …", "t", name); pool_db_row(&q);)
 *             … pool_db_text(&q, 0) …
 *
 * Whoever leaves the loop before its end calls pool_db_done().  A statement is not used within its
 * own loop.
 */
struct pool_query {
	struct pool_db *db;
	sqlite3_stmt *statement;
};
void pool_db_ask(struct pool_db *db, struct pool_query *q, const char *sql, const char *types, ...);
bool pool_db_row(struct pool_query *q);
void pool_db_done(struct pool_query *q);
int64_t pool_db_int(const struct pool_query *q, int column);
/* "" for NULL; until the next row. */
const char *pool_db_text(const struct pool_query *q, int column);

/* A statement that returns no rows. */
void pool_db_run(struct pool_db *db, const char *sql, const char *types, ...);
/* The first row's first column; otherwise: what is returned where there is no row. */
int64_t pool_db_number(struct pool_db *db, int64_t otherwise, const char *sql, const char *types,
	...);
/* How many rows the last statement changed. */
int64_t pool_db_changed(struct pool_db *db);

#endif
