/* SPDX-License-Identifier: MIT */
/*
 * What is in a packet, before ngtcp2 acts on it.  Pure functions; any thread.
 */
#ifndef WEFT_TRANSPORTS_QUIC_FRAMES_H
#define WEFT_TRANSPORTS_QUIC_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the connection ids that a payload gives away say (NEW_CONNECTION_ID: RFC 9000, 19.15). */
struct quic_frames_ids {
	uint64_t highest; /* of their sequence numbers; 0: there are none */
	bool retire;      /* one says that others are to be retired (Retire Prior To) */
};

/* The payload was decrypted.  What is behind a frame that is none is not looked at. */
struct quic_frames_ids quic_frames_ids(const uint8_t *payload, size_t len);

#endif
