/* SPDX-License-Identifier: MIT */
/*
 * A borrower's key while an attachment uses it: where it is from, and what it is now.  When a donor
 * does not take it any more, the file may have another by now: a rotation's.  A directory in the
 * file's place has certificates (struct nbd_tls_client) instead of a key.
 *
 * Thread-safe, but for open and close.
 */
#ifndef WEFT_FABRIC_KEY_HELD_H
#define WEFT_FABRIC_KEY_HELD_H

#include <errno.h>
#include <stdbool.h>

#include "fabric/base/error.h"
#include "fabric/key/find.h"

struct weft_held_key;

/*
 * file, identity: as for weft_key_find(), whose errors these are; or -ENOMEM.  The file's path is
 * made absolute.
 */
int weft_held_key_open(const char *file, const char *identity, struct weft_held_key **ret,
	struct weft_error *err);
/* Takes NULL.  Wipes it. */
void weft_held_key_close(struct weft_held_key *held);

/*
 * What to prove: copies the key into *space, which the caller wipes, and returns space; or returns
 * NULL, and *ret_certificates is their directory, valid until it is closed.  held NULL: both NULL.
 */
const struct weft_key *weft_held_key_proof(struct weft_held_key *held, struct weft_key *space,
	const char **ret_certificates);
/*
 * Reads the file again; blocks on it.  True: it has another key, which is held from now on.  What
 * cannot be read changes nothing.
 */
bool weft_held_key_renew(struct weft_held_key *held);

/* Counts up with each key that is held. */
unsigned weft_held_key_number(struct weft_held_key *held);

/* Whether a connection failed with this -errno since an end did not take the other's key. */
static inline bool weft_error_is_of_keys(int error)
{
	return error == -EACCES || error == -ENOKEY || error == -EKEYREJECTED;
}

/* Whether the path is a directory, of certificates. */
bool weft_key_is_directory(const char *path);
/* Absolute; constant. */
const char *weft_held_key_file(const struct weft_held_key *held);
/*
 * The identity of the key that is held now, "" for certificates, into ret of WEFT_IDENTITY_MAX + 1;
 * returns ret.
 */
const char *weft_held_key_identity(struct weft_held_key *held, char *ret);

#endif
