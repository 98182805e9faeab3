/* SPDX-License-Identifier: MIT */
/* Failing requests and operations that wait for a link.  The lane's thread. */
#include "nbd-bridge/lane/lane-private.h"

static bool is_orphan(const struct bridge_op *op)
{
	return op->rq->lane.orphan;
}

unsigned lane_purge(struct bridge_lane *lane, struct bridge_link *link, int error,
	bool orphans_only)
{
	struct bridge_request *backlog, *flushes = lane_flush_take_waiting(lane);
	struct bridge_request *held = lane->copies ? lane_copies_take_held(lane) : NULL;
	unsigned n = 0;

	if (lane->stage)
		lane->stage->purge(lane->stage_ctx, link, error, orphans_only);
	/* A done() may submit new requests, so this works on the old backlog. */
	backlog = lane->backlog;
	lane->backlog = NULL;
	lane->backlog_tail = &lane->backlog;
	while (backlog) {
		struct bridge_request *rq = backlog;

		backlog = rq->lane.next;
		if ((orphans_only && !rq->lane.orphan) || !lane_touches(rq, link)) {
			lane_backlog(lane, rq);
			continue;
		}
		rq->lane.listed = false;
		rq->lane.flush_after = false;
		n++;
		lane_settle(lane, rq, error);
	}
	while (flushes) {
		struct bridge_request *rq = flushes;

		flushes = rq->lane.next;
		rq->lane.listed = false;
		if ((orphans_only && !rq->lane.orphan) || !lane_touches(rq, link)) {
			lane_flush(lane, rq);
			continue;
		}
		n++;
		lane_settle(lane, rq, error);
	}
	while (held) {
		struct bridge_request *rq = held;

		held = rq->lane.next;
		rq->lane.listed = false;
		if ((orphans_only && !rq->lane.orphan) || !lane_copies_is_about(lane, rq, link)) {
			lane_copies_hold(lane, rq);
			continue;
		}
		n++;
		lane_settle(lane, rq, error);
	}
	n += link_fail_ops(link, error, orphans_only ? is_orphan : NULL);
	/* Requests end with the last of their operations. */
	if (lane->stage)
		lane->stage->step(lane->stage_ctx);
	return n;
}
