/* SPDX-License-Identifier: MIT */
/*
 * A region's memory, registered with a device in chunks, by several threads at once.
 *
 * Threads: any; the functions that talk to the driver block.  The region is pinned from before the
 * first registration until after the last deregistration.  Nobody deregisters before the threads
 * that register have stopped.
 */
#ifndef WEFT_TRANSPORTS_RDMA_MEMORY_H
#define WEFT_TRANSPORTS_RDMA_MEMORY_H

#include <infiniband/verbs.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/region/region.h"

struct weft_rdma_memory;

/*
 * Called every quarter of a second while memory is being registered; a negative return ends that
 * with this error.
 */
typedef int weft_rdma_wait_fn(void *ctx, uint64_t done_bytes, uint64_t total_bytes);

static inline uint64_t weft_rdma_nr_chunks(uint64_t size_bytes, uint64_t chunk_bytes)
{
	return size_bytes / chunk_bytes + (size_bytes % chunk_bytes != 0);
}

/*
 * Begins to register the region, of which a reference is taken, in pd, which must outlive *ret.
 * chunk_bytes: a multiple of the page size, of which at most 2^32 - 1 make the region.  access: of
 * ibv_reg_mr(3).  -ENOMEM.
 */
int weft_rdma_memory_new(struct ibv_pd *pd, struct weft_region *region, uint64_t chunk_bytes,
	int access, struct weft_rdma_memory **ret, struct weft_error *err);
/*
 * Waits until all is registered.  What ibv_reg_mr(3) and wait said; -ECANCELED: it was revoked
 * meanwhile.
 */
int weft_rdma_memory_wait(struct weft_rdma_memory *memory, weft_rdma_wait_fn *wait, void *ctx,
	struct weft_error *err);
/*
 * Deregisters: no queue pair reaches the region through these keys any more.  May be called again.
 * 0; -EBUSY: the driver refused, and the region stays pinned.
 */
int weft_rdma_memory_revoke(struct weft_rdma_memory *memory);
/* Revoked before (asserted).  Takes NULL. */
void weft_rdma_memory_free(struct weft_rdma_memory *memory);

uint32_t weft_rdma_memory_nr_chunks(const struct weft_rdma_memory *memory);
/* The chunk's address and keys; zeros where it is not registered, or no longer. */
struct weft_rdma_chunk {
	uint8_t *addr;
	uint32_t lkey, rkey;
};
struct weft_rdma_chunk weft_rdma_memory_chunk(struct weft_rdma_memory *memory, uint32_t i);

#endif
