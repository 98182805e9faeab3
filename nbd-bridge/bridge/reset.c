/* SPDX-License-Identifier: MIT */
/*
 * The way back from being stale: the attachment begins anew under its front-ends.  The control
 * thread's, except the functions that run on lanes.
 */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "nbd-bridge/bridge/bridge-private.h"

/* Lane 0's links after its reset. */
struct reset {
	struct bridge *bridge;
	bool idle; /* no lane has an operation on the old contents under way */
	unsigned nr_ready;
	struct weft_error why;
	bool refused;
};

static void look_whether_idle(struct bridge_lane *lane, void *ctx)
{
	struct reset *reset = ctx;

	struct bridge *bridge = reset->bridge;

	/* A client may be slow in receiving bytes that were read for it. */
	reset->idle &= lane_nr_requests(lane) == 0 &&
		!(bridge->cache && cache_has_lent(bridge->cache, lane_index(lane)));
	for (unsigned i = 0; i < bridge->attachment.nr_peers; i++) {
		const struct bridge_link *link = lane_link(lane, i);

		reset->idle &=
			!link->conn && (link->state == LINK_STALE || link->state == LINK_IDLE);
	}
	/* A scout that moves would take its donor back to the old incarnation. */
	lane_end_scouts(lane);
}

static void restart_links(struct bridge_lane *lane, void *ctx)
{
	lane_restart_links(lane);
}

static void look_at_links(struct bridge_lane *lane, void *ctx)
{
	struct reset *reset = ctx;

	reset->nr_ready = 0;
	for (unsigned i = 0; i < reset->bridge->attachment.nr_peers; i++) {
		const struct bridge_link *link = lane_link(lane, i);

		reset->nr_ready += link->state == LINK_READY;
		reset->refused |= link->state == LINK_STALE || link->state == LINK_IDLE;
		if (link->state != LINK_READY && link->why.code)
			reset->why = link->why;
	}
}

static int reconnect_first(struct bridge *bridge, struct weft_error *err)
{
	uint64_t end_ns =
		weft_now_ns() + bridge->config.attach.connect_timeout_ms * UINT64_C(1000000);
	struct reset reset = {.bridge = bridge};

	bridge_lane_run(bridge->lanes.lane[0], restart_links, NULL);
	for (;;) {
		bridge_lane_run(bridge->lanes.lane[0], look_at_links, &reset);
		if (reset.nr_ready == bridge->attachment.nr_peers)
			return 0;
		if (reset.refused || weft_now_ns() > end_ns)
			break;
		usleep(2000);
	}
	if (!reset.why.code)
		weft_error_set(&reset.why, ETIMEDOUT, "no answer for %u ms",
			bridge->config.attach.connect_timeout_ms);
	*err = reset.why;
	return -reset.why.code;
}

int bridge_reset(struct bridge *bridge, uint64_t generation,
	int (*granted)(void *ctx, struct weft_error *err), void *ctx, struct weft_error *err)
{
	uint64_t end_ns =
		weft_now_ns() + bridge->config.attach.connect_timeout_ms * UINT64_C(1000000);
	struct reset reset = {.bridge = bridge};

	if (!atomic_load(&bridge->attachment.stale))
		return weft_error_set(err, EINVAL, "it is not stale");
	if (bridge->copies)
		return weft_error_set(err, EOPNOTSUPP,
			"a device with copies begins anew by another attach: detach this one");
	if (attachment_is_superseded(&bridge->attachment))
		return weft_error_set(err, EPERM,
			"another process has taken the attachment over; end this one with weft "
			"detach --force");
	do {
		reset.idle = true;
		for (unsigned i = 0; i < bridge->lanes.nr; i++)
			bridge_lane_run(bridge->lanes.lane[i], look_whether_idle, &reset);
		if (reset.idle)
			break;
		usleep(2000);
	} while (weft_now_ns() < end_ns);
	if (!reset.idle || (bridge->cache && !cache_clear(bridge->cache)))
		return weft_error_set(err, EBUSY,
			"operations have not ended yet, or a client does not receive its "
			"replies: try again, or end that client");
	attachment_begin_anew(&bridge->attachment, generation);
	int r = reconnect_first(bridge, err);
	if (r == 0 && granted)
		r = granted(ctx, err);
	if (r < 0) {
		attachment_set_stale(&bridge->attachment, err);
		return r;
	}
	for (unsigned i = 1; i < bridge->lanes.nr; i++)
		bridge_lane_run(bridge->lanes.lane[i], restart_links, NULL);
	atomic_store(&bridge->attachment.refuses, false);
	attachment_changed(&bridge->attachment);
	return 0;
}
