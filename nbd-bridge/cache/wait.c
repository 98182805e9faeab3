/* SPDX-License-Identifier: MIT */
/*
 * Waiting: who waits for what in the cache, and who is told that it may go on.  Any lane's thread.
 */
#include <errno.h>

#include "nbd-bridge/cache/cache-private.h"

void cache_ready(struct cache_lane *cl, struct bridge_request *rq)
{
	struct cache_lane *other = rq->cache.at;
	struct bridge_request *head = atomic_load(&other->ready);

	do
		rq->cache.wait_next = head;
	while (!atomic_compare_exchange_weak(&other->ready, &head, rq));
	/* A lane looks at its own before it sleeps. */
	if (!head && other != cl)
		weft_loop_wake(other->worker->loop);
}

static unsigned ready_all(struct cache_lane *cl, struct bridge_request **list)
{
	struct bridge_request *rq = *list;
	unsigned n = 0;

	*list = NULL;
	while (rq) {
		struct bridge_request *next = rq->cache.wait_next;

		cache_ready(cl, rq);
		rq = next;
		n++;
	}
	return n;
}

int cache_wait_chunk(struct cache_chunk *chunk, uint64_t c, struct bridge_request *rq)
{
	rq->cache.waits_at = BRIDGE_WAITS_CHUNK;
	rq->cache.wait_chunk = c;
	rq->cache.wait_next = chunk->waiters;
	chunk->waiters = rq;
	chunk->nr_pins++;
	cache_unlock(chunk);
	return -EAGAIN;
}

void cache_wake_chunk(struct cache_lane *cl, struct cache_chunk *chunk)
{
	ready_all(cl, &chunk->waiters);
}

/* Under the cache's lock. */
int cache_push_room(struct bridge_cache *cache, struct bridge_request *rq)
{
	rq->cache.waits_at = BRIDGE_WAITS_ROOM;
	rq->cache.wait_next = cache->room;
	cache->room = rq;
	return -EAGAIN;
}

int cache_wait_room(struct cache_lane *cl, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;
	int r = 1;

	/* Counted before looking, so that a lane that makes room meanwhile sees it. */
	atomic_fetch_add(&cache->nr_room, 1);
	pthread_mutex_lock(&cache->lock);
	if (atomic_load(&cache->nr_dead) >= cache->max_dirty)
		r = -EIO;
	else if (atomic_load(&cache->nr_dirty) >= cache->max_dirty)
		r = cache_push_room(cache, rq);
	if (r != -EAGAIN)
		atomic_fetch_sub(&cache->nr_room, 1);
	pthread_mutex_unlock(&cache->lock);
	return r;
}

void cache_wake_room(struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;

	if (atomic_load(&cache->nr_room) == 0)
		return;
	pthread_mutex_lock(&cache->lock);
	atomic_fetch_sub(&cache->nr_room, ready_all(cl, &cache->room));
	pthread_mutex_unlock(&cache->lock);
}

int cache_wait_io(struct cache_lane *cl, struct bridge_request *rq)
{
	rq->cache.waits_at = BRIDGE_WAITS_IO;
	rq->cache.wait_next = cl->io_waiters;
	cl->io_waiters = rq;
	return -EAGAIN;
}

/* Kicks all lanes but the own one, which looks by itself. */
static void kick(struct bridge_cache *cache, const struct cache_lane *self)
{
	for (unsigned i = 0; i < cache->lanes->nr; i++) {
		struct cache_lane *other = cache->of_lane[i];

		/* A lane that could not join is NULL; then the attach fails. */
		if (other && !atomic_exchange(&other->kicked, true) && other != self)
			weft_loop_wake(other->worker->loop);
	}
}

void cache_push_kick(struct cache_lane *cl)
{
	kick(cl->cache, cl);
}

void cache_push_now(struct bridge_cache *cache)
{
	kick(cache, NULL);
}
