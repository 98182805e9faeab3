/* SPDX-License-Identifier: MIT */
/* The key of a URI. */
#include "fabric/uri-key.h"

#include <errno.h>

int weft_uri_key(const struct weft_uri *uri, const char *file, bool allow_insecure,
	struct weft_held_key **ret, struct weft_error *err)
{
	const char *identity = uri->identity[0] ? uri->identity : NULL;

	if (allow_insecure && (file || identity))
		return weft_error_set(err, EINVAL,
			"%s%s asks for a key, and --allow-insecure for none: leave one of them out",
			identity ? "the identity " : "--key", identity ? identity : "");
	*ret = NULL;
	/* A key that nobody named is for weft donors that are elsewhere. */
	if (allow_insecure || (!file && !identity && uri->driver))
		return 0;
	int r = weft_held_key_open(file, identity, ret, err);
	if (r == -ENOENT && !identity)
		return 0;
	if (r == -ENOENT) {
		weft_error_prefix(err, "cannot use the identity %s", identity);
		return -ENOKEY;
	}
	return r;
}
