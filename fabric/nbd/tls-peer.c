/* SPDX-License-Identifier: MIT */
/* Who the peer of a TLS session is, or why its handshake failed.  No state. */
#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>

#include "fabric/key/certificate.h"
#include "fabric/nbd/tls-private.h"

bool nbd_tls_alert_is_of_keys(gnutls_alert_description_t alert)
{
	switch (alert) {
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
	case GNUTLS_A_CERTIFICATE_REVOKED:
	case GNUTLS_A_CERTIFICATE_EXPIRED:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_ACCESS_DENIED:
	case GNUTLS_A_DECRYPT_ERROR:
	case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

/* A client's key is another one here: how that shows depends on the version (and on GnuTLS's). */
static bool is_wrong_key(int r)
{
	return r == GNUTLS_E_DECRYPTION_FAILED || r == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER ||
		r == GNUTLS_E_ERROR_IN_FINISHED_PACKET || r == GNUTLS_E_INSUFFICIENT_CREDENTIALS;
}

int nbd_tls_explain(const struct nbd_tls_peer *peer, const struct nbd_tls_failure *failure,
	struct weft_error *err)
{
	const struct nbd_tls_credentials *c = peer->credentials;
	const int error = failure->error, r = failure->gnutls;

	if (peer->refused.code) {
		if (err)
			*err = peer->refused;
		return -peer->refused.code;
	}
	if (r == GNUTLS_E_FATAL_ALERT_RECEIVED) {
		const char *alert = gnutls_alert_get_name(failure->alert);

		/* A wrong key looks like a broken handshake to the server, and is told so. */
		if (c->client_key)
			return weft_error_set(err, EKEYREJECTED,
				"the server did not accept the key of %s (it says: %s): most "
				"likely it does not have that key, or not any more, which 'weft "
				"key list' shows there",
				c->identity, alert ? alert : "nothing");
		return weft_error_set(err, -error, "the %s ended the TLS handshake (it says: %s)",
			c->server ? "client" : "server", alert ? alert : "nothing");
	}
	if (c->server && peer->asked[0] && is_wrong_key(r))
		return weft_error_set(err, EKEYREJECTED,
			"the client's key for the identity %s is not the one here", peer->asked);
	if (c->server && (r == GNUTLS_E_CERTIFICATE_REQUIRED || r == GNUTLS_E_NO_CERTIFICATE_FOUND))
		return weft_error_set(err, EKEYREJECTED, "the client showed no certificate");
	return weft_error_set(err, -error, "TLS handshake: %s",
		error == -EPROTO || error == -EBADMSG ? gnutls_strerror(r) : strerror(-error));
}

/* The common name of the certificate that the client showed, which is its identity. */
static int name_of_certificate(gnutls_session_t session, struct nbd_tls_found *ret,
	struct weft_error *err)
{
	unsigned nr = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &nr);

	if (!chain || nr == 0)
		return weft_error_set(err, EKEYREJECTED, "the client showed no certificate");
	if (weft_certificate_identity(&chain[0], ret->identity, &ret->expires) < 0)
		return weft_error_set(err, EKEYREJECTED,
			"the common name of the client's certificate cannot be an identity: it is "
			"to have 1 to %d letters, digits, dots, dashes and underscores",
			WEFT_KEY_NAME_MAX);
	return 0;
}

int nbd_tls_learn(gnutls_session_t session, const struct nbd_tls_peer *peer,
	struct nbd_tls_found *ret, struct weft_error *err)
{
	const char *version = gnutls_protocol_get_name(gnutls_protocol_get_version(session));
	const char *cipher = gnutls_cipher_get_name(gnutls_cipher_get(session));

	snprintf(ret->cipher, sizeof(ret->cipher), "%s %s", version, cipher);
	if (!peer->credentials->server)
		return 0;
	if (gnutls_auth_client_get_type(session) == GNUTLS_CRD_CERTIFICATE)
		return name_of_certificate(session, ret, err);
	const char *identity = gnutls_psk_server_get_username(session);
	if (!identity || !weft_identity_valid(identity))
		return weft_error_set(err, EKEYREJECTED, "the client did not say who it is");
	strcpy(ret->identity, identity);
	ret->life = peer->life;
	return 0;
}
