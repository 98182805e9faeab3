/* SPDX-License-Identifier: MIT */
/*
 * A donor's keys: a directory with two files that nobody but their owner can use.
 *
 *   keys.psk     the secrets, in psktool's format: NAME:HEX, and NAME~2:HEX in a rotation
 *   grants.json  {"version": 1, "keys": {NAME: {...}}}: what each NAME may do (rights.h), and
 *                which of its identities is the current one
 *
 * A key without an entry in grants.json lets nobody in.  `weft key` changes the files
 * (store-edit.h); a donor that runs follows them: it waits for weft_keys_fd() and calls
 * weft_keys_reload().
 *
 * Thread-safe (one lock, held for a look-up); one thread at a time may reload.  Nothing here
 * belongs on the I/O path.
 */
#ifndef WEFT_FABRIC_KEY_STORE_H
#define WEFT_FABRIC_KEY_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "fabric/base/error.h"
#include "fabric/key/key.h"
#include "fabric/key/rights.h"

struct weft_keys;

/*
 * The directory if none is named: /etc/weft/keys for root, ~/.config/weft/keys for others; into
 * ret of len bytes.  0; -ENOENT: the user has no home; -ENAMETOOLONG.
 */
int weft_keys_default_dir(char *ret, size_t len, struct weft_error *err);

/*
 * dir NULL: the default, which need not be there yet.  Without keys.psk there are no keys: nobody
 * is let in.  0; -ENOENT: there is no such directory, or no default; -EPERM: others can use the
 * directory or a file; -EINVAL: a file is wrong (err names file and line or name); -EBUSY: somebody
 * has had the store's lock for 10 s; or -errno of open(2), inotify_init1(2).
 */
int weft_keys_open(const char *dir, struct weft_keys **ret, struct weft_error *err);
/* Takes NULL.  Wipes them. */
void weft_keys_close(struct weft_keys *keys);
/* The directory's path; as long as the keys are open. */
const char *weft_keys_dir(const struct weft_keys *keys);
/*
 * Whether there has been a directory: where there has not, nobody has said who is let in.  Any
 * thread.  Takes NULL.
 */
bool weft_keys_are_there(const struct weft_keys *keys);
/* How many identities there are. */
size_t weft_keys_count(struct weft_keys *keys);

/*
 * The key of an identity, NUL-terminated bytes of a peer's, and its life (rights.h; ret_life may be
 * NULL).  The caller wipes *ret.  0; -ENOKEY: there is none that lets anybody in; -EKEYEXPIRED.
 */
int weft_keys_get(struct weft_keys *keys, const char *identity, struct weft_key *ret,
	uint64_t *ret_life);
/* What its holder may do.  *ret needs weft_rights_fini().  As weft_keys_get(), or -ENOMEM. */
int weft_keys_rights(struct weft_keys *keys, const char *identity, struct weft_rights *ret);
/*
 * Whether a session that proved this identity when its rights had this life may go on: 0; -ENOKEY:
 * it was revoked, or has another secret now; -EKEYEXPIRED.  Allocates nothing.
 */
int weft_keys_still(struct weft_keys *keys, const char *identity, uint64_t life);

/*
 * Readable when a file of the store may have changed, and each second, since the path may lead to
 * another directory by then, and a link in it to another file: call weft_keys_reload().  Stays the
 * keys'.
 */
int weft_keys_fd(const struct weft_keys *keys);
/*
 * Reads the files again.  1: keys or rights have changed; 0: they have not; or an error of
 * weft_keys_open(): then the old keys stay, so that a slip in a file does not end every session,
 * and the next call tries again, and is silent (0) of the same error.
 * Where the directory is gone, so are all keys, until there is one again.
 */
int weft_keys_reload(struct weft_keys *keys, struct weft_error *err);

#endif
