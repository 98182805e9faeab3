/* SPDX-License-Identifier: MIT */
/*
 * Splits requests into operations, by donor and length, and collects their ends.  The lane's
 * thread.
 */
#include "fabric/base/util.h"
#include "fabric/hashing.h"
#include "nbd-bridge/lane/lane-private.h"

/* How much of a request one operation may cover. */
static uint64_t chunk_max(const struct tp_info *info, const struct bridge_request *rq)
{
	uint64_t max = rq->kind == TP_READ || rq->kind == TP_WRITE ? info->max_io_bytes
								   : TP_MAX_RANGE_BYTES;

	if (rq->kind == TP_HASH)
		return weft_min(WEFT_HASH_MAX_BYTES,
			(uint64_t)info->max_hash_blocks * rq->hashing->block_bytes);
	return max - max % weft_max(info->min_block_bytes, 4096 <= max ? 4096 : 1);
}

/* Finds the donor and range of the request's next operation; false: all were made. */
static bool next_piece(const struct bridge_map *map, struct bridge_request *rq,
	struct bridge_piece *ret)
{
	if (!rq->lane.flushing && request_has_order(rq->kind)) {
		if (rq->lane.next_off == rq->off + rq->len)
			return false;
		*ret = bridge_map_first(map, rq->lane.next_off,
			rq->off + rq->len - rq->lane.next_off);
		return true;
	}
	for (; rq->lane.next_donor < map->nr; rq->lane.next_donor++, rq->lane.next_off = 0) {
		if (rq->kind == TP_FLUSH) {
			*ret = (struct bridge_piece){.donor = rq->lane.next_donor};
			return true;
		}
		*ret = bridge_map_part(map, rq->lane.next_donor, rq->off, rq->len);
		if (rq->lane.flushing && ret->len > 0)
			return true;
		if (!rq->lane.flushing && ret->len > rq->lane.next_off) {
			ret->off += rq->lane.next_off;
			ret->len -= rq->lane.next_off;
			return true;
		}
	}
	return false;
}

/* Where the next operation's bytes, or hashes, lie. */
static uint64_t buffer_off(const struct bridge_request *rq)
{
	const uint64_t done = rq->lane.next_off - rq->off;

	return rq->kind == TP_HASH ? done / rq->hashing->block_bytes * WEFT_HASH_BYTES : done;
}

static void advance(struct bridge_request *rq, uint64_t len)
{
	if (rq->lane.flushing)
		rq->lane.next_donor++;
	else
		rq->lane.next_off += len;
}

/* An operation for the piece, which may be the first of several. */
static void make_op(struct bridge_lane *lane, struct bridge_request *rq,
	const struct bridge_piece *piece)
{
	struct bridge_link *link = &lane->links[piece->donor];
	struct bridge_op *op = link->free_ops;

	link->free_ops = op->next;
	if (!link->free_ops)
		lane->nr_open--;
	op->rq = rq;
	op->tp.kind = rq->lane.flushing ? TP_FLUSH : rq->kind;
	op->tp.flags = rq->lane.flushing ? 0 : rq->flags;
	op->tp.off = op->tp.len = 0;
	op->tp.buf = NULL;
	op->tp.mem = NULL;
	rq->lane.nr_ops++;
	if (!rq->lane.flushing) {
		op->tp.off = piece->off;
		op->tp.len = weft_min(piece->len, chunk_max(&lane->attachment->info, rq));
		op->tp.hashing = rq->hashing;
		if (rq->buf) {
			op->tp.buf = (uint8_t *)rq->buf + buffer_off(rq);
			op->tp.mem = rq->mem;
		}
	}
	advance(rq, op->tp.len);
	op_list_push(&link->queue, op);
}

/*
 * A request leaves the backlog with its last operation.  A request for a donor whose operations are
 * all in use does not hold up others.
 */
void lane_split(struct bridge_lane *lane)
{
	struct bridge_request **at = &lane->backlog, *rq;
	struct bridge_piece piece;

	while ((rq = *at) != NULL && lane->nr_open > 0) {
		if (rq->lane.status < 0) {
			lane_backlog_remove(lane, at);
			lane_request_settle(lane, rq);
			continue;
		}
		if (next_piece(&lane->attachment->map, rq, &piece) &&
			!lane->links[piece.donor].free_ops) {
			at = &rq->lane.next;
			continue;
		}
		make_op(lane, rq, &piece);
		if (!next_piece(&lane->attachment->map, rq, &piece))
			lane_backlog_remove(lane, at);
	}
}

void lane_op_finish(struct bridge_lane *lane, struct bridge_op *op, int error)
{
	struct bridge_link *link = op->link;
	struct bridge_request *rq = op->rq;

	if (error == 0 && lane->attachment->info.flush_each_conn && op_changes_data(op))
		weft_count(&lane->flush.nr_written, 1); /* before anybody learns of it */
	op->rq = NULL;
	if (!link->free_ops)
		lane->nr_open++;
	op->next = link->free_ops;
	link->free_ops = op;
	if (error < 0 && rq->lane.status == 0)
		rq->lane.status = error;
	rq->lane.nr_ops--;
	lane_request_settle(lane, rq);
}
