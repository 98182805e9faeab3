/* SPDX-License-Identifier: MIT */
/*
 * A share is what sessions may touch: a protection domain and the memory regions in it.  The
 * sessions (lanes) of a writer's generation at one device have a share.  All readers of a region at
 * one device have another, so that the region is registered once for them.
 *
 * Threads: any; functions that talk to the driver block, and are for sessions' threads.  Revocation
 * of a writer is deregistration: once verbs_share_leave() has returned 0 for a fenced session, or
 * for the last one, no queue pair of the generation reaches the region any more, whatever state it
 * is in.  A reader is revoked by putting its queue pair into the error state, so that others go on
 * reading. A reader could change nothing but its sign of life.
 */
#ifndef WEFT_TRANSPORTS_VERBS_DONOR_SHARE_H
#define WEFT_TRANSPORTS_VERBS_DONOR_SHARE_H

#include <infiniband/verbs.h>
#include <pthread.h>

#include "fabric/donor/donor.h"
#include "transports/rdma/memory.h"
#include "transports/verbs/proto.h"

struct verbs_share;

/* All shares of a donor. */
struct verbs_shares {
	pthread_mutex_t lock;
	struct verbs_share *first;
	uint64_t chunk_bytes; /* of memory regions; a multiple of the page size */
};

void verbs_shares_init(struct verbs_shares *shares, uint64_t chunk_bytes);
/* No share is left (asserted). */
void verbs_shares_fini(struct verbs_shares *shares);

/*
 * Joins the share of this grant's generation, or of the readers, or makes it, and waits until its
 * memory is registered.  A file region must be staged before, and until after verbs_share_leave().
 * *ret must be left, then put.  -ENOMEM with the limit and the fix; what ibv_reg_mr(3) says; what
 * wait said.
 */
int verbs_share_join(struct verbs_shares *shares, struct ibv_context *context,
	struct weft_region *region, const struct weft_hello *hello, bool writable,
	weft_rdma_wait_fn *wait, void *ctx, struct verbs_share **ret, struct weft_error *err);
/*
 * Ends a session's access.  qp: the session's queue pair in the share's protection domain, or NULL;
 * a reader's goes into the error state.  The whole share is revoked if a writer is fenced, or if
 * this was the last session.  0; -EBUSY: the driver refused, and access ends with the queue pairs.
 */
int verbs_share_leave(struct verbs_share *share, struct ibv_qp *qp, bool fenced);
/* After verbs_share_leave(), and after the session's queue pair was destroyed. */
void verbs_share_put(struct verbs_share *share);

struct ibv_pd *verbs_share_pd(struct verbs_share *share);
uint32_t verbs_share_nr_chunks(const struct verbs_share *share);
uint64_t verbs_share_chunk_bytes(const struct verbs_share *share);
/* To be called while joined. */
struct verbs_chunk verbs_share_chunk(struct verbs_share *share, uint32_t i);
struct verbs_chunk verbs_share_epoch_word(const struct verbs_share *share);

#endif
