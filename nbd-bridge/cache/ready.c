/* SPDX-License-Identifier: MIT */
/*
 * Pages of the cache's memory, which the kernel has to find and to clear, are there before a lane
 * receives into them: that would take more of the lane's time than all the rest.  A thread is a
 * little ahead of the slots that are handed out for the first time, in their order.  Memory that
 * nobody asks for is not taken.
 *
 * Threads: its own, and lanes, which tell how far they are.  A cache whose thread cannot be had
 * does without it.
 */
#include <errno.h>
#include <sys/mman.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/cache/cache-private.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

enum { AHEAD_BYTES = 16 << 20, STEP_BYTES = 2 << 20 };

/* How far the pages should be there. */
static uint64_t wanted(const struct bridge_cache *cache)
{
	uint64_t used = (uint64_t)atomic_load(&cache->ready.nr_used) << cache->shift;

	return used == 0 ? 0 : weft_min(used + AHEAD_BYTES, cache->memory_len);
}

static void *run(void *ctx)
{
	struct bridge_cache *cache = ctx;
	struct cache_ready *ready = &cache->ready;
	bool can = true;

	pthread_mutex_lock(&ready->lock);
	while (!ready->ends && can && ready->bytes < cache->memory_len) {
		if (ready->bytes >= wanted(cache)) {
			atomic_store(&ready->waits, true);
			/* Whoever came before that saw nobody to wake. */
			if (ready->bytes >= wanted(cache))
				weft_cond_wait_until(&ready->wake, &ready->lock, UINT64_MAX);
			atomic_store(&ready->waits, false);
			continue;
		}
		uint64_t at = ready->bytes, n = weft_min(STEP_BYTES, cache->memory_len - at);
		pthread_mutex_unlock(&ready->lock);
		can = madvise(cache->memory + at, n, MADV_POPULATE_WRITE) == 0;
		pthread_mutex_lock(&ready->lock);
		ready->bytes = at + n;
	}
	pthread_mutex_unlock(&ready->lock);
	return NULL;
}

void cache_ready_start(struct bridge_cache *cache)
{
	struct cache_ready *ready = &cache->ready;

	pthread_mutex_init(&ready->lock, NULL);
	weft_cond_init(&ready->wake);
	ready->runs = weft_thread_create(&ready->thread, NULL, run, cache) == 0;
}

void cache_ready_used(struct bridge_cache *cache, uint32_t slot)
{
	struct cache_ready *ready = &cache->ready;

	if (slot < atomic_load_explicit(&ready->nr_used, memory_order_relaxed))
		return;
	atomic_store(&ready->nr_used, slot + 1);
	if (!ready->runs || !atomic_load(&ready->waits))
		return;
	pthread_mutex_lock(&ready->lock);
	pthread_cond_signal(&ready->wake);
	pthread_mutex_unlock(&ready->lock);
}

void cache_ready_end(struct bridge_cache *cache)
{
	struct cache_ready *ready = &cache->ready;

	if (!ready->runs)
		return;
	pthread_mutex_lock(&ready->lock);
	ready->ends = true;
	pthread_cond_signal(&ready->wake);
	pthread_mutex_unlock(&ready->lock);
	pthread_join(ready->thread, NULL);
	pthread_cond_destroy(&ready->wake);
	pthread_mutex_destroy(&ready->lock);
	ready->runs = false;
}
