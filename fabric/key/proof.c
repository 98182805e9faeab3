/* SPDX-License-Identifier: MIT */
/* Tags and seals under a pre-shared key, by GnuTLS.  Pure; threads: proof.h says. */
#include "fabric/key/proof.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/key/key.h"

#define LABEL "weft proof 1 "

enum { HASH_BYTES = 32 };

static gnutls_datum_t datum(const void *bytes, size_t len)
{
	/* The library's type has no const; it does not write. */
	return (gnutls_datum_t){(void *)(uintptr_t)bytes, (unsigned)len};
}

int weft_hmac(const void *key, size_t key_len, const void *bytes, size_t len, uint8_t ret[32])
{
	return gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, key_len, bytes, len, ret) < 0 ? -EIO : 0;
}

int weft_hkdf(const void *salt, size_t salt_len, const void *secret, size_t secret_len,
	const void *info, size_t info_len, void *ret, size_t len)
{
	gnutls_datum_t salted = datum(salt, salt_len), ikm = datum(secret, secret_len),
		       about = datum(info, info_len);
	uint8_t prk[HASH_BYTES];
	gnutls_datum_t prk_datum = datum(prk, sizeof(prk));

	int r = gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &ikm, &salted, prk);
	if (r >= 0)
		r = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &prk_datum, &about, ret, len);
	explicit_bzero(prk, sizeof(prk));
	return r < 0 ? -EIO : 0;
}

void weft_proof_nonce(uint8_t ret[WEFT_NONCE_BYTES])
{
	weft_random(ret, WEFT_NONCE_BYTES);
}

int weft_proof_init(const struct weft_key *key, enum weft_side side,
	const uint8_t borrower_nonce[WEFT_NONCE_BYTES], const uint8_t donor_nonce[WEFT_NONCE_BYTES],
	const void *transcript, size_t len, struct weft_proof *ret)
{
	bool borrower = side == WEFT_SIDE_BORROWER;
	struct {
		const char *purpose;
		uint8_t *key;
	} all[] = {
		{"borrower", borrower ? ret->sends : ret->takes},
		{"donor", borrower ? ret->takes : ret->sends},
		{"seal", ret->seal},
		{"data", ret->data},
	};
	uint8_t salt[2 * WEFT_NONCE_BYTES];
	uint8_t context[HASH_BYTES];
	char info[sizeof(LABEL) + 16 + HASH_BYTES];
	int r = 0;

	*ret = (struct weft_proof){0};
	memcpy(salt, borrower_nonce, WEFT_NONCE_BYTES);
	memcpy(salt + WEFT_NONCE_BYTES, donor_nonce, WEFT_NONCE_BYTES);
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, transcript, len, context) < 0)
		r = -EIO;
	for (size_t i = 0; i < WEFT_ARRAY_LEN(all) && r == 0; i++) {
		char *end = stpcpy(stpcpy(info, LABEL), all[i].purpose) + 1;

		end = mempcpy(end, context, sizeof(context));
		r = weft_hkdf(salt, sizeof(salt), key->secret, key->secret_bytes, info,
			(size_t)(end - info), all[i].key, 32);
	}
	if (r < 0)
		weft_proof_wipe(ret);
	return r;
}

void weft_proof_wipe(struct weft_proof *proof)
{
	explicit_bzero(proof, sizeof(*proof));
}

static int tag_of(const uint8_t key[32], uint64_t number, const void *message, size_t len,
	uint8_t ret[WEFT_TAG_BYTES])
{
	uint8_t bytes[sizeof(number) + HASH_BYTES];

	number = htobe64(number);
	memcpy(bytes, &number, sizeof(number));
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, message, len, bytes + sizeof(number)) < 0)
		return -EIO;
	return weft_hmac(key, 32, bytes, sizeof(bytes), ret);
}

int weft_proof_mark(struct weft_proof *proof, const void *message, size_t len,
	uint8_t ret[WEFT_TAG_BYTES])
{
	return tag_of(proof->sends, proof->nr_sent++, message, len, ret);
}

bool weft_proof_check(struct weft_proof *proof, const void *message, size_t len,
	const uint8_t tag[WEFT_TAG_BYTES])
{
	uint8_t right[WEFT_TAG_BYTES];

	proof->over |= tag_of(proof->takes, proof->nr_taken++, message, len, right) < 0 ||
		!weft_secret_equal(right, tag, sizeof(right));
	return !proof->over;
}

/* AES-256-GCM with a nonce of zeros: the key is used once. */
static int aead(const uint8_t key[32], gnutls_aead_cipher_hd_t *ret)
{
	gnutls_datum_t secret = datum(key, 32);

	return gnutls_aead_cipher_init(ret, GNUTLS_CIPHER_AES_256_GCM, &secret) < 0 ? -EIO : 0;
}

static const uint8_t zero_nonce[12];

int weft_proof_seal(const struct weft_proof *proof, const void *plain, size_t len, uint8_t *ret)
{
	size_t sealed = len + WEFT_SEAL_BYTES;
	gnutls_aead_cipher_hd_t cipher;
	int r = aead(proof->seal, &cipher);

	if (r < 0)
		return r;
	r = gnutls_aead_cipher_encrypt(cipher, zero_nonce, sizeof(zero_nonce), NULL, 0,
		WEFT_SEAL_BYTES, plain, len, ret, &sealed);
	gnutls_aead_cipher_deinit(cipher);
	return r < 0 ? -EIO : 0;
}

bool weft_proof_open(const struct weft_proof *proof, const uint8_t *sealed, size_t len, void *ret)
{
	gnutls_aead_cipher_hd_t cipher;
	size_t plain = len - WEFT_SEAL_BYTES;

	assert(len >= WEFT_SEAL_BYTES);
	int r = aead(proof->seal, &cipher);
	if (r == 0) {
		r = gnutls_aead_cipher_decrypt(cipher, zero_nonce, sizeof(zero_nonce), NULL, 0,
			WEFT_SEAL_BYTES, sealed, len, ret, &plain);
		gnutls_aead_cipher_deinit(cipher);
	}
	if (r < 0)
		explicit_bzero(ret, len - WEFT_SEAL_BYTES);
	return r >= 0;
}

int weft_proof_data(const struct weft_proof *proof, const void *bytes, size_t len,
	uint8_t ret[WEFT_TAG_BYTES])
{
	return weft_hmac(proof->data, sizeof(proof->data), bytes, len, ret);
}
