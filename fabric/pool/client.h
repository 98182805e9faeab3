/* SPDX-License-Identifier: MIT */
/*
 * Asks a pool's coordinator, on libcurl.  A URL is one of these:
 *
 *     https://[IDENTITY@]HOST[:PORT]   with a token of the key that there is, or a certificate
 *     http://127.0.0.1[:PORT]          loopback alone
 *     unix:PATH
 *
 * A client belongs to one thread at a time.  It waits.
 */
#ifndef WEFT_FABRIC_POOL_CLIENT_H
#define WEFT_FABRIC_POOL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "fabric/base/error.h"

enum { POOL_PORT = 10810 }; /* unless a URL says another */

struct pool_client;

struct pool_client_config {
	const char *url; /* NULL: $WEFT_POOL, or else our user's coordinator here */
	const char *key; /* a file; NULL: where keys are usually (fabric/key/find.h) */
	const char
		*certificates; /* a directory, as of weft attach --tls-certificates; NULL: none */
};

/* 0; -EINVAL: no such URL; -ENOKEY: a key is asked for, and is not there; -EPERM: of its file. */
int pool_client_new(const struct pool_client_config *config, struct pool_client **ret,
	struct weft_error *err);
void pool_client_free(struct pool_client *client); /* takes NULL */
/* As it was given, for people. */
const char *pool_client_url(const struct pool_client *client);

/*
 * Asks, and waits for the answer at most timeout_ms.  body: NULL, or an object, which stays the
 * caller's.  0 with a new reference in *ret; -EHOSTUNREACH: no answer came, for what reason ever;
 * or what the coordinator says it is: -ENOENT, -ENOSPC, …, with its words.
 */
int pool_client_ask(struct pool_client *client, const char *method, const char *path,
	const json_t *body, int timeout_ms, json_t **ret, struct weft_error *err);
/*
 * Asked while a question waits, about once a second: true ends it, with -ECANCELED.  NULL: never.
 */
void pool_client_give_up(struct pool_client *client, bool (*is_over)(void *ctx), void *ctx);

/* The socket of our user's coordinator, "unix:/run/weft/pool.sock", into buf of 128 bytes. */
int pool_default_socket(char *buf, size_t len);

#endif
