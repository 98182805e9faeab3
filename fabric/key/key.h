/* SPDX-License-Identifier: MIT */
/*
 * A pre-shared key: the secret by which a borrower and a donor know each other, and the identity
 * that names it on the wire.  The same key serves TLS (RFC 4279, RFC 8446 2.2) and RDMA.
 *
 * A secret lives in a `struct weft_key` and nowhere else for longer than a call.  The owner of a
 * key wipes it with weft_key_wipe().  No secret is logged, shown, or taken from a command line.
 *
 * Pure functions but for weft_key_new(), which asks the system for random bytes; any thread.
 */
#ifndef WEFT_FABRIC_KEY_KEY_H
#define WEFT_FABRIC_KEY_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"

enum {
	/* A key's name is as a public name: 1 to 63 characters of [A-Za-z0-9._-]. */
	WEFT_KEY_NAME_MAX = 63,
	WEFT_IDENTITY_MAX = WEFT_KEY_NAME_MAX + 2, /* NAME, or NAME~2 while the key is rotated */
	WEFT_SECRET_BYTES = 32,                    /* of keys that we make */
	WEFT_SECRET_MIN = 16,                      /* of keys that others made: 128 bits */
	WEFT_SECRET_MAX = 64,
	WEFT_KEY_LINE_MAX = WEFT_IDENTITY_MAX + 1 + 2 * WEFT_SECRET_MAX + 1, /* with its NUL */
};

struct weft_key {
	char identity[WEFT_IDENTITY_MAX + 1];
	size_t secret_bytes; /* 0: there is none */
	uint8_t secret[WEFT_SECRET_MAX];
};

/* A new random secret under this identity (asserted to be valid).  0, or -EIO. */
int weft_key_new(const char *identity, struct weft_key *ret, struct weft_error *err);

/* Clears it in a way that the compiler keeps.  Takes NULL. */
void weft_key_wipe(struct weft_key *key);

/* NAME or NAME~2. */
bool weft_identity_valid(const char *identity);
/* Whether the identity is one of NAME's two. */
bool weft_identity_is_of(const char *identity, const char *name);
/* Its NAME into ret of WEFT_KEY_NAME_MAX + 1; the identity is valid. */
void weft_identity_name(const char *identity, char *ret);

/*
 * A line of a key file, "IDENTITY:HEX", as psktool writes it and nbdkit, libnbd and qemu read it;
 * len bytes without the line's end, not trusted.  0; -EINVAL with *ret wiped: err says what is
 * wrong, without a byte of the secret.
 */
int weft_key_parse(const char *line, size_t len, struct weft_key *ret, struct weft_error *err);
/* The inverse, with a NUL and no line's end, into buf of WEFT_KEY_LINE_MAX. */
void weft_key_format(const struct weft_key *key, char *buf);

/* Whether both have the same bytes, in a time that does not depend on them. */
bool weft_secret_equal(const void *a, const void *b, size_t len);

#endif
