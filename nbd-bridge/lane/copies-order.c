/* SPDX-License-Identifier: MIT */
/* The orders of whoever keeps the copies, and his own requests.  The lane's thread. */
#include <errno.h>
#include <stdlib.h>

#include "nbd-bridge/lane/copies-private.h"

enum { FIRST_READ_NS = 200000 }; /* what a copy's READ is said to take before there was one */

void lane_submit_at(struct bridge_lane *lane, struct bridge_request *rq, unsigned donor)
{
	assert(request_has_order(rq->kind));
	lane_begin(lane, rq);
	rq->lane.internal = true;
	rq->lane.copies.only = (uint8_t)(donor + 1);
	if (atomic_load(&lane->attachment->refuses) || atomic_load(&lane->lanes->stopping))
		lane_settle(lane, rq, -ESHUTDOWN);
	else if (rq->kind == TP_HASH && !lane->attachment->info.max_hash_blocks)
		lane_settle(lane, rq, -EOPNOTSUPP);
	else
		lane_backlog(lane, rq);
}

void lane_copies_look(struct bridge_lane *lane)
{
	struct bridge_request *rq = lane_copies_take_held(lane), *next;

	for (; rq; rq = next) {
		next = rq->lane.next;
		rq->lane.listed = false;
		lane_request_settle(lane, rq);
	}
}

void lane_copies_end_scout(struct bridge_lane *lane, unsigned donor)
{
	if (lane->scouts[donor])
		scout_end(lane->scouts[donor]);
}

void lane_copies_restart(struct bridge_lane *lane, unsigned donor)
{
	link_restart(&lane->links[donor]);
}

/* ---- the keeper's orders ---- */

void lane_copies_start(struct bridge_lane *lane, struct lanes_copies *shared)
{
	lane->copies->shared = shared;
}

static void fail_held(struct bridge_lane *lane, uint32_t donors)
{
	struct bridge_request *rq = lane_copies_take_held(lane), *next;

	for (; rq; rq = next) {
		next = rq->lane.next;
		rq->lane.listed = false;
		if (rq->lane.copies.missed & donors)
			lane_settle(lane, rq, -EIO);
		else
			lane_copies_hold(lane, rq);
	}
}

void lane_copies_set(struct bridge_lane *lane, const struct lane_copies_order *order)
{
	struct lane_copies *c = lane->copies;
	const uint32_t refused = order->refuse & ~c->refuse;

	c->live = order->live;
	c->readable = order->live & ~order->joining;
	c->targets = order->targets;
	c->refuse = order->refuse;
	c->due = order->due;
	if (order->turn)
		c->turn ^= 1;
	for (unsigned i = 0; i < lane->nr_links; i++) {
		struct bridge_link *link = &lane->links[i];

		if (order->leave >> i & 1) {
			link_renounce(link, "the copy was left behind");
			link_fail_ops(link, -EIO, NULL);
		} else if (refused >> i / c->nr & c->live >> i & 1 && link->state != LINK_READY) {
			lane_purge(lane, link, -EIO, false);
		}
	}
	if (order->fail)
		fail_held(lane, order->fail);
	lane_look_whether_ready(lane);
	lane_copies_look(lane);
}

uint32_t lane_copies_old_left(const struct bridge_lane *lane)
{
	const struct lane_copies *c = lane->copies;

	/* The keeper alone turns, and waits for this in between. */
	return atomic_load_explicit(&c->under_way[c->turn ^ 1], memory_order_acquire);
}

int lane_copies_new(struct bridge_lane *lane)
{
	struct lane_copies *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->nr = lane->attachment->nr_copies;
	c->held.tail = &c->held.head;
	for (unsigned i = 0; i < BRIDGE_MAX_DONORS; i++)
		c->reads[i].ns = FIRST_READ_NS;
	lane->copies = c;
	return 0;
}

void lane_copies_free(struct bridge_lane *lane)
{
	free(lane->copies);
	lane->copies = NULL;
}
