/* SPDX-License-Identifier: MIT */
#include "fabric/pool/callers.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/donor/peer.h"
#include "fabric/key/certificate.h"
#include "fabric/key/file.h"
#include "fabric/key/token.h"
#include "fabric/pool/pool-private.h"

enum { PEM_MAX = 1 << 20 };

struct pool_callers {
	struct weft_keys *keys;
	char *authority, *certificate, *key;
	gnutls_x509_trust_list_t trust; /* NULL: no certificates */
};

/* ---- files ---- */

/* The whole file as a text, to be freed. */
static int read_file(const char *dir, const char *leaf, bool secret, char **ret,
	struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *path = NULL;
	struct stat st;

	if (asprintf(&path, "%s/%s", dir, leaf) < 0) {
		path = NULL;
		return weft_error_set(err, ENOMEM, "no memory");
	}
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
	if (r < 0)
		return weft_error_set(err, -r, "cannot read %s: %s", path, strerror(-r));
	r = secret ? weft_file_is_secret(path, &st, err) : weft_file_is_firm(path, &st, err);
	if (r < 0)
		return r;
	if (st.st_size > PEM_MAX)
		return weft_error_set(err, EINVAL, "%s is too large", path);
	char *text = calloc(1, (size_t)st.st_size + 1);
	if (!text)
		return weft_error_set(err, ENOMEM, "no memory");
	r = weft_read_all(fd, text, (size_t)st.st_size);
	if (r < 0) {
		free(text);
		return weft_error_set(err, -r, "cannot read %s: %s", path, strerror(-r));
	}
	*ret = text;
	return 0;
}

static gnutls_datum_t datum(char *text)
{
	return (gnutls_datum_t){.data = (uint8_t *)text, .size = (unsigned)strlen(text)};
}

static int load(struct pool_callers *c, const char *dir, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *crl = NULL;
	struct weft_error none;
	int r = read_file(dir, "ca-cert.pem", false, &c->authority, err);

	if (r == 0)
		r = read_file(dir, "server-cert.pem", false, &c->certificate, err);
	if (r == 0)
		r = read_file(dir, "server-key.pem", true, &c->key, err);
	if (r < 0)
		return r;
	gnutls_datum_t pem = datum(c->authority);
	if (gnutls_x509_trust_list_init(&c->trust, 0) < 0)
		return weft_error_set(err, ENOMEM, "no memory");
	if (gnutls_x509_trust_list_add_trust_mem(c->trust, &pem, NULL, GNUTLS_X509_FMT_PEM, 0, 0) <=
		0)
		return weft_error_set(err, EINVAL, "%s/ca-cert.pem has no certificate in it", dir);
	r = read_file(dir, "ca-crl.pem", false, &crl, &none);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return weft_error_set(err, -r, "%s", none.message);
	pem = datum(crl);
	if (gnutls_x509_trust_list_add_trust_mem(c->trust, NULL, &pem, GNUTLS_X509_FMT_PEM, 0, 0) <
		0)
		return weft_error_set(err, EINVAL, "%s/ca-crl.pem is no list of certificates", dir);
	return 0;
}

int pool_callers_new(struct weft_keys *keys, const char *certificates, struct pool_callers **ret,
	struct weft_error *err)
{
	struct pool_callers *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return weft_error_set(err, ENOMEM, "no memory");
	c->keys = keys;
	r = certificates ? load(c, certificates, err) : 0;
	if (r < 0)
		pool_callers_free(c);
	else
		*ret = c;
	return r;
}

void pool_callers_free(struct pool_callers *c)
{
	if (!c)
		return;
	if (c->key)
		explicit_bzero(c->key, strlen(c->key));
	if (c->trust)
		gnutls_x509_trust_list_deinit(c->trust, 1);
	free(c->authority);
	free(c->certificate);
	free(c->key);
	free(c);
}

const char *pool_callers_authority(const struct pool_callers *c)
{
	return c->authority;
}

const char *pool_callers_certificate(const struct pool_callers *c)
{
	return c->certificate;
}

const char *pool_callers_key(const struct pool_callers *c)
{
	return c->key;
}

/* ---- who asks ---- */

static void set_caller(const char *identity, const struct weft_rights *rights,
	struct pool_caller *ret)
{
	weft_identity_name(identity, ret->name);
	ret->admin = !rights || rights->admin;
	ret->donor = !rights || rights->pool_donor;
	ret->limited = rights && (rights->read_only || rights->nr_regions > 0);
	ret->max_bytes = rights ? (int64_t)weft_min(rights->max_bytes, (uint64_t)INT64_MAX) : 0;
}

/* What the store grants to the identity, from that address. */
static int check_rights(const struct pool_callers *c, const char *identity,
	const struct weft_peer *peer, struct pool_caller *ret, struct weft_error *err)
{
	struct weft_rights rights;
	int r = weft_keys_rights(c->keys, identity, &rights);

	if (r < 0)
		return weft_error_set(err, r == -ENOMEM ? ENOMEM : EACCES, "key '%s' %s", identity,
			r == -EKEYEXPIRED ? "has expired" : "is not known here");
	if (!weft_rights_have_address(&rights, (const struct sockaddr *)&peer->address))
		r = weft_error_set(err, EACCES, "key '%s' may not be used from %s", identity,
			peer->text);
	else
		set_caller(identity, &rights, ret);
	weft_rights_fini(&rights);
	return r;
}

static int of_token(const struct pool_callers *c, const char *authorization,
	const struct weft_peer *peer, struct pool_caller *ret, struct weft_error *err)
{
	static const char scheme[] = "Bearer ";
	char identity[WEFT_IDENTITY_MAX + 1];
	struct weft_key key;
	int64_t expires;

	if (strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
		return weft_error_set(err, EACCES,
			"the only authorization is a token: Authorization: Bearer TOKEN");
	const char *token = authorization + sizeof(scheme) - 1;
	if (weft_token_identity(token, identity) < 0)
		return weft_error_set(err, EACCES, "that is no token; weft key token makes one");
	int r = weft_keys_are_there(c->keys) ? weft_keys_get(c->keys, identity, &key, NULL)
					     : -ENOKEY;
	if (r == 0) {
		r = weft_token_check(token, &key, (int64_t)time(NULL), &expires);
		weft_key_wipe(&key);
	}
	if (r == -EKEYEXPIRED)
		return weft_error_set(err, EACCES, "the token of '%s' has expired", identity);
	if (r < 0)
		return weft_error_set(err, EACCES, "the token is of no key that is known here");
	return check_rights(c, identity, peer, ret, err);
}

/* The chain that the client showed leads to the authority, and is for a client. */
static bool is_vouched_for(const struct pool_callers *c, const gnutls_datum_t *chain, unsigned nr)
{
	enum { CHAIN_MAX = 8 };
	gnutls_x509_crt_t certs[CHAIN_MAX];
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (void *)GNUTLS_KP_TLS_WWW_CLIENT,
	};
	unsigned got = 0, status = ~0u;

	for (; got < nr && got < CHAIN_MAX; got++) {
		if (gnutls_x509_crt_init(&certs[got]) < 0)
			break;
		if (gnutls_x509_crt_import(certs[got], &chain[got], GNUTLS_X509_FMT_DER) < 0) {
			gnutls_x509_crt_deinit(certs[got]);
			break;
		}
	}
	if (got > 0 && got == nr &&
		gnutls_x509_trust_list_verify_crt2(c->trust, certs, got, &purpose, 1, 0, &status,
			NULL) < 0)
		status = ~0u;
	while (got > 0)
		gnutls_x509_crt_deinit(certs[--got]);
	return status == 0;
}

static int of_certificate(const struct pool_callers *c, const gnutls_datum_t *chain, unsigned nr,
	const struct weft_peer *peer, struct pool_caller *ret, struct weft_error *err)
{
	char identity[WEFT_IDENTITY_MAX + 1];
	int64_t expires;

	if (!is_vouched_for(c, chain, nr))
		return weft_error_set(err, EACCES, "the certificate is not accepted here");
	if (weft_certificate_identity(&chain[0], identity, &expires) < 0)
		return weft_error_set(err, EACCES,
			"the common name of the certificate cannot be an identity");
	if (weft_keys_are_there(c->keys))
		return check_rights(c, identity, peer, ret, err);
	set_caller(identity, NULL, ret);
	return 0;
}

/*
 * Whether the Host that a client names is this machine: its loopback, or the name that it has
 * itself, which may lead to 127.0.1.1 (Debian's /etc/hosts).  What a browser asks may be for a name
 * that another has lead here.
 */
static bool is_our_name(const char *host)
{
	char own[HOST_NAME_MAX + 1] = "";
	const char *const names[] = {"localhost", "127.0.0.1", "127.0.1.1", "[::1]", own};

	if (gethostname(own, sizeof(own) - 1) < 0)
		own[0] = '\0';
	for (size_t i = 0; host && i < WEFT_ARRAY_LEN(names); i++) {
		const size_t len = strlen(names[i]);

		if (len > 0 && strncasecmp(host, names[i], len) == 0 &&
			(!host[len] || host[len] == ':'))
			return true;
	}
	return false;
}

static int of_user(const struct weft_peer *peer, const char *host, struct pool_caller *ret,
	struct weft_error *err)
{
	const bool ours = weft_peer_is_our_user(peer);
	char text[1024];
	struct passwd pw, *found = NULL;

	if (!peer->has_uid || (!peer->local && !ours))
		return weft_error_set(err, EACCES,
			"it is not known who asks: show a token (Authorization: Bearer, weft key "
			"token) or a certificate");
	if (!peer->local && !is_our_name(host))
		return weft_error_set(err, EACCES,
			"without a token or a certificate, loopback is to be asked by its name: "
			"localhost, 127.0.0.1, 127.0.1.1, [::1] or this machine's name");
	ret->admin = ret->donor = ours;
	if (getpwuid_r(peer->uid, &pw, text, sizeof(text), &found) == 0 && found &&
		pool_name_valid(pw.pw_name))
		strcpy(ret->name, pw.pw_name);
	else
		snprintf(ret->name, sizeof(ret->name), "uid-%u", peer->uid);
	return 0;
}

int pool_callers_find(struct pool_callers *c, const struct pool_coming *coming,
	struct pool_caller *ret, struct weft_error *err)
{
	struct pool_caller caller = {0};
	struct weft_peer peer;
	unsigned nr = 0;
	const gnutls_datum_t *chain =
		coming->tls && c->trust ? gnutls_certificate_get_peers(coming->tls, &nr) : NULL;
	int r;

	weft_peer_of_socket(coming->fd, &peer);
	if (coming->authorization)
		r = of_token(c, coming->authorization, &peer, &caller, err);
	else if (chain && nr > 0)
		r = of_certificate(c, chain, nr, &peer, &caller, err);
	else
		r = of_user(&peer, coming->host, &caller, err);
	if (r == 0)
		*ret = caller;
	return r;
}
