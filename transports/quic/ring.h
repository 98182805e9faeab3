/* SPDX-License-Identifier: MIT */
/*
 * A ring of bytes that stand at the offsets of a stream.  Memory is touched only where bytes were:
 * a ring that is empty begins at its start again.  Owned by the connection's thread.
 *
 * Invariant: bytes from head to tail are there; tail - head is at most QUIC_RING_BYTES.
 */
#ifndef WEFT_TRANSPORTS_QUIC_RING_H
#define WEFT_TRANSPORTS_QUIC_RING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * So much of a stream may be on its way, in each direction: the flow-control window of a stream,
 * and what of it is kept until it is acknowledged.  All streams of a connection together: 32 MiB a
 * round trip, which is 335 MB/s at 100 ms.  It is not taken from the measured path, as less would
 * save nothing: the sender's congestion control has measured how much may be on its way, and memory
 * is touched as far as so much was there.
 */
enum { QUIC_RING_BYTES = 2 << 20 };

struct quic_ring {
	uint8_t *bytes; /* NULL: not made yet */
	uint64_t head, tail; /* offsets in the stream */
	uint64_t origin; /* the offset that stands at the start of bytes */
};

/* 0, or -ENOMEM. */
int quic_ring_init(struct quic_ring *ring);
void quic_ring_fini(struct quic_ring *ring);

static inline size_t quic_ring_room(const struct quic_ring *ring)
{
	return QUIC_RING_BYTES - (size_t)(ring->tail - ring->head);
}

/* Appends as many of the bytes as there is room for; how many. */
size_t quic_ring_put(struct quic_ring *ring, const void *bytes, size_t len);
/* Takes up to len bytes off the head; how many. */
size_t quic_ring_take(struct quic_ring *ring, void *bytes, size_t len);
/* Bytes before off are not needed any more. */
void quic_ring_drop(struct quic_ring *ring, uint64_t off);
/* Where the bytes from off on lie, at most len of them: one piece or two; how many pieces. */
unsigned quic_ring_at(const struct quic_ring *ring, uint64_t off, size_t len,
	struct iovec ret[2]);

#endif
