/* SPDX-License-Identifier: MIT */
/*
 * Proof of a key on the control connection: who has which key, before anything is granted.
 *
 *     START      which key the borrower has, and its nonce.  In clear.
 *     CHALLENGE  the donor's nonce and the session's public number.  In clear, with a tag.
 *     HELLO      as ever, but that the attachment's id is under the seal.  With a tag.
 *     and so on  everything that follows, in both directions, has a tag.
 *
 * Keys and tags are those of fabric/key/proof.h.  Their transcript is the START and the CHALLENGE
 * as they were sent (the CHALLENGE without its tag), and the connection's ends as each side knows
 * them: the borrower's address, the donor's address and port.
 *
 * The data connection is asked for with the session's number, a counter that goes up, and
 * HMAC("data"; token, number, counter): never with the token.
 *
 * What that answers:
 *   replay      each side's nonce is new, and all keys depend on both; each tag has its number; a
 *               counter that was used is refused, and so is a second data connection
 *   reflection  each direction has its own key, and the donor alone answers a START
 *   bits that were flipped  those of START and CHALLENGE are in every key, those of all other
 *               messages in a tag
 *   downgrade   a borrower with a key takes nothing but a CHALLENGE that the key was used for, and
 *               believes no reason for a refusal before; a donor with keys takes no HELLO without
 *               one (but with --allow-insecure)
 *   another donor with the same epoch  does not have the key: the borrower ends it at the
 *               CHALLENGE, and has said nothing but the key's name
 *   relay       both ends' addresses are in every key: it has to come from where the donor expects
 *               the borrower, to where the borrower expects the donor.  Who is on the way itself
 *               can read and change the payload, which RDMA sends in plaintext; he learns neither
 *               the attachment's id nor the secret, and can open no connection of his own
 *   certificates  are shown over TLS; what is proved here is the pass of that session
 *               (fabric/key/pass.h), which a donor takes once
 *   guessing which keys there are  a donor answers a START of an unknown, expired or revoked key
 *               as any other, under a secret drawn at random
 *
 * What it does not answer: donors that have the same key can stand in for each other; and a donor
 * sends a tag to whoever names a key, so that a secret which can be guessed can be tried out at
 * home (key.h: it has 128 bits at least).
 *
 * Pure functions, but that they draw random bytes; any thread.
 */
#ifndef WEFT_TRANSPORTS_VERBS_PROOF_H
#define WEFT_TRANSPORTS_VERBS_PROOF_H

#include "fabric/key/key.h"
#include "fabric/key/proof.h"
#include "transports/verbs/proto.h"

/* One connection's.  Its owner wipes it. */
struct verbs_proof {
	bool on; /* messages have tags */
	struct weft_proof keys;
	uint8_t start[VERBS_START_MAX]; /* as it was sent */
	size_t start_len;
	uint8_t nonce[VERBS_NONCE_BYTES]; /* the borrower's */
	uint64_t session;
};

void verbs_proof_wipe(struct verbs_proof *proof);

/* The borrower's START into *ret. */
void verbs_proof_start(struct verbs_proof *proof, const struct weft_key *key,
	struct verbs_msg *ret);
/*
 * The borrower's: what came in answer.  0: *ret is a CHALLENGE, and the donor has the key; or it is
 * a REFUSE, of which nobody knows who sent it.  -EACCES: it was answered without the key; -EIO; or
 * as verbs_unpack().
 */
int verbs_proof_answered(struct verbs_proof *proof, const struct weft_key *key,
	const struct verbs_ends *ends, const uint8_t *buf, size_t len, struct verbs_msg *ret);
/* The donor's: the START that was unpacked last; its CHALLENGE into *ret.  0, or -EIO. */
int verbs_proof_challenge(struct verbs_proof *proof, const struct weft_key *key,
	const struct verbs_ends *ends, struct verbs_msg *ret);

/* The HELLO's id goes under the seal.  0, or -EIO. */
int verbs_proof_seal(const struct verbs_proof *proof, struct verbs_msg *hello);
/* The inverse, of a HELLO whose tag was right.  0, or -EPROTO. */
int verbs_proof_open(const struct verbs_proof *proof, struct verbs_msg *hello);

/* A message with the tag that it needs: as verbs_unpack(), or -EACCES: the tag is wrong. */
int verbs_proof_unpack(struct verbs_proof *proof, const uint8_t *buf, size_t len,
	struct verbs_msg *ret);
/*
 * A message that is packed in buf of VERBS_MSG_MAX gets the tag that it needs: its length with it,
 * or -EIO.
 */
int verbs_proof_mark(struct verbs_proof *proof, uint8_t *buf, size_t len);

/* What a PROVED request has to say.  0, or -EIO. */
int verbs_proof_request(const struct weft_proof *keys, const uint8_t token[VERBS_TOKEN_BYTES],
	struct verbs_private *request);
/* Whether its MAC is right; in a time that does not depend on that. */
bool verbs_proof_of_request(const struct weft_proof *keys, const uint8_t token[VERBS_TOKEN_BYTES],
	const struct verbs_private *request);

#endif
