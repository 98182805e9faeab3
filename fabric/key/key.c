/* SPDX-License-Identifier: MIT */
/* Keys and their lines in a file.  Pure; any thread. */
#include "fabric/key/key.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

#define SECOND "~2"

int weft_key_new(const char *identity, struct weft_key *ret, struct weft_error *err)
{
	assert(weft_identity_valid(identity));
	memset(ret, 0, sizeof(*ret));
	int r = gnutls_rnd(GNUTLS_RND_KEY, ret->secret, WEFT_SECRET_BYTES);

	if (r < 0)
		return weft_error_set(
			err, EIO, "there are no random bytes: %s", gnutls_strerror(r));
	ret->secret_bytes = WEFT_SECRET_BYTES;
	snprintf(ret->identity, sizeof(ret->identity), "%s", identity);
	return 0;
}

void weft_key_wipe(struct weft_key *key)
{
	if (key)
		explicit_bzero(key, sizeof(*key));
}

/* How long the NAME of an identity of len bytes is; 0: the identity is not valid. */
static size_t name_len(const char *identity, size_t len)
{
	const size_t second = sizeof(SECOND) - 1;

	if (len > second && memcmp(identity + len - second, SECOND, second) == 0)
		len -= second;
	if (len == 0 || len > WEFT_KEY_NAME_MAX)
		return 0;
	for (size_t i = 0; i < len; i++) {
		char c = identity[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '.' || c == '_' || c == '-'))
			return 0;
	}
	return len;
}

bool weft_identity_valid(const char *identity)
{
	return name_len(identity, strlen(identity)) > 0;
}

bool weft_identity_is_of(const char *identity, const char *name)
{
	size_t len = name_len(identity, strlen(identity));

	return len > 0 && strlen(name) == len && memcmp(identity, name, len) == 0;
}

void weft_identity_name(const char *identity, char *ret)
{
	size_t len = name_len(identity, strlen(identity));

	assert(len > 0);
	memcpy(ret, identity, len);
	ret[len] = '\0';
}

static int parse(const char *line, size_t len, struct weft_key *key, struct weft_error *err)
{
	const char *colon = memchr(line, ':', len);

	if (!colon || name_len(line, (size_t)(colon - line)) == 0)
		return weft_error_set(err, EINVAL,
			"a key's line is IDENTITY:SECRET, an identity having up to %d letters, "
			"digits, '.', '_' and '-'",
			WEFT_KEY_NAME_MAX);
	memcpy(key->identity, line, (size_t)(colon - line));
	const char *hex = colon + 1;
	size_t digits = len - (size_t)(hex - line);

	if (digits % 2 != 0 || digits < 2 * WEFT_SECRET_MIN || digits > 2 * WEFT_SECRET_MAX)
		return weft_error_set(err, EINVAL,
			"the secret of '%s' is not %d to %d bytes in hexadecimal digits",
			key->identity, WEFT_SECRET_MIN, WEFT_SECRET_MAX);
	if (weft_unhex(hex, key->secret, digits / 2) < 0)
		return weft_error_set(err, EINVAL,
			"the secret of '%s' is not in hexadecimal digits", key->identity);
	key->secret_bytes = digits / 2;
	return 0;
}

int weft_key_parse(const char *line, size_t len, struct weft_key *ret, struct weft_error *err)
{
	memset(ret, 0, sizeof(*ret));
	int r = parse(line, len, ret, err);

	if (r < 0)
		weft_key_wipe(ret);
	return r;
}

void weft_key_format(const struct weft_key *key, char *buf)
{
	char *at = stpcpy(buf, key->identity);

	*at++ = ':';
	weft_hex(key->secret, key->secret_bytes, at);
}

bool weft_secret_equal(const void *a, const void *b, size_t len)
{
	return gnutls_memcmp(a, b, len) == 0;
}
