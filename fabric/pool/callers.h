/* SPDX-License-Identifier: MIT */
/*
 * Who asks the coordinator.  A caller is one of these, the first that holds:
 *
 *   whoever shows a token (fabric/key/token.h) of a key of the store;
 *   whoever shows a certificate of the authority, over TLS: its common name, with the rights that
 *   the store has of that name, or, where there is no store, with all;
 *   over a Unix socket the user at the other end, by login name, and over loopback, under a name of
 *   loopback's, our own user and root: these two may do all.
 *
 * One thread.
 */
#ifndef WEFT_FABRIC_POOL_CALLERS_H
#define WEFT_FABRIC_POOL_CALLERS_H

#include <gnutls/gnutls.h>

#include "fabric/key/store.h"
#include "fabric/pool/pool.h"

struct pool_callers;

/*
 * keys: as weft_keys_open(), NULL: there are none; they stay the caller's.  certificates: a
 * directory with ca-cert.pem, server-cert.pem, server-key.pem and perhaps ca-crl.pem; NULL: none.
 * 0; -ENOENT, -EPERM, -EINVAL: of the files; -ENOMEM.
 */
int pool_callers_new(struct weft_keys *keys, const char *certificates, struct pool_callers **ret,
	struct weft_error *err);
void pool_callers_free(struct pool_callers *callers); /* takes NULL */

/* The texts of the files, for the server of TLS; NULL: there are none. */
const char *pool_callers_authority(const struct pool_callers *callers);
const char *pool_callers_certificate(const struct pool_callers *callers);
const char *pool_callers_key(const struct pool_callers *callers);

/* How a request came. */
struct pool_coming {
	int fd;
	gnutls_session_t tls;      /* NULL: in plaintext */
	const char *authorization; /* the header's value; NULL: there is none */
	const char *host;          /* the same */
};
/* 0; -EACCES: it is not known who asks, or that one may not; -ENOMEM. */
int pool_callers_find(struct pool_callers *callers, const struct pool_coming *coming,
	struct pool_caller *ret, struct weft_error *err);

#endif
