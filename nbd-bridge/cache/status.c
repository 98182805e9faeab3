/* SPDX-License-Identifier: MIT */
/*
 * The cache's state for people, and for programs.  The control thread's; counters are read without
 * a lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd-bridge/cache/cache-private.h"

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

struct sums {
	uint64_t hits, misses, fetched, pushed, ahead, used, wasted, pulled, push_errors;
};

static void add_lane(struct sums *sums, const struct cache_counters *counters)
{
	sums->hits += counters->hits;
	sums->misses += counters->misses;
	sums->fetched += counters->fetched_bytes;
	sums->pushed += counters->pushed_bytes;
	sums->ahead += counters->ahead_bytes;
	sums->used += counters->ahead_used;
	sums->wasted += counters->ahead_wasted;
	sums->pulled += counters->pulled_bytes;
	sums->push_errors += counters->push_errors;
}

/* Bytes that are valid, those that are dirty or on their way, and those of them that are lost. */
struct held {
	uint64_t valid, dirty, lost;
};

static struct held count_blocks(struct bridge_cache *cache)
{
	const unsigned all = CACHE_CHUNK_MAX / CACHE_BLOCK;
	struct held held = {0};

	for (uint32_t i = 0; i < cache->nr_slots; i++) {
		struct cache_slot *slot = &cache->slots[i];
		uint64_t c = atomic_load(&slot->chunk);

		if (c == UINT64_MAX)
			continue;
		struct cache_chunk *chunk = cache_lock(cache, c);
		if (cache_slot_of(cache, chunk) == slot) {
			const struct cache_map lost = cache_map_both(&slot->dirty, &slot->lost);

			held.valid += cache_map_count(&slot->valid, 0, all) * (uint64_t)CACHE_BLOCK;
			held.dirty += (cache_map_count(&slot->dirty, 0, all) +
					      cache_map_count(&slot->pushing, 0, all)) *
				(uint64_t)CACHE_BLOCK;
			held.lost += cache_map_count(&lost, 0, all) * (uint64_t)CACHE_BLOCK;
		}
		cache_unlock(chunk);
	}
	return held;
}

uint64_t cache_dirty_bytes(struct bridge_cache *cache)
{
	return atomic_load(&cache->nr_dirty) > 0 ? count_blocks(cache).dirty : 0;
}

uint64_t cache_lost_bytes(struct bridge_cache *cache)
{
	return atomic_load(&cache->nr_dead) > 0 ? count_blocks(cache).lost : 0;
}

uint64_t cache_pushed_bytes(const struct bridge_cache *cache)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < cache->lanes->nr; i++)
		if (cache->of_lane[i])
			sum += atomic_load(&cache->of_lane[i]->counters.pushed_bytes);
	return sum;
}

static const char *pull_state(struct bridge_cache *cache)
{
	if (!cache->config.pull)
		return "off";
	if (atomic_load(&cache->pull_next) >= cache->nr_chunks &&
		atomic_load(&cache->nr_pulls) == 0)
		return "done";
	return atomic_load(&cache->pull_full) ? "cache full" : "running";
}

uint64_t cache_capacity_bytes(const struct bridge_cache *cache)
{
	return (uint64_t)cache->nr_slots << cache->shift;
}

uint64_t cache_chunk_size(const struct bridge_cache *cache)
{
	return cache_chunk_bytes(cache);
}

json_t *cache_status(struct bridge_cache *cache)
{
	const struct held held = count_blocks(cache);
	uint64_t pulled = atomic_load(&cache->pull_next);
	struct sums sums = {0};

	for (unsigned i = 0; i < cache->lanes->nr; i++)
		if (cache->of_lane[i])
			add_lane(&sums, &cache->of_lane[i]->counters);
	json_t *json = json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o}",
		"size_bytes", integer((uint64_t)cache->nr_slots << cache->shift), "chunk_bytes",
		integer(cache_chunk_bytes(cache)), "valid_bytes", integer(held.valid),
		"dirty_bytes", integer(held.dirty), "lost_bytes", integer(held.lost), "policy",
		cache->config.write_through ? "write-through" : "write-back", "hits",
		integer(sums.hits), "misses", integer(sums.misses), "fetched_bytes",
		integer(sums.fetched), "pushed_bytes", integer(sums.pushed), "push_errors",
		integer(sums.push_errors));
	json_object_set_new(json, "push_failing",
		json_boolean(held.dirty > 0 && atomic_load(&cache->push_error) < 0));
	json_object_set_new(json, "ahead",
		json_pack("{s:o, s:o, s:o}", "fetched_bytes", integer(sums.ahead), "used_bytes",
			integer(sums.used), "wasted_bytes", integer(sums.wasted)));
	json_object_set_new(json, "pull",
		json_pack("{s:s, s:o, s:o}", "state", pull_state(cache), "done_bytes",
			integer(weft_min(pulled << cache->shift, cache->size_bytes)),
			"fetched_bytes", integer(sums.pulled)));
	json_object_set_new(json, "sealed",
		cache->seal ? json_pack("{s:s, s:s, s:s?}", "kind",
				      seal_kind_name(seal_kind_of(cache->seal)), "algorithm",
				      seal_algorithm_name(seal_algorithm_of(cache->seal)), "file",
				      seal_path(cache->seal))
			    : json_null());
	json_object_set_new(json, "bad_blocks",
		integer(cache->seal ? seal_nr_bad(cache->seal) : 0));
	json_object_set_new(json, "path",
		json_pack("{s:f, s:o}", "round_trip_s", (double)cache->path.rtt_ns / 1e9,
			"rate_bytes_per_s", integer(cache->path.rate)));
	return json;
}

/* ---- all that it holds ---- */

/* A copy of what one chunk had a moment ago. */
struct copy {
	struct cache_map valid, dirty, torn;
	uint8_t bytes[CACHE_CHUNK_MAX];
};

static bool copy_chunk(struct bridge_cache *cache, uint64_t c, struct copy *copy)
{
	const unsigned nr = (unsigned)(cache_chunk_bytes(cache) / CACHE_BLOCK);
	struct cache_chunk *chunk = cache_lock(cache, c);
	struct cache_slot *slot = cache_slot_of(cache, chunk);
	unsigned first = 0, n;

	/* Repeats until no more valid blocks turn out to be lost. */
	while (slot && (n = cache_map_run(&slot->valid, &first, nr)) > 0)
		if (cache_copy_out(cache, slot, copy->bytes + (size_t)first * CACHE_BLOCK,
			    (uint64_t)first * CACHE_BLOCK, (uint64_t)n * CACHE_BLOCK) == 0)
			first += n;
	if (slot) {
		copy->valid = slot->valid;
		copy->torn = cache_map_both(&slot->dirty, &slot->lost);
		for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
			copy->dirty.w[i] = slot->dirty.w[i] | slot->pushing.w[i];
	}
	cache_unlock(chunk);
	return slot;
}

int cache_each(struct bridge_cache *cache, cache_each_fn *fn, void *ctx)
{
	struct copy *copy = malloc(sizeof(*copy));
	int r = copy ? 0 : -ENOMEM;

	for (uint64_t c = 0; c < cache->nr_chunks && r == 0; c++) {
		if (!copy_chunk(cache, c, copy))
			continue;
		for (unsigned i = 0; i < cache_chunk_bytes(cache) / CACHE_BLOCK && r == 0; i++) {
			uint64_t off = (c << cache->shift) + (uint64_t)i * CACHE_BLOCK;
			bool torn = cache_map_any(&copy->torn, i, 1);

			if (torn || cache_map_any(&copy->valid, i, 1))
				r = fn(ctx, off, weft_min(CACHE_BLOCK, cache->size_bytes - off),
					torn ? CACHE_CONTENT_TORN
						: cache_map_any(&copy->dirty, i, 1)
						? CACHE_CONTENT_DIRTY
						: CACHE_CONTENT_CLEAN,
					torn ? NULL : copy->bytes + (size_t)i * CACHE_BLOCK);
		}
	}
	free(copy);
	return r;
}
