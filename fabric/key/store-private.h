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
struct weft_keys_files {
	char path[PATH_MAX];       /* of keys.psk; for errors */
	struct weft_key_text keys; /* its path is the one above */
	json_t *grants;            /* the whole of grants.json: "version" and "keys", an object */
	int lock_fd;               /* -1: not locked any more */
};

enum weft_keys_use {
	WEFT_KEYS_FOLLOW, /* waits little */
	WEFT_KEYS_LOOK,
	WEFT_KEYS_CHANGE, /* the lock stays until weft_keys_files_free() */
};
/*
 * Reads both files while nobody changes them: a secret that is over does not meet what is granted
 * to its name later.  A file that is not there is empty.  The lock is a file of its own: others may
 * be able to open the directory, and would hold a lock on that.  Waits for it for 10 s, or 500 ms
 * to follow.
 *
 * 0; -EBUSY: somebody else changes them; -EINVAL: grants.json is wrong; or as
 * weft_key_text_read() fails, of each file.
 */
int weft_keys_read(int dir_fd, const char *dir, enum weft_keys_use use, struct weft_keys_files *ret,
	struct weft_error *err);
/* Wipes what is left in it (not NULL). */
void weft_keys_files_free(struct weft_keys_files *files);
/*
 * One name's part of it without what is no right ("current"), loaded.  -ENOKEY: the name is not
 * there; as weft_rights_load().
 */
int weft_grants_rights(const json_t *grants, const char *name, struct weft_rights *ret,
	struct weft_error *err);

#endif
