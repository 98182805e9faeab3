/* SPDX-License-Identifier: MIT */
/*
 * The cache of contents that are sealed: its operations' bytes, and what is zeros.  The lane's
 * thread.  Only bytes and rows of blocks that are the operation's, or under the chunk's lock.
 */
#include <errno.h>
#include <string.h>

#include "nbd-bridge/cache/cache-private.h"
#include "nbd-bridge/lane/pool.h"

static uint64_t first_block(const struct bridge_cache *cache, uint64_t c)
{
	return (c << cache->shift) / CACHE_BLOCK;
}

int cache_seal(struct cache_io *io)
{
	const struct bridge_cache *cache = io->cl->cache;
	/* A file's bytes are in the bounce already. */
	const uint8_t *from = cache->on_disk ? io->bounce : io->bytes;
	const uint64_t first = io->rq.off / CACHE_BLOCK;

	/* Zeros were logged when they were made. */
	if (io->rq.kind != TP_WRITE) {
		io->ticket = seal_path(cache->seal) ? seal_logged(cache->seal) : 0;
		return 0;
	}
	int r = sealer_seal(io->cl->sealer, first, from,
		seal_kind_of(cache->seal) == SEAL_ENCRYPT ? io->rq.buf : NULL, io->rq.len,
		io->rows);
	if (r < 0 || !io->rows)
		return r;
	io->ticket = seal_log(cache->seal, first, io->nr, io->rows);
	return io->ticket ? 0 : -ENOMEM;
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

/* ---- with a file ---- */

/* READs and WRITEs of blocks in doubt, past the cache, one after another. */
struct telling {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	struct bridge_cache *cache;
	struct sealer *sealer;
	bool done; /* under the lanes' lock */
	bool wrote;
	int r;
};

static void told(struct bridge_request *rq, int error)
{
	struct telling *t = weft_container_of(rq, struct telling, rq);

	t->r = error == -EIO ? bridge_lane_why_eio(t->cache->lanes->lane[0], rq) : error;
	lanes_tell(t->cache->lanes, &t->done);
}

static void take_buffer(struct bridge_lane *lane, void *ctx)
{
	struct telling *t = ctx;

	t->r = bridge_lane_buffer_get(lane, BRIDGE_POOL_MAX, &t->waiter, &t->rq.buf, &t->rq.mem);
	if (t->r < 0)
		bridge_lane_waiter_cancel(lane, &t->waiter);
}

static void give_buffer_back(struct bridge_lane *lane, void *ctx)
{
	struct telling *t = ctx;

	bridge_lane_buffer_put(lane, t->rq.buf);
}

static void send(struct bridge_lane *lane, void *ctx)
{
	struct telling *t = ctx;

	lane_submit_direct(lane, &t->rq);
}

static int ask_donors(struct telling *t, uint8_t kind, uint64_t off, uint64_t len)
{
	struct bridge_lanes *lanes = t->cache->lanes;

	t->rq.kind = kind;
	t->rq.off = off;
	t->rq.len = len;
	t->rq.lane.internal = true;
	t->rq.done = told;
	t->done = false;
	bridge_lane_run(lanes->lane[0], send, t);
	pthread_mutex_lock(&lanes->lock);
	while (!t->done)
		pthread_cond_wait(&lanes->changed, &lanes->lock);
	pthread_mutex_unlock(&lanes->lock);
	return t->r;
}

static uint64_t block_bytes(const struct bridge_cache *cache, uint64_t block)
{
	return weft_min(CACHE_BLOCK, cache->size_bytes - block * CACHE_BLOCK);
}

/*
 * A block of which a part has arrived, perhaps: the cache file has its bytes, as they were on disk
 * before they were sent.  They are sent again, sealed as they were.
 */
static int send_again(struct telling *t, uint64_t block)
{
	struct bridge_cache *cache = t->cache;
	const uint64_t len = block_bytes(cache, block);
	size_t at = 0;

	while (cache->file && cache_file_find(cache->file, block, &at, t->rq.buf)) {
		if (sealer_tell_again(t->sealer, block, t->rq.buf, len) < 0)
			continue;
		t->wrote = true;
		return ask_donors(t, TP_WRITE, block * CACHE_BLOCK, len);
	}
	sealer_give_up(t->sealer, block);
	return 0;
}

/* -EIO: the donor cannot read some of them; of a single one that tells that it is torn. */
static int tell_blocks(struct telling *t, uint64_t first, uint64_t nr)
{
	const uint64_t off = first * CACHE_BLOCK;
	uint64_t torn[BRIDGE_POOL_MAX / CACHE_BLOCK], nr_torn = 0;
	int r = ask_donors(t, TP_READ, off,
		weft_min(nr * CACHE_BLOCK, t->cache->size_bytes - off));

	if (r < 0 && (r != -EIO || nr > 1))
		return r;
	for (uint64_t i = 0; i < nr; i++)
		if (r < 0 ||
			sealer_tell(t->sealer, first + i,
				(const uint8_t *)t->rq.buf + i * CACHE_BLOCK,
				block_bytes(t->cache, first + i)) < 0)
			torn[nr_torn++] = first + i;
	r = 0;
	for (uint64_t i = 0; i < nr_torn && r == 0; i++)
		r = send_again(t, torn[i]);
	return r;
}

static int tell_run(struct telling *t, uint64_t first, uint64_t nr)
{
	int r = tell_blocks(t, first, nr);

	if (r != -EIO || nr == 1)
		return r;
	r = 0;
	for (uint64_t i = 0; i < nr && r == 0; i++)
		r = tell_blocks(t, first + i, 1);
	return r;
}

int cache_end_doubts(struct bridge_cache *cache, struct weft_error *err)
{
	struct telling t = {.cache = cache};
	uint64_t first = 0, nr;
	int r = sealer_new(cache->seal, &t.sealer, err);

	if (r < 0)
		return r;
	bridge_lane_run(cache->lanes->lane[0], take_buffer, &t);
	r = t.r;
	while (r == 0 &&
		(nr = seal_doubts(cache->seal, &first, BRIDGE_POOL_MAX / CACHE_BLOCK)) > 0) {
		r = tell_run(&t, first, nr);
		first += nr;
	}
	if (t.rq.buf)
		bridge_lane_run(cache->lanes->lane[0], give_buffer_back, &t);
	if (r == 0 && t.wrote && cache->attachment->info.can_flush) {
		t.rq.buf = NULL;
		t.rq.mem = NULL;
		r = ask_donors(&t, TP_FLUSH, 0, 0);
	}
	sealer_free(t.sealer);
	if (r < 0)
		return weft_error_set(err, -r,
			"cannot tell what of the last writes the donor has: %s", strerror(-r));
	return seal_end_doubts(cache->seal, err);
}

int cache_step_commit(struct cache_lane *cl, struct bridge_request *rq)
{
	struct seal *seal = cl->cache->seal;

	if (!rq->cache.commit)
		rq->cache.commit = seal_commit(seal);
	const int r = seal_is_done(seal, rq->cache.commit);
	if (r < 0)
		return r;
	if (r > 0) {
		rq->cache.phase = CACHE_PHASE_END;
		return 1;
	}
	rq->cache.waits_at = BRIDGE_WAITS_COMMIT;
	rq->cache.wait_next = cl->commit_waiters;
	cl->commit_waiters = rq;
	return -EAGAIN;
}

static void wake_lanes(void *ctx)
{
	struct bridge_cache *cache = ctx;

	for (unsigned i = 0; i < cache->lanes->nr; i++)
		weft_loop_wake(lane_worker(cache->lanes->lane[i])->loop);
}

static int sync_file(void *ctx)
{
	const struct bridge_cache *cache = ctx;

	return cache->on_disk ? cache_file_sync(cache->file) : 0;
}

void cache_watch_seal(struct bridge_cache *cache, bool on)
{
	const struct seal_watcher watcher = {wake_lanes, sync_file, cache};

	if (cache->seal && seal_path(cache->seal))
		seal_watch(cache->seal, on ? &watcher : NULL);
}

int cache_seal_anew(struct bridge_cache *cache, struct weft_error *err)
{
	int r = seal_start_anew(cache->seal, err);

	for (unsigned i = 0; i < cache->lanes->nr && r == 0; i++)
		if (cache->of_lane[i])
			r = sealer_take_keys(cache->of_lane[i]->sealer, err);
	return r;
}
