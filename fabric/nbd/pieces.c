/* SPDX-License-Identifier: MIT */
/*
 * READs and WRITEs that are longer than the service's buffer go through it in pieces.  Owned by the
 * connection's thread.
 *
 * A request that fits never comes here.  Invariants: one request at a time goes in pieces (the
 * service has no buffer for another); while there is more of a READ's reply it is conn->pieces, the
 * last of the queue, and replies that come later wait in conn->behind.
 */
#include <assert.h>
#include <errno.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/util.h"

/*
 * Whether a reply that has begun can still become an error.  If not, an error ends the connection.
 */
static bool can_fail_late(const struct nbd_request *rq)
{
	return rq->conn->structured && !(rq->flags & NBD_CMD_FLAG_DF);
}

static int take(struct nbd_request *rq, uint64_t done, uint32_t len)
{
	return rq->conn->service->take(rq, rq->off + done, len);
}

/* Reads everything once, so that bytes that cannot be read are an error of the request. */
static int look_ahead(struct nbd_request *rq)
{
	int r = 0;

	for (uint64_t done = 0; done < rq->len && r == 0; done += rq->piece)
		r = take(rq, done, (uint32_t)weft_min(rq->piece, rq->len - done));
	return r;
}

/* Replies go behind all that wait there. */
static void set_tail(struct nbd_conn *conn, struct nbd_request **tail)
{
	while (*tail)
		tail = &(*tail)->next;
	conn->done_tail = tail;
}

/* Puts the request where it was: the last of the queue while there is more of it. */
static void requeue(struct nbd_request *rq)
{
	struct nbd_conn *conn = rq->conn;

	rq->next = NULL;
	*conn->done_tail = rq;
	conn->pieces = rq->rest > 0 ? rq : NULL;
	if (conn->pieces) {
		set_tail(conn, &conn->behind);
	} else {
		rq->next = conn->behind;
		conn->behind = NULL;
		set_tail(conn, &rq->next);
	}
}

/*
 * Queues the next piece of a READ's reply; the queue has none of it.  -EIO: an error that can no
 * longer be replied.
 */
static int next_piece(struct nbd_request *rq)
{
	const uint64_t done = rq->len - rq->rest;
	const uint32_t len = (uint32_t)weft_min(rq->piece, rq->rest);
	int r = take(rq, done, len);

	if (r < 0) {
		if (done > 0 && !can_fail_late(rq))
			return -EIO;
		rq->rest = 0;
		nbd_request_pack_error(rq, r);
		requeue(rq);
		return 0;
	}
	rq->rest -= len;
	rq->payload = rq->buf;
	rq->payload_len = len;
	rq->head_len = 0;
	if (can_fail_late(rq) || (rq->conn->structured && done == 0)) {
		const bool whole = !can_fail_late(rq);

		nbd_pack_data_chunk(rq->head, whole || rq->rest == 0 ? NBD_REPLY_FLAG_DONE : 0,
			rq->cookie, rq->off + done, whole ? rq->len : len);
		rq->head_len = NBD_DATA_CHUNK_BYTES;
	} else if (done == 0) {
		nbd_pack_simple_reply(rq->head, 0, rq->cookie);
		rq->head_len = NBD_SIMPLE_REPLY_BYTES;
	}
	requeue(rq);
	return 0;
}

/* Sets up the next piece of a WRITE's payload. */
static void await_piece(struct nbd_request *rq)
{
	struct nbd_conn *conn = rq->conn;

	rq->piece = (uint32_t)weft_min(rq->piece, rq->rest);
	rq->rest -= rq->piece;
	conn->left = rq->piece;
	conn->phase = NBD_PIECE;
}

void nbd_pieces_start(struct nbd_request *rq, uint32_t piece)
{
	assert(piece > 0 && piece < rq->len && !rq->conn->pieces);
	rq->state = NBD_RQ_HELD;
	rq->piece = piece;
	rq->rest = rq->len;
	rq->error = 0;
	if (rq->type == NBD_CMD_WRITE) {
		rq->conn->current = rq;
		await_piece(rq);
		return;
	}
	int r = can_fail_late(rq) ? 0 : look_ahead(rq);
	if (r < 0) {
		rq->rest = 0;
		nbd_request_pack_error(rq, r);
		requeue(rq);
	} else {
		next_piece(rq);
	}
}

bool nbd_pieces_received(struct nbd_conn *conn)
{
	struct nbd_request *rq = conn->current;
	int r = take(rq, rq->len - rq->rest - rq->piece, rq->piece);

	if (r < 0) {
		rq->error = r;
		conn->left = rq->rest;
		rq->rest = 0;
		conn->phase = NBD_DRAIN;
		return conn->left == 0;
	}
	if (rq->rest == 0)
		return true;
	await_piece(rq);
	return false;
}

bool nbd_pieces_sent(struct nbd_conn *conn)
{
	conn->error = next_piece(conn->pieces);
	if (conn->error)
		conn->pieces = NULL;
	return conn->error == 0;
}
