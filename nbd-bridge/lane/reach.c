/* SPDX-License-Identifier: MIT */
/*
 * Whether a request may be carried out, which donors' links it needs, and whether those are ready.
 * The lane's thread.
 */
#include <errno.h>

#include "nbd-bridge/lane/lane-private.h"

bool lane_touches(const struct bridge_request *rq, const struct bridge_link *link)
{
	const struct bridge_map *map = &link->attachment->map;
	const struct bridge_lane *lane = link->owner_ctx;

	if (__builtin_expect(lane->copies != NULL, 0))
		return lane_copies_touches(lane, rq, link);
	return map->nr == 1 || rq->kind == TP_FLUSH ||
		bridge_map_part(map, link->peer->index, rq->off, rq->len).len > 0;
}

bool lane_touches_dead(const struct bridge_lane *lane, const struct bridge_request *rq)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->links[i].is_dead && lane_touches(rq, &lane->links[i]))
			return true;
	return false;
}

bool lane_is_ready(const struct bridge_lane *lane)
{
	return atomic_load_explicit(&lane->ready, memory_order_relaxed);
}

int lane_admit(struct bridge_lane *lane, struct bridge_request *rq)
{
	const struct bridge_attachment *attachment = lane->attachment;
	const struct tp_info *info = &attachment->info;

	/* A link that is ready is not dead. */
	if (atomic_load_explicit(&attachment->refuses, memory_order_relaxed) ||
		(!lane_is_ready(lane) && lane_touches_dead(lane, rq)))
		return -EIO;
	if (atomic_load_explicit(&lane->lanes->stopping, memory_order_relaxed))
		return -ESHUTDOWN;
	if (request_changes_data(rq->kind) && info->read_only)
		return -EPERM;
	if (rq->kind == TP_TRIM && !info->can_trim)
		return 0;
	if (rq->kind == TP_ZERO &&
		(!info->can_zero || ((rq->flags & TP_FAST_ZERO) && !info->can_fast_zero)))
		return -EOPNOTSUPP;
	if (rq->kind == TP_HASH && !info->max_hash_blocks)
		return -EOPNOTSUPP;
	return 1;
}

int bridge_lane_why_eio(const struct bridge_lane *lane, const struct bridge_request *rq)
{
	if (atomic_load_explicit(&lane->attachment->refuses, memory_order_relaxed))
		return -ESTALE;
	for (unsigned i = 0; i < lane->nr_links; i++)
		if (lane->links[i].is_dead && lane_touches(rq, &lane->links[i]))
			return lane->links[i].why.code == ETIMEDOUT ? -ETIMEDOUT : -ENOTCONN;
	return -EIO;
}

bool lane_reaches(const struct bridge_lane *lane, uint64_t off, uint64_t len)
{
	const struct bridge_map *map = &lane->attachment->map;

	if (lane_is_ready(lane))
		return true;
	for (unsigned i = 0; i < lane->nr_links; i++) {
		unsigned stripe = i / lane->attachment->nr_copies;

		if (lane->links[i].state != LINK_READY && lane_counts_donor(lane, i) &&
			(map->nr == 1 || bridge_map_part(map, stripe, off, len).len > 0))
			return false;
	}
	return true;
}
