/* SPDX-License-Identifier: MIT */
/*
 * A lane: its step, and making and freeing it.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/base/probe.h"
#include "nbd-bridge/lane/lane-private.h"

/* ---- requests come in ---- */

void lane_submit_direct(struct bridge_lane *lane, struct bridge_request *rq)
{
	const struct tp_info *info = &lane->attachment->info;

	lane_begin(lane, rq);
	int r = lane_admit(lane, rq);
	if (r > 0 &&
		((rq->kind == TP_FLUSH && !info->can_flush) ||
			(rq->kind == TP_CACHE && !info->can_cache)))
		r = 0;
	if (r <= 0) {
		lane_settle(lane, rq, r);
		return;
	}
	if ((rq->flags & TP_FUA) && !info->can_fua && rq->kind != TP_FLUSH) {
		rq->flags &= (uint8_t)~TP_FUA;
		rq->lane.flush_after = info->can_flush;
	}
	if (rq->kind == TP_FLUSH && info->flush_each_conn && lane->lanes->nr > 1)
		lane_flush(lane, rq);
	else
		lane_backlog(lane, rq);
}

void bridge_lane_submit(struct bridge_lane *lane, struct bridge_request *rq)
{
	WEFT_PROBE(submit, rq, lane->index, rq->kind, rq->off, rq->len);
	rq->lane.internal = false;
	atomic_store_explicit(&lane->nr_requests,
		atomic_load_explicit(&lane->nr_requests, memory_order_relaxed) + 1,
		memory_order_relaxed);
	if (lane->stage) {
		lane_begin(lane, rq);
		lane->stage->submit(lane->stage_ctx, rq);
	} else {
		lane_submit_direct(lane, rq);
	}
}

void bridge_lane_give_back(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->lent)
		lane->stage->give_back(lane->stage_ctx, rq);
}

uint32_t lane_nr_requests(const struct bridge_lane *lane)
{
	return atomic_load_explicit(&lane->nr_requests, memory_order_acquire);
}

/* ---- the step ---- */

static bool arm_scouts(struct bridge_lane *lane)
{
	bool work = false;

	for (unsigned i = 0; i < lane->nr_links; i++) {
		struct bridge_scout *scout = lane->scouts[i];

		if (scout && scout_arm(scout)) {
			scout_progress(scout);
			work = true;
		}
	}
	return work;
}

/* At the end of a step.  True: something had already happened, and was handled. */
static bool arm_links(struct bridge_lane *lane)
{
	struct bridge_link *end = lane->links + lane->nr_links;
	bool work = false;

	for (struct bridge_link *link = lane->links; link < end; link++) {
		if (link_arm(link)) {
			lane->worker.now_ns = 0;
			link_progress(link);
			work = true;
		}
	}
	return lane->has_scouts ? work | arm_scouts(lane) : work;
}

/*
 * Requests whose sender has gone are carried out now or never: later, they could overwrite what the
 * same client wrote after it came back.
 */
static bool fail_orphans(struct bridge_lane *lane, struct bridge_link *link)
{
	return lane->nr_orphans > 0 && lane_purge(lane, link, -EIO, true) > 0;
}

/* True: requests failed, so there is room. */
static bool pump_links(struct bridge_lane *lane)
{
	struct bridge_link *end = lane->links + lane->nr_links;
	bool failed = false;

	for (struct bridge_link *link = lane->links; link < end; link++) {
		if (link->state != LINK_READY)
			failed |= fail_orphans(lane, link);
		if (link->queue.head)
			failed |= link_pump(link);
	}
	return failed;
}

static void pump(struct bridge_lane *lane)
{
	bool again;

	do {
		if (lane->backlog)
			lane_split(lane);
		again = pump_links(lane);
	} while (again && lane->backlog);
}

/*
 * Whether the deferred functions left something to do in this step.  Links were armed before them,
 * and are not looked at here.
 */
static bool has_more(const struct bridge_lane *lane)
{
	return lane->backlog || lane->worker.deferred || lane->stage || lane->nr_orphans > 0 ||
		(lane->buffers_freed && lane->waiters);
}

/*
 * The end of each step: post operations, take completions, send answers; again while that brought
 * more.
 */
static void lane_after(void *ctx)
{
	struct bridge_lane *lane = ctx;
	struct weft_worker *worker = &lane->worker;
	unsigned nr_rounds = 0;

	for (;;) {
		pump(lane);
		/*
		 * Answers leave before a link looks for more completions.  They may bring requests.
		 */
		if (worker->deferred && bridge_lane_spins(lane)) {
			weft_worker_run_deferred(worker);
			pump(lane);
		}
		if (arm_links(lane)) {
			worker->now_ns = 0;
			continue;
		}
		if (lane->stage && lane->stage->step(lane->stage_ctx)) {
			/*
			 * A stage may go round and round, reading from one copy what it cannot
			 * write to another: whoever looks after the copies has to be heard.
			 */
			if (++nr_rounds < LANE_ROUNDS)
				continue;
			weft_loop_wake(worker->loop);
			break;
		}
		if (worker->deferred) {
			weft_worker_run_deferred(worker);
			if (!has_more(lane))
				break;
			continue;
		}
		if (lane->buffers_freed && lane->waiters) {
			lane_serve_waiters(lane);
			continue;
		}
		break;
	}
	weft_loop_was_now(worker->loop, worker->now_ns);
	worker->now_ns = 0;
}

static void woken(struct weft_worker *worker)
{
	struct bridge_lane *lane = weft_container_of(worker, struct bridge_lane, worker);

	lane->buffers_freed = true; /* another lane may have given the large buffer back */
	lane_flush_look(lane);
	lane_check_links(lane);
	if (lane->copies)
		lane_copies_look(lane);
	if (lane->stage && !atomic_load(&lane->attachment->stale))
		lane->stage->woken(lane->stage_ctx);
}

void bridge_lane_defer(struct bridge_lane *lane, struct weft_deferred *deferred)
{
	weft_worker_defer(&lane->worker, deferred);
}

void bridge_lane_defer_cancel(struct bridge_lane *lane, struct weft_deferred *deferred)
{
	weft_worker_defer_cancel(&lane->worker, deferred);
}

struct lane_call {
	struct weft_call call;
	struct bridge_lane *lane;
	void (*fn)(struct bridge_lane *lane, void *ctx);
	void *ctx;
};

static void run_call(struct weft_call *call)
{
	struct lane_call *lc = weft_container_of(call, struct lane_call, call);

	lc->fn(lc->lane, lc->ctx);
}

void bridge_lane_run(struct bridge_lane *lane, void (*fn)(struct bridge_lane *lane, void *ctx),
	void *ctx)
{
	struct lane_call call = {.call.fn = run_call, .lane = lane, .fn = fn, .ctx = ctx};

	weft_worker_call(&lane->worker, &call.call);
}

/* ---- lanes that callers drive ---- */

/* Whether the lane has something in flight. */
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

static void keep(struct weft_worker *worker)
{
	lane_drive_keep(weft_container_of(worker, struct bridge_lane, worker)->drive);
}

static int make_drive(struct bridge_lane *lane, struct weft_error *err)
{
	int r = lane_drive_new(lane->worker.loop, is_busy, lane, &lane->drive);

	if (r < 0)
		return weft_error_set(err, -r, "cannot make lane %u: %s", lane->index,
			strerror(-r));
	lane->worker.run = keep;
	return 0;
}

struct lane_drive *bridge_lane_drive(struct bridge_lane *lane)
{
	return lane->drive;
}

/* ---- making and freeing ---- */

static int open_transports(struct bridge_lane *lane, struct weft_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < lane->attachment->nr_transports && r == 0; i++) {
		const struct bridge_way *way = &lane->attachment->transports[i];

		r = tp_open(way->transport, way->transport_config, &lane->tps[i], err);
	}
	return r;
}

int lane_new(struct bridge_lanes *lanes, unsigned index, struct bridge_lane **ret,
	struct weft_error *err)
{
	struct bridge_lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return weft_error_set(err, ENOMEM, "cannot make lane %u: out of memory", index);
	lane->lanes = lanes;
	lane->attachment = lanes->attachment;
	lane->index = index;
	lane->backlog_tail = &lane->backlog;
	lane->waiters_tail = &lane->waiters;
	lane_flush_init(lane);
	if (lane->attachment->nr_copies > 1 && lane_copies_new(lane) < 0) {
		free(lane);
		return weft_error_set(err, ENOMEM, "cannot make lane %u: out of memory", index);
	}
	int r = weft_worker_init(&lane->worker);
	if (r < 0) {
		lane_copies_free(lane);
		free(lane);
		return weft_error_set(err, -r, "cannot make an event loop: %s", strerror(-r));
	}
	lane->worker.woken = woken;
	weft_loop_after(lane->worker.loop, lane_after, lane);
	r = lanes->driven ? make_drive(lane, err) : 0;
	if (r == 0)
		r = lane_make_links(lane, err);
	if (r == 0)
		r = open_transports(lane, err);
	if (r == 0)
		r = lane_make_arena(lane, err);
	if (r < 0) {
		lane_free(lane);
		return r;
	}
	*ret = lane;
	return 0;
}

void lane_free(struct bridge_lane *lane)
{
	if (!lane)
		return;
	assert(!lane->worker.running && !lane->stage);
	lane_end_links(lane);
	lane_drop_big(lane);
	lane_drop_arena(lane);
	for (unsigned i = 0; i < BRIDGE_MAX_TRANSPORTS; i++)
		tp_close(lane->tps[i]);
	lane_free_links(lane);
	weft_worker_fini(&lane->worker);
	lane_drive_free(lane->drive);
	lane_copies_free(lane);
	free(lane);
}

int lane_start_thread(struct bridge_lane *lane, struct weft_error *err)
{
	char name[16];

	snprintf(name, sizeof(name), "weft-lane-%u", lane->index);
	weft_debug("%s starts", name);
	int r = weft_worker_start(&lane->worker, name);
	return r < 0
		? weft_error_set(err, -r, "cannot start lane %u: %s", lane->index, strerror(-r))
		: 0;
}

static void end_lane(struct bridge_lane *lane, void *ctx)
{
	weft_debug("lane %u ends", lane->index);
	lane_end_links(lane);
	weft_loop_stop(lane->worker.loop);
}

void lane_join(struct bridge_lane *lane)
{
	if (!lane->worker.running)
		return;
	bridge_lane_run(lane, end_lane, NULL);
	weft_worker_join(&lane->worker);
}

bool lane_is_running(const struct bridge_lane *lane)
{
	return lane->worker.running;
}

void lane_set_stage(struct bridge_lane *lane, const struct lane_stage *stage, void *ctx)
{
	lane->stage = stage;
	lane->stage_ctx = ctx;
}

struct weft_worker *lane_worker(struct bridge_lane *lane)
{
	return &lane->worker;
}

unsigned lane_index(const struct bridge_lane *lane)
{
	return lane->index;
}

const struct lane_stats *lane_stats(const struct bridge_lane *lane)
{
	return &lane->stats;
}

const struct bridge_recorder *lane_recorder(const struct bridge_lane *lane)
{
	return &lane->recorder;
}

struct weft_loop *bridge_lane_loop(struct bridge_lane *lane)
{
	return lane->worker.loop;
}
