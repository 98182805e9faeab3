/* SPDX-License-Identifier: MIT */
/*
 * Tokens: what the holder of a key shows to whoever knows the key, where the key itself cannot be
 * proved, such as in a header of HTTP.  A token is a text, in the letters of RFC 6750:
 *
 *     weft1/IDENTITY/EXPIRES/TAG
 *
 * EXPIRES are seconds of CLOCK_REALTIME, in decimal.  TAG is HMAC-SHA256, in hexadecimal, of
 * "IDENTITY/EXPIRES" under HKDF(no salt, the key's secret, "weft token 1").  Nobody learns the
 * secret from a token; a token ends with its key.  Whoever has a token can do until then what the
 * key's holder may do: it is a secret, too.
 *
 * Pure functions; any thread.
 */
#ifndef WEFT_FABRIC_KEY_TOKEN_H
#define WEFT_FABRIC_KEY_TOKEN_H

#include <stdint.h>

#include "fabric/key/key.h"

enum { WEFT_TOKEN_MAX = 6 + WEFT_IDENTITY_MAX + 1 + 20 + 1 + 64 + 1 }; /* with its NUL */

/* expires > 0.  0, or -EIO: the library failed. */
int weft_token_make(const struct weft_key *key, int64_t expires, char ret[WEFT_TOKEN_MAX]);

/* Whose token a stranger's text says it is; nothing is proved.  0, or -EINVAL: it is no token. */
int weft_token_identity(const char *text, char ret[WEFT_IDENTITY_MAX + 1]);
/*
 * Whether a stranger's text is a token of the key at this time.  0 with the time of its end;
 * -EKEYEXPIRED; -EKEYREJECTED: it is not of this key; -EINVAL: it is no token; -EIO.
 */
int weft_token_check(const char *text, const struct weft_key *key, int64_t now,
	int64_t *ret_expires);

#endif
