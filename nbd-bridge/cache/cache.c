/*
 * The cache's table: which chunk has which slot, eviction, and who waits for what.
 * Any lane's thread; making and freeing are the control thread's.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/machine/available.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/cache/pull-order.h"

enum { LOOK_MAX = 64 };

_Static_assert((int)CACHE_CHUNK_MAX == (int)BRIDGE_CHUNK_MAX, "a map has a bit for each block of a chunk");

/* ---- waiting ---- */

void cache_ready(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_lane *other = rq->lane;
	struct bridge_request *head = atomic_load(&other->cache->ready);

	do
		rq->wait_next = head;
	while (!atomic_compare_exchange_weak(&other->cache->ready, &head, rq));
	/* A lane looks at its own before it sleeps. */
	if (!head && other != lane)
		weft_loop_wake(other->loop);
}

static unsigned ready_all(struct bridge_lane *lane, struct bridge_request **list)
{
	struct bridge_request *rq = *list;
	unsigned n = 0;

	*list = NULL;
	while (rq) {
		struct bridge_request *next = rq->wait_next;

		cache_ready(lane, rq);
		rq = next;
		n++;
	}
	return n;
}

int cache_wait_chunk(struct cache_chunk *chunk, uint64_t c, struct bridge_request *rq)
{
	rq->waits_at = BRIDGE_WAITS_CHUNK;
	rq->wait_chunk = c;
	rq->wait_next = chunk->waiters;
	chunk->waiters = rq;
	chunk->nr_pins++;
	cache_unlock(chunk);
	return -EAGAIN;
}

void cache_wake_chunk(struct bridge_lane *lane, struct cache_chunk *chunk)
{
	ready_all(lane, &chunk->waiters);
}

/* Under the cache's lock. */
static int push_room(struct bridge_cache *cache, struct bridge_request *rq)
{
	rq->waits_at = BRIDGE_WAITS_ROOM;
	rq->wait_next = cache->room;
	cache->room = rq;
	return -EAGAIN;
}

int cache_wait_room(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;
	int r = 1;

	/* Counted before looking, so that whoever makes room meanwhile sees it. */
	atomic_fetch_add(&cache->nr_room, 1);
	pthread_mutex_lock(&cache->lock);
	if (atomic_load(&cache->nr_dead) >= cache->max_dirty)
		r = -EIO;
	else if (atomic_load(&cache->nr_dirty) >= cache->max_dirty)
		r = push_room(cache, rq);
	if (r != -EAGAIN)
		atomic_fetch_sub(&cache->nr_room, 1);
	pthread_mutex_unlock(&cache->lock);
	return r;
}

void cache_wake_room(struct bridge_lane *lane)
{
	struct bridge_cache *cache = lane->cache->cache;

	if (atomic_load(&cache->nr_room) == 0)
		return;
	pthread_mutex_lock(&cache->lock);
	atomic_fetch_sub(&cache->nr_room, ready_all(lane, &cache->room));
	pthread_mutex_unlock(&cache->lock);
}

int cache_wait_io(struct bridge_lane *lane, struct bridge_request *rq)
{
	rq->waits_at = BRIDGE_WAITS_IO;
	rq->wait_next = lane->cache->io_waiters;
	lane->cache->io_waiters = rq;
	return -EAGAIN;
}

/* ---- slots ---- */

void cache_uncount(struct bridge_cache *cache, uint64_t c, struct cache_slot *slot)
{
	if (!slot->counted)
		return;
	slot->counted = false;
	cache_count_dead(cache, slot);
	atomic_fetch_and(&cache->dirty_map[c / 64], ~(UINT64_C(1) << c % 64));
	atomic_fetch_sub(&cache->nr_dirty, 1);
}

int cache_mark_clean(struct bridge_cache *cache, const struct cache_slot *slot, unsigned first, unsigned nr)
{
	return cache->file ? cache_file_unmark(cache->file, (uint32_t)(slot - cache->slots), first, nr) : 0;
}

bool cache_may_evict(const struct cache_chunk *chunk, const struct cache_slot *slot)
{
	return chunk->nr_pins == 0 && !chunk->zeroing && slot->nr_ios == 0 && cache_map_empty(&slot->dirty);
}

void cache_empty_slot(struct bridge_lane *lane, struct cache_chunk *chunk, struct cache_slot *slot)
{
	unsigned wasted = cache_map_count(&slot->ahead, 0, CACHE_CHUNK_MAX / CACHE_BLOCK);

	if (wasted > 0)
		count(&lane->cache->counters.ahead_wasted, (uint64_t)wasted * CACHE_BLOCK);
	chunk->slot = 0;
	atomic_store(&slot->chunk, UINT64_MAX);
	memset(&slot->valid, 0, sizeof(slot->valid));
	memset(&slot->ahead, 0, sizeof(slot->ahead));
	slot->push_error = 0;
}

/* CLOCK: the first slot whose chunk nobody used since the hand passed it last.  Under the cache's lock. */
static int32_t evict(struct bridge_lane *lane, uint32_t look)
{
	struct bridge_cache *cache = lane->cache->cache;

	for (; look > 0; look--) {
		uint32_t i = cache->hand;
		struct cache_slot *slot = &cache->slots[i];
		uint64_t c = atomic_load(&slot->chunk);

		cache->hand = i + 1 < cache->nr_slots ? i + 1 : 0;
		if (c == UINT64_MAX || pthread_mutex_trylock(&cache->chunks[c].lock) != 0)
			continue;
		struct cache_chunk *chunk = &cache->chunks[c];
		bool found = chunk->slot == (int32_t)i + 1 && cache_may_evict(chunk, slot);
		if (found && slot->referenced) {
			slot->referenced = false;
			found = false;
		}
		if (found)
			cache_empty_slot(lane, chunk, slot);
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

/* No slot will ever come free: none is left, or the dirty bytes of each are lost. */
static bool all_lost(const struct bridge_cache *cache)
{
	return atomic_load(&cache->nr_given_up) + atomic_load(&cache->nr_dead) >= cache->nr_slots;
}

/* -EAGAIN: rq waits, if there is one; -EIO: there are none any more. */
static int32_t take_slot(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;

	if (rq)
		atomic_fetch_add(&cache->nr_room, 1);
	pthread_mutex_lock(&cache->lock);
	int32_t i = cache->free_slots;
	if (i >= 0) {
		cache->free_slots = cache->slots[i].next_free;
		cache->nr_free--;
	} else {
		i = evict(lane, rq ? 2 * cache->nr_slots + 1 : LOOK_MAX);
	}
	if (i < 0)
		i = all_lost(cache) ? -EIO : -EAGAIN;
	if (rq && i == -EAGAIN)
		push_room(cache, rq);
	else if (rq)
		atomic_fetch_sub(&cache->nr_room, 1);
	pthread_mutex_unlock(&cache->lock);
	return i;
}

static void put_slot(struct bridge_lane *lane, int32_t i)
{
	struct bridge_cache *cache = lane->cache->cache;

	pthread_mutex_lock(&cache->lock);
	cache->slots[i].next_free = cache->free_slots;
	cache->free_slots = i;
	cache->nr_free++;
	pthread_mutex_unlock(&cache->lock);
	cache_wake_room(lane);
}

int cache_slot_add(struct bridge_lane *lane, uint64_t c, struct bridge_request *rq)
{
	struct bridge_cache *cache = lane->cache->cache;
	int32_t i = take_slot(lane, rq);

	if (i < 0) {
		/* What is clean cannot be had: what is dirty must become so. */
		if (rq && i == -EAGAIN)
			cache_push_kick(lane);
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
		put_slot(lane, i);
	return 1;
}

/* ---- making and freeing ---- */

struct registration {
	struct bridge_cache *cache;
	struct weft_error *err;
	int r;
};

/* What the transport reads and writes: the slots, or, since it may not keep pages of a file, room of its own. */
static int register_memory(struct bridge_lane *lane, struct cache_lane *cl, struct weft_error *err)
{
	const struct bridge_cache *cache = cl->cache;

	cl->nr_ios = CACHE_IOS;
	if (!cache->file)
		return bridge_lane_register(lane, cache->memory, cache->memory_len, &cl->mem, err);
	cl->nr_ios = (unsigned)weft_max(CACHE_IOS_MIN, weft_min(CACHE_IOS, CACHE_BOUNCE >> cache->shift));
	cl->bounces_len = (size_t)cl->nr_ios << cache->shift;
	cl->bounces = weft_map_bytes(cl->bounces_len);
	if (!cl->bounces)
		return weft_error_set(err, ENOMEM, "cannot map %zu bytes for the cache", cl->bounces_len);
	for (unsigned i = 0; i < cl->nr_ios; i++)
		cl->ios[i].bounce = cl->bounces + ((size_t)i << cache->shift);
	return bridge_lane_register(lane, cl->bounces, cl->bounces_len, &cl->mem, err);
}

static void free_lane(struct cache_lane *cl)
{
	if (cl->bounces)
		munmap(cl->bounces, cl->bounces_len);
	free(cl);
}

static void join_lane(struct bridge_lane *lane, void *ctx)
{
	struct registration *reg = ctx;
	struct cache_lane *cl = calloc(1, sizeof(*cl));

	if (!cl) {
		reg->r = weft_error_set(reg->err, ENOMEM, "cannot make the cache: out of memory");
		return;
	}
	cl->cache = reg->cache;
	reg->r = register_memory(lane, cl, reg->err);
	if (reg->r < 0) {
		free_lane(cl);
		return;
	}
	for (unsigned i = cl->nr_ios; i-- > 0;) {
		cl->ios[i].lane = lane;
		cl->ios[i].next = cl->free_ios;
		cl->free_ios = &cl->ios[i];
	}
	cl->nr_free = cl->nr_ios;
	/* Whoever is slow in taking them leaves most of the cache to others. */
	cl->max_lent = reg->cache->nr_slots / (4 * lane->bridge->nr_lanes);
	cl->push_at = lane->index * (reg->cache->nr_chunks / lane->bridge->nr_lanes);
	cache_push_init(cl);
	reg->cache->lanes[lane->index] = cl;
	lane->cache = cl;
	cache_pull(lane);
}

static unsigned log2_of(uint64_t v)
{
	return 63 - (unsigned)__builtin_clzll(v);
}

/* What fits into a round trip. */
static uint64_t under_way_bytes(const struct bridge_cache *cache)
{
	return cache->bridge->rate / 1000 * (cache->bridge->rtt_ns / 1000) / 1000;
}

/* A sixteenth of what is under way at a time, so that the wire is kept full by a few dozen operations. */
static uint64_t choose_chunk(const struct bridge_cache *cache)
{
	uint64_t want = under_way_bytes(cache) / 16;

	want = weft_min(weft_max(want, 256 << 10), CACHE_CHUNK_MAX);
	return UINT64_C(1) << log2_of(2 * want - 1);
}

/* Its sizes: as the file that is resumed says, or as the path asks for, within what the user does. */
static int set_sizes(struct bridge_cache *cache, struct weft_error *err)
{
	const struct bridge_config *config = &cache->bridge->config;
	uint64_t chunk = config->chunk_bytes ? config->chunk_bytes : choose_chunk(cache);

	while (!config->chunk_bytes && chunk > BRIDGE_CHUNK_MIN && config->cache_bytes / chunk < 4 * BRIDGE_CACHE_MIN_CHUNKS)
		chunk /= 2;
	if (config->resume)
		chunk = cache_file_identity(config->cache_file)->chunk_bytes;
	cache->shift = log2_of(chunk);
	cache->nr_chunks = (cache->size_bytes + chunk - 1) >> cache->shift;
	/* More than the region would never be used. */
	cache->nr_slots = (uint32_t)weft_min(config->cache_bytes >> cache->shift, weft_max(cache->nr_chunks, BRIDGE_CACHE_MIN_CHUNKS));
	if (config->resume)
		cache->nr_slots = cache_file_identity(config->cache_file)->nr_slots;
	if (cache->nr_slots < BRIDGE_CACHE_MIN_CHUNKS)
		return weft_error_set(err, EINVAL, "a cache of %" PRIu64 " bytes is too small: it has at least %d chunks of %" PRIu64,
			config->cache_bytes, BRIDGE_CACHE_MIN_CHUNKS, chunk);
	cache->max_dirty = cache->nr_slots - cache->nr_slots / 4;
	uint64_t under_way = under_way_bytes(cache);
	cache->window_max = weft_min(((uint64_t)cache->nr_slots << cache->shift) / 4,
		weft_min(64 << 20, weft_max(8 << 20, 8 * under_way)));
	cache->window_min = weft_min(cache->window_max, 2 * weft_max(chunk, under_way));
	cache->memory_len = (size_t)cache->nr_slots << cache->shift;
	return 0;
}

/* The file says what it is of, and as whom it was written. */
static int begin_file(struct bridge_cache *cache, struct weft_error *err)
{
	const struct bridge *bridge = cache->bridge;
	struct cache_file_identity *id = calloc(1, sizeof(*id));

	if (!id)
		return weft_error_set(err, ENOMEM, "cannot make the cache: out of memory");
	snprintf(id->uri, sizeof(id->uri), "%s", bridge->config.uri);
	id->size_bytes = cache->size_bytes;
	id->stripe_bytes = bridge->config.stripe_bytes;
	id->chunk_bytes = (uint32_t)cache_chunk_bytes(cache);
	id->nr_slots = cache->nr_slots;
	id->nr_donors = bridge->nr_donors;
	for (unsigned i = 0; i < bridge->nr_donors; i++)
		memcpy(id->ids[i], bridge->donors[i].config.id, sizeof(id->ids[i]));
	int r = cache_file_reset(bridge->config.cache_file, id, err);
	free(id);
	/* What was asked for and granted while there was no place to say so. */
	for (unsigned i = 0; i < bridge->nr_donors && r == 0; i++) {
		struct bridge_donor *donor = &bridge->donors[i];
		uint64_t granted = donor_noted(donor);

		cache_file_note_generation(bridge->config.cache_file, i, atomic_load(&donor->generation));
		cache_file_note_granted(bridge->config.cache_file, i, granted, granted && atomic_load(&donor->wrote_generation) == granted);
	}
	return r;
}

/* What memory has no room for would be found out page by page, by a process being killed. */
static int check_room(const struct bridge_cache *cache, struct weft_error *err)
{
	struct weft_available available;
	char want[32], have[32];

	if (weft_available("", 0, -1, &available) < 0 || cache->memory_len <= available.bytes)
		return 0;
	return weft_error_set(err, ENOMEM, "a cache of %s wanted, but only %s of memory can be had (%s); give a smaller --cache, or --cache-file",
		weft_format_size(cache->memory_len, want, sizeof(want)), weft_format_size(available.bytes, have, sizeof(have)), available.limit);
}

static int map_all(struct bridge_cache *cache, struct weft_error *err)
{
	int r = 0;

	cache->chunks = weft_map_bytes(cache->nr_chunks * sizeof(cache->chunks[0]));
	cache->dirty_map = weft_map_bytes((cache->nr_chunks + 63) / 64 * sizeof(cache->dirty_map[0]));
	cache->slots = calloc(cache->nr_slots, sizeof(cache->slots[0]));
	cache->file = cache->bridge->config.cache_file;
	if (cache->file) {
		if (!cache->bridge->config.resume)
			r = begin_file(cache, err);
		/* What it was granted, before any of it is written back. */
		for (unsigned i = 0; i < cache->bridge->nr_donors && r == 0; i++)
			cache_file_set_epoch(cache->file, i, cache->bridge->donors[i].info.epoch);
		cache->memory = r == 0 ? cache_file_data(cache->file) : NULL;
	} else {
		r = check_room(cache, err);
		cache->memory = r == 0 ? weft_map_bytes(cache->memory_len) : NULL;
		/* Whole pages where there are any: the kernel finds them, or does not. */
		if (cache->memory)
			madvise(cache->memory, cache->memory_len, MADV_HUGEPAGE);
	}
	if (r == 0 && (!cache->memory || !cache->chunks || !cache->dirty_map || !cache->slots))
		r = weft_error_set(err, ENOMEM, "cannot map %zu bytes for the cache", cache->memory_len);
	return r;
}

/* What the file has of the slot that is newer than the donor's is dirty again.  Nobody else knows the cache yet. */
static int resume_slot(struct bridge_cache *cache, uint32_t i)
{
	struct cache_slot *slot = &cache->slots[i];
	uint64_t block;

	for (unsigned b = 0; b < cache_chunk_bytes(cache) / CACHE_BLOCK; b++) {
		int r = cache_file_entry(cache->file, i, b, &block);

		if (r < 0)
			return r;
		if (r == 0)
			continue;
		uint64_t c = block * CACHE_BLOCK >> cache->shift;

		if (slot->chunk == UINT64_MAX && cache->chunks[c].slot == 0) {
			slot->chunk = c;
			slot->counted = true;
			cache->chunks[c].slot = (int32_t)i + 1;
			cache->dirty_map[c / 64] |= UINT64_C(1) << c % 64;
			cache->nr_dirty++;
		}
		if (slot->chunk != c)
			continue;
		cache_map_set(&slot->valid, b, 1);
		cache_map_set(&slot->dirty, b, 1);
	}
	return 0;
}

static int fill_free_list(struct bridge_cache *cache, struct weft_error *err)
{
	const struct bridge_config *config = &cache->bridge->config;

	cache->free_slots = -1;
	for (uint32_t i = cache->nr_slots; i-- > 0;) {
		cache->slots[i].chunk = UINT64_MAX;
		if (config->resume && resume_slot(cache, i) < 0)
			return weft_error_set(err, EIO, "the table of %s cannot be read: nobody knows what of it is newer than what the donor has; save the rest with: "
				"weft rescue %s FILE; then remove it", cache_file_path(cache->file), cache_file_path(cache->file));
		if (cache->slots[i].chunk != UINT64_MAX)
			continue;
		cache->slots[i].next_free = cache->free_slots;
		cache->free_slots = (int32_t)i;
		cache->nr_free++;
	}
	return 0;
}

int cache_new(struct bridge *bridge, struct weft_error *err)
{
	struct bridge_cache *cache = calloc(1, sizeof(*cache));
	struct registration reg = {.cache = cache, .err = err};

	if (!cache)
		return weft_error_set(err, ENOMEM, "cannot make the cache: out of memory");
	cache->bridge = bridge;
	cache->size_bytes = bridge->info.size_bytes;
	pthread_mutex_init(&cache->lock, NULL);
	bridge->cache = cache;
	if (bridge->info.min_block_bytes > CACHE_BLOCK)
		return weft_error_set(err, EOPNOTSUPP, "cannot cache: the server wants blocks of %u bytes, a cache's have %d",
			bridge->info.min_block_bytes, CACHE_BLOCK);
	if (bridge->config.resume && cache_file_identity(bridge->config.cache_file)->size_bytes != cache->size_bytes)
		return weft_error_set(err, ESTALE, "the region has another size than when %s was written", cache_file_path(bridge->config.cache_file));
	int r = set_sizes(cache, err);
	if (r == 0)
		r = map_all(cache, err);
	if (r == 0 && bridge->config.pull_order &&
		(r = pull_order_chunks(bridge->config.pull_order, cache->nr_chunks, cache->shift, &cache->pull_order)) < 0)
		weft_error_set(err, -r, "no memory for the order in which to pull %" PRIu64 " chunks", cache->nr_chunks);
	if (r == 0)
		r = fill_free_list(cache, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < bridge->nr_lanes && reg.r == 0; i++)
		bridge_lane_run(bridge->lanes[i], join_lane, &reg);
	if (reg.r == 0 && cache->nr_dirty > 0)
		bridge_push_now(bridge);
	return reg.r;
}

static bool is_idle(struct bridge_cache *cache, const struct cache_slot *slot)
{
	uint64_t c = atomic_load(&slot->chunk);

	if (c == UINT64_MAX)
		return true;
	struct cache_chunk *chunk = cache_lock(cache, c);
	bool idle = slot->nr_ios == 0 && chunk->nr_pins == 0 && !chunk->zeroing;
	cache_unlock(chunk);
	return idle;
}

/* Of a slot that is idle.  -EIO: the file says still that some of it is dirty. */
static int clear_slot(struct bridge_cache *cache, uint32_t i)
{
	struct cache_slot *slot = &cache->slots[i];
	uint64_t c = atomic_load(&slot->chunk);

	if (c == UINT64_MAX)
		return 0;
	struct cache_chunk *chunk = cache_lock(cache, c);
	memset(&slot->valid, 0, sizeof(slot->valid));
	memset(&slot->dirty, 0, sizeof(slot->dirty));
	memset(&slot->ahead, 0, sizeof(slot->ahead));
	slot->push_error = 0;
	int r = cache_mark_clean(cache, slot, 0, (unsigned)(cache_chunk_bytes(cache) / CACHE_BLOCK));
	cache_uncount(cache, c, slot);
	chunk->slot = 0;
	atomic_store(&slot->chunk, UINT64_MAX);
	if (slot->damaged) {
		cache_retire_slot(cache);
	} else {
		slot->next_free = cache->free_slots;
		cache->free_slots = (int32_t)i;
		cache->nr_free++;
	}
	cache_unlock(chunk);
	return r;
}

bool cache_clear(struct bridge_cache *cache)
{
	bool idle = true, cleared = true;

	pthread_mutex_lock(&cache->lock);
	/* All, or nothing is lost. */
	for (uint32_t i = 0; i < cache->nr_slots; i++)
		idle &= is_idle(cache, &cache->slots[i]);
	for (uint32_t i = 0; idle && i < cache->nr_slots; i++)
		cleared &= clear_slot(cache, i) == 0;
	pthread_mutex_unlock(&cache->lock);
	/* What the file says still must never be taken for what the next contents lack. */
	if (!cleared && cache_file_condemn(cache->file) < 0)
		return false;
	if (!idle)
		return false;
	atomic_store(&cache->push_error, 0);
	atomic_store(&cache->pull_next, 0);
	atomic_store(&cache->pull_full, false);
	return true;
}

void cache_lane_free(struct bridge_lane *lane)
{
	struct cache_lane *cl = lane->cache;

	if (!cl)
		return;
	assert(!cl->active && cl->nr_lent == 0);
	bridge_lane_deregister(lane, cl->mem);
	cl->cache->lanes[lane->index] = NULL;
	lane->cache = NULL;
	free_lane(cl);
}

void cache_free(struct bridge_cache *cache)
{
	if (!cache)
		return;
	if (cache->memory && !cache->file)
		munmap(cache->memory, cache->memory_len);
	if (cache->chunks)
		munmap(cache->chunks, cache->nr_chunks * sizeof(cache->chunks[0]));
	if (cache->dirty_map)
		munmap((void *)cache->dirty_map, (cache->nr_chunks + 63) / 64 * sizeof(cache->dirty_map[0]));
	free(cache->pull_order);
	free(cache->slots);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}
