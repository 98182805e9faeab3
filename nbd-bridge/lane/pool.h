/* SPDX-License-Identifier: MIT */
/*
 * A lane's buffers: a buddy allocator over one span of memory, so that a single registration serves
 * requests of 4 KiB to 1 MiB and neighbours merge again.  The allocator writes nothing inside the
 * span, so memory that was never handed out stays unmapped.  The block freed last is handed out
 * first.  Owned by one thread; gets and puts allocate nothing.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_POOL_H
#define WEFT_NBD_BRIDGE_LANE_POOL_H

#include <stddef.h>

enum {
	BRIDGE_POOL_MIN = 4 << 10,
	BRIDGE_POOL_MAX = 1 << 20,
};

struct bridge_pool;

/*
 * base: page-aligned, stays the caller's; len: a multiple of BRIDGE_POOL_MAX.  0, -EINVAL, -ENOMEM.
 */
int bridge_pool_new(void *base, size_t len, struct bridge_pool **ret);
/* Takes NULL. */
void bridge_pool_free(struct bridge_pool *pool);

/*
 * At least len bytes (1 to BRIDGE_POOL_MAX), page-aligned; NULL: there is no free block that large.
 */
void *bridge_pool_get(struct bridge_pool *pool, size_t len);
/* buf comes from bridge_pool_get() (asserted). */
void bridge_pool_put(struct bridge_pool *pool, void *buf);
/* Bytes handed out, rounded up to blocks. */
size_t bridge_pool_used(const struct bridge_pool *pool);

#endif
