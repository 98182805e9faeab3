/* SPDX-License-Identifier: MIT */
#define SQLITE_ENABLE_SESSION
#define SQLITE_ENABLE_PREUPDATE_HOOK
#include "fabric/pool/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/key/file.h"
#include "fabric/pool/shared.h"

enum {
	VERSION = 1,
	STATEMENTS_MAX = 96,
};

struct pool_db {
	sqlite3 *sqlite;
	struct {
		const char *sql;
		sqlite3_stmt *statement;
	} statements[STATEMENTS_MAX];
	unsigned nr;
	bool in_transaction;
	struct weft_error error;
	struct pool_shared *shared; /* NULL: it is a file */
	sqlite3_session *changes;   /* of the transaction, if it is shared */
};

/*
 * A region belongs to a lease from before anybody makes it until its donor has said that it is
 * gone. One without a lease was found at a donor, and nobody knows whose it is.
 */
static const char schema[] =
	"CREATE TABLE about (pool TEXT NOT NULL);"
	"CREATE TABLE donor (name TEXT PRIMARY KEY, uri TEXT NOT NULL, rack TEXT NOT NULL,"
	" lent INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE lease (name TEXT PRIMARY KEY, owner TEXT NOT NULL, project TEXT NOT NULL,"
	" job TEXT NOT NULL, size INTEGER NOT NULL, copies INTEGER NOT NULL,"
	" racks INTEGER NOT NULL, idle_s INTEGER NOT NULL, made INTEGER NOT NULL,"
	" used INTEGER NOT NULL, counted INTEGER NOT NULL, ends INTEGER NOT NULL,"
	" why TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX lease_job ON lease (job) WHERE job <> '';"
	"CREATE INDEX lease_owner ON lease (owner);"
	"CREATE INDEX lease_project ON lease (project) WHERE project <> '';"
	"CREATE INDEX lease_idle ON lease (idle_s) WHERE idle_s > 0;"
	"CREATE TABLE region (name TEXT PRIMARY KEY, lease TEXT, copy INTEGER NOT NULL,"
	" donor TEXT NOT NULL, target TEXT, size INTEGER NOT NULL, state TEXT NOT NULL,"
	" epoch TEXT NOT NULL, since INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX region_lease ON region (lease);"
	"CREATE INDEX region_donor ON region (donor);"
	"CREATE INDEX region_target ON region (target) WHERE target IS NOT NULL;"
	"CREATE INDEX region_wanted ON region (since) WHERE state = 'wanted';"
	"CREATE TABLE refusal (lease TEXT NOT NULL, donor TEXT NOT NULL, at INTEGER NOT NULL,"
	" PRIMARY KEY (lease, donor)) WITHOUT ROWID;"
	"CREATE TABLE account (kind TEXT NOT NULL, name TEXT NOT NULL, quota INTEGER,"
	" spent INTEGER NOT NULL,"
	" PRIMARY KEY (kind, name)) WITHOUT ROWID;"
	"CREATE TABLE audit (nr INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL,"
	" who TEXT NOT NULL, what TEXT NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL);"
	"PRAGMA user_version = 1;";

static void fail(struct pool_db *db)
{
	if (db->error.code)
		return;
	weft_error_set(&db->error, EIO, "the coordinator's state cannot be read or written: %s",
		sqlite3_errmsg(db->sqlite));
}

/* ---- statements ---- */

static sqlite3_stmt *prepare(struct pool_db *db, const char *sql)
{
	sqlite3_stmt *statement = NULL;

	for (unsigned i = 0; i < db->nr; i++)
		if (db->statements[i].sql == sql)
			return db->statements[i].statement;
	if (db->nr == STATEMENTS_MAX ||
		sqlite3_prepare_v3(db->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement,
			NULL) != SQLITE_OK) {
		fail(db);
		return NULL;
	}
	db->statements[db->nr].sql = sql;
	db->statements[db->nr++].statement = statement;
	return statement;
}

static void bind(struct pool_db *db, sqlite3_stmt *statement, const char *types, va_list ap)
{
	int r = SQLITE_OK;

	for (int i = 0; types[i] && r == SQLITE_OK; i++) {
		if (types[i] == 'i') {
			r = sqlite3_bind_int64(statement, i + 1, va_arg(ap, int64_t));
			continue;
		}
		const char *text = va_arg(ap, const char *);

		r = text ? sqlite3_bind_text(statement, i + 1, text, -1, SQLITE_TRANSIENT)
			 : sqlite3_bind_null(statement, i + 1);
	}
	if (r != SQLITE_OK)
		fail(db);
}

static void ask(struct pool_db *db, struct pool_query *q, const char *sql, const char *types,
	va_list ap)
{
	*q = (struct pool_query){.db = db};
	if (db->error.code)
		return;
	q->statement = prepare(db, sql);
	if (q->statement)
		bind(db, q->statement, types, ap);
}

void pool_db_ask(struct pool_db *db, struct pool_query *q, const char *sql, const char *types, ...)
{
	va_list ap;

	va_start(ap, types);
	ask(db, q, sql, types, ap);
	va_end(ap);
}

bool pool_db_row(struct pool_query *q)
{
	int r = q->statement && !q->db->error.code ? sqlite3_step(q->statement) : SQLITE_DONE;

	if (r == SQLITE_ROW)
		return true;
	if (r != SQLITE_DONE)
		fail(q->db);
	pool_db_done(q);
	return false;
}

void pool_db_done(struct pool_query *q)
{
	if (!q->statement)
		return;
	sqlite3_reset(q->statement);
	sqlite3_clear_bindings(q->statement);
	q->statement = NULL;
}

int64_t pool_db_int(const struct pool_query *q, int column)
{
	return sqlite3_column_int64(q->statement, column);
}

const char *pool_db_text(const struct pool_query *q, int column)
{
	const char *text = (const char *)sqlite3_column_text(q->statement, column);

	return text ? text : "";
}

void pool_db_run(struct pool_db *db, const char *sql, const char *types, ...)
{
	struct pool_query q;
	va_list ap;

	va_start(ap, types);
	ask(db, &q, sql, types, ap);
	va_end(ap);
	while (pool_db_row(&q))
		;
}

int64_t pool_db_number(struct pool_db *db, int64_t otherwise, const char *sql, const char *types,
	...)
{
	struct pool_query q;
	va_list ap;

	va_start(ap, types);
	ask(db, &q, sql, types, ap);
	va_end(ap);
	if (pool_db_row(&q)) {
		otherwise = pool_db_int(&q, 0);
		pool_db_done(&q);
	}
	return otherwise;
}

int64_t pool_db_changed(struct pool_db *db)
{
	return sqlite3_changes64(db->sqlite);
}

/* ---- transactions ---- */

static void execute(struct pool_db *db, const char *sql)
{
	if (sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail(db);
}

void pool_db_begin(struct pool_db *db)
{
	db->error.code = 0;
	db->in_transaction = true;
	execute(db, "BEGIN IMMEDIATE");
	if (db->shared &&
		(sqlite3session_create(db->sqlite, "main", &db->changes) != SQLITE_OK ||
			sqlite3session_attach(db->changes, NULL) != SQLITE_OK))
		fail(db);
}

static void forget_changes(struct pool_db *db)
{
	if (db->changes)
		sqlite3session_delete(db->changes);
	db->changes = NULL;
}

/* What was changed is at etcd before it counts here. */
static void share(struct pool_db *db)
{
	struct weft_error why = {0};
	void *changes = NULL;
	int len = 0;

	if (sqlite3session_changeset(db->changes, &len, &changes) != SQLITE_OK)
		fail(db);
	else if (pool_shared_write(db->shared, changes, (size_t)len, &why) == -ESTALE)
		weft_error_set(&db->error, EAGAIN, "%s; ask another", why.message);
	else if (why.code)
		weft_error_set(&db->error, EIO, "%s%s", why.message,
			why.code == EINPROGRESS ? "; whether it has changed is not known" : "");
	sqlite3_free(changes);
}

int pool_db_commit(struct pool_db *db, struct weft_error *err)
{
	struct weft_error unused;

	if (!db->error.code && db->shared)
		share(db);
	forget_changes(db);
	if (!db->error.code) {
		execute(db, "COMMIT");
		/* etcd has what is not here: it is read again by whoever leads then. */
		if (db->error.code && db->shared)
			pool_shared_resign(db->shared);
	}
	db->in_transaction = false;
	/* If that fails, it is tried again with the next change, by whoever leads then. */
	if (!db->error.code && db->shared)
		pool_shared_settle(db->shared, db->sqlite, &unused);
	if (!db->error.code)
		return 0;
	struct weft_error why = db->error;
	pool_db_rollback(db);
	return weft_error_set(err, why.code, "%s", why.message);
}

void pool_db_rollback(struct pool_db *db)
{
	forget_changes(db);
	if (!sqlite3_get_autocommit(db->sqlite))
		sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
	db->in_transaction = false;
	db->error.code = 0;
}

int pool_db_check(struct pool_db *db, struct weft_error *err)
{
	struct weft_error why = db->error;

	if (!db->in_transaction)
		db->error.code = 0;
	return why.code ? weft_error_set(err, why.code, "%s", why.message) : 0;
}

/* ---- opening ---- */

/* SQLite would make a file that others can read. */
static int make_file(const char *path, struct weft_error *err)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		int r = -errno;

		return weft_error_set(err, -r, "cannot open %s, the coordinator's state: %s", path,
			strerror(-r));
	}
	return weft_file_is_secret(path, &st, err);
}

static int check_version(struct pool_db *db, const char *path, struct weft_error *err)
{
	const int64_t version = pool_db_number(db, -1, "PRAGMA user_version", "");
	char pool[17];

	if (version > VERSION)
		return weft_error_set(err, EPROTONOSUPPORT, "%s is of a newer weft", path);
	if (db->error.code || version == VERSION)
		return 0;
	if (pool_db_number(db, 0, "SELECT count(*) FROM sqlite_master", "") > 0)
		return weft_error_set(err, EBADMSG, "%s is another program's", path);
	const uint64_t number = weft_random_name();
	weft_hex(&number, sizeof(number), pool);
	pool_db_begin(db);
	execute(db, schema);
	pool_db_run(db, "INSERT INTO about VALUES (?)", "t", pool);
	return pool_db_commit(db, err);
}

/* Nobody else opens the file meanwhile: there is one coordinator.  16 MiB of it are in memory. */
static int set_up(struct pool_db *db, const char *path, struct weft_error *err)
{
	execute(db,
		"PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
		"PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;"
		"PRAGMA foreign_keys = ON; BEGIN IMMEDIATE; COMMIT");
	const int code = sqlite3_errcode(db->sqlite);
	if (code == SQLITE_BUSY)
		return weft_error_set(err, EBUSY, "another coordinator has %s", path);
	if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
		return weft_error_set(err, EBADMSG, "%s is damaged, or no file of SQLite's", path);
	int r = check_version(db, path, err);
	return r < 0 ? r : pool_db_check(db, err);
}

int pool_db_open(const char *path, struct pool_db **ret, struct weft_error *err)
{
	const bool is_file = strcmp(path, ":memory:") != 0;
	int r = is_file ? make_file(path, err) : 0;

	if (r < 0)
		return r;
	struct pool_db *db = calloc(1, sizeof(*db));
	if (!db)
		return weft_error_set(err, ENOMEM, "no memory");
	if (sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		r = weft_error_set(err, EIO, "cannot open %s: %s", path,
			sqlite3_errmsg(db->sqlite));
	if (r == 0)
		r = set_up(db, path, err);
	if (r < 0)
		pool_db_close(db);
	else
		*ret = db;
	return r;
}

/* Numbers of versions are the picture's; the schema is made where there is none. */
int pool_db_open_shared(struct pool_shared *shared, struct pool_db **ret, struct weft_error *err)
{
	struct pool_db *db = calloc(1, sizeof(*db));
	int r;

	if (!db)
		return weft_error_set(err, ENOMEM, "no memory");
	if (sqlite3_open_v2(":memory:", &db->sqlite, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		r = weft_error_set(err, ENOMEM, "no memory");
	else
		r = pool_shared_load(shared, db->sqlite, err);
	/* A picture without a schema is none; it would be taken for a state that begins. */
	if (r == 0 && pool_db_number(db, 0, "PRAGMA user_version", "") == 0)
		r = weft_error_set(err, EBADMSG, "the state at etcd is damaged");
	if (r == 0 || r == -ENOENT)
		r = check_version(db, "the state at etcd", err);
	/* From here on each change is shared, after a picture of what there is. */
	if (r == 0)
		r = pool_shared_settle(shared, db->sqlite, err);
	db->shared = shared;
	if (r < 0)
		pool_db_close(db);
	else
		*ret = db;
	return r;
}

void pool_db_close(struct pool_db *db)
{
	if (!db)
		return;
	forget_changes(db);
	for (unsigned i = 0; i < db->nr; i++)
		sqlite3_finalize(db->statements[i].statement);
	sqlite3_close(db->sqlite);
	free(db);
}
