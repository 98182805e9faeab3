/* SPDX-License-Identifier: MIT */
/*
 * A lane: one thread with an event loop, which takes requests and sends operations over a link to
 * each donor.
 *
 * In a step of the loop, events bring requests and completions.  A completion ends a request, whose
 * sender queues a reply.  Then all new operations are posted at once, and all queued replies are
 * sent.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_LANE_H
#define WEFT_NBD_BRIDGE_LANE_LANE_H

#include "fabric/base/histogram.h"
#include "fabric/base/worker.h"
#include "nbd-bridge/lane/buffers.h"
#include "nbd-bridge/lane/request.h"
#include "nbd-bridge/link/link.h"

struct bridge_lane;

/*
 * A stage between requests and the lane: the cache.  All functions are called on the lane's thread,
 * with the ctx of lane_set_stage(); none may be NULL.
 */
struct lane_stage {
	/* A request has come.  Its lane's part is set up, and nothing was checked yet. */
	void (*submit)(void *ctx, struct bridge_request *rq);
	/* At the end of a step.  True: something was done. */
	bool (*step)(void *ctx);
	/* Fails requests that wait here for the link: all, or only orphans. */
	void (*purge)(void *ctx, const struct bridge_link *link, int error, bool orphans_only);
	/* A link was granted. */
	void (*granted)(void *ctx);
	/* The lane was woken: a lease may have been renewed. */
	void (*woken)(void *ctx);
	void (*give_back)(void *ctx, struct bridge_request *rq);
};

/* ---- For senders of requests ---- */

struct weft_loop *bridge_lane_loop(struct bridge_lane *lane);
/* Calls deferred->fn once at the end of the step, after posting: for sending replies. */
void bridge_lane_defer(struct bridge_lane *lane, struct weft_deferred *deferred);
void bridge_lane_defer_cancel(struct bridge_lane *lane, struct weft_deferred *deferred);
/* Whether the lane looks for completions for a while before it waits. */
bool bridge_lane_spins(const struct bridge_lane *lane);
/*
 * Runs fn on the lane's thread.  Any other thread; waits until fn returned.  A lane never blocks,
 * so this takes microseconds.  Before the lane's start and after its join fn runs on the caller's
 * thread.
 */
void bridge_lane_run(struct bridge_lane *lane, void (*fn)(struct bridge_lane *lane, void *ctx),
	void *ctx);

/* ---- For the stage: the lane's thread ---- */

void lane_set_stage(struct bridge_lane *lane, const struct lane_stage *stage, void *ctx);
struct weft_worker *lane_worker(struct bridge_lane *lane);
unsigned lane_index(const struct bridge_lane *lane);
/* Whether all of the lane's links are ready.  Any thread. */
bool lane_is_ready(const struct bridge_lane *lane);
/* Whether all links that hold a part of these bytes are ready. */
bool lane_reaches(const struct bridge_lane *lane, uint64_t off, uint64_t len);
/* Whether any of the request's bytes lie at the link's donor; at a donor whose link is dead. */
bool lane_touches(const struct bridge_request *rq, const struct bridge_link *link);
bool lane_touches_dead(const struct bridge_lane *lane, const struct bridge_request *rq);
/* Sends a request to the donors, past the stage.  The caller has set lane.internal. */
void lane_submit_direct(struct bridge_lane *lane, struct bridge_request *rq);
/*
 * Checks a request before anything is done for it.  1: go on; 0: there is nothing to do; or -errno.
 */
int lane_admit(struct bridge_lane *lane, struct bridge_request *rq);
/* A front-end's request has ended: counts it, and calls its done(). */
void lane_request_finish(struct bridge_lane *lane, struct bridge_request *rq, int error);

/* ---- For the bridge ---- */

/* Opens the transports and registers memory; connects nothing.  0, or -errno. */
int lane_new(struct bridge_lanes *lanes, unsigned index, struct bridge_lane **ret,
	struct weft_error *err);
/* The lane has no thread.  Takes NULL. */
void lane_free(struct bridge_lane *lane);
/* 0, or -errno of pthread_create(3). */
int lane_start_thread(struct bridge_lane *lane, struct weft_error *err);
/* Ends its links, and waits for its thread's end. */
void lane_join(struct bridge_lane *lane);
bool lane_is_running(const struct bridge_lane *lane);
/*
 * start: links connect.  restart: links that are stale or were refused connect anew.  end: scouts
 * end. The lane's thread.
 */
void lane_start_links(struct bridge_lane *lane);
void lane_restart_links(struct bridge_lane *lane);
void lane_end_scouts(struct bridge_lane *lane);
/* The link to the donor.  The lane's thread. */
struct bridge_link *lane_link(struct bridge_lane *lane, unsigned donor);
/* The number of requests that were submitted and are not done.  Any thread. */
uint32_t lane_nr_requests(const struct bridge_lane *lane);
/*
 * The result of the lane's first connections.  1: all links were granted; 0: not known yet; -errno
 * with *ret_why: one was refused, and all have a result.  Under the lanes' lock, whose condition
 * tells of a change.
 */
int lane_first_result(const struct bridge_lane *lane, struct weft_error *ret_why);
/*
 * Makes the buffers anew, in the memory that the thread prefers by now.  The lane's thread, while
 * no buffer is given out.
 */
int lane_remake_arena(struct bridge_lane *lane, struct weft_error *err);

/* What the lane has done.  Histograms in ns. */
struct lane_stats {
	_Atomic uint64_t requests[TP_NR_KINDS], errors;
	_Atomic uint64_t read_bytes, write_bytes;
	struct weft_histogram reads, writes, flushes;
};
/* The lane's thread. */
const struct lane_stats *lane_stats(const struct bridge_lane *lane);
uint64_t lane_buffer_bytes(const struct bridge_lane *lane);
const struct bridge_recorder *lane_recorder(const struct bridge_lane *lane);

#endif
