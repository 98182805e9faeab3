/* SPDX-License-Identifier: MIT */
/* What is asked of a cache. */
#ifndef WEFT_NBD_BRIDGE_CACHE_CONFIG_H
#define WEFT_NBD_BRIDGE_CACHE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

struct cache_file;
struct pull_order;

enum {
	BRIDGE_CHUNK_MIN = 64 << 10,
	BRIDGE_CHUNK_MAX = 1 << 20,
	BRIDGE_CACHE_MIN_CHUNKS = 16,
	BRIDGE_CACHE_MIN = 4 << 20, /* bytes; enough for chunks of any size that is not asked for */
	BRIDGE_PULL_WORKERS_MAX = 64,
};

struct bridge_cache_config {
	uint64_t bytes;       /* 0: there is none, and what follows means nothing */
	/* a power of two, BRIDGE_CHUNK_MIN to BRIDGE_CHUNK_MAX; 0: as the path asks for */
	uint32_t chunk_bytes;
	bool write_through;   /* a WRITE is done when it is at the donor */
	uint32_t push_interval_ms; /* what is dirty is written back after so long; > 0 */
	bool pull;            /* fetch the whole region in the background */
	unsigned pull_workers; /* chunks at a time */
	uint64_t pull_rate;   /* bytes a second; 0: no limit */
	/* borrowed while the cache is made; NULL: as it lies */
	const struct pull_order *pull_order;
	struct cache_file *file; /* where the cache lies, borrowed; NULL: in memory */
	const char *uri;      /* what the file remembers that it is of; borrowed */
	/* with what the file holds, as whom and of what it says; else it is begun anew */
	bool resume;
};

#endif
