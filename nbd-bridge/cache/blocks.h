/* SPDX-License-Identifier: MIT */
/* A bit for each block of a chunk.  Pure functions. */
#ifndef WEFT_NBD_BRIDGE_CACHE_BLOCKS_H
#define WEFT_NBD_BRIDGE_CACHE_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

enum {
	CACHE_BLOCK = 4096,
	CACHE_CHUNK_MAX = 1 << 20, /* BRIDGE_CHUNK_MAX */
	CACHE_MAP_WORDS = CACHE_CHUNK_MAX / CACHE_BLOCK / 64,
};

struct cache_map {
	uint64_t w[CACHE_MAP_WORDS];
};

/* The bits of word i that lie in first to first + nr. */
static inline uint64_t cache_map_mask(unsigned i, unsigned first, unsigned nr)
{
	unsigned from = first > i * 64 ? first - i * 64 : 0;
	unsigned end = first + nr > i * 64 ? first + nr - i * 64 : 0;

	if (from >= 64 || end == 0 || from >= end)
		return 0;
	uint64_t below = end >= 64 ? UINT64_MAX : (UINT64_C(1) << end) - 1;
	return below & (UINT64_MAX << from);
}

static inline void cache_map_set(struct cache_map *map, unsigned first, unsigned nr)
{
	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		map->w[i] |= cache_map_mask(i, first, nr);
}

static inline void cache_map_clear(struct cache_map *map, unsigned first, unsigned nr)
{
	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		map->w[i] &= ~cache_map_mask(i, first, nr);
}

static inline bool cache_map_any(const struct cache_map *map, unsigned first, unsigned nr)
{
	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		if (map->w[i] & cache_map_mask(i, first, nr))
			return true;
	return false;
}

static inline bool cache_map_all(const struct cache_map *map, unsigned first, unsigned nr)
{
	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		if (~map->w[i] & cache_map_mask(i, first, nr))
			return false;
	return true;
}

static inline unsigned cache_map_count(const struct cache_map *map, unsigned first, unsigned nr)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		n += (unsigned)__builtin_popcountll(map->w[i] & cache_map_mask(i, first, nr));
	return n;
}

static inline bool cache_map_empty(const struct cache_map *map)
{
	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		if (map->w[i])
			return false;
	return true;
}

static inline struct cache_map cache_map_both(const struct cache_map *a, const struct cache_map *b)
{
	struct cache_map map;

	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		map.w[i] = a->w[i] & b->w[i];
	return map;
}

static inline struct cache_map cache_map_without(const struct cache_map *a,
	const struct cache_map *b)
{
	struct cache_map map;

	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		map.w[i] = a->w[i] & ~b->w[i];
	return map;
}

/*
 * Finds the next run of set bits between *first and end.  Returns the run's length, with *first at
 * its beginning; 0: there is none.
 */
static inline unsigned cache_map_run(const struct cache_map *map, unsigned *first, unsigned end)
{
	unsigned i = *first, n = 0;

	while (i < end && !(map->w[i / 64] >> (i % 64) & 1))
		i++;
	while (i + n < end && (map->w[(i + n) / 64] >> ((i + n) % 64) & 1))
		n++;
	*first = i;
	return n;
}

#endif
