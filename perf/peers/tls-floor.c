/* SPDX-License-Identifier: MIT */
#include "perf/peers/tls-floor.h"

#include <errno.h>

static gnutls_psk_client_credentials_t client;
static gnutls_psk_server_credentials_t server;
static gnutls_datum_t key;

static int find_secret(gnutls_session_t session, const char *identity, gnutls_datum_t *ret)
{
	ret->data = gnutls_malloc(key.size);
	if (!ret->data)
		return -1;
	for (unsigned i = 0; i < key.size; i++)
		ret->data[i] = key.data[i];
	ret->size = key.size;
	return 0;
}

int tls_floor_start(int fd, bool is_server, const char *identity, const uint8_t *secret,
	size_t secret_bytes, gnutls_session_t *ret)
{
	int r;

	key = (gnutls_datum_t){(uint8_t *)secret, (unsigned)secret_bytes};
	gnutls_init(ret, (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NO_TICKETS);
	gnutls_priority_set_direct(*ret,
		"NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:-CIPHER-ALL:+AES-128-GCM", NULL);
	if (is_server) {
		gnutls_psk_allocate_server_credentials(&server);
		gnutls_psk_set_server_credentials_function(server, find_secret);
		gnutls_credentials_set(*ret, GNUTLS_CRD_PSK, server);
	} else {
		gnutls_psk_allocate_client_credentials(&client);
		gnutls_psk_set_client_credentials(client, identity, &key, GNUTLS_PSK_KEY_RAW);
		gnutls_credentials_set(*ret, GNUTLS_CRD_PSK, client);
	}
	gnutls_transport_set_int(*ret, fd);
	do
		r = gnutls_handshake(*ret);
	while (r < 0 && !gnutls_error_is_fatal(r));
	return r == 0 ? 0 : -EPROTO;
}

int tls_floor_send(gnutls_session_t session, const void *data, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = gnutls_record_send(session, (const uint8_t *)data + at, n - at);

		if (r <= 0)
			return -EPIPE;
		at += (size_t)r;
	}
	return 0;
}

int tls_floor_receive(gnutls_session_t session, void *data, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = gnutls_record_recv(session, (uint8_t *)data + at, n - at);

		if (r <= 0)
			return -EPIPE;
		at += (size_t)r;
	}
	return 0;
}
