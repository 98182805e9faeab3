/* SPDX-License-Identifier: MIT */
/* The part of tls-credentials.c that tls.c uses: credentials for a handshake, and its findings. */
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
	const struct nbd_tls_credentials *credentials;
	char asked[WEFT_IDENTITY_MAX + 1]; /* the client says that it is; "": it said nothing */
	uint64_t life;                      /* of its key, if there is one */
	struct weft_error refused;          /* why it or its certificate is not let in; code 0 */
};

/* Gives the session its credentials.  0, or one of GnuTLS's errors. */
int nbd_tls_equip(gnutls_session_t session, struct nbd_tls_peer *peer);

#endif
