/* SPDX-License-Identifier: MIT */
/*
 * The size and number of a cache's chunks, and how far to read ahead: chosen to fit the path,
 * within the user's settings.
 */
#include <errno.h>
#include <inttypes.h>

#include "fabric/base/log.h"
#include "nbd-bridge/cache/cache-private.h"

static unsigned log2_of(uint64_t v)
{
	return 63 - (unsigned)__builtin_clzll(v);
}

/* The bytes that are under way in a round trip. */
static uint64_t under_way_bytes(const struct bridge_cache *cache)
{
	return cache->path.rate / 1000 * (cache->path.rtt_ns / 1000) / 1000;
}

/* A sixteenth of that, so that a few dozen operations keep the wire full. */
static uint64_t choose_chunk(const struct bridge_cache *cache)
{
	uint64_t want = under_way_bytes(cache) / 16;

	want = weft_min(weft_max(want, 256 << 10), CACHE_CHUNK_MAX);
	return UINT64_C(1) << log2_of(2 * want - 1);
}

int cache_set_sizes(struct bridge_cache *cache, struct weft_error *err)
{
	const struct bridge_cache_config *config = &cache->config;
	uint64_t chunk = config->chunk_bytes ? config->chunk_bytes : choose_chunk(cache);

	while (!config->chunk_bytes && chunk > BRIDGE_CHUNK_MIN &&
		config->bytes / chunk < 4 * BRIDGE_CACHE_MIN_CHUNKS)
		chunk /= 2;
	if (config->resume)
		chunk = cache_file_identity(config->file)->chunk_bytes;
	cache->shift = log2_of(chunk);
	cache->nr_chunks = (cache->size_bytes + chunk - 1) >> cache->shift;
	/* More slots than the region has chunks would never be used. */
	cache->nr_slots = (uint32_t)weft_min(config->bytes >> cache->shift,
		weft_max(cache->nr_chunks, BRIDGE_CACHE_MIN_CHUNKS));
	if (config->resume)
		cache->nr_slots = cache_file_identity(config->file)->nr_slots;
	if (cache->nr_slots < BRIDGE_CACHE_MIN_CHUNKS)
		return weft_error_set(err, EINVAL,
			"a cache of %" PRIu64
			" bytes is too small: it has at least %d chunks of %" PRIu64,
			config->bytes, BRIDGE_CACHE_MIN_CHUNKS, chunk);
	cache->max_dirty = cache->nr_slots - cache->nr_slots / 4;
	uint64_t under_way = under_way_bytes(cache);
	/*
	 * A connection that has just been made is slow, so that what was measured may be far too
	 * little: a byte for each ns of the round trip, a GB a second, may always be needed.
	 */
	uint64_t needed = weft_max(8 * under_way, cache->path.rtt_ns);
	cache->window_max = weft_min(((uint64_t)cache->nr_slots << cache->shift) / 4,
		weft_min(64 << 20, weft_max(8 << 20, needed)));
	cache->window_min = weft_min(cache->window_max, 2 * weft_max(chunk, under_way));
	cache->memory_len = (size_t)cache->nr_slots << cache->shift;
	weft_debug("%" PRIu32 " slots of %" PRIu64 " bytes for %" PRIu64
		   " chunks; read ahead of %" PRIu64 " to %" PRIu64 " bytes",
		cache->nr_slots, chunk, (uint64_t)cache->nr_chunks, (uint64_t)cache->window_min,
		(uint64_t)cache->window_max);
	return 0;
}
