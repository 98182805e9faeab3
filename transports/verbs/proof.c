/* SPDX-License-Identifier: MIT */
/* Proof of a key on the control connection; see proof.h. */
#include "transports/verbs/proof.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

_Static_assert((int)VERBS_NONCE_BYTES == (int)WEFT_NONCE_BYTES, "nonces");
_Static_assert((int)VERBS_TAG_BYTES == (int)WEFT_TAG_BYTES, "tags");
_Static_assert((int)VERBS_SEALED_BYTES == (int)WEFT_ID_BYTES + (int)WEFT_SEAL_BYTES, "an id");
_Static_assert((int)VERBS_IDENTITY_MAX == (int)WEFT_IDENTITY_MAX, "identities");

void verbs_proof_wipe(struct verbs_proof *proof)
{
	explicit_bzero(proof, sizeof(*proof));
}

void verbs_proof_start(struct verbs_proof *proof, const struct weft_key *key, struct verbs_msg *ret)
{
	uint8_t buf[VERBS_MSG_MAX];

	*ret = (struct verbs_msg){.type = VERBS_START};
	weft_proof_nonce(ret->start.nonce);
	ret->start.version = VERBS_PROOF_VERSION;
	snprintf(ret->start.identity, sizeof(ret->start.identity), "%s", key->identity);
	proof->start_len = verbs_pack(ret, buf);
	memcpy(proof->start, buf, proof->start_len);
	memcpy(proof->nonce, ret->start.nonce, sizeof(proof->nonce));
}

/* From here on there are tags: the challenge has the first. */
static int begin(struct verbs_proof *proof, const struct weft_key *key, enum weft_side side,
	const struct verbs_ends *ends, const struct verbs_msg *challenge, const uint8_t *buf,
	size_t len)
{
	uint8_t transcript[2 * VERBS_START_MAX + VERBS_ENDS_BYTES], *end = transcript;

	end = mempcpy(end, proof->start, proof->start_len);
	end = mempcpy(end, buf, len);
	verbs_pack_ends(ends, end);
	end += VERBS_ENDS_BYTES;
	proof->session = challenge->challenge.session;
	int r = weft_proof_init(key, side, proof->nonce, challenge->challenge.nonce, transcript,
		(size_t)(end - transcript), &proof->keys);
	proof->on = r == 0;
	return r;
}

int verbs_proof_answered(struct verbs_proof *proof, const struct weft_key *key,
	const struct verbs_ends *ends, const uint8_t *buf, size_t len, struct verbs_msg *ret)
{
	struct verbs_msg msg;
	int r = verbs_unpack(buf, len, &msg);

	if (r == 0 && msg.type == VERBS_REFUSE) {
		*ret = msg;
		return 0;
	}
	if (len < VERBS_TAG_BYTES)
		return -EPROTO;
	len -= VERBS_TAG_BYTES;
	r = verbs_unpack(buf, len, &msg);
	if (r == 0 && msg.type != VERBS_CHALLENGE)
		r = -EPROTO;
	if (r == 0)
		r = begin(proof, key, WEFT_SIDE_BORROWER, ends, &msg, buf, len);
	if (r < 0)
		return r;
	if (!weft_proof_check(&proof->keys, buf, len, buf + len))
		return -EACCES;
	*ret = msg;
	return 0;
}

int verbs_proof_challenge(struct verbs_proof *proof, const struct weft_key *key,
	const struct verbs_ends *ends, struct verbs_msg *ret)
{
	uint8_t buf[VERBS_MSG_MAX];

	*ret = (struct verbs_msg){.type = VERBS_CHALLENGE};
	weft_proof_nonce(ret->challenge.nonce);
	ret->challenge.session = weft_random_name();
	size_t len = verbs_pack(ret, buf);
	return begin(proof, key, WEFT_SIDE_DONOR, ends, ret, buf, len);
}

int verbs_proof_seal(const struct verbs_proof *proof, struct verbs_msg *hello)
{
	uint8_t *id = hello->hello.hello.id;
	int r = weft_proof_seal(&proof->keys, id, WEFT_ID_BYTES, hello->hello.sealed);

	memset(id, 0, WEFT_ID_BYTES);
	return r;
}

int verbs_proof_open(const struct verbs_proof *proof, struct verbs_msg *hello)
{
	return weft_proof_open(&proof->keys, hello->hello.sealed, sizeof(hello->hello.sealed),
		       hello->hello.hello.id)
		? 0
		: -EPROTO;
}

int verbs_proof_unpack(struct verbs_proof *proof, const uint8_t *buf, size_t len,
	struct verbs_msg *ret)
{
	if (proof->on) {
		if (len < VERBS_TAG_BYTES)
			return -EPROTO;
		len -= VERBS_TAG_BYTES;
		if (!weft_proof_check(&proof->keys, buf, len, buf + len))
			return -EACCES;
	}
	int r = verbs_unpack(buf, len, ret);
	if (r == 0 && ret->type == VERBS_START) {
		memcpy(proof->start, buf, len);
		proof->start_len = len;
		memcpy(proof->nonce, ret->start.nonce, sizeof(proof->nonce));
	}
	return r;
}

int verbs_proof_mark(struct verbs_proof *proof, uint8_t *buf, size_t len)
{
	if (!proof->on)
		return (int)len;
	int r = weft_proof_mark(&proof->keys, buf, len, buf + len);
	return r < 0 ? r : (int)(len + VERBS_TAG_BYTES);
}

static int mac_of(const struct weft_proof *keys, const uint8_t token[VERBS_TOKEN_BYTES],
	const struct verbs_private *request, uint8_t ret[VERBS_TAG_BYTES])
{
	uint8_t maced[VERBS_MACED_BYTES];

	verbs_pack_maced(token, request->session, request->counter, maced);
	return weft_proof_data(keys, maced, sizeof(maced), ret);
}

int verbs_proof_request(const struct weft_proof *keys, const uint8_t token[VERBS_TOKEN_BYTES],
	struct verbs_private *request)
{
	request->purpose = VERBS_PROVED;
	return mac_of(keys, token, request, request->mac);
}

bool verbs_proof_of_request(const struct weft_proof *keys, const uint8_t token[VERBS_TOKEN_BYTES],
	const struct verbs_private *request)
{
	uint8_t right[VERBS_TAG_BYTES];

	return mac_of(keys, token, request, right) == 0 &&
		weft_secret_equal(right, request->mac, sizeof(right));
}
