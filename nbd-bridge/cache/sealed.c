/* SPDX-License-Identifier: MIT */
/*
 * The cache of contents that are sealed: its operations' bytes, and what is zeros.  The lane's
 * thread.  Only bytes and rows of blocks that are the operation's, or under the chunk's lock.
 */
#include <errno.h>

#include "nbd-bridge/cache/cache-private.h"

static uint64_t first_block(const struct bridge_cache *cache, uint64_t c)
{
	return (c << cache->shift) / CACHE_BLOCK;
}

int cache_seal(struct cache_io *io)
{
	const struct bridge_cache *cache = io->cl->cache;
	/* A file's bytes are in the bounce already. */
	const uint8_t *from = cache->on_disk ? io->bounce : io->bytes;

	return sealer_seal(io->cl->sealer, io->rq.off / CACHE_BLOCK, from,
		seal_kind_of(cache->seal) == SEAL_ENCRYPT ? io->rq.buf : NULL, io->rq.len);
}

void cache_open(struct cache_io *io)
{
	if (sealer_open(io->cl->sealer, io->rq.off / CACHE_BLOCK, io->rq.buf, io->rq.len,
		    &io->bad) == 0)
		return;
	io->any_bad = true;
	/* So that somebody says so. */
	attachment_changed(io->cl->cache->attachment);
}

void cache_fill_zeros(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot,
	unsigned first, unsigned nr)
{
	struct cache_map absent;
	const unsigned end = first + nr;

	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		absent.w[i] = ~(slot->valid.w[i] | slot->fetching.w[i] | slot->lost.w[i]);
	for (; cache_map_run(&absent, &first, end) > 0; first++)
		if (seal_is_zero(cache->seal, first_block(cache, c) + first) &&
			cache_copy_in(cache, slot, (uint64_t)first * CACHE_BLOCK, NULL,
				CACHE_BLOCK) == 0)
			cache_map_set(&slot->valid, first, 1);
}

int cache_seal_anew(struct bridge_cache *cache, struct weft_error *err)
{
	int r = seal_start_anew(cache->seal, err);

	for (unsigned i = 0; i < cache->lanes->nr && r == 0; i++)
		if (cache->of_lane[i])
			r = sealer_take_keys(cache->of_lane[i]->sealer, err);
	return r;
}
