/* SPDX-License-Identifier: MIT */
/* Which key a borrower proves to the donor of a URI.  No state, any thread; reads files. */
#ifndef WEFT_FABRIC_URI_KEY_H
#define WEFT_FABRIC_URI_KEY_H

#include <stdbool.h>

#include "fabric/key/held.h"
#include "fabric/uri.h"

/*
 * weft:// at a host takes the key that there is; any URI the one that its identity or `file` (NULL:
 * where keys are usually, key/find.h) asks for.  *ret is NULL where there is none, and where
 * allow_insecure says to use none; otherwise it is the caller's.
 *
 * 0; -EINVAL: allow_insecure, and a key is asked for; -ENOKEY: one is asked for, and is not there;
 * or as weft_key_find().
 */
int weft_uri_key(const struct weft_uri *uri, const char *file, bool allow_insecure,
	struct weft_held_key **ret, struct weft_error *err);

#endif
