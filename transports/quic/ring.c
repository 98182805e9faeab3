/* SPDX-License-Identifier: MIT */
/* A ring of bytes; see ring.h. */
#include "transports/quic/ring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/base/map.h"
#include "fabric/base/util.h"

int quic_ring_init(struct quic_ring *ring)
{
	*ring = (struct quic_ring){.bytes = weft_map_bytes(QUIC_RING_BYTES)};
	return ring->bytes ? 0 : -ENOMEM;
}

void quic_ring_fini(struct quic_ring *ring)
{
	weft_unmap_bytes(ring->bytes, QUIC_RING_BYTES);
	ring->bytes = NULL;
}

unsigned quic_ring_at(const struct quic_ring *ring, uint64_t off, size_t len, struct iovec ret[2])
{
	const size_t at = (size_t)((off - ring->origin) % QUIC_RING_BYTES);
	const size_t first = weft_min(len, QUIC_RING_BYTES - at);

	assert(off >= ring->head && off - ring->head <= QUIC_RING_BYTES);
	ret[0] = (struct iovec){ring->bytes + at, first};
	ret[1] = (struct iovec){ring->bytes, len - first};
	return len > first ? 2 : 1;
}

size_t quic_ring_put(struct quic_ring *ring, const void *bytes, size_t len)
{
	struct iovec to[2];

	len = weft_min(len, quic_ring_room(ring));
	unsigned nr = quic_ring_at(ring, ring->tail, len, to);
	memcpy(to[0].iov_base, bytes, to[0].iov_len);
	if (nr > 1)
		memcpy(to[1].iov_base, (const uint8_t *)bytes + to[0].iov_len, to[1].iov_len);
	ring->tail += len;
	return len;
}

void quic_ring_drop(struct quic_ring *ring, uint64_t off)
{
	assert(off >= ring->head && off <= ring->tail);
	ring->head = off;
	if (ring->head == ring->tail)
		ring->origin = ring->head;
}

size_t quic_ring_take(struct quic_ring *ring, void *bytes, size_t len)
{
	struct iovec from[2];

	len = weft_min(len, ring->tail - ring->head);
	unsigned nr = quic_ring_at(ring, ring->head, len, from);
	memcpy(bytes, from[0].iov_base, from[0].iov_len);
	if (nr > 1)
		memcpy((uint8_t *)bytes + from[0].iov_len, from[1].iov_base, from[1].iov_len);
	quic_ring_drop(ring, ring->head + len);
	return len;
}
