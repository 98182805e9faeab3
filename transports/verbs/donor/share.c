/* SPDX-License-Identifier: MIT */
/*
 * The protection domain and memory of a generation, or of a region's readers.
 *
 * Threads: any.  shares->lock guards the list and nr_active; share->lock everything about
 * registering and deregistering.  Invariants: only shares that are not revoked are in the list.
 * Helpers register, and nobody deregisters before they have stopped.  The region is pinned from
 * before the first registration until after the last deregistration.
 */
#include "transports/verbs/donor/share.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "transports/verbs/device.h"

enum { MAX_HELPERS = 4, WAIT_NS = 250 * 1000 * 1000 };

struct verbs_share {
	struct verbs_shares *shares;
	struct verbs_share *next;
	/* The key of the share; readers' has no attachment. */
	struct ibv_context *context;
	struct weft_region *region; /* referenced, pinned until revoked */
	bool writable;
	uint8_t id[WEFT_ID_BYTES];
	uint64_t generation;

	unsigned nr_active;       /* sessions that may use it; shares->lock */
	_Atomic unsigned nr_refs; /* those, and sessions that are on their way out */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct ibv_pd *pd;
	uint64_t *epoch_word; /* a page */
	struct ibv_mr *epoch_mr;
	uint64_t chunk_bytes;
	uint32_t nr_chunks, next_chunk, nr_registered;
	unsigned nr_helpers; /* at work */
	bool cancelled, revoked;
	bool stuck; /* the driver would not deregister */
	struct weft_error failed; /* why a registration failed; code 0: none has */
	struct ibv_mr **mrs;      /* nr_chunks; NULL where not (or no more) registered */
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
	if (share->epoch_mr)
		ibv_dereg_mr(share->epoch_mr);
	if (share->pd)
		ibv_dealloc_pd(share->pd);
	free(share->epoch_word);
	free(share->mrs);
	weft_region_put(share->region);
	pthread_cond_destroy(&share->changed);
	pthread_mutex_destroy(&share->lock);
	free(share);
}

static uint64_t chunk_len(const struct verbs_share *share, uint32_t i)
{
	return weft_min(share->chunk_bytes, share->region->size_bytes - i * share->chunk_bytes);
}

/* Registers chunks until none is left. */
static void *helper_main(void *ctx)
{
	struct verbs_share *share = ctx;
	int access = IBV_ACCESS_REMOTE_READ;

	if (share->writable)
		access |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE;
	pthread_mutex_lock(&share->lock);
	while (!share->cancelled && share->failed.code == 0 &&
		share->next_chunk < share->nr_chunks) {
		uint32_t i = share->next_chunk++;

		pthread_mutex_unlock(&share->lock);
		struct ibv_mr *mr = ibv_reg_mr(share->pd,
			weft_region_memory(share->region) + i * share->chunk_bytes,
			chunk_len(share, i), access);
		int code = errno;
		pthread_mutex_lock(&share->lock);
		share->mrs[i] = mr;
		if (mr)
			share->nr_registered++;
		else
			verbs_reg_failed(code, chunk_len(share, i), &share->failed);
	}
	share->nr_helpers--;
	pthread_cond_broadcast(&share->changed);
	pthread_mutex_unlock(&share->lock);
	verbs_share_put(share);
	return NULL;
}

/* share->lock is held.  Starts at least one helper, or sets failed. */
static void start_helpers(struct verbs_share *share)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = (unsigned)weft_min(weft_min(share->nr_chunks, MAX_HELPERS),
		cpus > 0 ? (uint64_t)cpus : 1);
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (unsigned i = 0; i < n; i++) {
		pthread_t thread;

		atomic_fetch_add(&share->nr_refs, 1);
		share->nr_helpers++;
		int r = pthread_create(&thread, &attr, helper_main, share);
		if (r == 0)
			continue;
		share->nr_helpers--;
		atomic_fetch_sub(&share->nr_refs, 1);
		if (share->nr_helpers == 0)
			weft_error_set(&share->failed, r, "cannot start a thread: %s", strerror(r));
		break;
	}
	pthread_attr_destroy(&attr);
}

static int share_new(struct verbs_shares *shares, struct ibv_context *context,
	struct weft_region *region, const struct weft_hello *hello, bool writable,
	struct verbs_share **ret, struct weft_error *err)
{
	struct verbs_share *share = calloc(1, sizeof(*share));

	if (!share)
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	pthread_mutex_init(&share->lock, NULL);
	weft_cond_init(&share->changed);
	share->shares = shares;
	share->context = context;
	share->region = weft_region_get(region);
	memcpy(share->id, hello->id, sizeof(share->id));
	share->generation = hello->generation;
	share->writable = writable;
	share->chunk_bytes = shares->chunk_bytes;
	uint64_t nr = verbs_nr_chunks(region->size_bytes, share->chunk_bytes);
	if (nr <= VERBS_MAX_CHUNKS)
		share->epoch_word = verbs_pages_new(sizeof(*share->epoch_word));
	if (!share->epoch_word) {
		share_free(share);
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	}
	share->nr_chunks = (uint32_t)nr;
	*share->epoch_word = verbs_epoch_to_wire(region->epoch);
	share->mrs = calloc(nr, sizeof(share->mrs[0]));
	share->pd = ibv_alloc_pd(context);
	if (share->pd)
		share->epoch_mr = ibv_reg_mr(share->pd, share->epoch_word,
			sizeof(*share->epoch_word), IBV_ACCESS_REMOTE_READ);
	if (!share->mrs || !share->epoch_mr) {
		int code = share->mrs ? errno : ENOMEM;

		share_free(share);
		return verbs_reg_failed(code, weft_page_bytes(), err);
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

/* Waits until everything is registered. */
static int wait_registered(struct verbs_share *share, verbs_wait_fn *wait, void *ctx,
	struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&share->lock);
	while (r == 0 && share->nr_registered < share->nr_chunks) {
		if (share->failed.code || share->cancelled) {
			r = share->failed.code ? -share->failed.code : -ECANCELED;
			if (share->failed.code && err)
				*err = share->failed;
			else
				weft_error_set(err, ECANCELED,
					"cannot grant over RDMA: revoked meanwhile");
			break;
		}
		if (weft_cond_wait_until(&share->changed, &share->lock, weft_now_ns() + WAIT_NS))
			continue;
		uint64_t done = share->nr_registered * share->chunk_bytes;
		pthread_mutex_unlock(&share->lock);
		r = wait(ctx, weft_min(done, share->region->size_bytes), share->region->size_bytes);
		if (r < 0)
			weft_error_set(err, -r, "cannot grant over RDMA: %s", strerror(-r));
		pthread_mutex_lock(&share->lock);
	}
	pthread_mutex_unlock(&share->lock);
	return r;
}

int verbs_share_join(struct verbs_shares *shares, struct ibv_context *context,
	struct weft_region *region, const struct weft_hello *hello, bool writable,
	verbs_wait_fn *wait, void *ctx, struct verbs_share **ret, struct weft_error *err)
{
	bool fresh = false;
	int r;

	pthread_mutex_lock(&shares->lock);
	struct verbs_share *share = find(shares, context, region, hello, writable);
	if (!share) {
		r = verbs_memlock_check(region->size_bytes, err);
		if (r == 0)
			r = share_new(shares, context, region, hello, writable, &share, err);
		if (r < 0) {
			pthread_mutex_unlock(&shares->lock);
			return r;
		}
		share->next = shares->first;
		shares->first = share;
		weft_region_pin(region);
		fresh = true;
	}
	/*
	 * Our own reference comes first: a helper may drop its one before start_helpers() returns.
	 */
	share->nr_active++;
	atomic_fetch_add(&share->nr_refs, 1);
	if (fresh) {
		pthread_mutex_lock(&share->lock);
		start_helpers(share);
		pthread_mutex_unlock(&share->lock);
	}
	pthread_mutex_unlock(&shares->lock);
	r = wait_registered(share, wait, ctx, err);
	if (r < 0) {
		verbs_share_leave(share, NULL, false);
		verbs_share_put(share);
		return r;
	}
	*ret = share;
	return 0;
}

static int share_revoke(struct verbs_share *share)
{
	pthread_mutex_lock(&share->lock);
	share->cancelled = true;
	while (share->nr_helpers > 0)
		pthread_cond_wait(&share->changed, &share->lock);
	if (!share->revoked) {
		for (uint32_t i = 0; i < share->nr_chunks; i++) {
			if (share->mrs[i] && ibv_dereg_mr(share->mrs[i]) != 0)
				share->stuck = true;
			share->mrs[i] = NULL;
		}
		/* Pages whose deregistration is stuck stay in use. */
		if (!share->stuck)
			weft_region_unpin(share->region);
		share->revoked = true;
	}
	bool stuck = share->stuck;
	pthread_mutex_unlock(&share->lock);
	return stuck ? -EBUSY : 0;
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
	return last ? share_revoke(share) : r;
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
	return share->nr_chunks;
}

uint64_t verbs_share_chunk_bytes(const struct verbs_share *share)
{
	return share->chunk_bytes;
}

struct verbs_chunk verbs_share_chunk(struct verbs_share *share, uint32_t i)
{
	struct verbs_chunk chunk = {0};

	/* Another session's fence may be deregistering the share already. */
	pthread_mutex_lock(&share->lock);
	if (share->mrs[i])
		chunk = (struct verbs_chunk){.addr = (uintptr_t)share->mrs[i]->addr,
			.rkey = share->mrs[i]->rkey};
	pthread_mutex_unlock(&share->lock);
	return chunk;
}

struct verbs_chunk verbs_share_epoch_word(const struct verbs_share *share)
{
	return (struct verbs_chunk){.addr = (uintptr_t)share->epoch_mr->addr,
		.rkey = share->epoch_mr->rkey};
}
