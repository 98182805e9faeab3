/* SPDX-License-Identifier: MIT */
/*
 * The bytes of slots.  Those in memory are simply copied.  A cache file is mapped, and a page of it
 * may turn out to be missing: the copy ends, and the block is lost; nobody gets other bytes in its
 * place.  Any lane's thread, under the chunk's lock.
 */
#include <errno.h>
#include <string.h>

#include "nbd-bridge/cache/cache-private.h"
#include "nbd-bridge/cache/mapped.h"

static void lose(struct bridge_cache *cache, struct cache_slot *slot, unsigned block)
{
	slot->damaged = true;
	cache_map_set(&slot->lost, block, 1);
	cache_map_clear(&slot->valid, block, 1);
	cache_map_clear(&slot->ahead, block, 1);
	cache_count_dead(cache, slot);
}

void cache_count_dead(struct bridge_cache *cache, struct cache_slot *slot)
{
	const struct cache_map lost = cache_map_both(&slot->dirty, &slot->lost);
	bool dead = !cache_map_empty(&lost);

	if (dead && !slot->dead)
		atomic_fetch_add(&cache->nr_dead, 1);
	if (!dead && slot->dead)
		atomic_fetch_sub(&cache->nr_dead, 1);
	slot->dead = dead;
}

/* A page of the slot itself was not there. */
static int lose_at(struct bridge_cache *cache, struct cache_slot *slot, const void *at)
{
	lose(cache, slot,
		(unsigned)((size_t)((const uint8_t *)at - cache_bytes(cache, slot)) / CACHE_BLOCK));
	cache_file_say_lost(cache->file, at);
	return -EIO;
}

int cache_copy_out(struct bridge_cache *cache, struct cache_slot *slot, void *to, uint64_t off,
	uint64_t len)
{
	const uint8_t *from = cache_bytes(cache, slot) + off;
	const void *at;

	if (!cache->on_disk) {
		memcpy(to, from, len);
		return 0;
	}
	return mapped_copy(to, from, len, &at) < 0 ? lose_at(cache, slot, at) : 0;
}

struct filling {
	uint8_t *to;
	const uint8_t *from;
	uint64_t len;
};

static void put(uint8_t *to, const uint8_t *from, uint64_t len)
{
	if (from)
		memcpy(to, from, len);
	else
		memset(to, 0, len);
}

static int fill(void *ctx)
{
	const struct filling *f = ctx;

	put(f->to, f->from, f->len);
	return 0;
}

int cache_copy_in(struct bridge_cache *cache, struct cache_slot *slot, uint64_t off,
	const void *from, uint64_t len)
{
	struct filling f = {.to = cache_bytes(cache, slot) + off, .from = from, .len = len};
	const void *at;

	if (!cache->on_disk) {
		fill(&f);
		return 0;
	}
	return mapped_try(fill, &f, &at) < 0 ? lose_at(cache, slot, at) : 0;
}

struct span {
	const volatile uint8_t *bytes;
	uint64_t len;
};

static int touch(void *ctx)
{
	const struct span *span = ctx;

	for (uint64_t i = 0; i < span->len; i += CACHE_BLOCK)
		(void)span->bytes[i];
	(void)span->bytes[span->len - 1];
	return 0;
}

int cache_touch(struct bridge_cache *cache, struct cache_slot *slot, uint64_t off, uint64_t len)
{
	struct span span = {.bytes = cache_bytes(cache, slot) + off, .len = len};
	const void *at;

	if (!cache->on_disk)
		return 0;
	return mapped_try(touch, &span, &at) < 0 ? lose_at(cache, slot, at) : 0;
}

/* ---- writing ---- */

struct writing {
	struct cache_file *file;
	uint32_t slot;
	uint64_t block; /* of the region, of the slot's first */
	uint8_t *bytes; /* the slot's */
	const uint8_t *from;
	uint64_t off, len;
	volatile uint64_t done; /* bytes, with their entries */
};

/* Writes block by block, so that after a failure it is known which were written. */
static int write_blocks(void *ctx)
{
	struct writing *w = ctx;

	for (uint64_t done = 0; done < w->len; w->done = done) {
		const uint64_t off = w->off + done;
		const uint64_t len = weft_min(CACHE_BLOCK - off % CACHE_BLOCK, w->len - done);
		const unsigned block = (unsigned)(off / CACHE_BLOCK);

		put(w->bytes + off, w->from ? w->from + done : NULL, len);
		cache_file_mark(w->file, w->slot, block, w->block + block);
		done += len;
	}
	return 0;
}

int cache_write(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot, uint64_t off,
	const void *from, uint64_t len)
{
	const unsigned first = (unsigned)(off / CACHE_BLOCK);
	unsigned end = (unsigned)((off + len - 1) / CACHE_BLOCK) + 1;
	const void *at;
	int r = 0;

	if (cache->on_disk) {
		struct writing w = {
			.file = cache->file,
			.slot = (uint32_t)(slot - cache->slots),
			.block = (c << cache->shift) / CACHE_BLOCK,
			.bytes = cache_bytes(cache, slot),
			.from = from,
			.off = off,
			.len = len,
		};

		r = mapped_try(write_blocks, &w, &at);
		if (r < 0)
			end = (unsigned)((off + w.done) / CACHE_BLOCK);
	} else {
		put(cache_bytes(cache, slot) + off, from, len);
		/* Whoever is killed before has not answered. */
		for (unsigned i = first; cache->file && i < end; i++)
			cache_file_mark(cache->file, (uint32_t)(slot - cache->slots), i,
				(c << cache->shift) / CACHE_BLOCK + i);
	}
	cache_map_set(&slot->valid, first, end - first);
	cache_map_set(&slot->dirty, first, end - first);
	cache_map_clear(&slot->ahead, first, end - first);
	if (r < 0) {
		/*
		 * The block is half written, or its entry is missing, whichever page was not there.
		 */
		lose(cache, slot, end);
		cache_file_say_lost(cache->file, at);
	}
	return r;
}
