/* SPDX-License-Identifier: MIT */
/* What is done with datagrams without a connection; see quic.h.  No state. */
#include <string.h>

#include "fabric/base/util.h"
#include "transports/quic/quic-private.h"

enum { RETRY_TOKEN_MS = 10000 }; /* a client has so long to come back with it */

_Static_assert(QUIC_CID_MAX_BYTES == NGTCP2_MAX_CIDLEN, "");

enum quic_kind quic_look(const uint8_t *datagram, size_t len, struct quic_initial *ret)
{
	ngtcp2_version_cid ids;
	ngtcp2_pkt_hd head;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (len == 0) /* which ngtcp2 asserts */
		return QUIC_JUNK;
	r = ngtcp2_pkt_decode_version_cid(&ids, datagram, len, QUIC_CID_BYTES);
	if (r != 0 && r != NGTCP2_ERR_VERSION_NEGOTIATION)
		return QUIC_JUNK;
	if (ids.dcidlen > QUIC_CID_MAX_BYTES || ids.scidlen > QUIC_CID_MAX_BYTES)
		return QUIC_JUNK;
	ret->version = ids.version;
	ret->dcid_len = ids.dcidlen;
	ret->scid_len = ids.scidlen;
	memcpy(ret->dcid, ids.dcid, ids.dcidlen);
	if (ids.scidlen > 0)
		memcpy(ret->scid, ids.scid, ids.scidlen);
	/*
	 * ngtcp2 knows others, but weft-protocol(7) does not.  Who asks for one has to send as much
	 * as an answer has (RFC 9000, 6.1).
	 */
	if (r != 0 || (ids.version != 0 && ids.version != NGTCP2_PROTO_VER_V1))
		return len >= QUIC_LEAST_BYTES ? QUIC_VERSION : QUIC_JUNK;
	if (len < QUIC_LEAST_BYTES || ngtcp2_accept(&head, datagram, len) != 0)
		return QUIC_OTHER;
	ret->token = head.token.base;
	ret->token_len = head.token.len;
	return QUIC_INITIAL;
}

bool quic_check_token(struct quic_initial *initial, const uint8_t *secret,
	const struct quic_path *path, uint64_t now_ns)
{
	const ngtcp2_cid dcid = to_cid(initial->dcid, initial->dcid_len);
	ngtcp2_cid first;

	if (initial->token_len == 0 || initial->token[0] != NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY ||
		ngtcp2_crypto_verify_retry_token(&first, initial->token, initial->token_len, secret,
			QUIC_SECRET_BYTES, initial->version,
			(const struct sockaddr *)&path->remote, path->remote_len, &dcid,
			RETRY_TOKEN_MS * MS_NS, now_ns) != 0)
		return false;
	memcpy(initial->first_dcid, first.data, first.datalen);
	initial->first_dcid_len = first.datalen;
	initial->validated = true;
	return true;
}

size_t quic_make_version(const struct quic_initial *initial, uint8_t *buf, size_t len)
{
	/* A reserved one as well, so that who negotiates is used to it (RFC 9000, 15). */
	const uint32_t versions[] = {0x1a2a3a4au, NGTCP2_PROTO_VER_V1};
	uint8_t random;

	weft_random(&random, sizeof(random));
	return written(ngtcp2_pkt_write_version_negotiation(buf, len, random, initial->scid,
		initial->scid_len, initial->dcid, initial->dcid_len, versions,
		WEFT_ARRAY_LEN(versions)));
}

size_t quic_make_retry(const struct quic_initial *initial, const uint8_t *secret,
	const struct quic_path *path, uint64_t now_ns, uint8_t *buf, size_t len)
{
	const ngtcp2_cid dcid = to_cid(initial->dcid, initial->dcid_len);
	const ngtcp2_cid scid = to_cid(initial->scid, initial->scid_len);
	uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN], id[QUIC_CID_BYTES];

	weft_random(id, sizeof(id));
	const ngtcp2_cid ours = to_cid(id, sizeof(id));
	ngtcp2_ssize token_len = ngtcp2_crypto_generate_retry_token(token, secret,
		QUIC_SECRET_BYTES, initial->version, (const struct sockaddr *)&path->remote,
		path->remote_len, &ours, &dcid, now_ns);
	if (token_len < 0)
		return 0;
	return written(ngtcp2_crypto_write_retry(buf, len, initial->version, &scid, &ours, &dcid,
		token, (size_t)token_len));
}

size_t quic_make_refusal(const struct quic_initial *initial, uint8_t *buf, size_t len)
{
	const ngtcp2_cid dcid = to_cid(initial->dcid, initial->dcid_len);
	const ngtcp2_cid scid = to_cid(initial->scid, initial->scid_len);
	const uint64_t why =
		initial->token_len > 0 ? NGTCP2_INVALID_TOKEN : NGTCP2_CONNECTION_REFUSED;

	return written(ngtcp2_crypto_write_connection_close(buf, len, initial->version, &scid,
		&dcid, why, NULL, 0));
}

size_t quic_make_reset(const uint8_t *cid, const uint8_t *secret, size_t len_seen, uint8_t *buf,
	size_t len)
{
	const ngtcp2_cid id = to_cid(cid, QUIC_CID_BYTES);
	uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN], random[24];

	/* Shorter than what it answers, so that two ends cannot go on for ever (RFC 9000, 10.3). */
	if (len_seen < sizeof(token) + sizeof(random) + 2)
		return 0;
	weft_random(random, sizeof(random));
	if (!make_token(secret, &id, token))
		return 0;
	return written(
		ngtcp2_pkt_write_stateless_reset(buf, len, token, random, sizeof(random)));
}
