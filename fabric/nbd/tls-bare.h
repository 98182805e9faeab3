/* SPDX-License-Identifier: MIT */
/*
 * A TLS 1.3 session whose messages something else than a socket carries, and that makes keys and no
 * records: QUIC's.  Credentials, and what is found of the peer, are tls.h's.  No tickets, no
 * resumption, no early data.
 *
 * Threads: as a session of tls.h.
 */
#ifndef WEFT_FABRIC_NBD_TLS_BARE_H
#define WEFT_FABRIC_NBD_TLS_BARE_H

#include "fabric/nbd/tls.h"

struct gnutls_session_int;
struct nbd_tls_bare;

/*
 * alpn: the name of the protocol, static, which both ends have to say.  ret_carrier: two words
 * that the carrier may fill; GnuTLS's pointer of the session points to them.  0, or -ENOMEM.
 */
int nbd_tls_bare_new(struct nbd_tls_credentials *credentials, const char *alpn,
	struct nbd_tls_bare **ret, void ***ret_carrier);
void nbd_tls_bare_free(struct nbd_tls_bare *bare); /* takes NULL */
/* GnuTLS's, which the carrier hands messages to. */
struct gnutls_session_int *nbd_tls_bare_session(struct nbd_tls_bare *bare);

/* The handshake is done.  0: the peer is who it says; -EKEYREJECTED. */
int nbd_tls_bare_done(struct nbd_tls_bare *bare, struct weft_error *err);
/*
 * The handshake has failed, by this alert (RFC 8446, 6), theirs or ours: -errno as
 * nbd_tls_handshake() has it.
 */
int nbd_tls_bare_explain(struct nbd_tls_bare *bare, unsigned alert, bool theirs,
	struct weft_error *err);

/* After the handshake, each as in tls.h. */
const char *nbd_tls_bare_identity(const struct nbd_tls_bare *bare);
uint64_t nbd_tls_bare_life(const struct nbd_tls_bare *bare);
int64_t nbd_tls_bare_expires(const struct nbd_tls_bare *bare);
const char *nbd_tls_bare_cipher(const struct nbd_tls_bare *bare);

#endif
