/* SPDX-License-Identifier: MIT */
/* The store's files, for who reads them and who changes them.  No state; any thread. */
#ifndef WEFT_FABRIC_KEY_STORE_PRIVATE_H
#define WEFT_FABRIC_KEY_STORE_PRIVATE_H

#include <jansson.h>
#include <limits.h>

#include "fabric/base/error.h"
#include "fabric/key/key-private.h"
#include "fabric/key/rights.h"

#define WEFT_KEYS_FILE "keys.psk"
#define WEFT_GRANTS_FILE "grants.json"
#define WEFT_LOCK_FILE ".lock"

/*
 * Opens the directory: a descriptor, -ENOENT, -EPERM if others could change what is in it, or
 * -errno of open(2).
 */
int weft_keys_dir_open(const char *dir, struct weft_error *err);
/*
 * Takes the store's lock, which is a file of its own: others may be able to open the directory, and
 * would hold a lock on that.  Waits for at most 10 s.  A descriptor, whose close(2) gives the lock
 * up; -EBUSY; or -errno of open(2).
 */
int weft_keys_lock(int dir_fd, const char *dir, struct weft_error *err);
/* The text of keys.psk.  path[PATH_MAX] outlives *ret.  A file that is not there is empty. */
int weft_keys_text(const char *dir, char *path, struct weft_key_text *ret, struct weft_error *err);
/*
 * What grants.json holds under "keys"; a file that is not there is empty.  *ret is a reference to
 * the whole object, which has "version" and "keys", an object.  -EINVAL.
 */
int weft_grants_text(const char *dir, json_t **ret, struct weft_error *err);
/*
 * One name's part of it without what is no right ("current"), loaded.  -ENOKEY: the name is not
 * there; as weft_rights_load().
 */
int weft_grants_rights(const json_t *grants, const char *name, struct weft_rights *ret,
	struct weft_error *err);

#endif
