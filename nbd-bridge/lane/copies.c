/* SPDX-License-Identifier: MIT */
/*
 * Requests of a device with copies: what becomes of their operations, and when they may be
 * answered.  The lane's thread, unless a comment says otherwise.
 */
#include <errno.h>

#include "nbd-bridge/lane/copies-private.h"

/* ---- what lanes and the keeper share: any thread ---- */

int lanes_copies_init(struct lanes_copies *shared, struct bridge_lanes *lanes, void (*kick)(void *),
	void *ctx)
{
	const struct bridge_attachment *attachment = lanes->attachment;
	int r = 0;

	*shared = (struct lanes_copies){
		.nr = attachment->nr_copies,
		.nr_stripes = attachment->map.nr,
		.part_bytes = attachment->map.part_bytes,
		.kick = kick,
		.ctx = ctx,
	};
	for (unsigned i = 0; i < attachment->nr_peers && r == 0; i++)
		r = ranges_init(&shared->behind[i], shared->part_bytes, COPIES_CHUNK_SHIFT);
	for (unsigned i = 0; i < shared->nr_stripes && r == 0; i++) {
		r = ranges_init(&shared->torn[i], shared->part_bytes, COPIES_CHUNK_SHIFT);
		if (r == 0)
			r = ranges_init(&shared->taken[i], shared->part_bytes, COPIES_PAGE_SHIFT);
	}
	if (r < 0)
		lanes_copies_fini(shared);
	return r;
}

void lanes_copies_fini(struct lanes_copies *shared)
{
	for (unsigned i = 0; i < BRIDGE_MAX_DONORS; i++) {
		ranges_fini(&shared->behind[i]);
		ranges_fini(&shared->torn[i]);
		ranges_fini(&shared->taken[i]);
	}
}

/*
 * Somebody gave bytes back: lanes whose requests wait for such look again.  self, which may be
 * NULL, looks by itself, and goes on waiting for others.
 */
static void wake_waiting(struct lanes_copies *shared, struct bridge_lanes *lanes,
	const struct bridge_lane *self)
{
	const uint64_t own = self ? UINT64_C(1) << self->index : 0;

	if ((atomic_load(&shared->waiting) & ~own) == 0)
		return;
	uint64_t waiting = atomic_fetch_and(&shared->waiting, own);

	for (unsigned i = 0; i < lanes->nr; i++)
		if ((waiting & ~own) >> i & 1)
			weft_loop_wake(lanes->lane[i]->worker.loop);
}

bool lanes_copies_take(struct lanes_copies *shared, unsigned stripe, uint64_t off, uint64_t len)
{
	return ranges_take(&shared->taken[stripe], off, len);
}

/* Who looks in between sees too much that is wanted, or nothing, and takes or waits for once. */
void lanes_copies_want(struct lanes_copies *shared, struct bridge_lanes *lanes, unsigned stripe,
	uint64_t off, uint64_t len)
{
	atomic_store(&shared->wanted[stripe].end, 0);
	atomic_store(&shared->wanted[stripe].off, off);
	atomic_store(&shared->wanted[stripe].end, len ? off + len : 0);
	if (len == 0)
		wake_waiting(shared, lanes, NULL);
}

void lanes_copies_give(struct lanes_copies *shared, struct bridge_lanes *lanes, unsigned stripe,
	uint64_t off, uint64_t len)
{
	ranges_give(&shared->taken[stripe], off, len);
	wake_waiting(shared, lanes, NULL);
}

void lane_copies_give_below(struct bridge_lane *lane, struct bridge_request *rq,
	unsigned nr_stripes)
{
	struct lanes_copies *shared = lane->copies->shared;

	if (nr_stripes == 0)
		return;
	for (unsigned i = 0; i < nr_stripes; i++) {
		struct bridge_piece part = lane_copies_part(lane, rq, i);

		if (part.len > 0)
			ranges_give(&shared->taken[i], part.off, part.len);
	}
	wake_waiting(shared, lane->lanes, lane);
}

/* ---- the ends of operations and requests ---- */

/* Whether another current copy of the stripe can be read now. */
static bool other_is_ready(const struct bridge_lane *lane, unsigned stripe, uint32_t but)
{
	const struct lane_copies *c = lane->copies;

	for (unsigned i = stripe * c->nr; i < (stripe + 1) * c->nr; i++)
		if ((c->readable & ~but) >> i & 1 && lane->links[i].state == LINK_READY)
			return true;
	return false;
}

/* The donor itself has said so; otherwise its link is lost. */
static bool has_answered(const struct bridge_link *link)
{
	return link->state == LINK_READY && link->conn && tp_state(link->conn) == TP_READY;
}

static void tell_failed(struct bridge_lane *lane, uint32_t donors)
{
	struct lanes_copies *shared = lane->copies->shared;

	atomic_fetch_or(&shared->failed, donors);
	shared->kick(shared->ctx);
}

static int read_ended(struct bridge_lane *lane, struct bridge_op *op, int error)
{
	struct lane_copies *c = lane->copies;
	struct bridge_request *rq = op->rq;
	const unsigned donor = op->link->peer->index;

	c->reads[donor].nr--;
	if (error == 0) {
		int64_t ns = (int64_t)(weft_worker_now(&lane->worker) - op->made_ns);

		c->reads[donor].ns += (ns - c->reads[donor].ns) / 8;
		return 0;
	}
	const uint32_t live = c->live & ((1U << c->nr) - 1) << donor / c->nr * c->nr;
	bool again = !(live >> donor & 1) || other_is_ready(lane, donor / c->nr, 1U << donor);
	if (has_answered(op->link)) {
		/* Another may be on its way back. */
		rq->lane.copies.avoid |= (uint16_t)(1U << donor);
		again = live & ~rq->lane.copies.avoid;
	}
	rq->lane.copies.again |= again;
	return again ? 0 : error;
}

int lane_copies_op_ended(struct bridge_lane *lane, struct bridge_op *op, int error)
{
	struct bridge_request *rq = op->rq;
	const uint32_t bit = lane_copies_bit(op->link);

	if (rq->lane.copies.only)
		return error;
	if (op->tp.kind == TP_READ || op->tp.kind == TP_HASH)
		return read_ended(lane, op, error);
	if (error == 0)
		return 0;
	rq->lane.copies.missed |= (uint16_t)bit;
	/* A copy that was left behind, or is being made current, gets it later. */
	if (!(lane->copies->live & bit))
		return 0;
	if (!has_answered(op->link) && !atomic_load(&op->link->peer->lost_contents))
		return error;
	tell_failed(lane, bit);
	return 0;
}

static void mark_torn(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct lanes_copies *shared = lane->copies->shared;

	const uint32_t have = rq->lane.copies.asked & ~rq->lane.copies.missed;

	for (unsigned i = 0; i < shared->nr_stripes; i++) {
		struct bridge_piece part = lane_copies_part(lane, rq, i);

		if (part.len == 0)
			continue;
		atomic_store(&shared->forward[i], have);
		ranges_set(&shared->torn[i], part.off, part.len);
	}
	shared->kick(shared->ctx);
}

/* Nothing of it is on its way any more: what copies lack of it is noted, and its bytes are free. */
static void land(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct lane_copies *c = lane->copies;
	struct lanes_copies *shared = c->shared;
	const struct request_copies *copies = &rq->lane.copies;
	/* After an error nobody knows what has arrived where. */
	const uint32_t have = rq->lane.status < 0 ? 0 : copies->asked & ~copies->missed;

	rq->lane.copies.landed = true;
	if (!request_changes_data(rq->kind))
		return;
	for (unsigned i = 0; i < shared->nr_stripes * c->nr; i++) {
		struct bridge_piece part;

		if (have >> i & 1)
			continue;
		part = lane_copies_part(lane, rq, i / c->nr);
		if (part.len > 0)
			ranges_set(&shared->behind[i], part.off, part.len);
	}
	if (rq->lane.status < 0)
		mark_torn(lane, rq);
	lane_copies_give_below(lane, rq, shared->nr_stripes);
	atomic_fetch_sub_explicit(&c->under_way[copies->turn], 1, memory_order_release);
}

static bool is_fresh(struct bridge_lane *lane)
{
	struct lane_copies *c = lane->copies;
	const uint64_t now_ns = weft_worker_now(&lane->worker);

	if (c->boottime_for_ns != now_ns) {
		c->boottime_ns = weft_boottime_ns();
		c->boottime_for_ns = now_ns;
	}
	return c->boottime_ns <= atomic_load_explicit(&lane->attachment->fresh_until_ns,
		memory_order_relaxed);
}

bool lane_copies_is_about(const struct bridge_lane *lane, const struct bridge_request *rq,
	const struct bridge_link *link)
{
	return lane->copies->live & lane_copies_bit(link) &&
		lane_copies_is_of_stripe(lane, rq, link->peer->index / lane->copies->nr);
}

static bool has_waited_enough(const struct bridge_lane *lane, const struct bridge_request *rq)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->links[i].is_dead && lane_copies_is_about(lane, rq, &lane->links[i]))
			return true;
	return false;
}

void lane_copies_hold(struct bridge_lane *lane, struct bridge_request *rq)
{
	struct request_list *held = &lane->copies->held;

	rq->lane.listed = true;
	rq->lane.next = NULL;
	*held->tail = rq;
	held->tail = &rq->lane.next;
}

struct bridge_request *lane_copies_take_held(struct bridge_lane *lane)
{
	struct request_list *held = &lane->copies->held;
	struct bridge_request *first = held->head;

	held->head = NULL;
	held->tail = &held->head;
	return first;
}

static bool hold_unless_hopeless(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (lane_copies_is_refused(lane, rq) || has_waited_enough(lane, rq)) {
		rq->lane.status = -EIO;
		if (rq->lane.copies.landed && request_changes_data(rq->kind))
			mark_torn(lane, rq);
		return false;
	}
	lane_copies_hold(lane, rq);
	return true;
}

static bool may_end_one(struct bridge_lane *lane, struct bridge_request *rq)
{
	if (rq->lane.status < 0)
		return true;
	if (rq->lane.copies.again) {
		rq->lane.copies.again = false;
		rq->lane.next_off = rq->off;
		lane_backlog(lane, rq);
		return false;
	}
	return is_fresh(lane) || !hold_unless_hopeless(lane, rq);
}

bool lane_copies_may_end(struct bridge_lane *lane, struct bridge_request *rq)
{
	const struct lane_copies *c = lane->copies;
	const struct request_copies *copies = &rq->lane.copies;
	const uint32_t lacking = copies->missed & c->live;

	if (copies->only)
		return true;
	if (!rq->lane.copies.begun)
		return !lane_copies_goes_to_one(rq) || may_end_one(lane, rq);
	/* Before its bytes are free: nobody takes them from a copy that lacks them. */
	if (lacking && rq->lane.status == 0)
		tell_failed(lane, lacking);
	if (!copies->landed)
		land(lane, rq);
	else if (rq->lane.status < 0 && request_changes_data(rq->kind))
		mark_torn(lane, rq);
	if (rq->lane.status < 0)
		return true;
	return (!lacking && !c->due && is_fresh(lane)) || !hold_unless_hopeless(lane, rq);
}

/* ---- links ---- */

bool lane_copies_touches(const struct bridge_lane *lane, const struct bridge_request *rq,
	const struct bridge_link *link)
{
	if (rq->lane.copies.only)
		return rq->lane.copies.only - 1U == link->peer->index;
	return lane_copies_is_about(lane, rq, link) &&
		(!lane_copies_goes_to_one(rq) ||
			!other_is_ready(lane, link->peer->index / lane->copies->nr,
				lane_copies_bit(link) | rq->lane.copies.avoid));
}

static bool can_go_elsewhere(const struct bridge_op *op)
{
	const struct bridge_lane *lane = op->link->owner_ctx;
	const struct bridge_request *rq = op->rq;

	if (rq->lane.copies.only)
		return true;
	return lane_copies_goes_to_one(rq) &&
		other_is_ready(lane, op->link->peer->index / lane->copies->nr,
			lane_copies_bit(op->link) | rq->lane.copies.avoid);
}

bool lane_copies_may_repeat(const struct bridge_lane *lane, const struct bridge_op *op)
{
	return lane->copies->live & lane_copies_bit(op->link) && !can_go_elsewhere(op) &&
		!atomic_load(&op->link->peer->lost_contents);
}

void lane_copies_link_lost(struct bridge_lane *lane, struct bridge_link *link)
{
	const bool current = lane->copies->live & lane_copies_bit(link);

	link_fail_ops(link, -EIO, current ? can_go_elsewhere : NULL);
}

bool lane_counts_donor(const struct bridge_lane *lane, unsigned donor)
{
	return !lane->copies || lane->copies->live >> donor & 1;
}
