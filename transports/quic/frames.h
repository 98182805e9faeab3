/* SPDX-License-Identifier: MIT */
/*
 * What is in a packet, before ngtcp2 acts on it.  Pure functions; any thread.
 */
#ifndef WEFT_TRANSPORTS_QUIC_FRAMES_H
#define WEFT_TRANSPORTS_QUIC_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Whether a frame of the payload, which was decrypted, tells the peer to retire connection ids
 * (NEW_CONNECTION_ID with a Retire Prior To: RFC 9000, 19.15).  Neither end of weft's does, and
 * ngtcp2 before 1.2 ends the process when it hears twice of an id that was retired so.
 */
bool quic_frames_retire(const uint8_t *payload, size_t len);

#endif
