/* SPDX-License-Identifier: MIT */
/* Slots: which chunk has which slot, eviction, and slots that lost bytes.  Any lane's thread. */
#include <errno.h>
#include <string.h>

#include "nbd-bridge/cache/cache-private.h"

enum { LOOK_MAX = 64 };

void cache_uncount(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot)
{
	if (!slot->counted)
		return;
	slot->counted = false;
	cache_count_dead(cache, slot);
	atomic_fetch_and(&cache->dirty_map[c / 64], ~(UINT64_C(1) << c % 64));
	atomic_fetch_sub(&cache->nr_dirty, 1);
}

int cache_mark_clean(struct bridge_cache *cache, const struct cache_slot *slot, unsigned first,
	unsigned nr)
{
	return cache->file
		? cache_file_unmark(cache->file, (uint32_t)(slot - cache->slots), first, nr)
		: 0;
}

void cache_retire_slot(struct bridge_cache *cache)
{
	atomic_fetch_add(&cache->nr_given_up, 1);
}

static bool may_evict(const struct cache_chunk *chunk, const struct cache_slot *slot)
{
	return chunk->nr_pins == 0 && !chunk->zeroing && slot->nr_ios == 0 &&
		cache_map_empty(&slot->dirty);
}

static void empty_slot(struct cache_lane *cl, struct cache_chunk *chunk, struct cache_slot *slot)
{
	unsigned wasted = cache_map_count(&slot->ahead, 0, CACHE_CHUNK_MAX / CACHE_BLOCK);

	if (wasted > 0)
		weft_count(&cl->counters.ahead_wasted, (uint64_t)wasted * CACHE_BLOCK);
	chunk->slot = 0;
	atomic_store(&slot->chunk, UINT64_MAX);
	memset(&slot->valid, 0, sizeof(slot->valid));
	memset(&slot->ahead, 0, sizeof(slot->ahead));
	slot->push_error = 0;
}

/*
 * CLOCK: the first slot whose chunk nobody used since the hand passed it last.  Under the cache's
 * lock.
 */
static int32_t evict(struct cache_lane *cl, uint32_t look)
{
	struct bridge_cache *cache = cl->cache;

	for (; look > 0; look--) {
		uint32_t i = cache->hand;
		struct cache_slot *slot = &cache->slots[i];
		uint64_t c = atomic_load(&slot->chunk);

		cache->hand = i + 1 < cache->nr_slots ? i + 1 : 0;
		if (c == UINT64_MAX || pthread_mutex_trylock(&cache->chunks[c].lock) != 0)
			continue;
		struct cache_chunk *chunk = &cache->chunks[c];
		bool found = chunk->slot == (int32_t)i + 1 && may_evict(chunk, slot);
		if (found && slot->referenced) {
			slot->referenced = false;
			found = false;
		}
		if (found)
			empty_slot(cl, chunk, slot);
		if (found && slot->damaged) {
			cache_retire_slot(cache);
			found = false;
		}
		cache_unlock(chunk);
		if (found)
			return (int32_t)i;
	}
	return -1;
}

/* Whether no slot will ever come free: none is left, or each has lost dirty bytes. */
static bool all_lost(const struct bridge_cache *cache)
{
	return atomic_load(&cache->nr_given_up) + atomic_load(&cache->nr_dead) >= cache->nr_slots;
}

/* -EAGAIN: none is free, and rq (if any) waits; -EIO: there are none any more. */
static int32_t take_slot(struct cache_lane *cl, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;

	if (rq)
		atomic_fetch_add(&cache->nr_room, 1);
	pthread_mutex_lock(&cache->lock);
	int32_t i = cache->free_slots;
	if (i >= 0) {
		cache->free_slots = cache->slots[i].next_free;
		cache->nr_free--;
		cache_ready_used(cache, (uint32_t)i);
	} else {
		i = evict(cl, rq ? 2 * cache->nr_slots + 1 : LOOK_MAX);
	}
	if (i < 0)
		i = all_lost(cache) ? -EIO : -EAGAIN;
	if (rq && i == -EAGAIN)
		cache_push_room(cache, rq);
	else if (rq)
		atomic_fetch_sub(&cache->nr_room, 1);
	pthread_mutex_unlock(&cache->lock);
	return i;
}

static void put_slot(struct cache_lane *cl, int32_t i)
{
	struct bridge_cache *cache = cl->cache;

	pthread_mutex_lock(&cache->lock);
	cache->slots[i].next_free = cache->free_slots;
	cache->free_slots = i;
	cache->nr_free++;
	pthread_mutex_unlock(&cache->lock);
	cache_wake_room(cl);
}

int cache_slot_add(struct cache_lane *cl, uint64_t c, struct bridge_request *rq)
{
	struct bridge_cache *cache = cl->cache;
	int32_t i = take_slot(cl, rq);

	if (i < 0) {
		/* There is no clean slot to evict, so dirty ones must become clean. */
		if (rq && i == -EAGAIN)
			cache_push_kick(cl);
		return i;
	}
	struct cache_chunk *chunk = cache_lock(cache, c);
	bool had = chunk->slot != 0;
	if (!had) {
		chunk->slot = i + 1;
		cache->slots[i].referenced = true;
		atomic_store(&cache->slots[i].chunk, c);
	}
	cache_unlock(chunk);
	if (had)
		put_slot(cl, i);
	return 1;
}

/* ---- slots that lost something ---- */

int cache_give_up_slot(struct cache_lane *cl, struct cache_chunk *chunk, struct cache_slot *slot)
{
	bool may = may_evict(chunk, slot);

	if (may) {
		empty_slot(cl, chunk, slot);
		cache_retire_slot(cl->cache);
	}
	cache_unlock(chunk);
	/* Requests that wait for a slot may have waited for this last one. */
	cache_wake_room(cl);
	return may ? 1 : -EIO;
}
