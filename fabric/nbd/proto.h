/* SPDX-License-Identifier: MIT */
/*
 * The NBD protocol's numbers and byte order: pure pack and unpack functions, nothing else.
 * "proto" below is the NBD project's doc/proto.md.  All integers on the wire are big-endian.
 */
#ifndef WEFT_FABRIC_NBD_PROTO_H
#define WEFT_FABRIC_NBD_PROTO_H

#include <stddef.h>
#include <stdint.h>

#include "fabric/base/bytes.h"
#include "fabric/hashing.h"

/* proto, "Fixed newstyle negotiation" */
#define NBD_MAGIC UINT64_C(0x4e42444d41474943)     /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC UINT64_C(0x49484156454F5054) /* "IHAVEOPT" */
#define NBD_REP_MAGIC UINT64_C(0x0003e889045565a9)

enum {
	NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_NO_ZEROES = 1 << 1,
	NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_C_NO_ZEROES = 1 << 1,
};

/* proto, "Option types" */
enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_WEFT_ASK = 0x77656674, /* ours, "weft": weft-protocol(7), "QUESTIONS" */
};

/* proto, "Option reply types" */
#define NBD_REP_FLAG_ERROR 0x80000000u
#define NBD_REP_ACK 1u
#define NBD_REP_SERVER 2u
#define NBD_REP_INFO 3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_WEFT_ANSWER 0x77656674u /* ours */
#define NBD_REP_ERR_UNSUP 0x80000001u
#define NBD_REP_ERR_POLICY 0x80000002u
#define NBD_REP_ERR_INVALID 0x80000003u
#define NBD_REP_ERR_PLATFORM 0x80000004u
#define NBD_REP_ERR_TLS_REQD 0x80000005u
#define NBD_REP_ERR_UNKNOWN 0x80000006u
#define NBD_REP_ERR_SHUTDOWN 0x80000007u
#define NBD_REP_ERR_BLOCK_SIZE_REQD 0x80000008u
#define NBD_REP_ERR_TOO_BIG 0x80000009u

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

/* proto, "Transmission flags" */
enum {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_ROTATIONAL = 1 << 4,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

/* proto, "Request types" and "Command flags" */
#define NBD_REQUEST_MAGIC 0x25609513u
enum {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NBD_CMD_HASH = 0x7768, /* ours, "wh": weft-protocol(7), "HASHES" */
};
enum {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

/* proto, "Simple reply message" and "Structured reply chunk message" */
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu
enum { NBD_REPLY_FLAG_DONE = 1 << 0 };
enum {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,
	NBD_REPLY_TYPE_HASHES = 0x7768, /* ours */
	NBD_REPLY_TYPE_ERROR = (1 << 15) + 1,
	NBD_REPLY_TYPE_ERROR_OFFSET = (1 << 15) + 2,
};
enum { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 }; /* base:allocation */

/* proto, "Error values" */
enum {
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

enum {
	NBD_PORT = 10809,            /* IANA */
	NBD_MAX_STRING = 4096,       /* proto, "Conventions" */
	/* proto, "Block size constraints": what a server should take unasked */
	NBD_MAX_PAYLOAD = 32 << 20,
	/* ours: the longest option payload that is read, not skipped */
	NBD_MAX_OPTION = 64 << 10,
	/* ours: bytes of one NBD_REP_WEFT_ANSWER, and of all that answer a question together */
	NBD_MAX_ANSWER_PIECE = 4096,
	NBD_MAX_ANSWER = 8 << 20,
	NBD_HANDSHAKE_BYTES = 18,
	NBD_OPTION_BYTES = 16,
	NBD_OPTION_REPLY_BYTES = 20,
	NBD_REQUEST_BYTES = 28,
	NBD_HASHING_BYTES = 40, /* behind the header of a HASH */
	NBD_SIMPLE_REPLY_BYTES = 16,
	NBD_CHUNK_BYTES = 20,
	NBD_ERROR_CHUNK_BYTES = NBD_CHUNK_BYTES + 6, /* without a message */
	NBD_DATA_CHUNK_BYTES = NBD_CHUNK_BYTES + 8,  /* an OFFSET_DATA chunk up to its data */
};

struct nbd_option {
	uint32_t option;
	uint32_t len;
};

struct nbd_request_header {
	uint16_t flags;
	uint16_t type;
	uint64_t cookie; /* the client's bytes, returned as they came */
	uint64_t off;
	uint32_t len;
};

struct nbd_chunk {
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint32_t len; /* of the payload after this header */
};

void nbd_pack_handshake(uint8_t p[NBD_HANDSHAKE_BYTES], uint16_t flags);
void nbd_pack_option(uint8_t p[NBD_OPTION_BYTES], uint32_t option, uint32_t len);
/* 0, or -EPROTO: wrong magic. */
int nbd_unpack_option(const uint8_t p[NBD_OPTION_BYTES], struct nbd_option *ret);
void nbd_pack_option_reply(uint8_t p[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
	uint32_t len);

/* 0, or -EPROTO: wrong magic. */
int nbd_unpack_request(const uint8_t p[NBD_REQUEST_BYTES], struct nbd_request_header *ret);
void nbd_pack_request(uint8_t p[NBD_REQUEST_BYTES], const struct nbd_request_header *req);

/* What stands behind a HASH's header.  0, or -EOPNOTSUPP: another scheme. */
int nbd_unpack_hashing(const uint8_t p[NBD_HASHING_BYTES], struct weft_hashing *ret);
void nbd_pack_hashing(uint8_t p[NBD_HASHING_BYTES], const struct weft_hashing *hashing);

void nbd_pack_simple_reply(uint8_t p[NBD_SIMPLE_REPLY_BYTES], uint32_t error, uint64_t cookie);
void nbd_pack_chunk(uint8_t p[NBD_CHUNK_BYTES], const struct nbd_chunk *chunk);
/* Chunk header and offset of an OFFSET_DATA chunk of data_len bytes. */
void nbd_pack_data_chunk(uint8_t p[NBD_DATA_CHUNK_BYTES], uint16_t flags, uint64_t cookie,
	uint64_t off, uint32_t data_len);
void nbd_pack_error_chunk(uint8_t p[NBD_ERROR_CHUNK_BYTES], uint16_t flags, uint64_t cookie,
	uint32_t error);
/* Of a chunk whose magic was looked at with weft_get32(). */
void nbd_unpack_chunk(const uint8_t p[NBD_CHUNK_BYTES], struct nbd_chunk *ret);
void nbd_unpack_simple_reply(const uint8_t p[NBD_SIMPLE_REPLY_BYTES], uint32_t *ret_error,
	uint64_t *ret_cookie);

/*
 * Between errno (positive) and the protocol's errors; what has no counterpart becomes EIO (EINVAL
 * from the wire: EIO too when unknown).
 */
uint32_t nbd_error_from_errno(int code);
int nbd_error_to_errno(uint32_t error);

#endif
