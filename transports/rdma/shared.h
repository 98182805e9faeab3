/* SPDX-License-Identifier: MIT */
/*
 * Protection domains and registrations that the transports of a process share: of each device and
 * access one domain, of the same bytes in it one registration.  Any thread; may block.
 */
#ifndef WEFT_TRANSPORTS_RDMA_SHARED_H
#define WEFT_TRANSPORTS_RDMA_SHARED_H

#include <infiniband/verbs.h>
#include <stddef.h>

/* access: of ibv_reg_mr(3), for all that is registered.  NULL with errno. */
struct ibv_pd *weft_rdma_pd_get(struct ibv_context *context, int access);
/* Everything that was got with it was put before. */
void weft_rdma_pd_put(struct ibv_pd *pd);
/* pd: of weft_rdma_pd_get().  NULL with errno. */
struct ibv_mr *weft_rdma_mr_get(struct ibv_pd *pd, void *base, size_t len);
void weft_rdma_mr_put(struct ibv_mr *mr);

#endif
