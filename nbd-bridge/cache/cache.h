/* SPDX-License-Identifier: MIT */
/*
 * The chunk fetcher of a managed attachment: a cache between requests and the lanes that fetches,
 * reads ahead, pulls, and writes back.
 *
 * For the control thread, unless a comment says otherwise.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_CACHE_H
#define WEFT_NBD_BRIDGE_CACHE_CACHE_H

#include <jansson.h>

#include "nbd-bridge/cache/config.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/lane/lanes.h"

struct bridge_cache;

/*
 * measure.c: how far away the donors are, measured with READs over the first lane, which is
 * connected and has no stage yet.  Blocks for some round trips.
 */
struct cache_path {
	uint64_t rtt_ns; /* of a small READ */
	uint64_t rate;   /* bytes a second of a large one */
};
struct cache_path cache_measure_path(struct bridge_lanes *lanes);

/*
 * All lanes run and have no requests; the attachment was granted.  config is copied.  0, or -errno.
 * If *ret is set, even with an error, it has to be freed: some lanes may have joined.
 */
int cache_new(struct bridge_lanes *lanes, const struct bridge_cache_config *config,
	const struct cache_path *path, struct bridge_cache **ret, struct weft_error *err);
/* The lanes have no threads any more.  Takes NULL. */
void cache_free(struct bridge_cache *cache);
/*
 * Forgets everything, dirty or not; the attachment is stale.  False: something is still under way.
 */
bool cache_clear(struct bridge_cache *cache);
/*
 * Whether a client looks at data in the cache that were lent to a READ of the lane.  The lane's
 * thread.
 */
bool cache_has_lent(const struct bridge_cache *cache, unsigned lane);
/* Writes back at once, on all lanes.  Any thread. */
void cache_push_now(struct bridge_cache *cache);

/* status.c: any thread */

/* The size of the whole cache, and of a chunk. */
uint64_t cache_capacity_bytes(const struct bridge_cache *cache);
uint64_t cache_chunk_size(const struct bridge_cache *cache);
/*
 * Bytes that are dirty or being written back, so not at the donor yet.  The number shrinks by
 * itself, sooner after cache_push_now().
 */
uint64_t cache_dirty_bytes(struct bridge_cache *cache);
/* Those of them that are lost, and will never be written back. */
uint64_t cache_lost_bytes(struct bridge_cache *cache);
/* Bytes that were written back so far. */
uint64_t cache_pushed_bytes(const struct bridge_cache *cache);
json_t *cache_status(struct bridge_cache *cache);
/*
 * Calls fn for everything that the cache holds, in the region's order; see file.h.  The bridge goes
 * on meanwhile.  0, -ENOMEM, or what fn returned.
 */
int cache_each(struct bridge_cache *cache, cache_each_fn *fn, void *ctx);

/*
 * heat.c: writes the chunks that were read, most first, to path, as pull-order.h reads them.  An
 * existing file is replaced.  The lanes have ended.
 */
int cache_save_pull_order(const struct bridge_cache *cache, const char *path,
	struct weft_error *err);

#endif
