/* SPDX-License-Identifier: MIT */
/*
 * The protection domain and memory of a generation, or of a region's readers.
 *
 * Threads: any.  shares->lock guards the list and nr_active.  Invariant: only shares that are not
 * revoked are in the list.
 */
#include "transports/verbs/donor/share.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "transports/rdma/device.h"

struct verbs_share {
	struct verbs_shares *shares;
	struct verbs_share *next;
	/* The key of the share; readers' has no attachment. */
	struct ibv_context *context;
	struct weft_region *region; /* referenced */
	bool writable;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation;

	unsigned nr_active;       /* sessions that may use it; shares->lock */
	_Atomic unsigned nr_refs; /* those, and sessions that are on their way out */

	struct ibv_pd *pd;
	uint64_t *epoch_word; /* a page */
	struct ibv_mr *epoch_mr;
	struct weft_rdma_memory *memory;
};

void verbs_shares_init(struct verbs_shares *shares, uint64_t chunk_bytes)
{
	pthread_mutex_init(&shares->lock, NULL);
	shares->first = NULL;
	shares->chunk_bytes = chunk_bytes;
}

void verbs_shares_fini(struct verbs_shares *shares)
{
	assert(!shares->first);
	pthread_mutex_destroy(&shares->lock);
}

static void share_free(struct verbs_share *share)
{
	weft_rdma_memory_free(share->memory);
	if (share->epoch_mr)
		ibv_dereg_mr(share->epoch_mr);
	if (share->pd)
		ibv_dealloc_pd(share->pd);
	free(share->epoch_word);
	weft_region_put(share->region);
	free(share);
}

static int share_new(struct verbs_shares *shares, struct ibv_context *context,
	struct weft_region *region, const struct weft_hello *hello, bool writable,
	struct verbs_share **ret, struct weft_error *err)
{
	struct verbs_share *share = calloc(1, sizeof(*share));

	if (!share)
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	share->shares = shares;
	share->context = context;
	share->region = weft_region_get(region);
	memcpy(share->id, hello->id, sizeof(share->id));
	share->generation = hello->generation;
	share->writable = writable;
	if (weft_rdma_nr_chunks(region->size_bytes, shares->chunk_bytes) <= VERBS_MAX_CHUNKS)
		share->epoch_word = weft_rdma_pages_new(sizeof(*share->epoch_word));
	if (!share->epoch_word) {
		share_free(share);
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	}
	*share->epoch_word = verbs_epoch_to_wire(region->epoch);
	share->pd = ibv_alloc_pd(context);
	if (share->pd)
		share->epoch_mr = ibv_reg_mr(share->pd, share->epoch_word,
			sizeof(*share->epoch_word), IBV_ACCESS_REMOTE_READ);
	if (!share->epoch_mr) {
		int code = errno;

		share_free(share);
		return weft_rdma_reg_failed(code, weft_page_bytes(), err);
	}
	int r = weft_rdma_memory_new(share->pd, region, shares->chunk_bytes,
		IBV_ACCESS_REMOTE_READ |
			(writable ? IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE : 0),
		&share->memory, err);
	if (r < 0) {
		share_free(share);
		return r;
	}
	*ret = share;
	return 0;
}

static struct verbs_share *find(struct verbs_shares *shares, struct ibv_context *context,
	struct weft_region *region, const struct weft_hello *hello, bool writable)
{
	for (struct verbs_share *s = shares->first; s; s = s->next)
		if (s->context == context && s->region == region && s->writable == writable &&
			(!writable ||
				(s->generation == hello->generation &&
					memcmp(s->id, hello->id, sizeof(s->id)) == 0)))
			return s;
	return NULL;
}

int verbs_share_join(struct verbs_shares *shares, struct ibv_context *context,
	struct weft_region *region, const struct weft_hello *hello, bool writable,
	weft_rdma_wait_fn *wait, void *ctx, struct verbs_share **ret, struct weft_error *err)
{
	int r;

	pthread_mutex_lock(&shares->lock);
	struct verbs_share *share = find(shares, context, region, hello, writable);
	if (!share) {
		r = weft_rdma_memlock_check(region->size_bytes, err);
		if (r == 0)
			r = share_new(shares, context, region, hello, writable, &share, err);
		if (r < 0) {
			pthread_mutex_unlock(&shares->lock);
			return r;
		}
		share->next = shares->first;
		shares->first = share;
	}
	share->nr_active++;
	atomic_fetch_add(&share->nr_refs, 1);
	pthread_mutex_unlock(&shares->lock);
	r = weft_rdma_memory_wait(share->memory, wait, ctx, err);
	if (r < 0) {
		verbs_share_leave(share, NULL, false);
		verbs_share_put(share);
		return r;
	}
	*ret = share;
	return 0;
}

/* Makes the card answer nothing over the queue pair any more.  0, or -EBUSY. */
static int end_queue_pair(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	return qp && ibv_modify_qp(qp, &attr, IBV_QP_STATE) != 0 ? -EBUSY : 0;
}

int verbs_share_leave(struct verbs_share *share, struct ibv_qp *qp, bool fenced)
{
	struct verbs_shares *shares = share->shares;
	int r = share->writable ? 0 : end_queue_pair(qp);

	pthread_mutex_lock(&shares->lock);
	assert(share->nr_active > 0);
	bool last = --share->nr_active == 0 || (fenced && share->writable);
	if (last) {
		struct verbs_share **p = &shares->first;

		while (*p && *p != share)
			p = &(*p)->next;
		if (*p)
			*p = share->next;
	}
	pthread_mutex_unlock(&shares->lock);
	return last ? weft_rdma_memory_revoke(share->memory) : r;
}

void verbs_share_put(struct verbs_share *share)
{
	if (atomic_fetch_sub(&share->nr_refs, 1) == 1)
		share_free(share);
}

struct ibv_pd *verbs_share_pd(struct verbs_share *share)
{
	return share->pd;
}

uint32_t verbs_share_nr_chunks(const struct verbs_share *share)
{
	return weft_rdma_memory_nr_chunks(share->memory);
}

uint64_t verbs_share_chunk_bytes(const struct verbs_share *share)
{
	return share->shares->chunk_bytes;
}

struct verbs_chunk verbs_share_chunk(struct verbs_share *share, uint32_t i)
{
	struct weft_rdma_chunk chunk = weft_rdma_memory_chunk(share->memory, i);

	return (struct verbs_chunk){.addr = (uintptr_t)chunk.addr, .rkey = chunk.rkey};
}

struct verbs_chunk verbs_share_epoch_word(const struct verbs_share *share)
{
	return (struct verbs_chunk){.addr = (uintptr_t)share->epoch_mr->addr,
		.rkey = share->epoch_mr->rkey};
}
