/* SPDX-License-Identifier: MIT */
/*
 * Private to nbd-bridge/cache/: the insides of a seal, and its cipher, which is pure except for the
 * library's state of a key.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_SEAL_PRIVATE_H
#define WEFT_NBD_BRIDGE_CACHE_SEAL_PRIVATE_H

#include <stdatomic.h>

#include "nbd-bridge/cache/seal.h"

/* ---- seal-cipher.c ---- */

/* The common facts of all blocks of some contents. */
struct seal_context {
	enum seal_kind kind;
	enum seal_algorithm algorithm;
	uint8_t volume[SEAL_VOLUME_BYTES];
};

/* Which block it is, and how it was sealed. */
struct seal_place {
	uint64_t block;
	uint32_t salt;    /* its number */
	uint64_t counter; /* from 1; never twice under a salt */
};

struct seal_cipher;

/* The key of a process: HKDF with SHA-256 (RFC 5869).  0, or -EIO. */
int seal_derive(const struct seal_context *context, const uint8_t key[SEAL_KEY_BYTES],
	const uint8_t salt[SEAL_SALT_BYTES], uint8_t ret[SEAL_KEY_BYTES]);
/* What tells whether a key is the one of a volume, and nothing else of it.  0, or -EIO. */
int seal_derive_check(const uint8_t key[SEAL_KEY_BYTES], const uint8_t volume[SEAL_VOLUME_BYTES],
	uint8_t ret[SEAL_KEY_BYTES]);
/*
 * With a key that was derived, which is copied; for good, as GnuTLS 3.7.9 has a wrong GHASH after
 * gnutls_aead_cipher_set_key().  One thread's; nothing is allocated after this.  0, or -ENOMEM.
 */
int seal_cipher_new(const struct seal_context *context, const uint8_t key[SEAL_KEY_BYTES],
	struct seal_cipher **ret);
/* Takes NULL. */
void seal_cipher_free(struct seal_cipher *cipher);
/* One block, of len bytes; to: as sealer_seal().  0, or -EIO. */
int seal_cipher_seal(struct seal_cipher *cipher, const struct seal_place *place, const void *from,
	void *to, size_t len, uint8_t ret_tag[SEAL_TAG_BYTES]);
/* One block, in its place.  0; -EBADMSG: it was not sealed so. */
int seal_cipher_open(struct seal_cipher *cipher, const struct seal_place *place, void *bytes,
	size_t len, const uint8_t tag[SEAL_TAG_BYTES]);
/* The one that is faster here, by a measurement of less than a millisecond. */
enum seal_algorithm seal_fastest(enum seal_kind kind);

/* ---- seal.c ---- */

/*
 * A block's: its nonce, which is the counter, the salt's number above, and whether it is known to
 * be bad above that; 0: it is zeros.  In a file, what was made zeros has a nonce too, which says
 * when that was.
 */
struct seal_row {
	_Atomic uint64_t nonce;
	uint8_t tag[SEAL_TAG_BYTES];
};

_Static_assert(sizeof(struct seal_row) == SEAL_ROW_BYTES, "a row is a row");
_Static_assert(sizeof(struct seal_row) * 100 <= SEAL_BLOCK, "at most 1 % of the region");

#define SEAL_COUNTER_BITS 48
#define SEAL_KNOWN_BAD (UINT64_C(1) << 63)
#define SEAL_ZEROS (UINT64_C(1) << 62)

/* What is mapped: memory that outlives the process, or a copy of what a seal's file has. */
struct seal_file {
	char magic[8];
	uint32_t version, kind;
	uint64_t size_bytes;
	uint32_t algorithm;
	_Atomic uint32_t nr_salts, begun;
	_Atomic uint64_t nr_bad;
	uint8_t volume[SEAL_VOLUME_BYTES];
	uint8_t key[SEAL_KEY_BYTES];
	_Alignas(4096) uint8_t salts[SEAL_SALTS_MAX][SEAL_SALT_BYTES];
	struct seal_row rows[];
};

struct seal_disk; /* seal-disk.h */

static inline bool seal_row_is_zeros(const struct seal_row *row)
{
	const uint64_t nonce = atomic_load_explicit(&row->nonce, memory_order_relaxed);

	return nonce == 0 || (nonce & SEAL_ZEROS);
}

struct seal {
	enum seal_kind kind;
	struct seal_context context;
	struct seal_file *file;
	int fd; /* of the memory; -1: there is a file */
	struct seal_disk *disk; /* NULL: the contents end with the memory */
	size_t file_len;
	uint64_t size_bytes, nr_blocks;
	struct seal_row *rows;
	uint8_t (*keys)[SEAL_KEY_BYTES]; /* of each salt so far */
	unsigned nr_salts;
	unsigned own_salt; /* its number */
	_Atomic uint64_t counter;            /* the last that was given out */
	_Atomic uint64_t nr_told;            /* bad blocks that this process found first … */
	_Atomic uint64_t bad[SEAL_TOLD_MAX]; /* … and the first of them: the number and 1 */
};

/* Notes that the row's block is not what was sealed.  Any thread. */
void seal_note_bad(struct seal *seal, uint64_t block);

#endif
