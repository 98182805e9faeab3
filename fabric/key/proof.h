/* SPDX-License-Identifier: MIT */
/*
 * Proof of a key over a connection that nothing else protects: both ends show that they have the
 * key, mark each message, and hide secrets.  transports/verbs/proto.h has the messages.
 *
 * Each end draws a nonce and sends it.  `transcript` is all that both have sent so far, and other
 * facts that they must agree upon.  From those and the key come four keys of 32 bytes:
 *
 *     prk = HKDF-Extract(salt: the borrower's nonce, the donor's nonce; the key's secret)
 *     one = HKDF-Expand(prk, info: "weft proof 1 " PURPOSE, a NUL, SHA-256(transcript))
 *
 * with a PURPOSE of "borrower" and "donor", under which that side marks its messages, "seal", and
 * "data".  A message's tag is HMAC(key, its number in 8 bytes, SHA-256(message)); each side
 * counts from 0.  So a tag is right for one message, at one place of one conversation, in one
 * direction: not for another that was recorded, nor for the sender's own.  Numbers are big-endian,
 * HMAC and HKDF are of SHA-256.
 *
 * Pure functions but for weft_proof_nonce(), which asks the system for random bytes.  Any thread; a
 * struct weft_proof is one thread's at a time, but for weft_proof_data(), which only reads.
 */
#ifndef WEFT_FABRIC_KEY_PROOF_H
#define WEFT_FABRIC_KEY_PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weft_key;

enum {
	WEFT_NONCE_BYTES = 32,
	WEFT_TAG_BYTES = 32,  /* of a message */
	WEFT_SEAL_BYTES = 16, /* that sealing adds */
};

enum weft_side { WEFT_SIDE_BORROWER, WEFT_SIDE_DONOR };

/* One connection's keys.  Its owner wipes it with weft_proof_wipe(). */
struct weft_proof {
	uint8_t sends[32], takes[32], seal[32], data[32];
	uint64_t nr_sent, nr_taken;
	bool over; /* a tag was wrong: none is right any more */
};

/* Random bytes that no other conversation has. */
void weft_proof_nonce(uint8_t ret[WEFT_NONCE_BYTES]);

/* `side` is ours.  0; -EIO: the library failed, and *ret is wiped. */
int weft_proof_init(const struct weft_key *key, enum weft_side side,
	const uint8_t borrower_nonce[WEFT_NONCE_BYTES], const uint8_t donor_nonce[WEFT_NONCE_BYTES],
	const void *transcript, size_t len, struct weft_proof *ret);
/* Clears it in a way that the compiler keeps. */
void weft_proof_wipe(struct weft_proof *proof);

/* The tag of the next message of ours.  0; -EIO: there is none. */
int weft_proof_mark(struct weft_proof *proof, const void *message, size_t len,
	uint8_t ret[WEFT_TAG_BYTES]);
/*
 * Whether the tag is that of the other side's next message, in a time that does not depend on it.
 * After one that is not, none is.
 */
bool weft_proof_check(struct weft_proof *proof, const void *message, size_t len,
	const uint8_t tag[WEFT_TAG_BYTES]);

/*
 * What has to stay secret, by AES-256-GCM under the key "seal", a nonce of zeros and no associated
 * data: so once for each proof, by one side.  ret of len + WEFT_SEAL_BYTES.  0, or -EIO.
 */
int weft_proof_seal(const struct weft_proof *proof, const void *plain, size_t len, uint8_t *ret);
/* The inverse, ret of len - WEFT_SEAL_BYTES.  False: it was not sealed so; *ret is zeros then. */
bool weft_proof_open(const struct weft_proof *proof, const uint8_t *sealed, size_t len, void *ret);

/* HMAC under the key "data", for what does not come in the order of messages.  0, or -EIO. */
int weft_proof_data(const struct weft_proof *proof, const void *bytes, size_t len,
	uint8_t ret[WEFT_TAG_BYTES]);

/* HMAC-SHA256, RFC 2104.  0, or -EIO. */
int weft_hmac(const void *key, size_t key_len, const void *bytes, size_t len, uint8_t ret[32]);
/* HKDF of SHA-256, RFC 5869: up to 255 * 32 bytes.  0, or -EIO. */
int weft_hkdf(const void *salt, size_t salt_len, const void *secret, size_t secret_len,
	const void *info, size_t info_len, void *ret, size_t len);

#endif
