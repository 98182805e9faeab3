/* SPDX-License-Identifier: MIT */
/*
 * Pulling: the whole region in the background, as far as there is memory.  Each lane has its part
 * of the chunks that are pulled at a time.  How many those are is the user's, or follows the way:
 * one more as long as a chunk takes little more than a round trip, so that the way has room, and
 * one less when chunks wait for each other, as would what readers ask for.  Runs on lanes.
 */
#include "nbd-bridge/cache/cache-private.h"

enum {
	BUSY_NS = 1000000,
	OTHERS_NS = 20000000, /* until a lane looks again whether others leave it a part */
	AFTER_FAILURE_NS = 100000000,
	WORKERS_MIN = 4,
};

static void adapt(struct bridge_cache *cache, uint64_t took_ns)
{
	unsigned n = atomic_load(&cache->pull_workers);

	if (took_ns < 2 * cache->path.rtt_ns && n < BRIDGE_PULL_WORKERS_MAX)
		atomic_compare_exchange_strong(&cache->pull_workers, &n, n + 1);
	else if (took_ns > 4 * cache->path.rtt_ns && n > WORKERS_MIN)
		atomic_compare_exchange_strong(&cache->pull_workers, &n, n - 1);
}

static int end_pull(struct cache_io *io, struct cache_slot *slot, int error)
{
	struct bridge_cache *cache = io->cl->cache;

	error = cache_end_fetch(io, slot, error);
	if (error < 0)
		return error;
	weft_count(&io->cl->counters.pulled_bytes, io->rq.len);
	if (cache->config.pull_workers == 0)
		adapt(cache, weft_now_ns() - io->rq.lane.start_ns);
	return 0;
}

/* The others follow; after a failure not at once. */
static void after_pull(struct cache_lane *cl, int error)
{
	atomic_fetch_sub(&cl->cache->nr_pulls, 1);
	cl->nr_pulls--;
	if (error == 0)
		cache_pull(cl);
	else
		weft_loop_timer_set(cl->worker->loop, &cl->pull, AFTER_FAILURE_NS);
}

static void begin_pull(struct cache_lane *cl)
{
	atomic_fetch_add(&cl->cache->nr_pulls, 1);
	cl->nr_pulls++;
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

/* Whether this lane has less than its part under way, and all have not enough. */
static bool has_room(const struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;
	unsigned workers = atomic_load(&cache->pull_workers), nr_ready = 0;

	for (unsigned i = 0; i < cache->lanes->nr; i++)
		nr_ready += lane_is_ready(cache->lanes->lane[i]);
	return atomic_load(&cache->nr_pulls) < workers &&
		cl->nr_pulls * weft_max(nr_ready, 1) < workers;
}

static void on_pull(struct weft_timer *timer)
{
	struct cache_lane *cl = weft_container_of(timer, struct cache_lane, pull);

	cache_pull(cl);
}

void cache_pull_init(struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;
	const unsigned given = cache->config.pull_workers;

	atomic_store(&cache->pull_workers, given ? given : WORKERS_MIN);
	cl->pull.fn = on_pull;
}

/* The next chunk's turn.  False: not now. */
static bool pull_one(struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;
	uint64_t turn = atomic_load(&cache->pull_next);

	if (cl->nr_free <= CACHE_RATHER_IOS) {
		weft_loop_timer_set(cl->worker->loop, &cl->pull, BUSY_NS);
		return false;
	}
	if (!may_pull(cl, cache_chunk_bytes(cache)))
		return false;
	do
		if (turn >= cache->nr_chunks)
			return false;
	while (!atomic_compare_exchange_weak(&cache->pull_next, &turn, turn + 1));
	uint64_t c = cache->pull_order ? cache->pull_order[turn] : turn;
	if (has_free_slot(cache, c))
		cache_fetch_range(cl, c << cache->shift, cache_chunk_bytes(cache), &pull_kind);
	else
		atomic_store(&cache->pull_full, true);
	return true;
}

void cache_pull(struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;

	if (!cache->config.pull || !lane_is_ready(cl->lane))
		return;
	while (!atomic_load(&cache->pull_full) &&
		atomic_load(&cache->pull_next) < cache->nr_chunks) {
		if (!has_room(cl)) {
			/* Who has none under way is told by none of them when there is room. */
			if (cl->nr_pulls == 0)
				weft_loop_timer_set(cl->worker->loop, &cl->pull, OTHERS_NS);
			return;
		}
		if (!pull_one(cl))
			return;
	}
}
