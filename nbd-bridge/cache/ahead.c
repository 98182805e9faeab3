/* SPDX-License-Identifier: MIT */
/*
 * Reading ahead: fetches the blocks that a trend says will be needed.  Runs on lanes.
 *
 * The trend is the majority of the distances between the last READs, looked for in the last 4, then
 * 8, and so on: a few strays do not end it, and where there is none nothing is fetched ahead.
 * READs in sequence need no majority.
 */
#include "nbd-bridge/cache/cache-private.h"

enum { SEQUENCE = 2 };

static int end_ahead(struct cache_io *io, struct cache_slot *slot, int error)
{
	error = cache_end_fetch(io, slot, error);
	if (error == 0) {
		cache_map_set(&slot->ahead, io->first, io->nr);
		weft_count(&io->cl->counters.ahead_bytes, io->rq.len);
	}
	return error;
}

const struct cache_io_kind cache_ahead = {.use = CACHE_AHEAD, .end = end_ahead};

/* The distance that more than half of the last n READs have; 0: there is none. */
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

/* Fetches onwards from a READ that ended at `end`, `window` bytes ahead. */
static void fetch_onwards(struct cache_lane *cl, uint64_t end)
{
	struct bridge_cache *cache = cl->cache;
	struct cache_trend *trend = &cl->trend;

	/* The reader jumped, or has caught up. */
	if (trend->next < end || trend->next > end + 2 * trend->window)
		trend->next = end;
	uint64_t goal = weft_min(end + trend->window, cache->size_bytes);
	/* In whole chunks: a few large operations. */
	goal = weft_min((goal + cache_chunk_bytes(cache) - 1) & ~(cache_chunk_bytes(cache) - 1),
		cache->size_bytes);
	if (goal > trend->next)
		trend->next = cache_fetch_range(cl, trend->next, goal - trend->next, &cache_ahead);
}

static void fetch_backwards(struct cache_lane *cl, uint64_t off)
{
	struct bridge_cache *cache = cl->cache;
	struct cache_trend *trend = &cl->trend;

	if (trend->next > off || trend->next + 2 * trend->window < off)
		trend->next = off;
	uint64_t goal = off > trend->window ? off - trend->window : 0;
	while (trend->next > goal) {
		uint64_t from = (trend->next - 1) & ~(cache_chunk_bytes(cache) - 1);

		if (cache_fetch_range(cl, from, trend->next - from, &cache_ahead) < trend->next)
			break;
		trend->next = from;
	}
}

/* Fetches one READ's length in each of the next eight steps. */
static void fetch_steps(struct cache_lane *cl, uint64_t off, uint64_t len)
{
	struct bridge_cache *cache = cl->cache;
	int64_t delta = cl->trend.delta;

	for (unsigned i = 0; i < 8; i++) {
		off += (uint64_t)delta;
		if (off >= cache->size_bytes) /* below 0, too */
			break;
		cache_fetch_range(cl, off, len, &cache_ahead);
	}
}

void cache_trend_note(struct cache_lane *cl, uint64_t off, uint64_t len, bool waits)
{
	struct bridge_cache *cache = cl->cache;
	struct cache_trend *trend = &cl->trend;
	int64_t delta = (int64_t)(off - trend->last_off);

	/*
	 * READs in sequence are recognised sooner than a majority would be.  Who reads the first
	 * bytes again, and more, goes on as well.
	 */
	bool goes_on = off == trend->last_end ||
		(off == trend->last_off && off + len > trend->last_end);
	trend->in_sequence = goes_on ? trend->in_sequence + 1 : 0;
	trend->last_off = off;
	trend->last_end = off + len;
	trend->deltas[trend->nr % CACHE_TREND] = delta;
	trend->nr = trend->nr + 1 < 2 * CACHE_TREND ? trend->nr + 1 : trend->nr + 1 - CACHE_TREND;
	int64_t now = find_trend(trend);
	/* A sequence stays one, whatever the lengths of its READs are. */
	if (trend->in_sequence >= SEQUENCE)
		now = trend->delta > 0 && (uint64_t)trend->delta <= 2 * len ? trend->delta
									    : (int64_t)len;
	if (now != trend->delta) {
		trend->delta = now;
		trend->window = cache->window_min;
		trend->next = now < 0 ? off : off + len;
	} else if (waits) {
		/* The reader waits, far away a round trip each time: the window was too small. */
		trend->window = weft_min(4 * trend->window, cache->window_max);
	}
	if (now == 0 || !lane_is_ready(cl->lane))
		return;
	if (now > 0 && (uint64_t)now <= 2 * len)
		fetch_onwards(cl, off + len);
	else if (now < 0 && (uint64_t)-now <= 2 * len)
		fetch_backwards(cl, off);
	else
		fetch_steps(cl, off, len);
}
