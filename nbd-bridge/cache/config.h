/* SPDX-License-Identifier: MIT */
/* The settings of a cache. */
#ifndef WEFT_NBD_BRIDGE_CACHE_CONFIG_H
#define WEFT_NBD_BRIDGE_CACHE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

struct cache_file;
struct seal;
struct pull_order;

enum {
	BRIDGE_CHUNK_MIN = 64 << 10,
	BRIDGE_CHUNK_MAX = 1 << 20,
	BRIDGE_CACHE_MIN_CHUNKS = 16,
	/* bytes; enough for every chunk size that is chosen by itself */
	BRIDGE_CACHE_MIN = 4 << 20,
	BRIDGE_PULL_WORKERS_MAX = 64,
};

struct bridge_cache_config {
	uint64_t bytes;       /* 0: there is no cache, and the other fields mean nothing */
	/* a power of two, BRIDGE_CHUNK_MIN to BRIDGE_CHUNK_MAX; 0: chosen to fit the path */
	uint32_t chunk_bytes;
	bool write_through;   /* a WRITE is done when it is at the donor */
	uint32_t push_interval_ms; /* dirty blocks are written back after this time; > 0 */
	bool pull;            /* fetch the whole region in the background */
	unsigned pull_workers; /* chunks at a time; 0: chosen to fit the path */
	uint64_t pull_rate;   /* bytes a second; 0: no limit */
	/* borrowed while the cache is made; NULL: the region's order */
	const struct pull_order *pull_order;
	struct cache_file *file; /* where the cache lies, borrowed; NULL: in memory */
	const char *uri;      /* written to the file: the regions that it caches; borrowed */
	/* goes on with the file's contents and identity; false: begins the file anew */
	bool resume;
	/* seals what the donors hold, borrowed; wants a file.  NULL: nothing is sealed */
	struct seal *seal;
};

#endif
