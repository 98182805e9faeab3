/* SPDX-License-Identifier: MIT */
/*
 * The borrower's key: which file has it, and which line.  No state; any thread.  Reads files.
 *
 * A file is in the format of psktool(1): lines IDENTITY:HEX; blank lines and lines that begin with
 * '#' are skipped.  Nobody but its owner may be able to use it (mode 0600 or less), and the owner
 * is the user or root.
 */
#ifndef WEFT_FABRIC_KEY_FIND_H
#define WEFT_FABRIC_KEY_FIND_H

#include <stddef.h>

#include "fabric/base/error.h"
#include "fabric/key/key.h"

enum { WEFT_KEY_PATH_MAX = 1024 }; /* with its NUL */

/*
 * Which file has the borrower's keys: `file`; if that is NULL, the file that $WEFT_KEY names; or
 * else the first that there is of ~/.config/weft/key and /etc/weft/key; one that cannot be had (a
 * link to nowhere, a directory without rights) is there, and fails later.  The path into ret of
 * WEFT_KEY_PATH_MAX, absolute unless the user said otherwise.
 *
 * 0; -ENOENT: nobody named a file, and there is none (err says where was looked); -ENAMETOOLONG.  A
 * file that somebody named is not looked at here: weft_key_load() fails if it does not exist.
 */
int weft_key_locate(const char *file, char *ret, struct weft_error *err);

/*
 * Loads the file's key of this identity, or, for a NAME without a key, the one of NAME~2, which has
 * taken its place in a rotation.  NULL: the only key of the file.
 *
 * The caller wipes *ret.  0; -ENOKEY: the file is not there, has no such key, has none, or has
 * several and identity is NULL; -EPERM: others can use the file; -EINVAL: a line is wrong; or
 * -errno of open(2) or read(2).  err names the file, and never shows a secret.
 */
int weft_key_load(const char *path, const char *identity, struct weft_key *ret,
	struct weft_error *err);

/*
 * Both.  -ENOENT alone says that there is no key; the borrower goes on as one that has none.  Every
 * other error says that there was to be one.
 */
int weft_key_find(const char *file, const char *identity, struct weft_key *ret,
	struct weft_error *err);

#endif
