/* SPDX-License-Identifier: MIT */
/*
 * Private to transports/quic/: what the files that know ngtcp2 share.  A file uses only those
 * before it in this list: stateless.c, quic.c, datagrams.c.  Only this header includes ngtcp2's.
 */
#ifndef WEFT_TRANSPORTS_QUIC_QUIC_PRIVATE_H
#define WEFT_TRANSPORTS_QUIC_QUIC_PRIVATE_H

#include <netinet/in.h>

#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include "transports/quic/quic.h"

#define MS_NS UINT64_C(1000000)

static inline ngtcp2_cid to_cid(const uint8_t *bytes, size_t len)
{
	ngtcp2_cid cid;

	ngtcp2_cid_init(&cid, bytes, len);
	return cid;
}

/* 0: nothing was written. */
static inline size_t written(ngtcp2_ssize n)
{
	return n > 0 ? (size_t)n : 0;
}

static inline ngtcp2_path to_path(const struct quic_path *path)
{
	return (ngtcp2_path){
		.local = {.addr = (struct sockaddr *)&path->local, .addrlen = path->local_len},
		.remote = {.addr = (struct sockaddr *)&path->remote, .addrlen = path->remote_len},
	};
}

/* IPv4 and IPv6 have it at the same place. */
static inline uint16_t *quic_port_of(struct sockaddr_storage *address)
{
	return &((struct sockaddr_in *)address)->sin_port;
}

static inline int64_t id_of(const struct quic_stream *s)
{
	return 4 * (s - s->conn->streams);
}

static inline uint32_t bit_of(const struct quic_stream *s)
{
	return UINT32_C(1) << (s - s->conn->streams);
}

/* The token by which a peer believes a stateless reset of the id.  False: there is none. */
static inline bool make_token(const uint8_t *secret, const ngtcp2_cid *cid, uint8_t *ret)
{
	return ngtcp2_crypto_generate_stateless_reset_token(ret, secret, QUIC_SECRET_BYTES, cid) ==
		0;
}

/* Datagrams are as large as that from now on, and it is not known whether such ones arrive. */
static inline void quic_set_packet_bytes(struct quic_conn *c, size_t bytes)
{
	c->packet_bytes = bytes;
	c->size_works = bytes == QUIC_LEAST_BYTES;
	c->trial = NULL;
}

/* More of the stream has arrived: perhaps what a datagram of the present size carried. */
static inline void quic_try_arrived(const struct quic_stream *s)
{
	struct quic_conn *c = s->conn;

	/* Had it been lost, its bytes would have been sent again in one as large. */
	if (c->trial == s && s->tx.head >= c->trial_end) {
		c->size_works = true;
		c->trial = NULL;
	}
}

/* quic.c: around a call of ngtcp2 that decrypts packets of the connection.  NULL: it is over. */
void quic_set_receiving(struct quic_conn *conn);

/* quic.c: the library has ended the connection with this error of its own.  -errno. */
int quic_fail(struct quic_conn *conn, int error);

#endif
