/* SPDX-License-Identifier: MIT */
/*
 * Pack and unpack functions of the NBD protocol; pure, any thread.
 */
#include "fabric/nbd/proto.h"

#include <errno.h>
#include <string.h>

_Static_assert(NBD_HANDSHAKE_BYTES == 8 + 8 + 2, "proto, Fixed newstyle negotiation");
_Static_assert(NBD_OPTION_BYTES == 8 + 4 + 4, "proto, Fixed newstyle negotiation");
_Static_assert(NBD_OPTION_REPLY_BYTES == 8 + 4 + 4 + 4, "proto, Fixed newstyle negotiation");
_Static_assert(NBD_REQUEST_BYTES == 4 + 2 + 2 + 8 + 8 + 4, "proto, Request message");
_Static_assert(NBD_SIMPLE_REPLY_BYTES == 4 + 4 + 8, "proto, Simple reply message");
_Static_assert(NBD_CHUNK_BYTES == 4 + 2 + 2 + 8 + 4, "proto, Structured reply chunk message");
_Static_assert(NBD_ERROR_CHUNK_BYTES == NBD_CHUNK_BYTES + 4 + 2, "proto, NBD_REPLY_TYPE_ERROR");
_Static_assert(NBD_DATA_CHUNK_BYTES == NBD_CHUNK_BYTES + 8, "proto, NBD_REPLY_TYPE_OFFSET_DATA");

/* proto, "Newstyle negotiation": S: NBDMAGIC, IHAVEOPT, 16 bits of handshake flags */
void nbd_pack_handshake(uint8_t p[NBD_HANDSHAKE_BYTES], uint16_t flags)
{
	weft_put64(p, NBD_MAGIC);
	weft_put64(p + 8, NBD_OPTS_MAGIC);
	weft_put16(p + 16, flags);
}

/* proto, "Fixed newstyle negotiation": C: IHAVEOPT, option, length, data */
void nbd_pack_option(uint8_t p[NBD_OPTION_BYTES], uint32_t option, uint32_t len)
{
	weft_put64(p, NBD_OPTS_MAGIC);
	weft_put32(p + 8, option);
	weft_put32(p + 12, len);
}

int nbd_unpack_option(const uint8_t p[NBD_OPTION_BYTES], struct nbd_option *ret)
{
	if (weft_get64(p) != NBD_OPTS_MAGIC)
		return -EPROTO;
	ret->option = weft_get32(p + 8);
	ret->len = weft_get32(p + 12);
	return 0;
}

/* proto, "Fixed newstyle negotiation": S: magic, option, reply type, length, data */
void nbd_pack_option_reply(uint8_t p[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
	uint32_t len)
{
	weft_put64(p, NBD_REP_MAGIC);
	weft_put32(p + 8, option);
	weft_put32(p + 12, type);
	weft_put32(p + 16, len);
}

/* The cookie's bytes travel as they are. */
static uint64_t get_cookie(const uint8_t *p)
{
	uint64_t cookie;

	memcpy(&cookie, p, sizeof(cookie));
	return cookie;
}

static void put_cookie(uint8_t *p, uint64_t cookie)
{
	memcpy(p, &cookie, sizeof(cookie));
}

/* proto, "Request message" */
int nbd_unpack_request(const uint8_t p[NBD_REQUEST_BYTES], struct nbd_request_header *ret)
{
	if (weft_get32(p) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	ret->flags = weft_get16(p + 4);
	ret->type = weft_get16(p + 6);
	ret->cookie = get_cookie(p + 8);
	ret->off = weft_get64(p + 16);
	ret->len = weft_get32(p + 24);
	return 0;
}

void nbd_pack_request(uint8_t p[NBD_REQUEST_BYTES], const struct nbd_request_header *req)
{
	weft_put32(p, NBD_REQUEST_MAGIC);
	weft_put16(p + 4, req->flags);
	weft_put16(p + 6, req->type);
	put_cookie(p + 8, req->cookie);
	weft_put64(p + 16, req->off);
	weft_put32(p + 24, req->len);
}

/* proto, "Simple reply message" */
int nbd_unpack_hashing(const uint8_t p[NBD_HASHING_BYTES], struct weft_hashing *ret)
{
	if (!weft_hash_knows_scheme(weft_get32(p)))
		return -EOPNOTSUPP;
	ret->scheme = weft_get32(p);
	ret->block_bytes = weft_get32(p + 4);
	memcpy(ret->key, p + 8, WEFT_HASH_KEY_BYTES);
	return 0;
}

void nbd_pack_hashing(uint8_t p[NBD_HASHING_BYTES], const struct weft_hashing *hashing)
{
	weft_put32(p, hashing->scheme ? hashing->scheme : WEFT_HASH_SCHEME);
	weft_put32(p + 4, hashing->block_bytes);
	memcpy(p + 8, hashing->key, WEFT_HASH_KEY_BYTES);
}

void nbd_pack_simple_reply(uint8_t p[NBD_SIMPLE_REPLY_BYTES], uint32_t error, uint64_t cookie)
{
	weft_put32(p, NBD_SIMPLE_REPLY_MAGIC);
	weft_put32(p + 4, error);
	put_cookie(p + 8, cookie);
}

void nbd_unpack_simple_reply(const uint8_t p[NBD_SIMPLE_REPLY_BYTES], uint32_t *ret_error,
	uint64_t *ret_cookie)
{
	*ret_error = weft_get32(p + 4);
	*ret_cookie = get_cookie(p + 8);
}

/* proto, "Structured reply chunk message" */
void nbd_pack_chunk(uint8_t p[NBD_CHUNK_BYTES], const struct nbd_chunk *chunk)
{
	weft_put32(p, NBD_STRUCTURED_REPLY_MAGIC);
	weft_put16(p + 4, chunk->flags);
	weft_put16(p + 6, chunk->type);
	put_cookie(p + 8, chunk->cookie);
	weft_put32(p + 16, chunk->len);
}

void nbd_unpack_chunk(const uint8_t p[NBD_CHUNK_BYTES], struct nbd_chunk *ret)
{
	ret->flags = weft_get16(p + 4);
	ret->type = weft_get16(p + 6);
	ret->cookie = get_cookie(p + 8);
	ret->len = weft_get32(p + 16);
}

/* proto, "Structured reply types", NBD_REPLY_TYPE_OFFSET_DATA */
void nbd_pack_data_chunk(uint8_t p[NBD_DATA_CHUNK_BYTES], uint16_t flags, uint64_t cookie,
	uint64_t off, uint32_t data_len)
{
	const struct nbd_chunk chunk = {
		.flags = flags,
		.type = NBD_REPLY_TYPE_OFFSET_DATA,
		.cookie = cookie,
		.len = 8 + data_len,
	};

	nbd_pack_chunk(p, &chunk);
	weft_put64(p + NBD_CHUNK_BYTES, off);
}

/* proto, "Structured reply types", NBD_REPLY_TYPE_ERROR, with no message */
void nbd_pack_error_chunk(uint8_t p[NBD_ERROR_CHUNK_BYTES], uint16_t flags, uint64_t cookie,
	uint32_t error)
{
	const struct nbd_chunk chunk = {
		.flags = flags,
		.type = NBD_REPLY_TYPE_ERROR,
		.cookie = cookie,
		.len = 6,
	};

	nbd_pack_chunk(p, &chunk);
	weft_put32(p + NBD_CHUNK_BYTES, error);
	weft_put16(p + NBD_CHUNK_BYTES + 4, 0);
}

/* proto, "Error values" */
uint32_t nbd_error_from_errno(int code)
{
	switch (code) {
	case 0:
		return 0;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case EOPNOTSUPP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

int nbd_error_to_errno(uint32_t error)
{
	switch (error) {
	case 0:
		return 0;
	case NBD_EPERM:
		return EPERM;
	case NBD_ENOMEM:
		return ENOMEM;
	case NBD_EINVAL:
		return EINVAL;
	case NBD_ENOSPC:
		return ENOSPC;
	case NBD_EOVERFLOW:
		return EOVERFLOW;
	case NBD_ENOTSUP:
		return EOPNOTSUPP;
	case NBD_ESHUTDOWN:
		return ESHUTDOWN;
	default:
		return EIO;
	}
}
