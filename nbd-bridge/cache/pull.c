/* SPDX-License-Identifier: MIT */
/* Pulling: the whole region in the background, as far as there is memory.  Runs on lanes. */
#include "nbd-bridge/cache/cache-private.h"

enum { BUSY_NS = 1000000, AFTER_FAILURE_NS = 100000000 };

static int end_pull(struct cache_io *io, struct cache_slot *slot, int error)
{
	error = cache_end_fetch(io, slot, error);
	if (error == 0)
		weft_count(&io->cl->counters.pulled_bytes, io->rq.len);
	return error;
}

/* The others follow; after a failure not at once. */
static void after_pull(struct cache_lane *cl, int error)
{
	atomic_fetch_sub(&cl->cache->nr_pulls, 1);
	if (error == 0)
		cache_pull(cl);
	else
		weft_loop_timer_set(cl->worker->loop, &cl->pull, AFTER_FAILURE_NS);
}

static void begin_pull(struct cache_lane *cl)
{
	atomic_fetch_add(&cl->cache->nr_pulls, 1);
}

static const struct cache_io_kind pull_kind = {.use = CACHE_PULL,
	.begin = begin_pull,
	.end = end_pull,
	.after = after_pull};

/* When the next may start, as --pull-rate says. */
static bool may_pull(struct cache_lane *cl, uint64_t len)
{
	struct bridge_cache *cache = cl->cache;
	uint64_t rate = cache->config.pull_rate, now_ns = weft_now_ns();

	if (rate == 0)
		return true;
	uint64_t due_ns = atomic_load(&cache->pull_due_ns), next_ns;
	do {
		if (due_ns > now_ns) {
			weft_loop_timer_set(cl->worker->loop, &cl->pull, due_ns - now_ns);
			return false;
		}
		next_ns = weft_max(due_ns, now_ns - weft_min(now_ns, 10000000)) +
			len * 1000000 / rate * 1000;
	} while (!atomic_compare_exchange_weak(&cache->pull_due_ns, &due_ns, next_ns));
	return true;
}

static bool has_free_slot(struct bridge_cache *cache, uint64_t c)
{
	struct cache_chunk *chunk = cache_lock(cache, c);
	bool has = chunk->slot != 0;

	cache_unlock(chunk);
	if (has)
		return true;
	pthread_mutex_lock(&cache->lock);
	has = cache->nr_free > 0;
	pthread_mutex_unlock(&cache->lock);
	return has;
}

void cache_pull(struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;
	const struct bridge_cache_config *config = &cache->config;

	if (!config->pull || !lane_is_ready(cl->lane))
		return;
	while (atomic_load(&cache->nr_pulls) < config->pull_workers &&
		!atomic_load(&cache->pull_full)) {
		uint64_t turn = atomic_load(&cache->pull_next);

		if (turn >= cache->nr_chunks)
			return;
		uint64_t c = cache->pull_order ? cache->pull_order[turn] : turn;
		if (cl->nr_free <= CACHE_RATHER_IOS) {
			weft_loop_timer_set(cl->worker->loop, &cl->pull, BUSY_NS);
			return;
		}
		if (!may_pull(cl, cache_chunk_bytes(cache)))
			return;
		if (!atomic_compare_exchange_strong(&cache->pull_next, &turn, turn + 1))
			continue;
		if (has_free_slot(cache, c))
			cache_fetch_range(cl, c << cache->shift, cache_chunk_bytes(cache),
				&pull_kind);
		else
			atomic_store(&cache->pull_full, true);
	}
}

static void on_pull(struct weft_timer *timer)
{
	struct cache_lane *cl = weft_container_of(timer, struct cache_lane, pull);

	cache_pull(cl);
}

void cache_pull_init(struct cache_lane *cl)
{
	cl->pull.fn = on_pull;
}
