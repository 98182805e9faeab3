/* SPDX-License-Identifier: MIT */
/*
 * Measures how far away the donors are, before there is a cache, by READs one after another: small
 * ones, then large ones.
 */
#include "nbd-bridge/cache/cache-private.h"
#include "nbd-bridge/lane/pool.h"

enum { MEASURE_SMALL = 2, MEASURE_READS = 4 };

struct measurement {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	struct bridge_lanes *lanes;
	struct bridge_lane *lane;
	unsigned nr;
	uint64_t small_ns, large_ns;
	bool done; /* under the lanes' lock */
};

static void measure_next(struct measurement *m)
{
	m->rq.kind = TP_READ;
	m->rq.off = 0;
	m->rq.len = weft_min(m->nr < MEASURE_SMALL ? 4096 : BRIDGE_POOL_MAX,
		m->lanes->attachment->info.size_bytes);
	lane_worker(m->lane)->now_ns = 0;
	lane_submit_direct(m->lane, &m->rq);
}

static void measured(struct bridge_request *rq, int error)
{
	struct measurement *m = weft_container_of(rq, struct measurement, rq);
	uint64_t *ns = m->nr < MEASURE_SMALL ? &m->small_ns : &m->large_ns;

	if (error == 0)
		*ns = weft_min(*ns, weft_max(weft_now_ns() - rq->lane.start_ns, 1));
	if (error == 0 && ++m->nr < MEASURE_READS) {
		measure_next(m);
		return;
	}
	bridge_lane_buffer_put(m->lane, rq->buf);
	lanes_tell(m->lanes, &m->done);
}

static void measure(struct bridge_lane *lane, void *ctx)
{
	struct measurement *m = ctx;

	m->lane = lane;
	m->rq.lane.internal = true;
	m->rq.done = measured;
	if (bridge_lane_buffer_get(lane, BRIDGE_POOL_MAX, &m->waiter, &m->rq.buf, &m->rq.mem) < 0) {
		bridge_lane_waiter_cancel(lane, &m->waiter);
		lanes_tell(m->lanes, &m->done);
	} else {
		measure_next(m);
	}
}

struct cache_path cache_measure_path(struct bridge_lanes *lanes)
{
	struct measurement m = {.lanes = lanes, .small_ns = UINT64_MAX, .large_ns = UINT64_MAX};
	const uint64_t bytes = weft_min(BRIDGE_POOL_MAX, lanes->attachment->info.size_bytes);

	bridge_lane_run(lanes->lane[0], measure, &m);
	pthread_mutex_lock(&lanes->lock);
	while (!m.done)
		pthread_cond_wait(&lanes->changed, &lanes->lock);
	pthread_mutex_unlock(&lanes->lock);
	bool whole = m.nr == MEASURE_READS;
	uint64_t moving_ns = whole && m.large_ns > m.small_ns ? m.large_ns - m.small_ns : 1000000;
	return (struct cache_path){
		.rtt_ns = whole ? m.small_ns : 1000000,
		.rate = weft_max(bytes * 1000000 / weft_max(moving_ns / 1000, 1), 1000000),
	};
}
