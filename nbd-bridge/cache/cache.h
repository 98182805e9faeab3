/* SPDX-License-Identifier: MIT */
/*
 * The chunk fetcher of a managed attachment: a cache between requests and the lanes that fetches,
 * reads ahead, pulls, and writes back.
 *
 * The control thread's, but for what says otherwise.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_CACHE_H
#define WEFT_NBD_BRIDGE_CACHE_CACHE_H

#include <jansson.h>

#include "nbd-bridge/cache/config.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/lane/lanes.h"

struct bridge_cache;

/*
 * How far the donors are: measure.c.  READs over the first lane, which is connected and has no
 * stage yet; blocks for some round trips.
 */
struct cache_path {
	uint64_t rtt_ns; /* of a small READ */
	uint64_t rate;   /* bytes a second of a large one */
};
struct cache_path cache_measure_path(struct bridge_lanes *lanes);

/*
 * All lanes run and have no requests; the attachment was granted.  config is copied.  0, or -errno;
 * once *ret is set it has to be left and freed in either case: some lanes may have joined.
 */
int cache_new(struct bridge_lanes *lanes, const struct bridge_cache_config *config,
	const struct cache_path *path, struct bridge_cache **ret, struct weft_error *err);
/* The lanes have no threads any more.  Takes NULL. */
void cache_free(struct bridge_cache *cache);
/*
 * Forgets everything, dirty or not; the attachment is stale.  false: something is under way still.
 */
bool cache_clear(struct bridge_cache *cache);
/*
 * Whether a client looks at data in it, which were lent to a READ of the lane.  The lane's thread.
 */
bool cache_has_lent(const struct bridge_cache *cache, unsigned lane);
/* Writes back at once, on all lanes.  Any thread. */
void cache_push_now(struct bridge_cache *cache);

/* status.c: any thread */

/* Of the whole cache, and of a chunk. */
uint64_t cache_capacity_bytes(const struct bridge_cache *cache);
uint64_t cache_chunk_size(const struct bridge_cache *cache);
/*
 * What is dirty or being written back: not at the donor yet.  It shrinks by itself, sooner after
 * cache_push_now().
 */
uint64_t cache_dirty_bytes(struct bridge_cache *cache);
/* What of it is lost, and never will be written back. */
uint64_t cache_lost_bytes(struct bridge_cache *cache);
/* What was written back so far. */
uint64_t cache_pushed_bytes(const struct bridge_cache *cache);
json_t *cache_status(struct bridge_cache *cache);
/*
 * Everything that it holds, in the region's order; see file.h.  The bridge goes on meanwhile.  0,
 * -ENOMEM, or what fn returned.
 */
int cache_each(struct bridge_cache *cache, cache_each_fn *fn, void *ctx);

/*
 * heat.c: writes where was read most to path, which is replaced, for pull-order.h.  The lanes have
 * ended.
 */
int cache_save_pull_order(const struct bridge_cache *cache, const char *path,
	struct weft_error *err);

#endif
