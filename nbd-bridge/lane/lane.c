/*
 * A lane: requests in, operations out, and its thread.
 * Everything here runs on the lane's thread, but for making, starting and freeing it.
 *
 * A step of the loop: events bring requests (submitted to the backlog) and completions (answered to the
 * front-ends, which queue replies); then lane_after() posts all new operations at once and lets the
 * front-ends send all queued replies.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/lane/drive.h"
#include "nbd-bridge/lane/lane.h"

static bool changes_data(uint8_t kind)
{
	return kind == TP_WRITE || kind == TP_TRIM || kind == TP_ZERO;
}

/* ---- requests ---- */

void lane_request_finish(struct bridge_lane *lane, struct bridge_request *rq, int error)
{
	struct lane_counters *counters = &lane->counters;
	uint64_t took_ns = lane_now(lane) - weft_min(rq->start_ns, lane_now(lane));

	/* Answered in the step that it came in: by the cache. */
	if (took_ns == 0 && lane->cache)
		took_ns = weft_max(weft_now_ns(), rq->start_ns) - rq->start_ns;

	count(&counters->requests[rq->kind], 1);
	/* What failed moved nothing, and took no time worth knowing. */
	if (error < 0) {
		count(&counters->errors, 1);
	} else if (rq->kind == TP_READ) {
		count(&counters->read_bytes, rq->len);
		weft_histogram_add(&lane->reads, took_ns);
	} else if (rq->kind == TP_WRITE) {
		count(&counters->write_bytes, rq->len);
		weft_histogram_add(&lane->writes, took_ns);
	} else if (rq->kind == TP_FLUSH) {
		weft_histogram_add(&lane->flushes, took_ns);
	}
	*bridge_recorder_next(&lane->recorder) = (struct bridge_record){
		.when_ns = lane_now(lane),
		.a = rq->off,
		.b = rq->len,
		.took_ns = took_ns,
		.error = error,
		.event = BRIDGE_EVENT_REQUEST,
		.kind = rq->kind,
		.flags = rq->flags,
	};
	if (rq->orphan) {
		lane->nr_orphans--;
		if (changes_data(rq->kind))
			atomic_fetch_sub(&lane->bridge->nr_orphans, 1);
	}
	atomic_store_explicit(&lane->nr_requests,
		atomic_load_explicit(&lane->nr_requests, memory_order_relaxed) - 1, memory_order_release);
	rq->done(rq, error);
}

void lane_backlog(struct bridge_lane *lane, struct bridge_request *rq)
{
	rq->listed = true;
	rq->next = NULL;
	*lane->backlog_tail = rq;
	lane->backlog_tail = &rq->next;
}

/* at: what points to it. */
static void backlog_remove(struct bridge_lane *lane, struct bridge_request **at)
{
	struct bridge_request *rq = *at;

	*at = rq->next;
	if (!rq->next)
		lane->backlog_tail = at;
	rq->listed = false;
}

/* All of its operations were made and have come back. */
static void request_settle(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->listed || rq->nr_ops > 0)
		return;
	if (rq->flush_after && rq->status == 0) {
		/* FUA at a donor without it: the data has arrived, now a FLUSH. */
		rq->flush_after = false;
		rq->flushing = true;
		rq->next_donor = 0;
		lane_backlog(lane, rq);
		return;
	}
	if (rq->internal)
		rq->done(rq, rq->status);
	else
		lane_request_finish(lane, rq, rq->status);
}

void lane_settle(struct bridge_lane *lane, struct bridge_request *rq, int error)
{
	rq->status = error;
	request_settle(lane, rq);
}

bool lane_touches(const struct bridge_request *rq, const struct bridge_link *link)
{
	const struct bridge *bridge = link->lane->bridge;

	return bridge->map.nr == 1 || rq->kind == TP_FLUSH ||
		bridge_map_part(&bridge->map, link->donor->index, rq->off, rq->len).len > 0;
}

bool lane_touches_dead(const struct bridge_lane *lane, const struct bridge_request *rq)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->links[i].is_dead && lane_touches(rq, &lane->links[i]))
			return true;
	return false;
}

int bridge_lane_why_eio(const struct bridge_lane *lane, const struct bridge_request *rq)
{
	if (atomic_load_explicit(&lane->bridge->refuses, memory_order_relaxed))
		return -ESTALE;
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->links[i].is_dead && lane_touches(rq, &lane->links[i]))
			return lane->links[i].why.code == ETIMEDOUT ? -ETIMEDOUT : -ENOTCONN;
	return -EIO;
}

bool lane_reaches(const struct bridge_lane *lane, uint64_t off, uint64_t len)
{
	const struct bridge_map *map = &lane->bridge->map;

	if (atomic_load_explicit(&lane->ready, memory_order_relaxed))
		return true;
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->links[i].state != LINK_READY && (map->nr == 1 || bridge_map_part(map, i, off, len).len > 0))
			return false;
	return true;
}

/* What can be said before anything is posted: 1: go on; 0: nothing to do; or -errno. */
static int admit(struct bridge_lane *lane, struct bridge_request *rq)
{
	const struct bridge *bridge = lane->bridge;
	const struct tp_info *info = &bridge->info;
	bool changes = changes_data(rq->kind);

	if (atomic_load_explicit(&bridge->refuses, memory_order_relaxed) || lane_touches_dead(lane, rq))
		return -EIO;
	if (atomic_load_explicit(&bridge->stopping, memory_order_relaxed))
		return -ESHUTDOWN;
	if (changes && info->read_only)
		return -EPERM;
	if (rq->kind == TP_FLUSH)
		return info->can_flush ? 1 : 0;
	if (rq->kind == TP_TRIM && !info->can_trim)
		return 0;
	if (rq->kind == TP_CACHE && !info->can_cache)
		return 0;
	if (rq->kind == TP_ZERO && !info->can_zero)
		return -EOPNOTSUPP;
	if ((rq->flags & TP_FAST_ZERO) && !info->can_fast_zero)
		return -EOPNOTSUPP;
	if ((rq->flags & TP_FUA) && !info->can_fua) {
		rq->flags &= (uint8_t)~TP_FUA;
		rq->flush_after = info->can_flush;
	}
	return 1;
}

static void begin(struct bridge_lane *lane, struct bridge_request *rq)
{
	assert(rq->kind < TP_NR_KINDS && rq->kind != TP_PROBE);
	rq->orphan = rq->flush_after = rq->listed = false;
	rq->lent = NULL;
	rq->flushing = rq->kind == TP_FLUSH;
	rq->nr_ops = 0;
	rq->status = 0;
	rq->next_donor = 0;
	rq->next_off = rq->kind == TP_READ || rq->kind == TP_WRITE ? rq->off : 0;
	rq->start_ns = lane_now(lane);
}

void lane_submit_direct(struct bridge_lane *lane, struct bridge_request *rq)
{
	begin(lane, rq);
	int r = admit(lane, rq);
	if (r <= 0)
		lane_settle(lane, rq, r);
	else if (rq->kind == TP_FLUSH && lane->bridge->info.flush_each_conn && lane->bridge->nr_lanes > 1 &&
		rq != &lane->flush.visit)
		lane_flush(lane, rq);
	else
		lane_backlog(lane, rq);
}

void bridge_lane_submit(struct bridge_lane *lane, struct bridge_request *rq)
{
	rq->internal = false;
	atomic_store_explicit(&lane->nr_requests,
		atomic_load_explicit(&lane->nr_requests, memory_order_relaxed) + 1, memory_order_relaxed);
	if (lane->cache) {
		begin(lane, rq);
		cache_submit(lane, rq);
	} else {
		lane_submit_direct(lane, rq);
	}
}

void bridge_lane_give_back(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->lent)
		cache_give_back(lane, rq);
}

void bridge_lane_orphan(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->orphan)
		return;
	rq->orphan = true;
	lane->nr_orphans++;
	if (changes_data(rq->kind))
		atomic_fetch_add(&lane->bridge->nr_orphans, 1);
}

/* How much of a request one operation may cover. */
static uint64_t chunk_max(const struct tp_info *info, uint8_t kind)
{
	uint64_t max = kind == TP_READ || kind == TP_WRITE ? info->max_io_bytes : TP_MAX_RANGE_BYTES;

	return max - max % weft_max(info->min_block_bytes, 4096 <= max ? 4096 : 1);
}

/* Where the request's next operation goes; false: all were made. */
static bool next_piece(const struct bridge *bridge, struct bridge_request *rq, struct bridge_piece *ret)
{
	const struct bridge_map *map = &bridge->map;

	if (!rq->flushing && (rq->kind == TP_READ || rq->kind == TP_WRITE)) {
		if (rq->next_off == rq->off + rq->len)
			return false;
		*ret = bridge_map_first(map, rq->next_off, rq->off + rq->len - rq->next_off);
		return true;
	}
	for (; rq->next_donor < map->nr; rq->next_donor++, rq->next_off = 0) {
		if (rq->kind == TP_FLUSH) {
			*ret = (struct bridge_piece){.donor = rq->next_donor};
			return true;
		}
		*ret = bridge_map_part(map, rq->next_donor, rq->off, rq->len);
		if (rq->flushing && ret->len > 0)
			return true;
		if (!rq->flushing && ret->len > rq->next_off) {
			ret->off += rq->next_off;
			ret->len -= rq->next_off;
			return true;
		}
	}
	return false;
}

static void advance(struct bridge_request *rq, uint64_t len)
{
	if (rq->flushing)
		rq->next_donor++;
	else
		rq->next_off += len;
}

/* An operation for the piece, which may be the first of several. */
static void make_op(struct bridge_lane *lane, struct bridge_request *rq, const struct bridge_piece *piece)
{
	struct bridge_link *link = &lane->links[piece->donor];
	struct bridge_op *op = link->free_ops;

	link->free_ops = op->next;
	if (!link->free_ops)
		lane->nr_open--;
	op->rq = rq;
	op->tp.kind = rq->flushing ? TP_FLUSH : rq->kind;
	op->tp.flags = rq->flushing ? 0 : rq->flags;
	op->tp.off = op->tp.len = 0;
	op->tp.buf = NULL;
	op->tp.mem = NULL;
	rq->nr_ops++;
	if (!rq->flushing) {
		op->tp.off = piece->off;
		op->tp.len = weft_min(piece->len, chunk_max(&lane->bridge->info, rq->kind));
		if (rq->buf) {
			op->tp.buf = (uint8_t *)rq->buf + (rq->next_off - rq->off);
			op->tp.mem = rq->mem;
		}
	}
	advance(rq, op->tp.len);
	op_list_push(&link->queue, op);
}

/* A request leaves the backlog with its last operation.  One that needs a donor whose operations are all used does not keep others. */
void lane_split(struct bridge_lane *lane)
{
	struct bridge_request **at = &lane->backlog, *rq;
	struct bridge_piece piece;

	while ((rq = *at) != NULL && lane->nr_open > 0) {
		if (rq->status < 0) {
			backlog_remove(lane, at);
			request_settle(lane, rq);
			continue;
		}
		if (next_piece(lane->bridge, rq, &piece) && !lane->links[piece.donor].free_ops) {
			at = &rq->next;
			continue;
		}
		make_op(lane, rq, &piece);
		if (!next_piece(lane->bridge, rq, &piece))
			backlog_remove(lane, at);
	}
}

void lane_op_finish(struct bridge_lane *lane, struct bridge_op *op, int error)
{
	struct bridge_link *link = op->link;
	struct bridge_request *rq = op->rq;

	if (error == 0 && lane->bridge->info.flush_each_conn && changes_data(op->tp.kind))
		count(&lane->flush.nr_written, 1); /* before anybody learns of it */
	op->rq = NULL;
	if (!link->free_ops)
		lane->nr_open++;
	op->next = link->free_ops;
	link->free_ops = op;
	if (error < 0 && rq->status == 0)
		rq->status = error;
	rq->nr_ops--;
	request_settle(lane, rq);
}

static bool purges(enum lane_purge which, const struct bridge_request *rq)
{
	switch (which) {
	case PURGE_ORPHANS:
		return rq->orphan;
	default:
		return true;
	}
}

static unsigned purge_ops(struct bridge_lane *lane, struct op_list *list, int error,
	enum lane_purge which)
{
	struct op_list ops = *list;
	struct bridge_op *op;
	unsigned n = 0;

	if (!ops.head)
		return 0;
	op_list_init(list);
	while ((op = op_list_pop(&ops)) != NULL) {
		if (!purges(which, op->rq)) {
			op_list_push(list, op);
			continue;
		}
		n++;
		lane_op_finish(lane, op, error);
	}
	return n;
}

unsigned lane_purge(struct bridge_lane *lane, struct bridge_link *link, int error, enum lane_purge which)
{
	struct bridge_request *backlog, *flushes = lane_flush_take_waiting(lane);
	unsigned n = 0;

	if (lane->cache)
		cache_purge(lane, link, error, which);
	/* Whoever is told may submit anew: work on what was there before. */
	backlog = lane->backlog;
	lane->backlog = NULL;
	lane->backlog_tail = &lane->backlog;
	while (backlog) {
		struct bridge_request *rq = backlog;

		backlog = rq->next;
		if (!purges(which, rq) || !lane_touches(rq, link)) {
			lane_backlog(lane, rq);
			continue;
		}
		rq->listed = false;
		rq->flush_after = false;
		n++;
		lane_settle(lane, rq, error);
	}
	while (flushes) {
		struct bridge_request *rq = flushes;

		flushes = rq->next;
		rq->listed = false;
		if (!purges(which, rq)) {
			lane_flush(lane, rq);
			continue;
		}
		n++;
		lane_settle(lane, rq, error);
	}
	n += purge_ops(lane, &link->parked, error, which);
	n += purge_ops(lane, &link->queue, error, which);
	/* Requests end with the last of their operations. */
	if (lane->cache)
		cache_step(lane);
	return n;
}

void lane_set_ready(struct bridge_lane *lane)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < lane->nr_links; i++)
		nr += lane->links[i].state == LINK_READY;
	atomic_store(&lane->ready, nr == lane->nr_links);
}

/* ---- the step ---- */

void bridge_lane_defer(struct bridge_lane *lane, struct bridge_deferred *deferred)
{
	if (deferred->queued)
		return;
	deferred->queued = true;
	deferred->next = NULL;
	*lane->deferred_tail = deferred;
	lane->deferred_tail = &deferred->next;
}

void bridge_lane_defer_cancel(struct bridge_lane *lane, struct bridge_deferred *deferred)
{
	if (!deferred->queued)
		return;
	for (struct bridge_deferred **p = &lane->deferred; *p; p = &(*p)->next) {
		if (*p != deferred)
			continue;
		*p = deferred->next;
		if (!deferred->next)
			lane->deferred_tail = p;
		break;
	}
	deferred->queued = false;
}

static void run_deferred(struct bridge_lane *lane)
{
	while (lane->deferred) {
		struct bridge_deferred *deferred = lane->deferred;

		lane->deferred = deferred->next;
		if (!lane->deferred)
			lane->deferred_tail = &lane->deferred;
		deferred->queued = false;
		deferred->fn(deferred);
	}
}

/* True: something had happened already, and was looked at. */
static bool arm_links(struct bridge_lane *lane)
{
	bool work = false;

	for (unsigned i = 0; i < lane->nr_links; i++) {
		struct bridge_link *link = &lane->links[i];

		if (link_arm(link)) {
			lane->now_ns = 0;
			link_progress(link);
			work = true;
		}
		if (link->scout && scout_arm(link->scout)) {
			scout_progress(link->scout);
			work = true;
		}
	}
	return work;
}

bool bridge_lane_spins(const struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++) {
		const struct tp_conn *conn = lane->links[i].conn;

		if (conn && conn->spins && conn->nr_outstanding > 0)
			return true;
	}
	return false;
}

static void pump(struct bridge_lane *lane)
{
	bool again;

	do {
		again = false;
		lane_split(lane);
		for (unsigned i = 0; i < lane->nr_links; i++)
			again |= link_pump(&lane->links[i]);
	} while (again && lane->backlog);
}

/* The end of each step: post, take what is there already, answer; again while that brought more. */
static void lane_after(void *ctx)
{
	struct bridge_lane *lane = ctx;

	for (;;) {
		pump(lane);
		/* Answers do not wait until a link has looked for more.  They may bring requests. */
		if (lane->deferred && bridge_lane_spins(lane)) {
			run_deferred(lane);
			pump(lane);
		}
		if (arm_links(lane)) {
			lane->now_ns = 0;
			continue;
		}
		if (lane->cache && cache_step(lane))
			continue;
		if (lane->deferred) {
			run_deferred(lane);
			continue;
		}
		if (lane->buffers_freed && lane->waiters) {
			lane_serve_waiters(lane);
			continue;
		}
		break;
	}
	lane->now_ns = 0;
}

static void run_calls(void *ctx)
{
	struct bridge_lane *lane = ctx;
	struct bridge *bridge = lane->bridge;
	struct lane_call *call;

	lane->buffers_freed = true; /* another lane may have given the large buffer back */
	pthread_mutex_lock(&bridge->lock);
	while ((call = lane->calls) != NULL) {
		lane->calls = call->next;
		if (!lane->calls)
			lane->calls_tail = &lane->calls;
		pthread_mutex_unlock(&bridge->lock);
		call->fn(lane, call->ctx);
		pthread_mutex_lock(&bridge->lock);
		call->done = true;
		pthread_cond_broadcast(&bridge->changed);
	}
	pthread_mutex_unlock(&bridge->lock);
	lane_flush_look(lane);
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_check(&lane->links[i]);
}

void bridge_lane_run(struct bridge_lane *lane, void (*fn)(struct bridge_lane *lane, void *ctx), void *ctx)
{
	struct bridge *bridge = lane->bridge;
	struct lane_call call = {.fn = fn, .ctx = ctx};

	if (!lane->running) {
		fn(lane, ctx);
		return;
	}
	pthread_mutex_lock(&bridge->lock);
	*lane->calls_tail = &call;
	lane->calls_tail = &call.next;
	weft_loop_wake(lane->loop);
	while (!call.done)
		pthread_cond_wait(&bridge->changed, &bridge->lock);
	pthread_mutex_unlock(&bridge->lock);
}

static void *lane_main(void *arg)
{
	struct bridge_lane *lane = arg;
	char name[16];

	snprintf(name, sizeof(name), "weft-lane-%u", lane->index);
	pthread_setname_np(pthread_self(), name);
	if (lane->drive)
		lane_drive_keep(lane->drive);
	else
		weft_loop_run(lane->loop);
	return NULL;
}

/* Whether the lane has something in flight, of its own or somebody's. */
static bool is_busy(void *ctx)
{
	const struct bridge_lane *lane = ctx;

	if (atomic_load_explicit(&lane->nr_requests, memory_order_relaxed) > 0)
		return true;
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->links[i].conn && lane->links[i].conn->nr_outstanding > 0)
			return true;
	return false;
}

struct lane_drive *bridge_lane_drive(struct bridge_lane *lane)
{
	return lane->drive;
}

/* ---- making and freeing ---- */

int lane_new(struct bridge *bridge, unsigned index, struct bridge_lane **ret, struct weft_error *err)
{
	struct bridge_lane *lane = calloc(1, sizeof(*lane));
	int r;

	if (!lane)
		return weft_error_set(err, ENOMEM, "cannot make lane %u: out of memory", index);
	lane->bridge = bridge;
	lane->index = index;
	lane->backlog_tail = &lane->backlog;
	lane->deferred_tail = &lane->deferred;
	lane->waiters_tail = &lane->waiters;
	lane->calls_tail = &lane->calls;
	lane->links = calloc(bridge->nr_donors, sizeof(lane->links[0]));
	if (!lane->links) {
		r = weft_error_set(err, ENOMEM, "cannot make lane %u: out of memory", index);
		goto fail;
	}
	for (; lane->nr_links < bridge->nr_donors; lane->nr_links++)
		link_init(&lane->links[lane->nr_links], lane, &bridge->donors[lane->nr_links]);
	lane->nr_open = lane->nr_links;
	lane_flush_init(lane);
	r = weft_loop_new(&lane->loop);
	if (r < 0) {
		weft_error_set(err, -r, "cannot make an event loop: %s", strerror(-r));
		goto fail;
	}
	weft_loop_after(lane->loop, lane_after, lane);
	weft_loop_on_wake(lane->loop, run_calls, lane);
	r = bridge->config.driven ? lane_drive_new(lane->loop, is_busy, lane, &lane->drive) : 0;
	if (r < 0) {
		weft_error_set(err, -r, "cannot make lane %u: %s", index, strerror(-r));
		goto fail;
	}
	for (unsigned i = 0; i < bridge->nr_transports; i++) {
		const struct bridge_way *way = &bridge->transports[i];

		r = tp_open(way->transport, way->transport_config, &lane->tps[i], err);
		if (r < 0)
			goto fail;
	}
	for (unsigned i = 0; index == 0 && i < lane->nr_links; i++) {
		struct bridge_link *link = &lane->links[i];

		r = link->donor->config.nr_ways > 1 ? scout_new(link, &link->scout) : 0;
		if (r < 0) {
			weft_error_set(err, -r, "cannot make lane %u: %s", index, strerror(-r));
			goto fail;
		}
	}
	r = lane_make_arena(lane, err);
	if (r < 0)
		goto fail;
	*ret = lane;
	return 0;
fail:
	lane_free(lane);
	return r;
}

static void end_links(struct bridge_lane *lane)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_end(&lane->links[i]);
}

void lane_free(struct bridge_lane *lane)
{
	if (!lane)
		return;
	assert(!lane->running);
	end_links(lane);
	lane_drop_big(lane);
	cache_lane_free(lane);
	lane_drop_arena(lane);
	for (unsigned i = 0; i < BRIDGE_MAX_TRANSPORTS; i++)
		tp_close(lane->tps[i]);
	weft_loop_free(lane->loop);
	lane_drive_free(lane->drive);
	for (unsigned i = 0; i < lane->nr_links; i++)
		scout_free(lane->links[i].scout);
	free(lane->links);
	free(lane);
}

int lane_start_thread(struct bridge_lane *lane, struct weft_error *err)
{
	int r = pthread_create(&lane->thread, NULL, lane_main, lane);

	if (r != 0)
		return weft_error_set(err, r, "cannot start lane %u: %s", lane->index, strerror(r));
	lane->running = true;
	return 0;
}

static void end_lane(struct bridge_lane *lane, void *ctx)
{
	end_links(lane);
	weft_loop_stop(lane->loop);
}

void lane_join(struct bridge_lane *lane)
{
	if (!lane->running)
		return;
	bridge_lane_run(lane, end_lane, NULL);
	pthread_join(lane->thread, NULL);
	lane->running = false;
}

struct weft_loop *bridge_lane_loop(struct bridge_lane *lane)
{
	return lane->loop;
}
