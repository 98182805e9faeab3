/* SPDX-License-Identifier: MIT */
/*
 * A site's etcd, over the JSON gateway of its version 3, on libcurl.  Keys and values are bytes.
 * One thread at a time; it waits, at most ETCD_ANSWER_MS for an answer.
 */
#ifndef WEFT_FABRIC_POOL_ETCD_H
#define WEFT_FABRIC_POOL_ETCD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"

enum {
	ETCD_ANSWER_MS = 3000,
	ETCD_ENDPOINTS_MAX = 8,
	ETCD_VALUE_MAX = 1 << 20, /* etcd takes requests of 1.5 MiB */
};

struct etcd;

struct etcd_value {
	char *key; /* a text */
	void *bytes;
	size_t len;
};

/*
 * endpoints: "http://127.0.0.1:2379,https://…"; certificates: a directory with ca-cert.pem and
 * perhaps client-cert.pem and client-key.pem, or NULL.  0; -EINVAL: no such endpoints.
 */
int etcd_new(const char *endpoints, const char *certificates, struct etcd **ret,
	struct weft_error *err);
void etcd_free(struct etcd *etcd); /* takes NULL */

/*
 * What follows returns 0, or one of these: -EHOSTUNREACH: nobody could be asked, and nothing was
 * done; -EINPROGRESS: it was asked and did not answer, so that it may be done or not; -EPROTO: what
 * it answered makes no sense; -ENOMEM.
 */

/* A lease of etcd's, which ends so long after it was renewed last. */
int etcd_grant(struct etcd *etcd, int seconds, int64_t *ret_lease, struct weft_error *err);
/* -ESTALE: it has ended. */
int etcd_renew(struct etcd *etcd, int64_t lease, struct weft_error *err);
int etcd_revoke(struct etcd *etcd, int64_t lease, struct weft_error *err);

/* Keys from `from` on, below `below`, in order, at most `most`.  Each and the list are freed by
 * etcd_values_free(). */
int etcd_list(struct etcd *etcd, const char *from, const char *below, int most,
	struct etcd_value **ret, size_t *ret_nr, struct weft_error *err);
void etcd_values_free(struct etcd_value *values, size_t nr);

/*
 * Makes the key, which goes with the lease, unless it is there: -EEXIST.  *ret_revision is what
 * tells this key from another of the same name.
 */
int etcd_claim(struct etcd *etcd, const char *key, const char *value, int64_t lease,
	int64_t *ret_revision, struct weft_error *err);

/* One change of a transaction: a value, or an end to keys from `key` on, below `below`. */
struct etcd_change {
	const char *key, *below; /* below NULL: the key's value becomes this */
	const void *bytes;
	size_t len;
};
/* All of them, if the claim is still there: -ESTALE, and nothing has changed. */
int etcd_change(struct etcd *etcd, const char *claim, int64_t revision,
	const struct etcd_change *changes, size_t nr, struct weft_error *err);

#endif
