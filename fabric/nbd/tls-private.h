/* SPDX-License-Identifier: MIT */
/*
 * What tls-credentials.c and tls-peer.c have for sessions (tls.c, tls-bare.c): credentials for a
 * handshake, and its findings.
 */
#ifndef WEFT_FABRIC_NBD_TLS_PRIVATE_H
#define WEFT_FABRIC_NBD_TLS_PRIVATE_H

#include <gnutls/gnutls.h>
#include <stdatomic.h>

#include "fabric/nbd/tls.h"

struct nbd_tls_credentials {
	_Atomic unsigned references;
	bool server, renews;
	int (*secret)(void *ctx, const char *identity, struct weft_key *ret, uint64_t *ret_life);
	void *ctx;
	char *host; /* that a server's certificate has to be for */
	gnutls_priority_t priorities;
	gnutls_psk_server_credentials_t server_keys;    /* NULL: there are none */
	gnutls_psk_client_credentials_t client_key;     /* likewise */
	gnutls_certificate_credentials_t certificates; /* likewise */
	char identity[WEFT_IDENTITY_MAX + 1];           /* the client's key's */
};

/* What a session's handshake leaves: the session's pointer (gnutls_session_set_ptr()). */
struct nbd_tls_peer {
	void *carrier[2]; /* tls-bare.h */
	const struct nbd_tls_credentials *credentials;
	char asked[WEFT_IDENTITY_MAX + 1]; /* the client says that it is; "": it said nothing */
	uint64_t life;                      /* of its key, if there is one */
	struct weft_error refused;          /* why it or its certificate is not let in; code 0 */
};

/* Gives the session its credentials.  0, or one of GnuTLS's errors. */
int nbd_tls_equip(gnutls_session_t session, struct nbd_tls_peer *peer);

/* What a handshake found out; tls.h has the words for each. */
struct nbd_tls_found {
	char identity[WEFT_IDENTITY_MAX + 1];
	uint64_t life;
	int64_t expires;
	char cipher[48];
};

/* A handshake that failed. */
struct nbd_tls_failure {
	int gnutls; /* one of GnuTLS's errors; GNUTLS_E_FATAL_ALERT_RECEIVED: the peer ended it */
	int error;  /* the same as -errno */
	gnutls_alert_description_t alert; /* the peer's, if it ended it */
};

/* tls-peer.c */

/* Whether a peer that says so has refused our key, or our certificate. */
bool nbd_tls_alert_is_of_keys(gnutls_alert_description_t alert);
/* Why a server lets a client not in, or a client leaves: -errno as nbd_tls_handshake(). */
int nbd_tls_explain(const struct nbd_tls_peer *peer, const struct nbd_tls_failure *failure,
	struct weft_error *err);
/* The handshake is done.  0; -EKEYREJECTED: the client has not said who it is, as it has to. */
int nbd_tls_learn(gnutls_session_t session, const struct nbd_tls_peer *peer,
	struct nbd_tls_found *ret, struct weft_error *err);

#endif
