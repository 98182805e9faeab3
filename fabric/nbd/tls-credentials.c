/* SPDX-License-Identifier: MIT */
/*
 * The keys and certificates that one end of a TLS session shows, and how it checks those of the
 * other end.  Credentials do not change once they are made, so that any thread may use them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fabric/base/util.h"
#include "fabric/key/file.h"
#include "fabric/nbd/tls-private.h"

/*
 * Both ends exchange ephemeral keys, so that who learns a key later cannot read what was recorded;
 * ciphers authenticate what they encrypt.  libnbd, nbdkit and qemu offer these among others.
 */
static const char PRIORITIES[] =
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
	":-KX-ALL:+ECDHE-PSK:+DHE-PSK:+ECDHE-ECDSA:+ECDHE-RSA"
	":-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
	":-MAC-ALL:+AEAD:%SERVER_PRECEDENCE";

/* ---- what the other end shows ---- */

/* A client says who it is.  1: it is unknown, which GnuTLS does not tell it; -1: an error. */
static int find_secret(gnutls_session_t session, const gnutls_datum_t *name, gnutls_datum_t *ret)
{
	struct nbd_tls_peer *peer = gnutls_session_get_ptr(session);
	const struct nbd_tls_credentials *c = peer->credentials;
	char identity[WEFT_IDENTITY_MAX + 1] = "";
	struct weft_key key = { 0 };
	int r = -ENOKEY;

	if (name->size <= WEFT_IDENTITY_MAX && !memchr(name->data, 0, name->size)) {
		memcpy(identity, name->data, name->size);
		identity[name->size] = 0;
	}
	if (weft_identity_valid(identity)) {
		strcpy(peer->asked, identity);
		r = c->secret(c->ctx, identity, &key, &peer->life);
	} else {
		weft_error_set(&peer->refused, ENOKEY,
			"the client names an identity that cannot be");
		return 1;
	}
	if (r == 0) {
		ret->data = gnutls_malloc(key.secret_bytes);
		if (ret->data) {
			memcpy(ret->data, key.secret, key.secret_bytes);
			ret->size = (unsigned)key.secret_bytes;
		}
		weft_key_wipe(&key);
		peer->refused.code = 0;
		return ret->data ? 0 : -1;
	}
	if (r == -ENOKEY)
		weft_error_set(&peer->refused, ENOKEY, "there is no key for the identity %s",
			identity);
	else if (r == -EKEYEXPIRED)
		weft_error_set(&peer->refused, EKEYEXPIRED, "the key of %s has expired", identity);
	else
		weft_error_set(&peer->refused, -r, "the key of %s cannot be had: %s", identity,
			strerror(-r));
	return 1;
}

/* In words, without the sentence's end. */
static void refuse_certificate(struct nbd_tls_peer *peer, unsigned status)
{
	const char *who = peer->credentials->server ? "client" : "server";
	gnutls_datum_t text = { 0 };

	if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0)
		text.data = NULL;
	weft_error_set(&peer->refused,
		status & GNUTLS_CERT_EXPIRED ? EKEYEXPIRED : EKEYREJECTED,
		"the %s's certificate is not accepted: %s", who,
		text.data ? (const char *)text.data : "unknown cause");
	gnutls_free(text.data);
	for (size_t len = strlen(peer->refused.message);
		len > 0 && strchr(" .\n", peer->refused.message[len - 1]); len--)
		peer->refused.message[len - 1] = 0;
}

/* The peer has shown a certificate.  0: it is accepted. */
static int verify(gnutls_session_t session)
{
	struct nbd_tls_peer *peer = gnutls_session_get_ptr(session);
	const struct nbd_tls_credentials *c = peer->credentials;
	gnutls_typed_vdata_st data[2] = {
		{
			.type = GNUTLS_DT_KEY_PURPOSE_OID,
			.data = (void *)(c->server ? GNUTLS_KP_TLS_WWW_CLIENT
						   : GNUTLS_KP_TLS_WWW_SERVER),
		},
		{
			.type = GNUTLS_DT_DNS_HOSTNAME,
			.data = (void *)c->host,
		},
	};
	unsigned status = 0;
	int r = gnutls_certificate_verify_peers(session, data, c->host ? 2 : 1, &status);

	if (r < 0)
		weft_error_set(&peer->refused, EKEYREJECTED,
			"the %s's certificate cannot be checked: %s",
			c->server ? "client" : "server", gnutls_strerror(r));
	else if (status)
		refuse_certificate(peer, status);
	return r < 0 || status ? -1 : 0;
}

int nbd_tls_equip(gnutls_session_t session, struct nbd_tls_peer *peer)
{
	const struct nbd_tls_credentials *c = peer->credentials;
	const gnutls_datum_t weft = {
		.data = (uint8_t *)NBD_TLS_WEFT,
		.size = sizeof(NBD_TLS_WEFT) - 1,
	};
	struct in6_addr address;
	int r = gnutls_priority_set(session, c->priorities);

	gnutls_session_set_ptr(session, peer);
	if (r == 0 && c->server_keys)
		r = gnutls_credentials_set(session, GNUTLS_CRD_PSK, c->server_keys);
	if (r == 0 && c->client_key)
		r = gnutls_credentials_set(session, GNUTLS_CRD_PSK, c->client_key);
	if (r == 0 && c->certificates)
		r = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, c->certificates);
	/* A server that hears of other protocols goes on without any. */
	if (r == 0 && c->renews)
		r = gnutls_alpn_set_protocols(session, &weft, 1, 0);
	if (c->server)
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
	/* An address has no place in this extension (RFC 6066, 3). */
	else if (r == 0 && c->host && inet_pton(AF_INET, c->host, &address) != 1 &&
		inet_pton(AF_INET6, c->host, &address) != 1)
		r = gnutls_server_name_set(session, GNUTLS_NAME_DNS, c->host, strlen(c->host));
	return r;
}

/* ---- files ---- */

static int file_error(struct weft_error *err, const char *path, int r)
{
	return weft_error_set(err, r == GNUTLS_E_MEMORY_ERROR ? ENOMEM : EINVAL, "%s: %s", path,
		gnutls_strerror(r));
}

/*
 * Whether there is a file that can be read, and that is secret, or at least firm (key/file.h): 0,
 * or -errno, with err.
 */
static int look(const char *path, bool secret, struct weft_error *err)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		int r = -errno;

		return weft_error_set(err, -r, "cannot read %s: %s", path, strerror(-r));
	}
	return secret ? weft_file_is_secret(path, &st, err) : weft_file_is_firm(path, &st, err);
}

static int load_pair(gnutls_certificate_credentials_t certificates, const char *directory,
	const char *side, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *cert = NULL, *key = NULL;
	int r;

	if (asprintf(&cert, "%s/%s-cert.pem", directory, side) < 0 ||
		asprintf(&key, "%s/%s-key.pem", directory, side) < 0)
		return weft_error_set(err, ENOMEM, "no memory");
	r = look(cert, false, err);
	if (r == 0)
		r = look(key, true, err);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_key_file(certificates, cert, key, GNUTLS_X509_FMT_PEM);
	return r < 0 ? file_error(err, cert, r) : 0;
}

static int load_authority(gnutls_certificate_credentials_t certificates, const char *directory,
	struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *ca = NULL, *crl = NULL;
	struct weft_error ignored;
	int r;

	if (asprintf(&ca, "%s/ca-cert.pem", directory) < 0 ||
		asprintf(&crl, "%s/ca-crl.pem", directory) < 0)
		return weft_error_set(err, ENOMEM, "no memory");
	r = look(ca, false, err);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_trust_file(certificates, ca, GNUTLS_X509_FMT_PEM);
	if (r <= 0)
		return r < 0 ? file_error(err, ca, r)
			     : weft_error_set(err, EINVAL, "%s has no certificate in it", ca);
	r = look(crl, false, &ignored);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		if (err)
			*err = ignored;
		return r;
	}
	r = gnutls_certificate_set_x509_crl_file(certificates, crl, GNUTLS_X509_FMT_PEM);
	return r < 0 ? file_error(err, crl, r) : 0;
}

static int load_certificates(struct nbd_tls_credentials *c, const char *directory,
	struct weft_error *err)
{
	struct weft_error why = { 0 };
	int r;

	if (gnutls_certificate_allocate_credentials(&c->certificates) < 0)
		return weft_error_set(err, ENOMEM, "no memory");
	gnutls_certificate_set_verify_function(c->certificates, verify);
	r = look(directory, false, err);
	if (r == 0)
		r = load_authority(c->certificates, directory, err);
	if (r < 0)
		return r;
	r = load_pair(c->certificates, directory, c->server ? "server" : "client", &why);
	/* A client may have none to show. */
	if (r == -ENOENT && !c->server)
		return 0;
	if (r < 0 && err)
		*err = why;
	return r;
}

/* ---- life ---- */

static int credentials_new(bool server, struct nbd_tls_credentials **ret, struct weft_error *err)
{
	struct nbd_tls_credentials *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return weft_error_set(err, ENOMEM, "no memory");
	c->references = 1;
	c->server = server;
	r = gnutls_priority_init(&c->priorities, PRIORITIES, NULL);
	if (r < 0) {
		nbd_tls_credentials_put(c);
		return weft_error_set(err, r == GNUTLS_E_MEMORY_ERROR ? ENOMEM : EINVAL,
			"this system's GnuTLS allows no TLS as it is wanted: %s",
			gnutls_strerror(r));
	}
	*ret = c;
	return 0;
}

int nbd_tls_server_new(const struct nbd_tls_server *config, struct nbd_tls_credentials **ret,
	struct weft_error *err)
{
	struct nbd_tls_credentials *c;
	int r = credentials_new(true, &c, err);

	if (r < 0)
		return r;
	c->renews = true; /* its clients do */
	if (config->secret) {
		c->secret = config->secret;
		c->ctx = config->ctx;
		if (gnutls_psk_allocate_server_credentials(&c->server_keys) < 0 ||
			gnutls_psk_set_server_known_dh_params(c->server_keys,
				GNUTLS_SEC_PARAM_MEDIUM) < 0)
			r = weft_error_set(err, ENOMEM, "no memory");
		else
			gnutls_psk_set_server_credentials_function2(c->server_keys, find_secret);
	}
	if (r == 0 && config->certificates)
		r = load_certificates(c, config->certificates, err);
	if (r < 0)
		nbd_tls_credentials_put(c);
	else
		*ret = c;
	return r;
}

int nbd_tls_client_new(const struct nbd_tls_client *config, struct nbd_tls_credentials **ret,
	struct weft_error *err)
{
	struct nbd_tls_credentials *c;
	int r = credentials_new(false, &c, err);

	if (r < 0)
		return r;
	c->renews = config->renews;
	if (config->key) {
		const gnutls_datum_t secret = {
			.data = (uint8_t *)config->key->secret,
			.size = (unsigned)config->key->secret_bytes,
		};

		strcpy(c->identity, config->key->identity);
		if (gnutls_psk_allocate_client_credentials(&c->client_key) < 0 ||
			gnutls_psk_set_client_credentials(c->client_key, c->identity, &secret,
				GNUTLS_PSK_KEY_RAW) < 0)
			r = weft_error_set(err, ENOMEM, "no memory");
	}
	if (r == 0 && config->certificates) {
		c->host = strdup(config->host);
		r = c->host ? load_certificates(c, config->certificates, err)
			    : weft_error_set(err, ENOMEM, "no memory");
	}
	if (r < 0)
		nbd_tls_credentials_put(c);
	else
		*ret = c;
	return r;
}

struct nbd_tls_credentials *nbd_tls_credentials_get(struct nbd_tls_credentials *c)
{
	atomic_fetch_add_explicit(&c->references, 1, memory_order_relaxed);
	return c;
}

void nbd_tls_credentials_put(struct nbd_tls_credentials *c)
{
	if (!c || atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) > 1)
		return;
	if (c->server_keys)
		gnutls_psk_free_server_credentials(c->server_keys);
	if (c->client_key)
		gnutls_psk_free_client_credentials(c->client_key);
	if (c->certificates)
		gnutls_certificate_free_credentials(c->certificates);
	if (c->priorities)
		gnutls_priority_deinit(c->priorities);
	free(c->host);
	free(c);
}
