/* SPDX-License-Identifier: MIT */
/*
 * Private to nbd-bridge/lane/: the insides of a lane.  Everything belongs to the lane's thread,
 * unless a comment says otherwise.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_LANE_PRIVATE_H
#define WEFT_NBD_BRIDGE_LANE_LANE_PRIVATE_H

#include <assert.h>

#include "fabric/base/counter.h"
#include "fabric/base/util.h"
#include "nbd-bridge/lane/copies.h"
#include "nbd-bridge/lane/drive.h"
#include "nbd-bridge/lane/lanes.h"
#include "nbd-bridge/lane/pool.h"
#include "nbd-bridge/link/scout.h"

enum {
	LANE_ROUNDS = 1000, /* of a stage, in a step */
	LANE_ARENA = 5 << 20,    /* for requests up to BRIDGE_POOL_MAX */
	LANE_BIG_KEPT = 2 << 20, /* a big buffer up to this size is kept for a while, per lane … */
	                         /* … and only one lane at a time has a larger one */
};

struct request_list {
	struct bridge_request *head, **tail;
};

/* FLUSHes that take more than one lane: flush.c.  Other lanes read the atomic fields. */
struct lane_flush {
	_Atomic uint64_t nr_written;  /* changes of data that completed */
	_Atomic uint64_t nr_flushed;  /* those of them that a visit has flushed */
	_Atomic uint64_t nr_asked;    /* tickets: visits that other lanes asked for */
	_Atomic uint64_t nr_answered; /* tickets whose visits were carried out, or failed */
	_Atomic uint64_t failed;      /* the last ticket of a visit that failed … */
	_Atomic int error;            /* … and the error of that visit */
	_Atomic bool waiting;         /* waits for another lane's answer */
	bool visiting, in_round;
	uint64_t visit_answers, visit_covers;
	struct bridge_request visit;
	struct request_list next;  /* FLUSHes that wait for a round */
	struct request_list round; /* … for the other lanes */
	uint64_t tickets[BRIDGE_MAX_LANES]; /* of the round; 0: not asked */
};

struct bridge_lane {
	/* What each step touches. */
	struct weft_worker worker;
	struct bridge_lanes *lanes;
	struct bridge_attachment *attachment; /* the lanes' */
	/* NULL: the lane's own thread runs the loop; otherwise the leader does */
	struct lane_drive *drive;
	struct bridge_request *backlog, **backlog_tail;
	struct bridge_waiter *waiters, **waiters_tail, *serving;
	bool buffers_freed; /* some were, since the waiters were served last */
	unsigned nr_orphans;
	struct bridge_link *links; /* one for each donor */
	unsigned nr_links;
	unsigned nr_open; /* links with a free operation */
	bool has_scouts;
	const struct lane_stage *stage; /* NULL: direct */
	void *stage_ctx;
	struct lane_copies *copies; /* NULL: there are none */
	struct bridge_pool *pool;
	struct tp_mem *arena_mem;
	_Atomic uint32_t nr_requests; /* submitted and not done; written by the lane */
	_Atomic bool ready;           /* its links are ready; written by the lane */

	unsigned index;
	/* the first lane's, beside links to donors with other ways */
	struct bridge_scout *scouts[BRIDGE_MAX_DONORS];
	struct tp *tps[BRIDGE_MAX_TRANSPORTS];
	void *arena;
	void *big; /* a buffer above BRIDGE_POOL_MAX, or NULL */
	size_t big_len;
	struct tp_mem *big_mem;
	bool big_used, big_idle;
	/* Under the lanes' lock. */
	unsigned nr_results, nr_granted; /* links with a result; links that were granted */
	bool has_result[BRIDGE_MAX_DONORS];
	uint32_t has_grant; /* bit i: link i was granted */
	int first_result; /* see lane_first_result() */
	int failure;      /* the first of a link */
	struct weft_error first_error;

	struct lane_flush flush;
	struct lane_stats stats;
	struct bridge_recorder recorder;
};

/* request.c */

/*
 * Puts a request that is on no list on the backlog, to become operations, or to end with an error.
 */
static inline void lane_backlog(struct bridge_lane *lane, struct bridge_request *rq)
{
	rq->lane.listed = true;
	rq->lane.next = NULL;
	*lane->backlog_tail = rq;
	lane->backlog_tail = &rq->lane.next;
}
/* at: the pointer to the request. */
static inline void lane_backlog_remove(struct bridge_lane *lane, struct bridge_request **at)
{
	struct bridge_request *rq = *at;

	*at = rq->lane.next;
	if (!rq->lane.next)
		lane->backlog_tail = at;
	rq->lane.listed = false;
}
/* settle: ends the request if all of its operations were made and have come back. */
void lane_request_settle(struct bridge_lane *lane, struct bridge_request *rq);
void lane_settle(struct bridge_lane *lane, struct bridge_request *rq, int error);
/* Sets up the lane's part. */
static inline void lane_begin(struct bridge_lane *lane, struct bridge_request *rq)
{
	assert(rq->kind < TP_NR_KINDS && rq->kind != TP_PROBE);
	rq->lane.orphan = rq->lane.flush_after = rq->lane.listed = false;
	rq->lent = NULL;
	rq->lane.flushing = rq->kind == TP_FLUSH;
	rq->lane.copies = (struct request_copies){0};
	rq->lane.nr_ops = 0;
	rq->lane.status = 0;
	rq->lane.next_donor = 0;
	rq->lane.next_off = request_has_order(rq->kind) ? rq->off : 0;
	rq->lane.start_ns = weft_worker_now(&lane->worker);
}

/* flush.c */
void lane_flush_init(struct bridge_lane *lane);
/* Begins a FLUSH: it goes on the backlog once the other lanes have flushed what they wrote. */
void lane_flush(struct bridge_lane *lane, struct bridge_request *rq);
/* After a wake-up: looks at the questions and answers of other lanes. */
void lane_flush_look(struct bridge_lane *lane);
/* Takes off the list all FLUSHes that wait for other lanes; linked by next. */
struct bridge_request *lane_flush_take_waiting(struct bridge_lane *lane);

/* split.c */

/* Makes operations of waiting requests, as far as operations are free. */
void lane_split(struct bridge_lane *lane);
/* Takes back an operation that is on no list. */
void lane_op_finish(struct bridge_lane *lane, struct bridge_op *op, int error);

/*
 * purge.c: fails requests on the backlog, and queued and parked operations, that wait for the link.
 * Returns how many.
 */
unsigned lane_purge(struct bridge_lane *lane, struct bridge_link *link, int error,
	bool orphans_only);

/* buffers.c */

/*
 * The arena: the memory of most buffers, registered with the lane's transports.  0, or -errno; in
 * either case it is dropped when the lane is freed.
 */
int lane_make_arena(struct bridge_lane *lane, struct weft_error *err);
void lane_drop_arena(struct bridge_lane *lane);
/* Lets waiters for a buffer try again, in turn, as far as there are buffers. */
void lane_serve_waiters(struct bridge_lane *lane);
/* Gives the kept big buffer back: trim when nobody needed it for a tick, drop at once. */
void lane_trim_big(struct bridge_lane *lane);
void lane_drop_big(struct bridge_lane *lane);

/* copies-split.c: makes operations; false: the request has to stay on the backlog. */
bool lane_copies_split(struct bridge_lane *lane, struct bridge_request *rq);

/* copies-order.c: answers what does not have to wait any more. */
void lane_copies_look(struct bridge_lane *lane);

/* copies.c: the lane has copies */

/* An operation has ended.  Returns the error that its request gets: 0: none. */
int lane_copies_op_ended(struct bridge_lane *lane, struct bridge_op *op, int error);
/* All operations have come back: whether it may be answered; if not, it is taken care of. */
bool lane_copies_may_end(struct bridge_lane *lane, struct bridge_request *rq);
/* Takes off the list all requests whose answers wait; linked by next. */
struct bridge_request *lane_copies_take_held(struct bridge_lane *lane);
void lane_copies_hold(struct bridge_lane *lane, struct bridge_request *rq);
/* Whether the donor has a current copy of something that the request is about. */
bool lane_copies_is_about(const struct bridge_lane *lane, const struct bridge_request *rq,
	const struct bridge_link *link);
bool lane_copies_touches(const struct bridge_lane *lane, const struct bridge_request *rq,
	const struct bridge_link *link);
bool lane_copies_may_repeat(const struct bridge_lane *lane, const struct bridge_op *op);
/* The link is not READY any more: what need not wait for it does not. */
void lane_copies_link_lost(struct bridge_lane *lane, struct bridge_link *link);

/* links.c */

/* The lane's links, or those that count, are ready, or not any more. */
void lane_look_whether_ready(struct bridge_lane *lane);
int lane_make_links(struct bridge_lane *lane, struct weft_error *err);
/* Ends and frees the links.  They may be ended twice. */
void lane_end_links(struct bridge_lane *lane);
void lane_free_links(struct bridge_lane *lane);
void lane_check_links(struct bridge_lane *lane);

#endif
