/* SPDX-License-Identifier: MIT */
/*
 * Proofs of a key: what the RFCs say of HMAC and HKDF, what proof.h says of keys and tags (computed
 * here once more, from HMAC alone), and that nothing else is taken for a proof.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/key/key.h"
#include "fabric/key/proof.h"

enum { MAX_BYTES = 256 };

struct bytes {
	uint8_t at[MAX_BYTES];
	size_t len;
};

static struct bytes unhex(const char *text)
{
	struct bytes ret = {.len = strlen(text) / 2};

	assert_true(ret.len <= MAX_BYTES);
	assert_int_equal(weft_unhex(text, ret.at, ret.len), 0);
	return ret;
}

static struct bytes repeat(uint8_t byte, size_t len)
{
	struct bytes ret = {.len = len};

	memset(ret.at, byte, len);
	return ret;
}

static struct bytes text(const char *text)
{
	struct bytes ret = {.len = strlen(text)};

	memcpy(ret.at, text, ret.len);
	return ret;
}

static void assert_hmac(struct bytes key, struct bytes data, const char *expected)
{
	struct bytes want = unhex(expected);
	uint8_t got[32];

	assert_int_equal(weft_hmac(key.at, key.len, data.at, data.len, got), 0);
	assert_memory_equal(got, want.at, sizeof(got));
}

static void hmac_is_that_of_rfc_4231(void **state)
{
	assert_hmac(repeat(0x0b, 20), text("Hi There"),
		"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	assert_hmac(text("Jefe"), text("what do ya want for nothing?"),
		"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	assert_hmac(repeat(0xaa, 20), repeat(0xdd, 50),
		"773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	assert_hmac(unhex("0102030405060708090a0b0c0d0e0f10111213141516171819"), repeat(0xcd, 50),
		"82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
	assert_hmac(repeat(0xaa, 131),
		text("Test Using Larger Than Block-Size Key - Hash Key First"),
		"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	assert_hmac(repeat(0xaa, 131),
		text("This is a test using a larger than block-size key and a larger than "
		     "block-size data. The key needs to be hashed before being used by the HMAC "
		     "algorithm."),
		"9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

static void assert_hkdf(struct bytes secret, struct bytes salt, struct bytes info,
	const char *expected)
{
	struct bytes want = unhex(expected);
	uint8_t got[MAX_BYTES];

	assert_int_equal(weft_hkdf(salt.at, salt.len, secret.at, secret.len, info.at, info.len, got,
				 want.len),
		0);
	assert_memory_equal(got, want.at, want.len);
}

static struct bytes range(uint8_t first, uint8_t last)
{
	struct bytes ret = {0};

	for (unsigned byte = first; byte <= last; byte++)
		ret.at[ret.len++] = (uint8_t)byte;
	return ret;
}

static void hkdf_is_that_of_rfc_5869(void **state)
{
	assert_hkdf(repeat(0x0b, 22), range(0, 0x0c), range(0xf0, 0xf9),
		"3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b88718"
		"5865");
	assert_hkdf(range(0, 0x4f), range(0x60, 0xaf), range(0xb0, 0xff),
		"b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac78272"
		"71cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f"
		"1d87");
	assert_hkdf(repeat(0x0b, 22), repeat(0, 0), repeat(0, 0),
		"8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a"
		"96c8");
}

/* ---- proof.h's own words ---- */

static const struct weft_key key = {.identity = "box-1",
	.secret_bytes = 32,
	.secret = "0123456789abcdef0123456789abcdef"};
static const uint8_t nonce_b[WEFT_NONCE_BYTES] = {1, 2, 3}, nonce_d[WEFT_NONCE_BYTES] = {4, 5, 6};
static const char said[] = "all that was said";

static struct weft_proof proof_of(enum weft_side side)
{
	struct weft_proof ret;

	assert_int_equal(weft_proof_init(&key, side, nonce_b, nonce_d, said, sizeof(said), &ret),
		0);
	return ret;
}

static void keys_are_derived_as_it_says(void **state)
{
	static const char *const purposes[] = {"borrower", "donor", "seal", "data"};
	struct weft_proof b = proof_of(WEFT_SIDE_BORROWER), d = proof_of(WEFT_SIDE_DONOR);
	const uint8_t *at_b[] = {b.sends, b.takes, b.seal, b.data};
	const uint8_t *at_d[] = {d.takes, d.sends, d.seal, d.data};
	uint8_t salt[64], prk[32], info[128], want[32];

	memcpy(salt, nonce_b, 32);
	memcpy(salt + 32, nonce_d, 32);
	assert_int_equal(weft_hmac(salt, 64, key.secret, 32, prk), 0);
	for (unsigned i = 0; i < 4; i++) {
		/* SHA-256 of `said` by sha256sum(1), which counts its NUL as well. */
		struct bytes context =
			unhex("bdbb23d8d40aedab54c228514cda1a166e9ac75dc4601a81ba53138b3ca4c382");
		size_t len = (size_t)snprintf((char *)info, sizeof(info), "weft proof 1 %s",
				     purposes[i]) +
			1;

		memcpy(info + len, context.at, 32);
		info[len + 32] = 1;
		assert_int_equal(weft_hmac(prk, 32, info, len + 33, want), 0);
		assert_memory_equal(at_b[i], want, 32);
		assert_memory_equal(at_d[i], want, 32);
	}
}

static void a_tag_is_right_once_in_its_place_and_direction(void **state)
{
	struct weft_proof b = proof_of(WEFT_SIDE_BORROWER), d = proof_of(WEFT_SIDE_DONOR), was = d;
	uint8_t first[WEFT_TAG_BYTES], second[WEFT_TAG_BYTES];

	assert_int_equal(weft_proof_mark(&b, "hello", 5, first), 0);
	assert_int_equal(weft_proof_mark(&b, "hello", 5, second), 0);
	assert_true(weft_proof_check(&d, "hello", 5, first));
	assert_true(weft_proof_check(&d, "hello", 5, second));
	/* Replayed. */
	assert_false(weft_proof_check(&d, "hello", 5, second));
	/* Nothing is believed any more, not even what would have been right. */
	assert_int_equal(weft_proof_mark(&b, "hello", 5, first), 0);
	assert_int_equal(weft_proof_mark(&b, "hello", 5, first), 0);
	assert_false(weft_proof_check(&d, "hello", 5, first));
	/* Out of its place. */
	d = was;
	assert_false(weft_proof_check(&d, "hello", 5, second));
	/* The sender's own, reflected. */
	b = proof_of(WEFT_SIDE_BORROWER);
	assert_int_equal(weft_proof_mark(&b, "hello", 5, first), 0);
	assert_false(weft_proof_check(&b, "hello", 5, first));
}

static void no_other_bits_are_a_proof(void **state)
{
	const struct weft_proof d = proof_of(WEFT_SIDE_DONOR);
	struct weft_proof b = proof_of(WEFT_SIDE_BORROWER);
	uint8_t message[] = "a message", tag[WEFT_TAG_BYTES];

	assert_int_equal(weft_proof_mark(&b, message, sizeof(message), tag), 0);
	for (unsigned bit = 0; bit < 8 * (sizeof(message) + sizeof(tag)); bit++) {
		struct weft_proof proof = d;
		uint8_t *at = bit / 8 < sizeof(message) ? message + bit / 8
							: tag + bit / 8 - sizeof(message);

		*at ^= (uint8_t)(1 << bit % 8);
		assert_false(weft_proof_check(&proof, message, sizeof(message), tag));
		*at ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t len = 0; len < sizeof(message); len++) {
		struct weft_proof proof = d;

		assert_false(weft_proof_check(&proof, message, len, tag));
	}
	b = d;
	assert_true(weft_proof_check(&b, message, sizeof(message), tag));
}

/* Each of the four, changed in one place, is another conversation. */
static void whoever_knows_less_has_other_keys(void **state)
{
	const struct weft_proof right = proof_of(WEFT_SIDE_DONOR);

	for (unsigned i = 0; i < 4; i++) {
		uint8_t b[WEFT_NONCE_BYTES], d[WEFT_NONCE_BYTES];
		char transcript[sizeof(said)];
		struct weft_key other = key;
		struct weft_proof proof;
		uint8_t *at[] = {b, d, (uint8_t *)transcript, other.secret};

		memcpy(b, nonce_b, sizeof(b));
		memcpy(d, nonce_d, sizeof(d));
		memcpy(transcript, said, sizeof(said));
		at[i][i] ^= 1;
		assert_int_equal(weft_proof_init(&other, WEFT_SIDE_DONOR, b, d, transcript,
					 sizeof(transcript), &proof),
			0);
		assert_memory_not_equal(proof.sends, right.sends, 32);
		assert_memory_not_equal(proof.takes, right.takes, 32);
		assert_memory_not_equal(proof.seal, right.seal, 32);
		assert_memory_not_equal(proof.data, right.data, 32);
	}
}

static void what_is_sealed_opens_and_nothing_else_does(void **state)
{
	struct weft_proof b = proof_of(WEFT_SIDE_BORROWER), d = proof_of(WEFT_SIDE_DONOR);
	static const uint8_t zeros[16];
	uint8_t sealed[16 + WEFT_SEAL_BYTES], plain[16];

	assert_int_equal(weft_proof_seal(&b, "sixteen bytes  .", 16, sealed), 0);
	assert_memory_not_equal(sealed, "sixteen bytes  .", 16);
	assert_true(weft_proof_open(&d, sealed, sizeof(sealed), plain));
	assert_memory_equal(plain, "sixteen bytes  .", 16);
	for (unsigned bit = 0; bit < 8 * sizeof(sealed); bit++) {
		sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(weft_proof_open(&d, sealed, sizeof(sealed), plain));
		assert_memory_equal(plain, zeros, sizeof(plain));
		sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	d.seal[0] ^= 1;
	assert_false(weft_proof_open(&d, sealed, sizeof(sealed), plain));
}

static void a_wiped_proof_is_zeros(void **state)
{
	static const struct weft_proof none;
	struct weft_proof proof = proof_of(WEFT_SIDE_DONOR);

	weft_proof_wipe(&proof);
	assert_memory_equal(&proof, &none, sizeof(proof));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hmac_is_that_of_rfc_4231),
		cmocka_unit_test(hkdf_is_that_of_rfc_5869),
		cmocka_unit_test(keys_are_derived_as_it_says),
		cmocka_unit_test(a_tag_is_right_once_in_its_place_and_direction),
		cmocka_unit_test(no_other_bits_are_a_proof),
		cmocka_unit_test(whoever_knows_less_has_other_keys),
		cmocka_unit_test(what_is_sealed_opens_and_nothing_else_does),
		cmocka_unit_test(a_wiped_proof_is_zeros),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
