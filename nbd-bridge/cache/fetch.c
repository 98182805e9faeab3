/*
 * Fetching: what a request needs, what a trend says will be needed, and everything in the background.
 * Runs on lanes.
 *
 * The trend is the majority of the distances between the last READs, looked for in the last 4, then 8, and so
 * on: a few strays do not end it, and where there is none nothing is fetched ahead.  READs in sequence need no majority.
 */
#include <errno.h>
#include <stdlib.h>

#include "nbd-bridge/cache/cache.h"

enum { BUSY_NS = 1000000, AFTER_FAILURE_NS = 100000000, SEQUENCE = 2 };

int cache_fetch(struct bridge_lane *lane, uint64_t c, struct cache_slot *slot, unsigned first, unsigned nr,
	enum cache_use use, struct bridge_request *owner, struct cache_io **list)
{
	struct cache_map absent;
	unsigned end = first + nr, n;

	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		absent.w[i] = ~(slot->valid.w[i] | slot->fetching.w[i] | slot->lost.w[i]);
	for (; (n = cache_map_run(&absent, &first, end)) > 0; first += n) {
		struct cache_io *io = cache_io_get(lane, use);

		if (!io)
			return -EAGAIN;
		cache_map_set(&slot->fetching, first, n);
		cache_io_blocks(io, TP_READ, c, slot, first, n, list);
		io->owner = owner;
		if (owner)
			owner->nr_ops++;
	}
	return 0;
}

uint64_t cache_fetch_range(struct bridge_lane *lane, uint64_t off, uint64_t len, enum cache_use use)
{
	struct bridge_cache *cache = lane->cache->cache;
	uint64_t end = weft_min(off + len, cache->size_bytes), chunk_bytes = cache_chunk_bytes(cache);

	while (off < end) {
		uint64_t c = off >> cache->shift, in = off & (chunk_bytes - 1);
		uint64_t n = weft_min(chunk_bytes - in, end - off);
		unsigned first = (unsigned)(in / CACHE_BLOCK), last = (unsigned)((in + n - 1) / CACHE_BLOCK);
		struct cache_chunk *chunk = cache_lock(cache, c);
		struct cache_slot *slot = cache_slot_of(cache, chunk);
		struct cache_io *list = NULL;
		int r = 0;

		if (!slot) {
			cache_unlock(chunk);
			if (cache_slot_add(lane, c, NULL) < 0)
				break;
			continue;
		}
		if (!chunk->zeroing)
			r = cache_fetch(lane, c, slot, first, last - first + 1, use, NULL, &list);
		cache_unlock(chunk);
		cache_io_submit(lane, list);
		if (r < 0)
			break;
		off += n;
	}
	return off;
}

/* ---- the trend ---- */

/* What more than half of the last n distances are; 0: there is no such. */
static int64_t majority(const struct cache_trend *trend, unsigned n)
{
	int64_t candidate = 0;
	unsigned votes = 0, found = 0;

	for (unsigned i = 0; i < n; i++) {
		int64_t delta = trend->deltas[(trend->nr - 1 - i) % CACHE_TREND];

		if (votes == 0)
			candidate = delta;
		if (delta == candidate)
			votes++;
		else
			votes--;
	}
	for (unsigned i = 0; i < n; i++)
		found += trend->deltas[(trend->nr - 1 - i) % CACHE_TREND] == candidate;
	return found > n / 2 ? candidate : 0;
}

static int64_t find_trend(const struct cache_trend *trend)
{
	for (unsigned n = 4; n <= weft_min(trend->nr, CACHE_TREND); n *= 2) {
		int64_t delta = majority(trend, n);

		if (delta != 0)
			return delta;
	}
	return 0;
}

/* Onwards from a READ that ended at `end`, `window` bytes ahead. */
static void fetch_onwards(struct bridge_lane *lane, uint64_t end)
{
	struct bridge_cache *cache = lane->cache->cache;
	struct cache_trend *trend = &lane->cache->trend;

	/* It jumped, or has caught up. */
	if (trend->next < end || trend->next > end + 2 * trend->window)
		trend->next = end;
	uint64_t goal = weft_min(end + trend->window, cache->size_bytes);
	/* In whole chunks: a few large operations. */
	goal = weft_min((goal + cache_chunk_bytes(cache) - 1) & ~(cache_chunk_bytes(cache) - 1), cache->size_bytes);
	if (goal > trend->next)
		trend->next = cache_fetch_range(lane, trend->next, goal - trend->next, CACHE_AHEAD);
}

static void fetch_backwards(struct bridge_lane *lane, uint64_t off)
{
	struct bridge_cache *cache = lane->cache->cache;
	struct cache_trend *trend = &lane->cache->trend;

	if (trend->next > off || trend->next + 2 * trend->window < off)
		trend->next = off;
	uint64_t goal = off > trend->window ? off - trend->window : 0;
	while (trend->next > goal) {
		uint64_t from = (trend->next - 1) & ~(cache_chunk_bytes(cache) - 1);

		if (cache_fetch_range(lane, from, trend->next - from, CACHE_AHEAD) < trend->next)
			break;
		trend->next = from;
	}
}

/* One in each step: eight of them. */
static void fetch_steps(struct bridge_lane *lane, uint64_t off, uint64_t len)
{
	struct bridge_cache *cache = lane->cache->cache;
	int64_t delta = lane->cache->trend.delta;

	for (unsigned i = 0; i < 8; i++) {
		off += (uint64_t)delta;
		if (off >= cache->size_bytes) /* below 0, too */
			break;
		cache_fetch_range(lane, off, len, CACHE_AHEAD);
	}
}

void cache_trend_note(struct bridge_lane *lane, uint64_t off, uint64_t len, bool waits)
{
	struct bridge_cache *cache = lane->cache->cache;
	struct cache_trend *trend = &lane->cache->trend;
	int64_t delta = (int64_t)(off - trend->last_off);

	/* As from a region's beginning: who reads on and on is known sooner than by a majority. */
	trend->in_sequence = off == trend->last_end ? trend->in_sequence + 1 : 0;
	trend->last_off = off;
	trend->last_end = off + len;
	trend->deltas[trend->nr % CACHE_TREND] = delta;
	trend->nr = trend->nr + 1 < 2 * CACHE_TREND ? trend->nr + 1 : trend->nr + 1 - CACHE_TREND;
	int64_t now = find_trend(trend);
	if (now == 0 && trend->in_sequence >= SEQUENCE)
		now = delta;
	if (now != trend->delta) {
		trend->delta = now;
		trend->window = cache->window_min;
		trend->next = now < 0 ? off : off + len;
	} else if (waits) {
		/* Not far enough ahead. */
		trend->window = weft_min(2 * trend->window, cache->window_max);
	}
	if (now == 0 || !atomic_load_explicit(&lane->ready, memory_order_relaxed))
		return;
	if (now > 0 && (uint64_t)now <= 2 * len)
		fetch_onwards(lane, off + len);
	else if (now < 0 && (uint64_t)-now <= 2 * len)
		fetch_backwards(lane, off);
	else
		fetch_steps(lane, off, len);
}

/* ---- everything ---- */

/* When the next may start, as --pull-rate says. */
static bool may_pull(struct bridge_lane *lane, uint64_t len)
{
	struct bridge_cache *cache = lane->cache->cache;
	uint64_t rate = cache->bridge->config.pull_rate, now_ns = weft_now_ns();

	if (rate == 0)
		return true;
	uint64_t due_ns = atomic_load(&cache->pull_due_ns), next_ns;
	do {
		if (due_ns > now_ns) {
			weft_loop_timer_set(lane->loop, &lane->cache->pull, due_ns - now_ns);
			return false;
		}
		next_ns = weft_max(due_ns, now_ns - weft_min(now_ns, 10000000)) + len * 1000000 / rate * 1000;
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

void cache_pull_later(struct bridge_lane *lane)
{
	weft_loop_timer_set(lane->loop, &lane->cache->pull, AFTER_FAILURE_NS);
}

void cache_pull(struct bridge_lane *lane)
{
	struct bridge_cache *cache = lane->cache->cache;
	const struct bridge_config *config = &cache->bridge->config;

	if (!config->pull || !atomic_load(&lane->ready))
		return;
	while (atomic_load(&cache->nr_pulls) < config->pull_workers && !atomic_load(&cache->pull_full)) {
		uint64_t turn = atomic_load(&cache->pull_next);

		if (turn >= cache->nr_chunks)
			return;
		uint64_t c = cache->pull_order ? cache->pull_order[turn] : turn;
		if (lane->cache->nr_free <= CACHE_RATHER_IOS) {
			weft_loop_timer_set(lane->loop, &lane->cache->pull, BUSY_NS);
			return;
		}
		if (!may_pull(lane, cache_chunk_bytes(cache)))
			return;
		if (!atomic_compare_exchange_strong(&cache->pull_next, &turn, turn + 1))
			continue;
		if (has_free_slot(cache, c))
			cache_fetch_range(lane, c << cache->shift, cache_chunk_bytes(cache), CACHE_PULL);
		else
			atomic_store(&cache->pull_full, true);
	}
}
