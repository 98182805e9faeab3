/* SPDX-License-Identifier: MIT */
/* Hashes of blocks; see hashing.h. */
#include "fabric/hashing.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <xxhash.h>

#include "fabric/base/util.h"

/* It puts variants that look what the processor can do in the place of the plain ones. */
#ifdef WEFT_HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

static const char info[] = "weft hashes 1";

bool weft_hashing_valid(const struct weft_hashing *hashing, uint64_t len)
{
	const uint32_t block = hashing->block_bytes;

	if (block < WEFT_HASH_BLOCK_MIN || block > WEFT_HASH_BLOCK_MAX ||
		(block & (block - 1)) != 0 || len == 0 || len > WEFT_HASH_MAX_BYTES)
		return false;
	const uint32_t nr = weft_hash_nr_blocks(len, block);
	return weft_asks_for_mark(hashing)     ? nr == 1
		: weft_asks_for_copies(hashing) ? nr == WEFT_COPIES_BLOCKS
						: nr <= WEFT_HASH_MAX_BLOCKS;
}

int weft_hasher_set(struct weft_hasher *hasher, const uint8_t key[WEFT_HASH_KEY_BYTES])
{
	const gnutls_datum_t prk = {(unsigned char *)key, WEFT_HASH_KEY_BYTES};
	const gnutls_datum_t about = {(unsigned char *)info, sizeof(info) - 1};

	if (hasher->ready && memcmp(hasher->key, key, WEFT_HASH_KEY_BYTES) == 0)
		return 0;
	hasher->ready = false;
	if (gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &prk, &about, hasher->secret,
		    WEFT_HASH_SECRET_BYTES) < 0)
		return -EIO;
	memcpy(hasher->key, key, WEFT_HASH_KEY_BYTES);
	hasher->ready = true;
	return 0;
}

void weft_hasher_hash(const struct weft_hasher *hasher, const void *data, size_t len,
	uint8_t ret[WEFT_HASH_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical,
		XXH3_128bits_withSecret(data, len, hasher->secret, WEFT_HASH_SECRET_BYTES));
	memcpy(ret, canonical.digest, WEFT_HASH_BYTES);
}

void weft_hasher_hash_blocks(const struct weft_hasher *hasher, uint32_t block_bytes,
	const void *data, size_t len, uint8_t *ret)
{
	const uint8_t *p = data;

	for (size_t done = 0; done < len; done += block_bytes, ret += WEFT_HASH_BYTES)
		weft_hasher_hash(hasher, p + done, weft_min(block_bytes, len - done), ret);
}
