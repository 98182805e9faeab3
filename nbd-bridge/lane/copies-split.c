/* SPDX-License-Identifier: MIT */
/*
 * Where the operations of a request go, on a device with copies.  The lane's thread.
 */
#include <errno.h>

#include "nbd-bridge/lane/copies-private.h"
#include "nbd-bridge/lane/piece-private.h"

enum { EXPLORE = 64 }; /* each so many READs one goes to the second best */

static bool is_wanted(const struct lanes_copies *shared, unsigned stripe,
	const struct bridge_piece *part)
{
	const uint64_t end = atomic_load(&shared->wanted[stripe].end);

	return end && part->off < end &&
		part->off + part->len > atomic_load(&shared->wanted[stripe].off);
}

static bool try_take(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct lanes_copies *shared = lane->copies->shared;

	for (unsigned i = 0; i < shared->nr_stripes; i++) {
		struct bridge_piece part = lane_copies_part(lane, rq, i);

		if (part.len > 0 && (is_wanted(shared, i, &part) ||
			!ranges_take(&shared->taken[i], part.off, part.len))) {
			lane_copies_give_below(lane, rq, i);
			return false;
		}
	}
	return true;
}

static bool take(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (try_take(lane, rq))
		return true;
	atomic_fetch_or(&lane->copies->shared->waiting, UINT64_C(1) << lane->index);
	/* Who gave them back in between has not seen that we wait. */
	return try_take(lane, rq);
}

static bool begin(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct lane_copies *c = lane->copies;

	if (lane_copies_is_refused(lane, rq)) {
		rq->lane.status = -EIO;
		return false;
	}
	if (request_changes_data(rq->kind)) {
		if (!take(lane, rq))
			return false;
		rq->lane.copies.turn = c->turn;
		atomic_fetch_add_explicit(&c->under_way[c->turn], 1, memory_order_relaxed);
	}
	rq->lane.copies.asked = (uint16_t)(c->live | c->targets);
	rq->lane.copies.begun = true;
	return true;
}

/* Whether the donor gets its operation of a request that goes to all. */
static bool gets_it(struct bridge_lane *lane, struct bridge_request *rq, unsigned donor)
{
	const struct lane_copies *c = lane->copies;
	const uint32_t bit = 1U << donor;

	if (!(rq->lane.copies.asked & bit))
		return false;
	if (c->live & bit ? !atomic_load(&lane->links[donor].peer->lost_contents)
			  : c->targets & bit && lane->links[donor].state == LINK_READY)
		return true;
	rq->lane.copies.missed |= (uint16_t)bit;
	return false;
}

static bool split_all(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct lane_copies *c = lane->copies;
	struct bridge_piece piece;

	if (!rq->lane.copies.begun && !begin(lane, rq))
		return rq->lane.status < 0;
	while (piece_next(&lane->attachment->map, rq, &piece)) {
		for (; rq->lane.copies.next_copy < c->nr; rq->lane.copies.next_copy++) {
			unsigned donor = piece.donor * c->nr + rq->lane.copies.next_copy;
			struct bridge_link *link = &lane->links[donor];

			if (!gets_it(lane, rq, donor))
				continue;
			if (!link->free_ops)
				return false;
			struct bridge_op *op = piece_make_op(lane, link, rq, &piece);
			/* What it leaves there has to be the same at each copy. */
			if (op->tp.kind == TP_TRIM)
				op->tp.kind = TP_ZERO;
		}
		rq->lane.copies.next_copy = 0;
		piece_advance(rq, piece_op_bytes(lane, rq, &piece));
	}
	return true;
}

/* The copy that is likely to answer first; NULL: none is ready. */
static struct bridge_link *nearest(struct bridge_lane *lane, unsigned stripe, uint32_t avoid)
{
	struct lane_copies *c = lane->copies;
	struct bridge_link *best = NULL, *second = NULL;
	int64_t best_ns = INT64_MAX, second_ns = INT64_MAX;

	for (unsigned i = stripe * c->nr; i < (stripe + 1) * c->nr; i++) {
		if (!((c->readable & ~avoid) >> i & 1) || lane->links[i].state != LINK_READY)
			continue;
		int64_t ns = c->reads[i].ns * (c->reads[i].nr + 1);
		if (ns < best_ns) {
			second = best;
			second_ns = best_ns;
			best = &lane->links[i];
			best_ns = ns;
		} else if (ns < second_ns) {
			second = &lane->links[i];
			second_ns = ns;
		}
	}
	/* The others may have become faster than they were. */
	return second && ++c->nr_reads % EXPLORE == 0 ? second : best;
}

static bool is_torn(const struct bridge_lane *lane, const struct bridge_request *rq)
{
	const struct lanes_copies *shared = lane->copies->shared;

	for (unsigned i = 0; i < shared->nr_stripes; i++) {
		struct bridge_piece part;

		if (ranges_empty(&shared->torn[i]))
			continue;
		part = lane_copies_part(lane, rq, i);
		if (part.len > 0 && ranges_has_any(&shared->torn[i], part.off, part.len))
			return true;
	}
	return false;
}

static bool split_one(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct lane_copies *c = lane->copies;
	struct bridge_piece piece;

	if (is_torn(lane, rq))
		return false;
	while (piece_next(&lane->attachment->map, rq, &piece)) {
		struct bridge_link *link = nearest(lane, piece.donor, rq->lane.copies.avoid);
		const uint32_t left = c->live & ~rq->lane.copies.avoid;

		/* The one that could have been asked instead was left behind meanwhile. */
		if (!(left >> piece.donor * c->nr & ((1U << c->nr) - 1))) {
			rq->lane.status = -EIO;
			return true;
		}
		if (!link || !link->free_ops)
			return false;
		struct bridge_op *op = piece_make_op(lane, link, rq, &piece);
		op->made_ns = weft_worker_now(&lane->worker);
		c->reads[link->peer->index].nr++;
		piece_advance(rq, op->tp.len);
	}
	return true;
}

static bool split_at(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct bridge_link *link = &lane->links[rq->lane.copies.only - 1];

	while (rq->lane.next_off < rq->off + rq->len) {
		struct bridge_piece piece = {.off = rq->lane.next_off,
			.len = rq->off + rq->len - rq->lane.next_off};

		if (link->state != LINK_READY) {
			rq->lane.status = -ENOTCONN;
			return true;
		}
		if (!link->free_ops)
			return false;
		piece_advance(rq, piece_make_op(lane, link, rq, &piece)->tp.len);
	}
	return true;
}

bool lane_copies_split(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->lane.copies.only)
		return split_at(lane, rq);
	if (!lane->copies->shared)
		return false;
	return lane_copies_goes_to_one(rq) ? split_one(lane, rq) : split_all(lane, rq);
}
