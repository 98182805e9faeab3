/* SPDX-License-Identifier: MIT */
/*
 * The cache's own operations: requests that a lane makes for itself, and what their ends mean for
 * the blocks.  Everything here runs on the lane's thread.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "nbd-bridge/cache/cache-private.h"

static unsigned *share_of(struct cache_lane *cl, enum cache_use use)
{
	return use == CACHE_AHEAD ? &cl->nr_ahead : use == CACHE_PUSH ? &cl->nr_push : NULL;
}

static const struct cache_io_kind other = {.use = CACHE_OTHER};

struct cache_io *cache_io_get(struct cache_lane *cl, const struct cache_io_kind *kind)
{
	const enum cache_use use = kind->use;
	struct cache_io *io = cl->free_ios;
	unsigned *share = share_of(cl, use);

	if (!io || (use != CACHE_DEMAND && use != CACHE_OTHER && cl->nr_free <= CACHE_RATHER_IOS))
		return NULL;
	if (share && *share >= (use == CACHE_AHEAD ? CACHE_AHEAD_IOS : CACHE_PUSH_IOS))
		return NULL;
	if (share)
		(*share)++;
	if (kind->begin)
		kind->begin(cl);
	cl->free_ios = io->next;
	cl->nr_free--;
	io->kind = kind;
	io->owner = NULL;
	return io;
}

void cache_io_put(struct cache_io *io)
{
	struct cache_lane *cl = io->cl;
	unsigned *share = share_of(cl, io->kind->use);
	struct bridge_request *rq = cl->io_waiters;

	if (share)
		(*share)--;
	io->next = cl->free_ios;
	cl->free_ios = io;
	cl->nr_free++;
	cl->io_waiters = NULL;
	while (rq) {
		struct bridge_request *next = rq->cache.wait_next;

		cache_ready(io->cl, rq);
		rq = next;
	}
}

static void settle_owner(struct cache_io *io, int error)
{
	struct bridge_request *rq = io->owner;

	if (!rq)
		return;
	if (error < 0 && rq->lane.status == 0)
		rq->lane.status = error;
	if (--rq->lane.nr_ops == 0 && rq->cache.waits_at == BRIDGE_WAITS_OPS)
		cache_ready(io->cl, rq);
}

static void io_done(struct bridge_request *rq, int error)
{
	struct cache_io *io = weft_container_of(rq, struct cache_io, rq);
	const struct cache_io_kind *kind = io->kind;
	struct cache_lane *cl = io->cl;

	if (cl->sealer && error == 0 && rq->kind == TP_READ)
		cache_open(io);
	if (kind->end) {
		struct cache_chunk *chunk = cache_lock(cl->cache, io->chunk);
		struct cache_slot *slot = cache_slot_of(cl->cache, chunk);

		slot->nr_ios--;
		error = kind->end(io, slot, error);
		/* Before waiting requests go on, so that they see the error. */
		settle_owner(io, error);
		cache_wake_chunk(cl, chunk);
		cache_unlock(chunk);
		cache_wake_room(cl);
	} else {
		settle_owner(io, error);
	}
	cache_io_put(io);
	if (kind->after)
		kind->after(cl, error);
}

void cache_io_blocks(struct cache_io *io, uint8_t kind, uint64_t c, struct cache_slot *slot,
	unsigned first, unsigned nr, struct cache_io **list)
{
	struct bridge_cache *cache = io->cl->cache;
	uint64_t off = (c << cache->shift) + (uint64_t)first * CACHE_BLOCK;

	io->chunk = c;
	io->first = (uint16_t)first;
	io->nr = (uint16_t)nr;
	io->rq.kind = kind;
	io->rq.flags = 0;
	io->rq.off = off;
	io->rq.len = weft_min((uint64_t)nr * CACHE_BLOCK, cache->size_bytes - off);
	io->bytes = cache_bytes(cache, slot) + (uint64_t)first * CACHE_BLOCK;
	bool bounced = kind == TP_WRITE ? cache->bounces_writes : cache->on_disk;
	io->rq.buf = bounced ? io->bounce : io->bytes;
	io->rq.mem = bounced ? io->cl->bounce_mem : io->cl->mem;
	io->any_bad = false;
	slot->nr_ios++;
	io->next = *list;
	*list = io;
}

int cache_io_other(struct cache_lane *cl, struct bridge_request *rq, uint8_t kind, uint8_t flags,
	uint64_t off, uint64_t len, uint8_t next_phase)
{
	struct cache_io *io = cache_io_get(cl, &other);

	if (!io)
		return cache_wait_io(cl, rq);
	io->owner = rq;
	io->rq.kind = kind;
	io->rq.flags = flags;
	io->rq.off = off;
	io->rq.len = len;
	io->rq.buf = NULL;
	io->rq.mem = NULL;
	io->next = NULL;
	rq->cache.phase = next_phase;
	rq->lane.nr_ops++;
	rq->cache.waits_at = BRIDGE_WAITS_OPS;
	cache_io_submit(cl, io);
	return -EAGAIN;
}

void cache_io_submit(struct cache_lane *cl, struct cache_io *list)
{
	while (list) {
		struct cache_io *io = list;

		list = io->next;
		io->rq.done = io_done;
		io->rq.lane.internal = true;
		io->ticket = 0;
		int r = cl->sealer && request_changes_data(io->rq.kind) ? cache_seal(io) : 0;
		if (r < 0) {
			io_done(&io->rq, r);
		} else if (io->ticket) {
			io->next = NULL;
			*cl->held_tail = io;
			cl->held_tail = &io->next;
		} else {
			lane_submit_direct(cl->lane, &io->rq);
		}
	}
}

bool cache_send_held(struct cache_lane *cl)
{
	struct bridge_request *rq = cl->commit_waiters, *next;
	bool any = rq;
	int r;

	/* They look again, and those whose time has not come wait again. */
	cl->commit_waiters = NULL;
	for (; rq; rq = next) {
		next = rq->cache.wait_next;
		cache_ready(cl, rq);
	}
	while (cl->held && (r = seal_is_done(cl->cache->seal, cl->held->ticket)) != 0) {
		struct cache_io *io = cl->held;

		cl->held = io->next;
		if (!cl->held)
			cl->held_tail = &cl->held;
		if (r < 0)
			io_done(&io->rq, r);
		else
			lane_submit_direct(cl->lane, &io->rq);
		any = true;
	}
	return any;
}
