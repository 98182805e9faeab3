/* SPDX-License-Identifier: MIT */
/*
 * A pass: how whoever showed a certificate over TLS proves over another transport that he is the
 * same, to the same donor.  Both ends of the TLS session derive the pass from the session
 * (RFC 5705, RFC 8446 7.5), and nothing of it travels; then it is proved as a key is (proof.h).
 *
 * It has the form of a key, under an identity that no key can have: '@' and 32 hex digits, which
 * say nothing of who it is.  The donor keeps passes for seconds, and takes each once
 * (fabric/donor/passes.c).
 *
 * Pure functions; any thread.
 */
#ifndef WEFT_FABRIC_KEY_PASS_H
#define WEFT_FABRIC_KEY_PASS_H

#include "fabric/key/key.h"

#define WEFT_PASS_LABEL "EXPORTER-weft-pass" /* what it is exported under, without a context */

enum {
	WEFT_PASS_ID_BYTES = 16, /* the first that are exported: in clear on the wire */
	WEFT_PASS_BYTES = WEFT_PASS_ID_BYTES + WEFT_SECRET_BYTES, /* the secret comes last */
};

/* The caller wipes *ret, and what was exported. */
void weft_pass_make(const uint8_t exported[WEFT_PASS_BYTES], struct weft_key *ret);
/* Whether the identity, a peer's bytes, is a pass's. */
bool weft_identity_is_pass(const char *identity);

#endif
