/* SPDX-License-Identifier: MIT */
/*
 * Private to proto.c, proto-pack.c and proto-unpack.c, which alone know about byte order: how the
 * messages of the verbs transport lie in memory, and the numbers of errors.  Pure functions, any
 * thread.
 */
#ifndef WEFT_TRANSPORTS_VERBS_PROTO_WIRE_H
#define WEFT_TRANSPORTS_VERBS_PROTO_WIRE_H

#include <stdint.h>

#include "transports/verbs/proto.h"

#define PACKED __attribute__((packed))

struct wire_head {
	uint32_t magic;
	uint8_t version;
	uint8_t type;
	uint16_t length; /* of the whole message */
	uint32_t cookie;
	uint32_t reserved;
} PACKED;
_Static_assert(sizeof(struct wire_head) == 16, "head");

struct wire_chunk {
	uint64_t addr;
	uint32_t rkey;
} PACKED;
_Static_assert(sizeof(struct wire_chunk) == 12, "chunk");

struct wire_hello {
	struct wire_head head;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation;
	uint64_t epoch;
	uint8_t mode; /* enum weft_mode */
	uint8_t version; /* 0, or 1: fields follow */
	uint16_t region_len;
	uint8_t sealed[VERBS_SEALED_BYTES];
	char name[WEFT_NAME_MAX + 1];
	/* the region's name, region_len bytes; then fields */
} PACKED;
_Static_assert(sizeof(struct wire_hello) == 148, "hello");
_Static_assert(sizeof(struct wire_hello) + VERBS_REGION_MAX + VERBS_FIELDS_MAX + VERBS_TAG_BYTES <=
	VERBS_MSG_MAX, "hello fits");

struct wire_field {
	uint16_t number;
	uint16_t length; /* of what follows */
} PACKED;
_Static_assert(sizeof(struct wire_field) == 4, "field");

/* What VERBS_FIELD_STRIPE holds. */
struct wire_stripe {
	uint32_t index, count;
	uint64_t unit_bytes;
} PACKED;
_Static_assert(sizeof(struct wire_stripe) == 16, "stripe");

struct wire_wait {
	struct wire_head head;
	uint64_t done_bytes, total_bytes;
} PACKED;

struct wire_grant {
	struct wire_head head;
	uint64_t size_bytes, epoch, generation;
	uint32_t lease_ms, flags;
	uint64_t chunk_bytes;
	uint32_t nr_chunks;
	struct wire_chunk epoch_word, beat_word;
	uint8_t token[VERBS_TOKEN_BYTES];
	char offers[VERBS_OFFERS_MAX + 1];
	/* fields, if the HELLO was of version 1 */
} PACKED;
_Static_assert(sizeof(struct wire_grant) == 164, "grant");
_Static_assert(sizeof(struct wire_grant) + 5 * sizeof(struct wire_field) + 2 * sizeof(uint32_t) +
	sizeof(struct wire_chunk) + WEFT_PLACE_MAX <=
	VERBS_MSG_MAX - VERBS_TAG_BYTES, "grant fits");

struct wire_refuse {
	struct wire_head head;
	uint32_t error;
	uint32_t text_len;
	/* the text */
} PACKED;

struct wire_get_chunks {
	struct wire_head head;
	uint32_t first;
} PACKED;

struct wire_chunks {
	struct wire_head head;
	uint32_t first, nr;
	/* nr struct wire_chunk */
} PACKED;
_Static_assert(sizeof(struct wire_chunks) + VERBS_CHUNKS_PER_MESSAGE * sizeof(struct wire_chunk) <=
	VERBS_MSG_MAX - VERBS_TAG_BYTES, "chunks fit");

struct wire_request {
	struct wire_head head;
	uint8_t kind;
	uint8_t no_hole;
	uint8_t more;
	uint8_t reserved;
	uint32_t nr_ranges;
	uint64_t off, len;
	/* nr_ranges struct wire_range; of a HASH a struct wire_hashing */
} PACKED;
_Static_assert(sizeof(struct wire_request) == 40, "request");

struct wire_hashing {
	uint32_t scheme, block_bytes;
	uint8_t key[WEFT_HASH_KEY_BYTES];
} PACKED;
_Static_assert(sizeof(struct wire_hashing) == 40, "hashing");

struct wire_range {
	uint64_t off, len;
} PACKED;
_Static_assert(sizeof(struct wire_request) + VERBS_RANGES_PER_MESSAGE * sizeof(struct wire_range) <=
	VERBS_MSG_MAX - VERBS_TAG_BYTES, "ranges fit");

struct wire_bye {
	struct wire_head head;
	uint8_t changed;
	uint8_t reserved[7];
} PACKED;

struct wire_reply {
	struct wire_head head;
	uint32_t error;
	/* to a HASH, without an error: the hashes */
} PACKED;
_Static_assert(sizeof(struct wire_reply) + VERBS_HASHES_PER_MESSAGE * WEFT_HASH_BYTES <=
	VERBS_MSG_MAX - VERBS_TAG_BYTES, "hashes fit");

struct wire_start {
	struct wire_head head;
	uint8_t nonce[VERBS_NONCE_BYTES];
	uint8_t version;
	uint8_t identity_len;
	uint16_t reserved;
	/* the identity, identity_len bytes; then fields */
} PACKED;
_Static_assert(sizeof(struct wire_start) + VERBS_IDENTITY_MAX <= VERBS_START_MAX, "start fits");

struct wire_challenge {
	struct wire_head head;
	uint8_t nonce[VERBS_NONCE_BYTES];
	uint64_t session;
	/* fields */
} PACKED;
_Static_assert(sizeof(struct wire_challenge) <= VERBS_START_MAX, "challenge fits");

/* A negative errno's number, big-endian; EIO's for one that does not travel. */
uint32_t verbs_error_to_wire(int error);
/* The inverse.  Unknown numbers are errors all the same. */
int verbs_error_from_wire(uint32_t wire);

#endif
