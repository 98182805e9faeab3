/* SPDX-License-Identifier: MIT */
/*
 * What GnuTLS does over a bare socket, at both ends: a request is 28 bytes (and a payload, of a
 * write), an answer 16 (and a payload, of a read); records leave and come as GnuTLS likes by
 * itself.  One thread.
 */
#ifndef PERF_PEERS_TLS_FLOOR_H
#define PERF_PEERS_TLS_FLOOR_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TLS_FLOOR_REQUEST = 28, TLS_FLOOR_ANSWER = 16 };

/* A session over a connected socket, after its handshake, with the key.  0, or -EPROTO. */
int tls_floor_start(int fd, bool server, const char *identity, const uint8_t *secret,
	size_t secret_bytes, gnutls_session_t *ret);
/* All n bytes; 0, or -EPIPE. */
int tls_floor_send(gnutls_session_t session, const void *data, size_t n);
int tls_floor_receive(gnutls_session_t session, void *data, size_t n);

#endif
