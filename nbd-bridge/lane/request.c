/* SPDX-License-Identifier: MIT */
/*
 * A request on its lane: its beginning, the backlog, its end.  The lane's thread.
 */
#include "fabric/base/probe.h"
#include "nbd-bridge/lane/lane-private.h"

void lane_request_finish(struct bridge_lane *lane, struct bridge_request *rq, int error)
{
	struct lane_stats *stats = &lane->stats;
	uint64_t now_ns = weft_worker_now(&lane->worker),
		 took_ns = now_ns - weft_min(rq->lane.start_ns, now_ns);

	/* The stage has answered it in the step that it came in. */
	if (took_ns == 0 && lane->stage)
		took_ns = weft_max(weft_now_ns(), rq->lane.start_ns) - rq->lane.start_ns;

	weft_count(&stats->requests[rq->kind], 1);
	/*
	 * A failed request moved no bytes, and its time says nothing.  An orphan's error is told to
	 * nobody: where its sender still wants it, the sender has asked again.
	 */
	if (error < 0) {
		weft_count(&stats->errors, !rq->lane.orphan);
	} else if (rq->kind == TP_READ) {
		weft_count(&stats->read_bytes, rq->len);
		weft_histogram_add(&stats->reads, took_ns);
	} else if (rq->kind == TP_WRITE) {
		weft_count(&stats->write_bytes, rq->len);
		weft_histogram_add(&stats->writes, took_ns);
	} else if (rq->kind == TP_FLUSH) {
		weft_histogram_add(&stats->flushes, took_ns);
	}
	*bridge_recorder_next(&lane->recorder) = (struct bridge_record){
		.when_ns = now_ns,
		.a = rq->off,
		.b = rq->len,
		.took_ns = took_ns,
		.error = error,
		.event = BRIDGE_EVENT_REQUEST,
		.kind = rq->kind,
		.flags = rq->flags,
	};
	if (rq->lane.orphan) {
		lane->nr_orphans--;
		if (request_changes_data(rq->kind))
			atomic_fetch_sub(&lane->lanes->nr_orphans, 1);
	}
	atomic_store_explicit(&lane->nr_requests,
		atomic_load_explicit(&lane->nr_requests, memory_order_relaxed) - 1,
		memory_order_release);
	WEFT_PROBE(reply, rq, lane->index, error);
	rq->done(rq, error);
}

static inline void end(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->lane.flush_after && rq->lane.status == 0) {
		/* FUA at a donor without FUA: the data have arrived, now a FLUSH follows. */
		rq->lane.flush_after = false;
		rq->lane.flushing = true;
		rq->lane.next_donor = 0;
		lane_backlog(lane, rq);
		return;
	}
	if (rq->lane.internal)
		rq->done(rq, rq->lane.status);
	else
		lane_request_finish(lane, rq, rq->lane.status);
}

static void __attribute__((noinline, cold)) end_of_copies(struct bridge_lane *lane,
	struct bridge_request *rq)
{
	if (lane_copies_may_end(lane, rq))
		end(lane, rq);
}

/* Ends the request if all of its operations were made and have come back. */
void lane_request_settle(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->lane.listed || rq->lane.nr_ops > 0)
		return;
	if (__builtin_expect(lane->copies != NULL, 0))
		end_of_copies(lane, rq);
	else
		end(lane, rq);
}

void lane_settle(struct bridge_lane *lane, struct bridge_request *rq, int error)
{
	rq->lane.status = error;
	lane_request_settle(lane, rq);
}

void bridge_lane_orphan(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->lane.orphan)
		return;
	rq->lane.orphan = true;
	lane->nr_orphans++;
	if (request_changes_data(rq->kind))
		atomic_fetch_add(&lane->lanes->nr_orphans, 1);
}
