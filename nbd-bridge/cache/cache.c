/* SPDX-License-Identifier: MIT */
/*
 * A cache: made, joined by the lanes, cleared, freed.  The control thread's, except the functions
 * that run on lanes.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fabric/base/map.h"
#include "fabric/machine/available.h"
#include "nbd-bridge/cache/cache-private.h"
#include "nbd-bridge/cache/pull-order.h"

_Static_assert((int)CACHE_CHUNK_MAX == (int)BRIDGE_CHUNK_MAX,
	"a map has a bit for each block of a chunk");

struct registration {
	struct bridge_cache *cache;
	struct weft_error *err;
	int r;
};

/*
 * Registers bounce buffers, which the transport reads and writes in place of the slots: it cannot
 * keep pages of a file, and it sends sealed bytes.
 */
static int register_bounces(struct cache_lane *cl, struct weft_error *err)
{
	const struct bridge_cache *cache = cl->cache;
	/* A block that is sealed has its tag behind it. */
	const size_t each = cache_chunk_bytes(cache) + (cache->seal ? CACHE_BLOCK : 0);

	cl->nr_ios = (unsigned)weft_max(CACHE_IOS_MIN,
		weft_min(CACHE_IOS, CACHE_BOUNCE >> cache->shift));
	cl->bounces_len = cl->nr_ios * each;
	cl->bounces = weft_map_bytes(cl->bounces_len);
	if (!cl->bounces)
		return weft_error_set(err, ENOMEM, "cannot map %zu bytes for the cache",
			cl->bounces_len);
	for (unsigned i = 0; i < cl->nr_ios; i++)
		cl->ios[i].bounce = cl->bounces + i * each;
	return bridge_lane_register(cl->lane, cl->bounces, cl->bounces_len, &cl->bounce_mem, err);
}

static int register_memory(struct cache_lane *cl, struct weft_error *err)
{
	const struct bridge_cache *cache = cl->cache;
	int r = 0;

	cl->nr_ios = CACHE_IOS;
	if (cache->on_disk || cache->bounces_writes)
		r = register_bounces(cl, err);
	if (r == 0 && !(cache->on_disk && cache->bounces_writes))
		r = bridge_lane_register(cl->lane, cache->memory, cache->memory_len, &cl->mem, err);
	if (r < 0)
		bridge_lane_deregister(cl->lane, cl->bounce_mem);
	return r;
}

/* Where a row is settled only once its bytes have arrived, each operation has rows of its own. */
static int make_rows(struct cache_lane *cl, struct weft_error *err)
{
	const struct bridge_cache *cache = cl->cache;
	const size_t each = cache_chunk_bytes(cache) / CACHE_BLOCK;

	cl->held_tail = &cl->held;
	if (!cache->seal || !seal_path(cache->seal))
		return 0;
	cl->rows = calloc(cl->nr_ios * each, SEAL_ROW_BYTES);
	if (!cl->rows)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	for (unsigned i = 0; i < cl->nr_ios; i++)
		cl->ios[i].rows = (void *)((uint8_t *)cl->rows + i * each * SEAL_ROW_BYTES);
	return 0;
}

static void free_lane(struct cache_lane *cl)
{
	sealer_free(cl->sealer);
	free(cl->rows);
	weft_unmap_bytes(cl->bounces, cl->bounces_len);
	free(cl);
}

static void join_lane(struct bridge_lane *lane, void *ctx)
{
	struct registration *reg = ctx;
	struct bridge_cache *cache = reg->cache;
	struct cache_lane *cl = calloc(1, sizeof(*cl));

	if (!cl) {
		reg->r = weft_error_set(reg->err, ENOMEM, "cannot make the cache: out of memory");
		return;
	}
	cl->cache = cache;
	cl->lane = lane;
	cl->worker = lane_worker(lane);
	reg->r = cache->seal ? sealer_new(cache->seal, &cl->sealer, reg->err) : 0;
	if (reg->r == 0)
		reg->r = register_memory(cl, reg->err);
	if (reg->r == 0)
		reg->r = make_rows(cl, reg->err);
	if (reg->r < 0) {
		free_lane(cl);
		return;
	}
	for (unsigned i = cl->nr_ios; i-- > 0;) {
		cl->ios[i].cl = cl;
		cl->ios[i].next = cl->free_ios;
		cl->free_ios = &cl->ios[i];
	}
	cl->nr_free = cl->nr_ios;
	/* A client that is slow in receiving lent data leaves most of the cache to others. */
	cl->max_lent = cache->nr_slots / (4 * cache->lanes->nr);
	cl->push_at = lane_index(lane) * (cache->nr_chunks / cache->lanes->nr);
	cache_push_init(cl);
	cache_pull_init(cl);
	cache->of_lane[lane_index(lane)] = cl;
	lane_set_stage(lane, &cache_stage, cl);
	cache_pull(cl);
}

static void leave_lane(struct bridge_lane *lane, void *ctx)
{
	struct cache_lane *cl = ctx;

	assert(!cl->active && cl->nr_lent == 0);
	bridge_lane_deregister(lane, cl->mem);
	bridge_lane_deregister(lane, cl->bounce_mem);
	weft_loop_timer_cancel(cl->worker->loop, &cl->push);
	weft_loop_timer_cancel(cl->worker->loop, &cl->pull);
	cl->cache->of_lane[lane_index(lane)] = NULL;
	lane_set_stage(lane, NULL, NULL);
	free_lane(cl);
}

/* Writes to the file's header which regions it caches, and our identity at their donors. */
static int begin_file(struct bridge_cache *cache, struct weft_error *err)
{
	struct bridge_attachment *attachment = cache->attachment;
	struct cache_file_identity *id = calloc(1, sizeof(*id));

	if (!id)
		return weft_error_set(err, ENOMEM, "cannot make the cache: out of memory");
	snprintf(id->uri, sizeof(id->uri), "%s", cache->config.uri);
	id->size_bytes = cache->size_bytes;
	id->stripe_bytes = attachment->config.stripe_bytes;
	id->chunk_bytes = (uint32_t)cache_chunk_bytes(cache);
	id->nr_slots = cache->nr_slots;
	id->nr_donors = attachment->nr_peers;
	id->sealed = cache->seal ? seal_kind_of(cache->seal) : SEAL_NONE;
	for (unsigned i = 0; i < attachment->nr_peers; i++)
		memcpy(id->ids[i], attachment->peers[i].config.id, sizeof(id->ids[i]));
	int r = cache_file_reset(cache->file, id, err);
	free(id);
	/* Notes the generations that were asked for and granted before the file was ready. */
	for (unsigned i = 0; i < attachment->nr_peers && r == 0; i++) {
		struct bridge_peer *peer = &attachment->peers[i];
		uint64_t granted = peer_noted(peer);

		cache_file_note_generation(cache->file, i, atomic_load(&peer->generation));
		cache_file_note_granted(cache->file, i, granted,
			granted && atomic_load(&peer->wrote_generation) == granted);
	}
	return r;
}

/* Without this check a lack of memory would show later, when the kernel kills a process. */
static int check_room(const struct bridge_cache *cache, struct weft_error *err)
{
	struct weft_available available;
	char want[32], have[32];

	if (weft_available("", 0, -1, &available) < 0 || cache->memory_len <= available.bytes)
		return 0;
	return weft_error_set(err, ENOMEM,
		"a cache of %s wanted, but only %s of memory can be had (%s); give a smaller "
		"--cache, or --cache-file",
		weft_format_size(cache->memory_len, want, sizeof(want)),
		weft_format_size(available.bytes, have, sizeof(have)), available.limit);
}

static int map_all(struct bridge_cache *cache, struct weft_error *err)
{
	int r = 0;

	cache->chunks = weft_map_bytes(cache->nr_chunks * sizeof(cache->chunks[0]));
	cache->dirty_map =
		weft_map_bytes((cache->nr_chunks + 63) / 64 * sizeof(cache->dirty_map[0]));
	cache->slots = calloc(cache->nr_slots, sizeof(cache->slots[0]));
	if (cache->file) {
		if (!cache->config.resume)
			r = begin_file(cache, err);
		/* What a bridge left has its room, and what it left of no use is free by now. */
		if (r == 0 && !cache->config.resume && cache_file_is_memory(cache->file))
			r = check_room(cache, err);
		/* Notes the grants, before anything is written back. */
		for (unsigned i = 0; i < cache->attachment->nr_peers && r == 0; i++)
			cache_file_set_epoch(cache->file, i,
				cache->attachment->peers[i].info.epoch);
		cache->memory = r == 0 ? cache_file_data(cache->file) : NULL;
	} else {
		r = check_room(cache, err);
		cache->memory = r == 0 ? weft_map_bytes(cache->memory_len) : NULL;
		/* Huge pages, if the kernel has any. */
		if (cache->memory)
			madvise(cache->memory, cache->memory_len, MADV_HUGEPAGE);
	}
	if (r == 0 && (!cache->memory || !cache->chunks || !cache->dirty_map || !cache->slots))
		r = weft_error_set(err, ENOMEM, "cannot map %zu bytes for the cache",
			cache->memory_len);
	return r;
}

/*
 * Makes those blocks of the slot dirty that the file says are newer than the donor's.  Nobody else
 * knows the cache yet.
 */
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
	const struct bridge_cache_config *config = &cache->config;

	cache->free_slots = -1;
	for (uint32_t i = cache->nr_slots; i-- > 0;) {
		cache->slots[i].chunk = UINT64_MAX;
		if (config->resume && resume_slot(cache, i) < 0)
			return weft_error_set(err, EIO,
				"the table of %s cannot be read, so nobody knows which blocks are "
				"newer than the donor's; save the rest with: "
				"weft rescue %s FILE; then remove it",
				cache_file_path(cache->file), cache_file_path(cache->file));
		if (cache->slots[i].chunk != UINT64_MAX)
			continue;
		cache->slots[i].next_free = cache->free_slots;
		cache->free_slots = (int32_t)i;
		cache->nr_free++;
	}
	return 0;
}

int cache_new(struct bridge_lanes *lanes, const struct bridge_cache_config *config,
	const struct cache_path *path, struct bridge_cache **ret, struct weft_error *err)
{
	const struct tp_info *info = &lanes->attachment->info;
	struct bridge_cache *cache = calloc(1, sizeof(*cache));
	struct registration reg = {.cache = cache, .err = err};

	if (!cache)
		return weft_error_set(err, ENOMEM, "cannot make the cache: out of memory");
	cache->config = *config;
	cache->lanes = lanes;
	cache->attachment = lanes->attachment;
	cache->path = *path;
	cache->size_bytes = info->size_bytes;
	pthread_mutex_init(&cache->lock, NULL);
	*ret = cache;
	if (info->min_block_bytes > CACHE_BLOCK)
		return weft_error_set(err, EOPNOTSUPP,
			"cannot cache: the server wants blocks of %u bytes, a cache's have %d",
			info->min_block_bytes, CACHE_BLOCK);
	if (config->resume && cache_file_identity(config->file)->size_bytes != cache->size_bytes)
		return weft_error_set(err, ESTALE,
			"the region has another size than when %s was written",
			cache_file_path(config->file));
	cache->file = config->file;
	cache->seal = config->seal;
	cache->on_disk = config->file && !cache_file_is_memory(config->file);
	cache->bounces_writes = cache->on_disk ||
		(config->seal && seal_kind_of(config->seal) == SEAL_ENCRYPT);
	int r = cache_set_sizes(cache, err);
	if (r == 0 && cache->seal)
		r = seal_start(cache->seal, cache->size_bytes, err);
	if (r == 0 && cache->seal && seal_path(cache->seal))
		r = cache_end_doubts(cache, err);
	if (r == 0)
		r = map_all(cache, err);
	if (r == 0 && config->pull_order &&
		(r = pull_order_chunks(config->pull_order, cache->nr_chunks, cache->shift,
			 &cache->pull_order)) < 0)
		weft_error_set(err, -r,
			"no memory for the order in which to pull %" PRIu64 " chunks",
			cache->nr_chunks);
	if (r == 0)
		r = fill_free_list(cache, err);
	if (r < 0)
		return r;
	if (!cache->file)
		cache_ready_start(cache);
	cache_watch_seal(cache, true);
	for (unsigned i = 0; i < lanes->nr && reg.r == 0; i++)
		bridge_lane_run(lanes->lane[i], join_lane, &reg);
	if (reg.r == 0 && cache->nr_dirty > 0)
		cache_push_now(cache);
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

/* Clears an idle slot.  -EIO: the file still says that some of it is dirty. */
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
	int r = cache_mark_clean(cache, slot, 0,
		(unsigned)(cache_chunk_bytes(cache) / CACHE_BLOCK));
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
	/* Either all slots are cleared, or none. */
	for (uint32_t i = 0; i < cache->nr_slots; i++)
		idle &= is_idle(cache, &cache->slots[i]);
	for (uint32_t i = 0; idle && i < cache->nr_slots; i++)
		cleared &= clear_slot(cache, i) == 0;
	pthread_mutex_unlock(&cache->lock);
	/* The file's old entries must never be taken for writes to the next contents. */
	if (!cleared && cache_file_condemn(cache->file) < 0)
		return false;
	if (!idle || (cache->seal && cache_seal_anew(cache, NULL) < 0))
		return false;
	atomic_store(&cache->push_error, 0);
	atomic_store(&cache->pull_next, 0);
	atomic_store(&cache->pull_full, false);
	return true;
}

bool cache_has_lent(const struct bridge_cache *cache, unsigned lane)
{
	return cache->of_lane[lane] && cache->of_lane[lane]->nr_lent > 0;
}

void cache_free(struct bridge_cache *cache)
{
	if (!cache)
		return;
	cache_watch_seal(cache, false);
	for (unsigned i = 0; i < cache->lanes->nr; i++)
		if (cache->of_lane[i])
			bridge_lane_run(cache->lanes->lane[i], leave_lane, cache->of_lane[i]);
	cache_ready_end(cache);
	if (cache->memory && !cache->file)
		weft_unmap_bytes(cache->memory, cache->memory_len);
	weft_unmap_bytes(cache->chunks, cache->nr_chunks * sizeof(cache->chunks[0]));
	weft_unmap_bytes((void *)cache->dirty_map,
		(cache->nr_chunks + 63) / 64 * sizeof(cache->dirty_map[0]));
	free(cache->pull_order);
	free(cache->slots);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}
