/* SPDX-License-Identifier: MIT */
/* The end of a bridge: what is in flight, the last FLUSH, the threads.  The control thread. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "nbd-bridge/bridge/bridge-private.h"

struct last_flush {
	struct bridge_request rq;
	struct bridge_lanes *lanes;
	bool done; /* under the lanes' lock */
	int error;
};

static void last_flush_done(struct bridge_request *rq, int error)
{
	struct last_flush *flush = weft_container_of(rq, struct last_flush, rq);

	flush->error = error;
	lanes_tell(flush->lanes, &flush->done);
}

static void submit_flush(struct bridge_lane *lane, void *ctx)
{
	struct last_flush *flush = ctx;

	bridge_lane_submit(lane, &flush->rq);
}

/* Up to a second's wait; true: it is done.  Under the lock. */
static bool wait_a_second(struct bridge_lanes *lanes, const bool *done)
{
	uint64_t until_ns = weft_now_ns() + UINT64_C(1000000000);
	struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
		.tv_nsec = (long)(until_ns % 1000000000)};

	while (!*done)
		if (pthread_cond_timedwait(&lanes->changed, &lanes->lock, &until) == ETIMEDOUT)
			break;
	return *done;
}

static int flush_all(struct bridge *bridge, uint32_t timeout_ms, struct weft_error *err)
{
	struct bridge_lanes *lanes = &bridge->lanes;
	struct last_flush flush = {.lanes = lanes,
		.rq = {.kind = TP_FLUSH, .done = last_flush_done}};
	uint64_t moved = bridge->cache ? cache_pushed_bytes(bridge->cache) : 0,
		 left_ms = timeout_ms;

	bridge_lane_run(lanes->lane[0], submit_flush, &flush);
	pthread_mutex_lock(&lanes->lock);
	while (!wait_a_second(lanes, &flush.done) && left_ms > 0) {
		uint64_t now = bridge->cache ? cache_pushed_bytes(bridge->cache) : 0;

		/* As long as something arrives, it may take as long as it takes. */
		left_ms = now != moved ? timeout_ms : left_ms - weft_min(left_ms, 1000);
		moved = now;
	}
	bool timed_out = !flush.done;
	pthread_mutex_unlock(&lanes->lock);
	if (timed_out) {
		/* Its end fails it: afterwards nobody points at it any more. */
		lane_join(lanes->lane[0]);
		return weft_error_set(err, ETIMEDOUT,
			"the last FLUSH was not answered: what was written last may not be "
			"durable");
	}
	if (flush.error == 0)
		return 0;
	struct weft_error why = {0};
	bridge_state(bridge, &why);
	if (atomic_load(&bridge->attachment.stale))
		weft_error_set(err, ESTALE, "the attachment was lost: %.400s", why.message);
	else
		weft_error_set(err, -flush.error, "the last FLUSH failed: %.400s",
			why.code ? why.message : strerror(-flush.error));
	return flush.error;
}

int bridge_stop(struct bridge *bridge, uint32_t timeout_ms, struct weft_error *err)
{
	uint64_t deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);
	const struct bridge_attachment *attachment = &bridge->attachment;
	struct bridge_lanes *lanes = &bridge->lanes;
	int r = 0;

	while (!lanes_are_idle(lanes) && weft_now_ns() < deadline_ns)
		usleep(1000);
	if (attachment->granted && !attachment->info.read_only && lane_is_running(lanes->lane[0]))
		r = flush_all(bridge, timeout_ms, err);
	bridge_end_lanes(bridge);
	return r;
}
