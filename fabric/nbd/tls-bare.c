/* SPDX-License-Identifier: MIT */
/* A TLS session without records; see tls-bare.h. */
#include "fabric/nbd/tls-bare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/nbd/tls-private.h"

struct nbd_tls_bare {
	gnutls_session_t session;
	struct nbd_tls_peer peer;
	struct nbd_tls_credentials *credentials; /* NULL: a client's whose handshake is done */
	struct nbd_tls_found found;
};

/* As tls-credentials.c has them, of TLS 1.3 alone; QUIC has no middleboxes to please. */
static const char PRIORITIES[] =
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+ECDHE-ECDSA:+ECDHE-RSA"
	":-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
	":%DISABLE_TLS13_COMPAT_MODE:%SERVER_PRECEDENCE";

int nbd_tls_bare_new(struct nbd_tls_credentials *credentials, const char *alpn,
	struct nbd_tls_bare **ret, void ***ret_carrier)
{
	const gnutls_datum_t name = {
		.data = (uint8_t *)alpn,
		.size = (unsigned)strlen(alpn),
	};
	struct nbd_tls_bare *bare = calloc(1, sizeof(*bare));

	if (!bare)
		return -ENOMEM;
	bare->credentials = nbd_tls_credentials_get(credentials);
	bare->peer.credentials = credentials;
	if (gnutls_init(&bare->session,
		    (credentials->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NO_TICKETS |
			    GNUTLS_NO_AUTO_REKEY | GNUTLS_NO_END_OF_EARLY_DATA) < 0 ||
		nbd_tls_equip(bare->session, &bare->peer) < 0 ||
		gnutls_priority_set_direct(bare->session, PRIORITIES, NULL) < 0 ||
		gnutls_alpn_set_protocols(bare->session, &name, 1, GNUTLS_ALPN_MANDATORY) < 0) {
		nbd_tls_bare_free(bare);
		return -ENOMEM;
	}
	*ret = bare;
	*ret_carrier = bare->peer.carrier;
	return 0;
}

void nbd_tls_bare_free(struct nbd_tls_bare *bare)
{
	if (!bare)
		return;
	if (bare->session)
		gnutls_deinit(bare->session);
	nbd_tls_credentials_put(bare->credentials);
	free(bare);
}

struct gnutls_session_int *nbd_tls_bare_session(struct nbd_tls_bare *bare)
{
	return bare->session;
}

int nbd_tls_bare_done(struct nbd_tls_bare *bare, struct weft_error *err)
{
	int r = nbd_tls_learn(bare->session, &bare->peer, &bare->found, err);

	/* A client has proved what it had to: no copy of the key stays as long as the session. */
	if (r == 0 && !bare->credentials->server) {
		gnutls_credentials_clear(bare->session);
		nbd_tls_credentials_put(bare->credentials);
		bare->credentials = NULL;
		bare->peer.credentials = NULL;
	}
	return r;
}

/* What GnuTLS had to say that made it send the alert. */
static int cause_of(unsigned alert)
{
	switch (alert) {
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return GNUTLS_E_CERTIFICATE_REQUIRED;
	case GNUTLS_A_DECRYPT_ERROR:
	case GNUTLS_A_BAD_RECORD_MAC:
	case GNUTLS_A_ILLEGAL_PARAMETER:
	case GNUTLS_A_HANDSHAKE_FAILURE:
	case GNUTLS_A_INTERNAL_ERROR:
		return GNUTLS_E_DECRYPTION_FAILED;
	default:
		return GNUTLS_E_UNEXPECTED_PACKET;
	}
}

int nbd_tls_bare_explain(struct nbd_tls_bare *bare, unsigned alert, bool theirs,
	struct weft_error *err)
{
	const struct nbd_tls_failure failure = {
		.gnutls = theirs ? GNUTLS_E_FATAL_ALERT_RECEIVED : cause_of(alert),
		.error = theirs && nbd_tls_alert_is_of_keys(alert) ? -EKEYREJECTED : -EPROTO,
		.alert = alert,
	};

	if (!bare->peer.credentials)
		return weft_error_set(err, EPROTO, "TLS failed after its handshake");
	return nbd_tls_explain(&bare->peer, &failure, err);
}

const char *nbd_tls_bare_identity(const struct nbd_tls_bare *bare)
{
	return bare->found.identity;
}

uint64_t nbd_tls_bare_life(const struct nbd_tls_bare *bare)
{
	return bare->found.life;
}

int64_t nbd_tls_bare_expires(const struct nbd_tls_bare *bare)
{
	return bare->found.expires;
}

const char *nbd_tls_bare_cipher(const struct nbd_tls_bare *bare)
{
	return bare->found.cipher;
}
