/* SPDX-License-Identifier: MIT */
/* Fetching absent blocks.  Runs on lanes. */
#include <errno.h>

#include "nbd-bridge/cache/cache-private.h"

/* Under the chunk's lock.  Returns the error that the operation ends with. */
int cache_end_fetch(struct cache_io *io, struct cache_slot *slot, int error)
{
	cache_map_clear(&slot->fetching, io->first, io->nr);
	if (error == 0 && io->cl->cache->on_disk)
		error = cache_copy_in(io->cl->cache, slot, (uint64_t)io->first * CACHE_BLOCK,
			io->bounce, io->rq.len);
	if (error < 0)
		return error;
	cache_map_set(&slot->valid, io->first, io->nr);
	for (unsigned i = 0; io->any_bad && i < io->nr; i++)
		if (cache_map_any(&io->bad, i, 1))
			cache_map_clear(&slot->valid, io->first + i, 1);
	weft_count(&io->cl->counters.fetched_bytes, io->rq.len);
	return io->any_bad ? -EIO : 0;
}

const struct cache_io_kind cache_demand = {.use = CACHE_DEMAND, .end = cache_end_fetch};

int cache_fetch(struct cache_lane *cl, uint64_t c, struct cache_slot *slot, unsigned first,
	unsigned nr, const struct cache_io_kind *kind, struct bridge_request *owner,
	struct cache_io **list)
{
	struct cache_map absent;
	unsigned end = first + nr, n;

	for (unsigned i = 0; i < CACHE_MAP_WORDS; i++)
		absent.w[i] = ~(slot->valid.w[i] | slot->fetching.w[i] | slot->lost.w[i]);
	for (; (n = cache_map_run(&absent, &first, end)) > 0; first += n) {
		struct cache_io *io = cache_io_get(cl, kind);

		if (!io)
			return -EAGAIN;
		cache_map_set(&slot->fetching, first, n);
		cache_io_blocks(io, TP_READ, c, slot, first, n, list);
		io->owner = owner;
		if (owner)
			owner->lane.nr_ops++;
	}
	return 0;
}

uint64_t cache_fetch_range(struct cache_lane *cl, uint64_t off, uint64_t len,
	const struct cache_io_kind *kind)
{
	struct bridge_cache *cache = cl->cache;
	uint64_t end = weft_min(off + len, cache->size_bytes),
		 chunk_bytes = cache_chunk_bytes(cache);

	while (off < end) {
		uint64_t c = off >> cache->shift, in = off & (chunk_bytes - 1);
		uint64_t n = weft_min(chunk_bytes - in, end - off);
		unsigned first = (unsigned)(in / CACHE_BLOCK),
			 last = (unsigned)((in + n - 1) / CACHE_BLOCK);
		struct cache_chunk *chunk = cache_lock(cache, c);
		struct cache_slot *slot = cache_slot_of(cache, chunk);
		struct cache_io *list = NULL;
		int r = 0;

		if (!slot) {
			cache_unlock(chunk);
			if (cache_slot_add(cl, c, NULL) < 0)
				break;
			continue;
		}
		if (!chunk->zeroing && cache->seal)
			cache_fill_zeros(cache, c, slot, first, last - first + 1);
		if (!chunk->zeroing)
			r = cache_fetch(cl, c, slot, first, last - first + 1, kind, NULL, &list);
		cache_unlock(chunk);
		cache_io_submit(cl, list);
		if (r < 0)
			break;
		off += n;
	}
	return off;
}
