/* SPDX-License-Identifier: MIT */
/*
 * Changes a donor's store of keys (store.h).  A process that changes the store has its lock, a
 * file .lock that nobody else can open.  Readers take it, too.  Of a change that a fault cut off
 * each file is in its old or its new state, and nobody is let in that neither state would let in,
 * since grants are written before keys.
 *
 * One thread.  Blocks on files and, for at most 10 s, on the lock.
 */
#ifndef WEFT_FABRIC_KEY_STORE_EDIT_H
#define WEFT_FABRIC_KEY_STORE_EDIT_H

#include "fabric/base/error.h"
#include "fabric/key/key.h"
#include "fabric/key/rights.h"

struct weft_store;

enum weft_store_use {
	WEFT_STORE_LOOK,   /* changes nothing */
	WEFT_STORE_CHANGE, /* there must be one */
	WEFT_STORE_MAKE,   /* makes the directory if there is none */
};

/*
 * dir: of the keys, which outlives *ret.  0; -EBUSY: somebody else changes it; or as
 * weft_keys_open() fails.
 */
int weft_store_open(const char *dir, enum weft_store_use use, struct weft_store **ret,
	struct weft_error *err);
/* Takes NULL.  Wipes it; what was not committed is forgotten. */
void weft_store_close(struct weft_store *store);

/* A name that has a key, and what it may do. */
struct weft_store_row {
	char name[WEFT_KEY_NAME_MAX + 1];
	/* its identities: the one in use first; the other, in a rotation, or "" */
	char identity[WEFT_IDENTITY_MAX + 1], other[WEFT_IDENTITY_MAX + 1];
	/* false: grants.json says nothing of it, so that it lets nobody in, and rights are empty */
	bool has_rights;
	struct weft_rights rights;
};
/* 0: *ret needs weft_rights_fini(&ret->rights); -ENOKEY: it has no key; -EINVAL; -ENOMEM. */
int weft_store_find(struct weft_store *store, const char *name, struct weft_store_row *ret,
	struct weft_error *err);
/*
 * The names that have keys, in the order of the file, until fn returns something else than 0, which
 * is returned.  fn must not change the store.
 */
int weft_store_each(struct weft_store *store,
	int (*fn)(void *ctx, const struct weft_store_row *row), void *ctx, struct weft_error *err);

/*
 * From here on: what weft_store_commit() writes.
 *
 * Adds a key, which is its name's current one then; its identity has none (asserted).  rights: of a
 * name that is new; NULL: the name keeps its own.  0, or -ENOMEM.
 */
int weft_store_add(struct weft_store *store, const struct weft_key *key,
	const struct weft_rights *rights, struct weft_error *err);
/* Takes the key of an identity away. */
void weft_store_remove(struct weft_store *store, const char *identity);
/* Takes a name away: both keys, and what it may do. */
void weft_store_revoke(struct weft_store *store, const char *name);
/*
 * On disk when it returns.  0; -EINVAL: donors would not take it (an identity twice, grants that
 * cannot be read), and nothing is written; or -errno: one of both files may be written then.
 */
int weft_store_commit(struct weft_store *store, struct weft_error *err);

#endif
