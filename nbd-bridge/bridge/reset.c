/* The way back from being stale: the attachment begins anew under its front-ends.  The control thread's, but for what runs on lanes. */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/lane/lane.h"

/* Lane 0's links after its reset. */
struct reset {
	bool idle; /* no lane has anything of the old contents under way */
	unsigned nr_ready;
	struct weft_error why;
	bool refused;
};

static void look_whether_idle(struct bridge_lane *lane, void *ctx)
{
	struct reset *reset = ctx;

	/* A client may be slow in taking what was read for it. */
	reset->idle &= atomic_load(&lane->nr_requests) == 0 && (!lane->cache || lane->cache->nr_lent == 0);
	for (unsigned i = 0; i < lane->nr_links; i++) {
		const struct bridge_link *link = &lane->links[i];

		reset->idle &= !link->conn && (link->state == LINK_STALE || link->state == LINK_IDLE);
		/* One that moves would take its donor back to the old incarnation. */
		if (link->scout)
			scout_end(link->scout);
	}
}

static void restart_links(struct bridge_lane *lane, void *ctx)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_restart(&lane->links[i]);
}

static void look_at_links(struct bridge_lane *lane, void *ctx)
{
	struct reset *reset = ctx;

	reset->nr_ready = 0;
	for (unsigned i = 0; i < lane->nr_links; i++) {
		const struct bridge_link *link = &lane->links[i];

		reset->nr_ready += link->state == LINK_READY;
		reset->refused |= link->state == LINK_STALE || link->state == LINK_IDLE;
		if (link->state != LINK_READY && link->why.code)
			reset->why = link->why;
	}
}

static int reconnect_first(struct bridge *bridge, struct weft_error *err)
{
	uint64_t end_ns = weft_now_ns() + bridge->config.connect_timeout_ms * UINT64_C(1000000);
	struct reset reset = {0};

	bridge_lane_run(bridge->lanes[0], restart_links, NULL);
	for (;;) {
		bridge_lane_run(bridge->lanes[0], look_at_links, &reset);
		if (reset.nr_ready == bridge->nr_donors)
			return 0;
		if (reset.refused || weft_now_ns() > end_ns)
			break;
		usleep(2000);
	}
	if (!reset.why.code)
		weft_error_set(&reset.why, ETIMEDOUT, "no answer for %u ms", bridge->config.connect_timeout_ms);
	*err = reset.why;
	return -reset.why.code;
}

int bridge_reset(struct bridge *bridge, uint64_t generation, int (*granted)(void *ctx, struct weft_error *err), void *ctx,
	struct weft_error *err)
{
	uint64_t end_ns = weft_now_ns() + bridge->config.connect_timeout_ms * UINT64_C(1000000);
	struct reset reset;

	if (!atomic_load(&bridge->stale))
		return weft_error_set(err, EINVAL, "it is not stale");
	if (bridge_is_superseded(bridge))
		return weft_error_set(err, EPERM, "another process has taken the attachment over; end this one with weft detach --force");
	do {
		reset.idle = true;
		for (unsigned i = 0; i < bridge->nr_lanes; i++)
			bridge_lane_run(bridge->lanes[i], look_whether_idle, &reset);
		if (reset.idle)
			break;
		usleep(2000);
	} while (weft_now_ns() < end_ns);
	if (!reset.idle || (bridge->cache && !cache_clear(bridge->cache)))
		return weft_error_set(err, EBUSY, "what was under way has not ended yet, or a client does not take its replies: end it, or try again");
	pthread_mutex_lock(&bridge->lock);
	/* That was said once, of what there was then. */
	bridge->config.new_contents = false;
	for (unsigned i = 0; i < bridge->nr_donors; i++) {
		struct bridge_donor *donor = &bridge->donors[i];

		/* As a new incarnation, which remembers nothing. */
		assert(generation > atomic_load(&donor->generation));
		atomic_store(&donor->generation, generation);
		donor->granted = donor->moving = false;
		donor->ways.now = 0;
		donor->nr_ready = 0;
		donor->config.epoch = donor->config.expect = 0;
		/* Whichever contents there are: check_reset() will know. */
		if (bridge->config.cache_file)
			cache_file_set_epoch(bridge->config.cache_file, i, 0);
	}
	atomic_store(&bridge->stale, false);
	pthread_mutex_unlock(&bridge->lock);
	int r = reconnect_first(bridge, err);
	if (r == 0 && granted)
		r = granted(ctx, err);
	if (r < 0) {
		bridge_set_stale(bridge, err);
		return r;
	}
	for (unsigned i = 1; i < bridge->nr_lanes; i++)
		bridge_lane_run(bridge->lanes[i], restart_links, NULL);
	atomic_store(&bridge->refuses, false);
	bridge_changed(bridge);
	return 0;
}
