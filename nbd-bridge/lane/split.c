/* SPDX-License-Identifier: MIT */
/*
 * Splits requests into operations, by donor and length, and collects their ends.  The lane's
 * thread.
 */
#include "nbd-bridge/lane/piece-private.h"

/* The same with copies, which the others need not pay for. */
static void __attribute__((noinline, cold)) split_copies(struct bridge_lane *lane)
{
	struct bridge_request **at = &lane->backlog, *rq;

	while ((rq = *at) != NULL && lane->nr_open > 0) {
		if (rq->lane.status == 0 && !lane_copies_split(lane, rq)) {
			at = &rq->lane.next;
			continue;
		}
		lane_backlog_remove(lane, at);
		lane_request_settle(lane, rq);
	}
}

/* What most requests are is looked at here: another piece need not be found to see that. */
static inline bool has_more(const struct bridge_map *map, struct bridge_request *rq)
{
	struct bridge_piece piece;

	if (!rq->lane.flushing && request_has_order(rq->kind))
		return rq->lane.next_off != rq->off + rq->len;
	return piece_next(map, rq, &piece);
}

/*
 * A request leaves the backlog with its last operation.  A request for a donor whose operations are
 * all in use does not hold up others.
 */
void lane_split(struct bridge_lane *lane)
{
	struct bridge_request **at = &lane->backlog, *rq;
	struct bridge_piece piece;
	struct bridge_op *op;

	if (__builtin_expect(lane->copies != NULL, 0)) {
		split_copies(lane);
		return;
	}
	while ((rq = *at) != NULL && lane->nr_open > 0) {
		if (rq->lane.status < 0) {
			lane_backlog_remove(lane, at);
			lane_request_settle(lane, rq);
			continue;
		}
		if (piece_next(&lane->attachment->map, rq, &piece) &&
			!lane->links[piece.donor].free_ops) {
			at = &rq->lane.next;
			continue;
		}
		op = piece_make_op(lane, &lane->links[piece.donor], rq, &piece);
		piece_advance(rq, op->tp.len);
		if (!has_more(&lane->attachment->map, rq))
			lane_backlog_remove(lane, at);
	}
}

static inline void finish(struct bridge_lane *lane, struct bridge_op *op, int error)
{
	struct bridge_link *link = op->link;
	struct bridge_request *rq = op->rq;

	if (error == 0 && lane->attachment->info.flush_each_conn && op_changes_data(op))
		weft_count(&lane->flush.nr_written, 1); /* before anybody learns of it */
	op->rq = NULL;
	if (!link->free_ops)
		lane->nr_open++;
	op->next = link->free_ops;
	link->free_ops = op;
	if (error < 0 && rq->lane.status == 0)
		rq->lane.status = error;
	rq->lane.nr_ops--;
	lane_request_settle(lane, rq);
}

static void __attribute__((noinline, cold)) finish_of_copies(struct bridge_lane *lane,
	struct bridge_op *op, int error)
{
	finish(lane, op, lane_copies_op_ended(lane, op, error));
}

void lane_op_finish(struct bridge_lane *lane, struct bridge_op *op, int error)
{
	if (__builtin_expect(lane->copies != NULL, 0))
		finish_of_copies(lane, op, error);
	else
		finish(lane, op, error);
}
