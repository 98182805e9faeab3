/* SPDX-License-Identifier: MIT */
/* The end of a bridge: requests in flight, the last FLUSH, the threads.  The control thread. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"
#include "fabric/base/thread.h"

/* The time that the end may take; it begins anew whenever something was written back. */
struct patience {
	const struct bridge *bridge;
	uint64_t timeout_ns, end_ns, pushed;
};

static uint64_t pushed_bytes(const struct bridge *bridge)
{
	return bridge->cache ? cache_pushed_bytes(bridge->cache) : 0;
}

static bool may_wait(struct patience *patience)
{
	uint64_t pushed = pushed_bytes(patience->bridge);

	/* As long as something arrives, there is no limit. */
	if (pushed != patience->pushed)
		patience->end_ns = weft_now_ns() + patience->timeout_ns;
	patience->pushed = pushed;
	return weft_now_ns() < patience->end_ns;
}

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
	const uint64_t end_ns = weft_now_ns() + UINT64_C(1000000000);

	while (!*done && weft_cond_wait_until(&lanes->changed, &lanes->lock, end_ns))
		;
	return *done;
}

/* It has a second in any case. */
static int flush_all(struct bridge *bridge, struct patience *patience, struct weft_error *err)
{
	struct bridge_lanes *lanes = &bridge->lanes;
	struct last_flush flush = {.lanes = lanes,
		.rq = {.kind = TP_FLUSH, .done = last_flush_done}};

	bridge_lane_run(lanes->lane[0], submit_flush, &flush);
	pthread_mutex_lock(&lanes->lock);
	while (!wait_a_second(lanes, &flush.done) && may_wait(patience))
		;
	bool timed_out = !flush.done;
	pthread_mutex_unlock(&lanes->lock);
	if (timed_out) {
		/* The lane's end fails the FLUSH: afterwards nobody points at it any more. */
		lane_join(lanes->lane[0]);
		return weft_error_set(err, ETIMEDOUT,
			"the last FLUSH was not answered: the last writes may not be "
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
	const uint64_t timeout_ns = timeout_ms * UINT64_C(1000000);
	struct patience patience = {.bridge = bridge,
		.timeout_ns = timeout_ns,
		.end_ns = weft_now_ns() + timeout_ns,
		.pushed = pushed_bytes(bridge)};
	const struct bridge_attachment *attachment = &bridge->attachment;
	struct bridge_lanes *lanes = &bridge->lanes;
	int r = 0;

	while (!lanes_are_idle(lanes) && may_wait(&patience))
		usleep(1000);
	const bool begun = !bridge->copies || bridge->copies->started;
	if (attachment->granted && begun && !attachment->info.read_only &&
		lane_is_running(lanes->lane[0]))
		r = flush_all(bridge, &patience, err);
	if (bridge->copies)
		copies_end(bridge->copies, r == 0 && lanes_are_idle(lanes));
	bridge_end_lanes(bridge);
	return r;
}
