/* SPDX-License-Identifier: MIT */
/*
 * Writing back.  Runs on lanes; any lane takes any chunk.
 *
 * A lane goes round the table when the push interval is over since it made something dirty, when
 * there are many dirty chunks, and when it is told to (by a FLUSH).  A chunk that a stream of
 * writes has filled and left goes at once, unless the interval is long, as then writes are meant to
 * gather.  A run of dirty blocks in a chunk is one operation.  Nobody changes a block on its way to
 * the donor: a later write waits until the block has arrived, and makes it dirty again.
 */
#include <errno.h>

#include "nbd-bridge/cache/cache-private.h"

enum { RETRY_MS = 100, STREAM_MS = 1000 };

uint64_t cache_next_dirty(const struct bridge_cache *cache, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t word = atomic_load(&cache->dirty_map[from / 64]) >> from % 64;

		if (word)
			return weft_min(from + (unsigned)__builtin_ctzll(word), to);
		from = (from / 64 + 1) * 64;
	}
	return to;
}

/* The next run, from *first on, of blocks that are dirty and not lost. */
static unsigned next_run(const struct cache_slot *slot, unsigned *first)
{
	const struct cache_map map = cache_map_without(&slot->dirty, &slot->lost);

	return cache_map_run(&map, first, CACHE_CHUNK_MAX / CACHE_BLOCK);
}

/*
 * Copies the bytes to where the transport may read them, if that is not the slot.  -EIO: some are
 * lost.
 */
static int take_bytes(struct bridge_cache *cache, const struct cache_io *io, uint64_t c,
	struct cache_slot *slot, unsigned first, unsigned nr)
{
	uint64_t off = (uint64_t)first * CACHE_BLOCK;

	return cache->on_disk
		? cache_copy_out(cache, slot, io->bounce, off,
			  weft_min((uint64_t)nr * CACHE_BLOCK,
				  cache->size_bytes - (c << cache->shift) - off))
		: 0;
}

/* Under the chunk's lock.  The error that it ends with. */
static int end_push(struct cache_io *io, struct cache_slot *slot, int error)
{
	struct cache_counters *counters = &io->cl->counters;
	struct bridge_cache *cache = io->cl->cache;

	cache_map_clear(&slot->pushing, io->first, io->nr);
	if (error == 0 && io->rows)
		seal_settle(cache->seal, io->rq.off / CACHE_BLOCK, io->nr, io->rows);
	if (error == 0)
		error = cache_mark_clean(cache, slot, io->first, io->nr);
	slot->push_error = error;
	if (error < 0) {
		if (cache_map_empty(&slot->dirty) || slot->push_seq < slot->dirty_seq)
			slot->dirty_seq = slot->push_seq;
		cache_map_set(&slot->dirty, io->first, io->nr);
		cache_count_dead(cache, slot);
		weft_count(&counters->push_errors, 1);
	} else {
		weft_count(&counters->pushed_bytes, io->rq.len);
	}
	if (cache_map_empty(&slot->dirty) && cache_map_empty(&slot->pushing))
		cache_uncount(cache, io->chunk, slot);
	atomic_store(&cache->push_error, error);
	return error;
}

static void after_push(struct cache_lane *cl, int error)
{
	if (error < 0)
		cache_push_soon(cl);
}

static const struct cache_io_kind push_kind = {.use = CACHE_PUSH,
	.end = end_push,
	.after = after_push};

/* Under the chunk's lock. */
static int push_runs(struct cache_lane *cl, uint64_t c, struct cache_slot *slot,
	struct cache_io **list)
{
	unsigned first = 0, n;

	slot->push_seq = slot->dirty_seq;
	slot->push_error = 0;
	while ((n = next_run(slot, &first)) > 0) {
		struct cache_io *io = cache_io_get(cl, &push_kind);

		if (!io)
			return -EAGAIN;
		if (take_bytes(cl->cache, io, c, slot, first, n) < 0) {
			cache_io_put(io);
			continue; /* with the rest of the run that is not lost */
		}
		cache_map_clear(&slot->dirty, first, n);
		cache_map_set(&slot->pushing, first, n);
		cache_io_blocks(io, TP_WRITE, c, slot, first, n, list);
		first += n;
	}
	return 1;
}

static uint64_t bytes_of(const struct bridge_cache *cache, uint64_t c)
{
	return weft_min(cache_chunk_bytes(cache), cache->size_bytes - (c << cache->shift));
}

/* whole: only if all of it is dirty. */
static int push(struct cache_lane *cl, uint64_t c, bool whole)
{
	struct bridge_cache *cache = cl->cache;
	struct cache_io *list = NULL;
	int r = 0;

	/* Without a connection, operations would only keep writers from their blocks. */
	if (!lane_reaches(cl->lane, c << cache->shift, bytes_of(cache, c)))
		return 0;
	struct cache_chunk *chunk = cache_lock(cache, c);
	struct cache_slot *slot = cache_slot_of(cache, chunk);
	bool was_dead = slot && slot->dead;
	if (slot && !chunk->zeroing && cache_map_empty(&slot->pushing) &&
		!cache_map_empty(&slot->dirty) &&
		(!whole ||
			cache_map_all(&slot->dirty, 0,
				(unsigned)(bytes_of(cache, c) / CACHE_BLOCK))))
		r = push_runs(cl, c, slot, &list);
	bool died = slot && slot->dead && !was_dead;
	cache_unlock(chunk);
	cache_io_submit(cl, list);
	/*
	 * Only once: waiting requests look again, and find out whether there is anything left to
	 * wait for.
	 */
	if (died)
		cache_wake_room(cl);
	return r;
}

int cache_push(struct cache_lane *cl, uint64_t c)
{
	return push(cl, c, false);
}

void cache_push_filled(struct cache_lane *cl, uint64_t c)
{
	bool dirty = atomic_load_explicit(&cl->cache->dirty_map[c / 64], memory_order_relaxed) >>
			c % 64 &
		1;

	/* Most writes that begin a chunk are no stream, and need not take the neighbour's lock. */
	if (dirty && cl->cache->config.push_interval_ms <= STREAM_MS &&
		cl->nr_push < CACHE_PUSH_IOS && cl->nr_free > CACHE_RATHER_IOS &&
		atomic_load_explicit(&cl->cache->push_error, memory_order_relaxed) == 0)
		push(cl, c, true);
}

void cache_push_pump(struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;

	if (atomic_exchange(&cl->kicked, false))
		cl->push_left = cache->nr_chunks;
	while (cl->push_left > 0 && cl->nr_push < CACHE_PUSH_IOS &&
		cl->nr_free > CACHE_RATHER_IOS &&
		(cache->attachment->nr_peers > 1 || lane_is_ready(cl->lane))) {
		uint64_t end = weft_min(cl->push_at + cl->push_left, cache->nr_chunks);
		uint64_t c = cache_next_dirty(cache, cl->push_at, end);

		/* If there was no free operation, the rest of the chunk is next. */
		uint64_t next = c < end && cache_push(cl, c) == -EAGAIN ? c : weft_min(c + 1, end);
		cl->push_left -= next - cl->push_at;
		cl->push_at = next < cache->nr_chunks ? next : 0;
	}
}

void cache_push_soon(struct cache_lane *cl)
{
	struct bridge_cache *cache = cl->cache;
	bool failing = atomic_load_explicit(&cache->push_error, memory_order_relaxed) < 0;

	if (cl->push_left == 0 && !failing &&
		atomic_load_explicit(&cache->nr_dirty, memory_order_relaxed) > cache->max_dirty / 2)
		cl->push_left = cache->nr_chunks;
	if (cl->push.due_ns == 0)
		weft_loop_timer_set(cl->worker->loop, &cl->push,
			(failing ? RETRY_MS : cache->config.push_interval_ms) * UINT64_C(1000000));
}

static void on_interval(struct weft_timer *timer)
{
	struct cache_lane *cl = weft_container_of(timer, struct cache_lane, push);

	if (atomic_load(&cl->cache->nr_dirty) == 0)
		return;
	cl->push_left = cl->cache->nr_chunks;
	/* For blocks that are still dirty, or dirty again. */
	weft_loop_timer_set(cl->worker->loop, &cl->push,
		cl->cache->config.push_interval_ms * UINT64_C(1000000));
}

void cache_push_init(struct cache_lane *cl)
{
	cl->push.fn = on_interval;
}
