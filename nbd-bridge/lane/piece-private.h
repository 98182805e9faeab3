/* SPDX-License-Identifier: MIT */
/* Private to nbd-bridge/lane/: the next operation of a request.  The lane's thread. */
#ifndef WEFT_NBD_BRIDGE_LANE_PIECE_PRIVATE_H
#define WEFT_NBD_BRIDGE_LANE_PIECE_PRIVATE_H

#include "fabric/base/util.h"
#include "fabric/hashing.h"
#include "nbd-bridge/lane/lane-private.h"

/* How much of a request one operation may cover. */
static inline uint64_t piece_chunk_max(const struct tp_info *info, const struct bridge_request *rq)
{
	uint64_t max = rq->kind == TP_READ || rq->kind == TP_WRITE ? info->max_io_bytes
								   : TP_MAX_RANGE_BYTES;

	if (rq->kind == TP_HASH)
		return weft_min(WEFT_HASH_MAX_BYTES,
			(uint64_t)info->max_hash_blocks * rq->hashing->block_bytes);
	return max - max % weft_max(info->min_block_bytes, 4096 <= max ? 4096 : 1);
}

/* Finds the stripe and range of the request's next operation; false: all were made. */
static inline bool piece_next(const struct bridge_map *map, struct bridge_request *rq,
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

/* How much of the piece the next operation covers. */
static inline uint64_t piece_op_bytes(const struct bridge_lane *lane,
	const struct bridge_request *rq, const struct bridge_piece *piece)
{
	if (rq->lane.flushing)
		return 0;
	return weft_min(piece->len, piece_chunk_max(&lane->attachment->info, rq));
}

/* Where the next operation's bytes, or hashes, lie. */
static inline uint64_t piece_buffer_off(const struct bridge_request *rq)
{
	const uint64_t done = rq->lane.next_off - rq->off;

	return rq->kind == TP_HASH ? done / rq->hashing->block_bytes * WEFT_HASH_BYTES : done;
}

static inline void piece_advance(struct bridge_request *rq, uint64_t len)
{
	if (rq->lane.flushing)
		rq->lane.next_donor++;
	else
		rq->lane.next_off += len;
}

/*
 * The operation for the beginning of the piece, over a link that has a free one.  The request does
 * not advance.
 */
static inline struct bridge_op *piece_make_op(struct bridge_lane *lane, struct bridge_link *link,
	struct bridge_request *rq, const struct bridge_piece *piece)
{
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
		op->tp.len = weft_min(piece->len, piece_chunk_max(&lane->attachment->info, rq));
		op->tp.hashing = rq->hashing;
		if (rq->buf) {
			op->tp.buf = (uint8_t *)rq->buf + piece_buffer_off(rq);
			op->tp.mem = rq->mem;
		}
	}
	op_list_push(&link->queue, op);
	return op;
}

#endif
