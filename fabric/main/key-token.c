/* SPDX-License-Identifier: MIT */
/* weft key token: a text that stands for a key for some time, for callers of HTTP. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fabric/key/find.h"
#include "fabric/key/store.h"
#include "fabric/key/token.h"
#include "fabric/main/key.h"

enum { GOOD_FOR_S = 12 * 3600 };

/* The one in use, if the name has two keys. */
static int find_in_store(const struct key_options *o, struct weft_key *ret, struct weft_error *err)
{
	char second[WEFT_IDENTITY_MAX + 1];
	struct weft_keys *keys;
	int r = weft_keys_open(o->dir, &keys, err);

	if (r < 0)
		return r;
	r = weft_keys_get(keys, o->name, ret, NULL);
	snprintf(second, sizeof(second), "%s~2", o->name);
	if (r == -ENOKEY)
		r = weft_keys_get(keys, second, ret, NULL);
	weft_keys_close(keys);
	return r < 0 ? weft_error_set(err, -r, "the key of '%s' %s", o->name,
			       r == -EKEYEXPIRED ? "has expired" : "is not in the store")
		     : 0;
}

int key_token(const struct key_options *o, struct weft_error *err)
{
	const int64_t expires =
		o->rights.expires ? o->rights.expires : (int64_t)time(NULL) + GOOD_FOR_S;
	char token[WEFT_TOKEN_MAX];
	struct weft_key key = {0};
	int r = o->key ? weft_key_load(o->key, o->name, &key, err) : find_in_store(o, &key, err);

	if (r < 0)
		return r;
	r = weft_token_make(&key, expires, token);
	weft_key_wipe(&key);
	if (r < 0)
		return weft_error_set(err, -r, "a token cannot be made: %s", strerror(-r));
	puts(token);
	explicit_bzero(token, sizeof(token));
	return 0;
}
