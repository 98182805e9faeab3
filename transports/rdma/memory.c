/* SPDX-License-Identifier: MIT */
/*
 * Registering a region's memory.  Threads: any; memory->lock guards everything about registering
 * and deregistering.  Invariant: a thread that registers (a helper) has a reference.
 */
#include "transports/rdma/memory.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "transports/rdma/device.h"

enum { MAX_HELPERS = 4, WAIT_NS = 250 * 1000 * 1000 };

struct weft_rdma_memory {
	_Atomic unsigned nr_refs; /* the owner's, and the helpers' */
	struct ibv_pd *pd;
	struct weft_region *region; /* referenced, pinned until revoked */
	uint64_t chunk_bytes;
	int access;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t nr_chunks, next_chunk, nr_registered;
	unsigned nr_helpers; /* at work */
	bool cancelled, revoked;
	bool stuck; /* the driver would not deregister */
	struct weft_error failed; /* why a registration failed; code 0: none has */
	struct ibv_mr **mrs;      /* nr_chunks; NULL where not (or no more) registered */
};

static void put(struct weft_rdma_memory *memory)
{
	if (atomic_fetch_sub(&memory->nr_refs, 1) != 1)
		return;
	free(memory->mrs);
	weft_region_put(memory->region);
	pthread_cond_destroy(&memory->changed);
	pthread_mutex_destroy(&memory->lock);
	free(memory);
}

static uint64_t chunk_len(const struct weft_rdma_memory *memory, uint32_t i)
{
	return weft_min(memory->chunk_bytes, memory->region->size_bytes - i * memory->chunk_bytes);
}

/* Registers chunks until none is left. */
static void *helper_main(void *ctx)
{
	struct weft_rdma_memory *memory = ctx;

	pthread_mutex_lock(&memory->lock);
	while (!memory->cancelled && memory->failed.code == 0 &&
		memory->next_chunk < memory->nr_chunks) {
		uint32_t i = memory->next_chunk++;

		pthread_mutex_unlock(&memory->lock);
		struct ibv_mr *mr = ibv_reg_mr(memory->pd,
			weft_region_memory(memory->region) + i * memory->chunk_bytes,
			chunk_len(memory, i), memory->access);
		int code = errno;
		pthread_mutex_lock(&memory->lock);
		memory->mrs[i] = mr;
		if (mr)
			memory->nr_registered++;
		else
			weft_rdma_reg_failed(code, chunk_len(memory, i), &memory->failed);
	}
	memory->nr_helpers--;
	pthread_cond_broadcast(&memory->changed);
	pthread_mutex_unlock(&memory->lock);
	put(memory);
	return NULL;
}

/* memory->lock is held.  Starts at least one helper, or sets failed. */
static void start_helpers(struct weft_rdma_memory *memory)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = (unsigned)weft_min(weft_min(memory->nr_chunks, MAX_HELPERS),
		cpus > 0 ? (uint64_t)cpus : 1);
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (unsigned i = 0; i < n; i++) {
		pthread_t thread;

		atomic_fetch_add(&memory->nr_refs, 1);
		memory->nr_helpers++;
		int r = pthread_create(&thread, &attr, helper_main, memory);
		if (r == 0)
			continue;
		memory->nr_helpers--;
		atomic_fetch_sub(&memory->nr_refs, 1);
		if (memory->nr_helpers == 0)
			weft_error_set(
				&memory->failed, r, "cannot start a thread: %s", strerror(r));
		break;
	}
	pthread_attr_destroy(&attr);
}

int weft_rdma_memory_new(struct ibv_pd *pd, struct weft_region *region, uint64_t chunk_bytes,
	int access, struct weft_rdma_memory **ret, struct weft_error *err)
{
	uint64_t nr = weft_rdma_nr_chunks(region->size_bytes, chunk_bytes);
	struct weft_rdma_memory *memory = calloc(1, sizeof(*memory));
	struct ibv_mr **mrs = memory && nr < UINT32_MAX ? calloc(nr, sizeof(mrs[0])) : NULL;

	if (!mrs) {
		free(memory);
		return weft_error_set(err, ENOMEM, "cannot grant over RDMA: out of memory");
	}
	pthread_mutex_init(&memory->lock, NULL);
	weft_cond_init(&memory->changed);
	atomic_init(&memory->nr_refs, 1);
	memory->pd = pd;
	memory->region = weft_region_get(region);
	memory->chunk_bytes = chunk_bytes;
	memory->nr_chunks = (uint32_t)nr;
	memory->access = access;
	memory->mrs = mrs;
	weft_region_pin(region);
	pthread_mutex_lock(&memory->lock);
	start_helpers(memory);
	pthread_mutex_unlock(&memory->lock);
	*ret = memory;
	return 0;
}

int weft_rdma_memory_wait(struct weft_rdma_memory *memory, weft_rdma_wait_fn *wait, void *ctx,
	struct weft_error *err)
{
	int r = 0;

	pthread_mutex_lock(&memory->lock);
	while (r == 0 && memory->nr_registered < memory->nr_chunks) {
		if (memory->failed.code || memory->cancelled) {
			r = memory->failed.code ? -memory->failed.code : -ECANCELED;
			if (memory->failed.code && err)
				*err = memory->failed;
			else
				weft_error_set(err, ECANCELED,
					"cannot grant over RDMA: revoked meanwhile");
			break;
		}
		if (weft_cond_wait_until(&memory->changed, &memory->lock, weft_now_ns() + WAIT_NS))
			continue;
		uint64_t done = memory->nr_registered * memory->chunk_bytes;
		pthread_mutex_unlock(&memory->lock);
		r = wait(ctx, weft_min(done, memory->region->size_bytes),
			memory->region->size_bytes);
		if (r < 0)
			weft_error_set(err, -r, "cannot grant over RDMA: %s", strerror(-r));
		pthread_mutex_lock(&memory->lock);
	}
	pthread_mutex_unlock(&memory->lock);
	return r;
}

int weft_rdma_memory_revoke(struct weft_rdma_memory *memory)
{
	pthread_mutex_lock(&memory->lock);
	memory->cancelled = true;
	while (memory->nr_helpers > 0)
		pthread_cond_wait(&memory->changed, &memory->lock);
	if (!memory->revoked) {
		for (uint32_t i = 0; i < memory->nr_chunks; i++) {
			if (memory->mrs[i] && ibv_dereg_mr(memory->mrs[i]) != 0)
				memory->stuck = true;
			memory->mrs[i] = NULL;
		}
		/* Pages whose deregistration is stuck stay in use. */
		if (!memory->stuck)
			weft_region_unpin(memory->region);
		memory->revoked = true;
	}
	bool stuck = memory->stuck;
	pthread_mutex_unlock(&memory->lock);
	return stuck ? -EBUSY : 0;
}

void weft_rdma_memory_free(struct weft_rdma_memory *memory)
{
	if (!memory)
		return;
	assert(memory->revoked);
	put(memory);
}

uint32_t weft_rdma_memory_nr_chunks(const struct weft_rdma_memory *memory)
{
	return memory->nr_chunks;
}

struct weft_rdma_chunk weft_rdma_memory_chunk(struct weft_rdma_memory *memory, uint32_t i)
{
	struct weft_rdma_chunk chunk = {0};

	/* Somebody may be deregistering already. */
	pthread_mutex_lock(&memory->lock);
	if (memory->mrs[i])
		chunk = (struct weft_rdma_chunk){
			.addr = memory->mrs[i]->addr,
			.lkey = memory->mrs[i]->lkey,
			.rkey = memory->mrs[i]->rkey,
		};
	pthread_mutex_unlock(&memory->lock);
	return chunk;
}
