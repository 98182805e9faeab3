/* SPDX-License-Identifier: MIT */
/*
 * Hashes of a region's blocks, by which two ends find out where they differ without moving the
 * bytes.
 *
 * A hash is XXH3-128 under a secret that whoever asks has drawn at random, so that nobody who
 * writes the contents can make two blocks of the same hash.  The secret is 192 bytes:
 *
 *     HKDF-Expand (SHA-256; the key, 32 random bytes; info: "weft hashes 1")
 *
 * Blocks are counted from the beginning of what was asked for; the last may be shorter.
 *
 * Pure functions; any thread.
 */
#ifndef WEFT_FABRIC_HASHING_H
#define WEFT_FABRIC_HASHING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WEFT_HASH_SCHEME = 1,      /* what is said above; another way would have another number */
	WEFT_MARK_SCHEME = 2,      /* no hash: the region's mark (marking.h) */
	WEFT_COPIES_SCHEME = 3,    /* no hash: what is noted of copies (copying.h), … */
	WEFT_COPIES_BLOCKS = 3,    /* … of which an answer is as long as these hashes */
	WEFT_HASH_BYTES = 16,      /* of a hash, as XXH128_canonical_t has it */
	WEFT_HASH_KEY_BYTES = 32,
	WEFT_HASH_SECRET_BYTES = 192,
	WEFT_HASH_BLOCK_MIN = 4096, /* a block is a power of two, from here … */
	WEFT_HASH_BLOCK_MAX = 65536, /* … to here */
	WEFT_HASH_MAX_BYTES = 64 << 20, /* that one question may be about */
	WEFT_HASH_MAX_BLOCKS = 4096,    /* the same in blocks */
};

/* What is asked for. */
struct weft_hashing {
	uint32_t scheme; /* 0 is WEFT_HASH_SCHEME */
	uint32_t block_bytes;
	uint8_t key[WEFT_HASH_KEY_BYTES];
};

/* A key, ready for use. */
struct weft_hasher {
	bool ready;
	uint8_t key[WEFT_HASH_KEY_BYTES];
	uint8_t secret[WEFT_HASH_SECRET_BYTES];
};

static inline bool weft_asks_for_mark(const struct weft_hashing *hashing)
{
	return hashing->scheme == WEFT_MARK_SCHEME;
}

static inline bool weft_asks_for_copies(const struct weft_hashing *hashing)
{
	return hashing->scheme == WEFT_COPIES_SCHEME;
}

static inline uint32_t weft_hash_nr_blocks(uint64_t len, uint32_t block_bytes)
{
	return (uint32_t)(len / block_bytes + (len % block_bytes != 0));
}

/* Whether the scheme, as it travels, is one of ours. */
static inline bool weft_hash_knows_scheme(uint32_t scheme)
{
	return scheme == WEFT_HASH_SCHEME || scheme == WEFT_MARK_SCHEME ||
		scheme == WEFT_COPIES_SCHEME;
}

/* Whether one question may be so: block_bytes and len are in their bounds. */
bool weft_hashing_valid(const struct weft_hashing *hashing, uint64_t len);

/* *hasher: all zeros, or used before, with any key.  0; -EIO: the library failed. */
int weft_hasher_set(struct weft_hasher *hasher, const uint8_t key[WEFT_HASH_KEY_BYTES]);
void weft_hasher_hash(const struct weft_hasher *hasher, const void *data, size_t len,
	uint8_t ret[WEFT_HASH_BYTES]);
/* Of all blocks of the data; ret has weft_hash_nr_blocks() hashes. */
void weft_hasher_hash_blocks(const struct weft_hasher *hasher, uint32_t block_bytes,
	const void *data, size_t len, uint8_t *ret);

#endif
