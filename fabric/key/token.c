/* SPDX-License-Identifier: MIT */
#include "fabric/key/token.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/key/proof.h"

static const char HEAD[] = "weft1/";

enum {
	TAG_BYTES = 32,
	DIGITS_MAX = 18, /* of a number that fits */
};

/* The parts of a text that has the form of a token. */
struct parts {
	char identity[WEFT_IDENTITY_MAX + 1];
	int64_t expires;
	uint8_t tag[TAG_BYTES];
};

/* Of "IDENTITY/EXPIRES". */
static int tag(const struct weft_key *key, const char *identity, int64_t expires,
	uint8_t ret[TAG_BYTES])
{
	static const char info[] = "weft token 1";
	uint8_t secret[32];
	char text[WEFT_TOKEN_MAX];
	int n = snprintf(text, sizeof(text), "%s/%" PRId64, identity, expires);
	int r = weft_hkdf(NULL, 0, key->secret, key->secret_bytes, info, sizeof(info) - 1, secret,
		sizeof(secret));

	if (r == 0)
		r = weft_hmac(secret, sizeof(secret), text, (size_t)n, ret);
	explicit_bzero(secret, sizeof(secret));
	return r;
}

int weft_token_make(const struct weft_key *key, int64_t expires, char ret[WEFT_TOKEN_MAX])
{
	uint8_t bytes[TAG_BYTES];
	char hex[2 * TAG_BYTES + 1];
	int r = tag(key, key->identity, expires, bytes);

	if (r < 0)
		return r;
	weft_hex(bytes, sizeof(bytes), hex);
	snprintf(ret, WEFT_TOKEN_MAX, "%s%s/%" PRId64 "/%s", HEAD, key->identity, expires, hex);
	return 0;
}

static int parse(const char *text, struct parts *ret)
{
	const size_t head = sizeof(HEAD) - 1;

	if (strncmp(text, HEAD, head) != 0)
		return -EINVAL;
	const char *identity = text + head;
	size_t len = strcspn(identity, "/");
	if (len > WEFT_IDENTITY_MAX || identity[len] != '/')
		return -EINVAL;
	memcpy(ret->identity, identity, len);
	ret->identity[len] = '\0';
	const char *number = identity + len + 1;
	size_t digits = strspn(number, "0123456789");
	if (!weft_identity_valid(ret->identity) || digits == 0 || digits > DIGITS_MAX ||
		number[0] == '0' || number[digits] != '/')
		return -EINVAL;
	ret->expires = (int64_t)strtoll(number, NULL, 10);
	const char *hex = number + digits + 1;
	if (strlen(hex) != 2 * TAG_BYTES)
		return -EINVAL;
	return weft_unhex(hex, ret->tag, sizeof(ret->tag));
}

int weft_token_identity(const char *text, char ret[WEFT_IDENTITY_MAX + 1])
{
	struct parts parts;
	int r = parse(text, &parts);

	if (r == 0)
		strcpy(ret, parts.identity);
	return r;
}

int weft_token_check(const char *text, const struct weft_key *key, int64_t now,
	int64_t *ret_expires)
{
	struct parts parts;
	uint8_t right[TAG_BYTES];
	int r = parse(text, &parts);

	if (r == 0)
		r = tag(key, parts.identity, parts.expires, right);
	if (r < 0)
		return r;
	if (strcmp(parts.identity, key->identity) != 0 ||
		!weft_secret_equal(right, parts.tag, sizeof(right)))
		return -EKEYREJECTED;
	if (parts.expires <= now)
		return -EKEYEXPIRED;
	*ret_expires = parts.expires;
	return 0;
}
