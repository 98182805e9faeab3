/* SPDX-License-Identifier: MIT */
/* Private to nbd-bridge/lane/: what a lane has where there are copies.  The lane's thread. */
#ifndef WEFT_NBD_BRIDGE_LANE_COPIES_PRIVATE_H
#define WEFT_NBD_BRIDGE_LANE_COPIES_PRIVATE_H

#include "nbd-bridge/lane/lane-private.h"

struct lane_copies {
	struct lanes_copies *shared; /* NULL: requests wait for the start */
	unsigned nr;
	uint32_t live, targets, refuse;
	uint32_t readable; /* those of live that may be read */
	bool due;
	uint8_t turn;
	_Atomic uint32_t under_way[2]; /* requests that change data, of each turn */
	struct request_list held;
	unsigned nr_reads;
	uint64_t boottime_ns, boottime_for_ns; /* read once a step */
	struct {
		int64_t ns; /* of a READ, lately */
		unsigned nr; /* under way */
	} reads[BRIDGE_MAX_DONORS];
};

static inline uint32_t lane_copies_bit(const struct bridge_link *link)
{
	return 1U << link->peer->index;
}

/* Goes to one copy; anything else goes to all. */
static inline bool lane_copies_goes_to_one(const struct bridge_request *rq)
{
	return !rq->lane.flushing && !request_changes_data(rq->kind);
}

/* The bytes of the request at each donor of the stripe. */
static inline struct bridge_piece lane_copies_part(const struct bridge_lane *lane,
	const struct bridge_request *rq, unsigned stripe)
{
	return bridge_map_part(&lane->attachment->map, stripe, rq->off, rq->len);
}

static inline bool lane_copies_is_of_stripe(const struct bridge_lane *lane,
	const struct bridge_request *rq, unsigned stripe)
{
	return rq->kind == TP_FLUSH || lane_copies_part(lane, rq, stripe).len > 0;
}

/* With too few copies it fails at once. */
static inline bool lane_copies_is_refused(const struct bridge_lane *lane,
	const struct bridge_request *rq)
{
	const struct lane_copies *c = lane->copies;

	for (unsigned i = 0; c->refuse >> i; i++)
		if (c->refuse >> i & 1 && lane_copies_is_of_stripe(lane, rq, i))
			return true;
	return false;
}

/* What the request had for itself at the first stripes is free. */
void lane_copies_give_below(struct bridge_lane *lane, struct bridge_request *rq,
	unsigned nr_stripes);

#endif
