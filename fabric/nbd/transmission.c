/* SPDX-License-Identifier: MIT */
/*
 * The transmission phase: requests out of received bytes, replies into the queue.
 * Owned by the connection's thread.  nbd_validate() is the trust boundary: behind it a request's
 * type, flags, offset and length are facts.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fabric/nbd/conn.h"
#include "fabric/base/util.h"

static uint16_t allowed_flags(const struct nbd_conn *conn, uint16_t type)
{
	const uint16_t has = conn->export.flags;
	uint16_t allowed = has & NBD_FLAG_SEND_FUA ? NBD_CMD_FLAG_FUA : 0;

	switch (type) {
	case NBD_CMD_READ:
		return allowed | (conn->structured ? NBD_CMD_FLAG_DF : 0);
	case NBD_CMD_WRITE_ZEROES:
		return allowed | NBD_CMD_FLAG_NO_HOLE |
			(has & NBD_FLAG_SEND_FAST_ZERO ? NBD_CMD_FLAG_FAST_ZERO : 0);
	case NBD_CMD_BLOCK_STATUS:
		return allowed | NBD_CMD_FLAG_REQ_ONE;
	case NBD_CMD_HASH:
		return 0;
	default:
		return allowed;
	}
}

/* HASH is a command for those whose hello was accepted; for all others it is unknown. */
static bool knows_hashes(const struct nbd_conn *conn)
{
	return conn->service->hashes && (conn->contexts & NBD_CONTEXT_GRANT);
}

/* Of requests that have a range: that it is the export's.  0, or -errno. */
static inline int check_range(const struct nbd_export *export, const struct nbd_request_header *h)
{
	if (h->len == 0)
		return -EINVAL;
	/* No sum: off + len may wrap. */
	if (h->off > export->size_bytes || h->len > export->size_bytes - h->off)
		return h->type == NBD_CMD_WRITE || h->type == NBD_CMD_WRITE_ZEROES ? -ENOSPC
										  : -EINVAL;
	if (export->min_block_bytes > 1 &&
		(h->off % export->min_block_bytes || h->len % export->min_block_bytes))
		return -EINVAL;
	return 0;
}

/*
 * These two are the only places that check a request's fields.  0, or the -errno to answer (proto,
 * "Error values").
 */
static inline int nbd_validate_data(const struct nbd_conn *conn, const struct nbd_request_header *h)
{
	const struct nbd_export *export = &conn->export;

	if (h->flags && (h->flags & ~allowed_flags(conn, h->type)))
		return -EINVAL;
	if (h->type == NBD_CMD_WRITE && (export->flags & NBD_FLAG_READ_ONLY))
		return -EPERM;
	int r = check_range(export, h);
	return r == 0 && h->len > export->max_block_bytes ? -EINVAL : r;
}

static int nbd_validate_other(const struct nbd_conn *conn, const struct nbd_request_header *h)
{
	const uint16_t has = conn->export.flags;
	const bool writes = h->type == NBD_CMD_TRIM || h->type == NBD_CMD_WRITE_ZEROES;
	bool offered;

	switch (h->type) {
	case NBD_CMD_FLUSH:
		if (!(has & NBD_FLAG_SEND_FLUSH) || h->off != 0 || h->len != 0)
			return -EINVAL;
		return h->flags & ~allowed_flags(conn, h->type) ? -EINVAL : 0;
	case NBD_CMD_TRIM:
		offered = has & NBD_FLAG_SEND_TRIM;
		break;
	case NBD_CMD_WRITE_ZEROES:
		offered = has & NBD_FLAG_SEND_WRITE_ZEROES;
		break;
	case NBD_CMD_CACHE:
		offered = has & NBD_FLAG_SEND_CACHE;
		break;
	case NBD_CMD_BLOCK_STATUS:
		offered = conn->contexts;
		break;
	case NBD_CMD_HASH:
		offered = knows_hashes(conn);
		break;
	default:
		offered = false;
	}
	if (!offered)
		return writes && (has & NBD_FLAG_READ_ONLY) ? -EPERM : -EINVAL;
	if (h->flags & ~allowed_flags(conn, h->type))
		return -EINVAL;
	if (writes && (has & NBD_FLAG_READ_ONLY))
		return -EPERM;
	return check_range(&conn->export, h);
}

static void queue_reply(struct nbd_request *rq)
{
	struct nbd_conn *conn = rq->conn;

	rq->next = NULL;
	*conn->done_tail = rq;
	conn->done_tail = &rq->next;
}

void nbd_request_complete(struct nbd_request *rq, int error)
{
	struct nbd_conn *conn = rq->conn;

	assert(rq->state == NBD_RQ_HELD && error <= 0);
	conn->nr_submitted--;
	if (conn->freed) {
		conn->service->release(rq);
		nbd_conn_finish(conn);
		return;
	}
	nbd_request_pack_reply(rq, error);
	queue_reply(rq);
}

static void refuse(struct nbd_request *rq, int error)
{
	nbd_request_pack_error(rq, error);
	queue_reply(rq);
}

static void submit(struct nbd_request *rq)
{
	rq->conn->nr_submitted++;
	rq->conn->service->submit(rq);
}

static struct nbd_request *take_slot(struct nbd_conn *conn, const struct nbd_request_header *h)
{
	struct nbd_request *rq = conn->free;

	conn->free = rq->next;
	conn->nr_requests++;
	rq->type = h->type;
	rq->flags = h->flags;
	rq->cookie = h->cookie;
	rq->off = h->off;
	rq->len = h->len;
	rq->buf = NULL;
	rq->extents = NULL;
	rq->start_ns = conn->now_ns;
	rq->state = NBD_RQ_REFUSED;
	return rq;
}

/* BLOCK_STATUS: only base:allocation is asked from the service. */
static void start_status(struct nbd_conn *conn, struct nbd_request *rq)
{
	rq->payload = conn->extents[rq - conn->requests];
	rq->state = NBD_RQ_HELD;
	rq->nr_extents = 0;
	if (conn->contexts & NBD_CONTEXT_ALLOCATION) {
		rq->extents = rq->payload;
		rq->max_extents = rq->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_MAX_EXTENTS;
		submit(rq);
	} else {
		rq->state = NBD_RQ_REFUSED;
		nbd_request_pack_reply(rq, 0);
		queue_reply(rq);
	}
}

/* HASH: what stands behind its header, which has been received. */
static int take_hashing(struct nbd_conn *conn, struct nbd_request *rq,
	int error)
{
	int r = nbd_unpack_hashing(nbd_rx(conn) + NBD_REQUEST_BYTES, &rq->hashing);

	if (error < 0 || r < 0)
		return error < 0 ? error : r;
	return weft_hashing_valid(&rq->hashing, rq->len) ? 0 : -EINVAL;
}

/*
 * Has the service give a READ, a WRITE or a HASH what it needs.  0: the service holds the request;
 * > 0: as its prepare(); -EAGAIN: the header stays where it is, and nbd_conn_resume() comes back to
 * it; another -errno: what to answer.
 */
static inline int prepare(struct nbd_conn *conn, struct nbd_request *rq)
{
	int r = conn->service->prepare(rq);

	if (r == 0) {
		rq->state = NBD_RQ_HELD;
	} else if (r == -EAGAIN) {
		nbd_request_put(rq);
		conn->starved = true;
	}
	return r;
}

/*
 * A HASH that is valid, or is to be refused with r.  Hashes of much take long: they leave before
 * the next request is looked at, if they are there already.  Others leave together.
 */
static int start_hash(struct nbd_conn *conn, struct nbd_request *rq, int r)
{
	const uint32_t len = rq->len; /* the reply may leave with rq */

	r = take_hashing(conn, rq, r);
	if (r == 0)
		r = prepare(conn, rq);
	if (r == -EAGAIN)
		return 0;
	assert(r <= 0);
	conn->rx_start += NBD_REQUEST_BYTES + NBD_HASHING_BYTES;
	conn->big_writes = false;
	if (r < 0) {
		refuse(rq, r);
		return 1;
	}
	submit(rq);
	conn->held_back = conn->done && len >= NBD_LONG_HASH_BYTES;
	return conn->held_back ? 0 : 1;
}

/* Requests that move no data of the export.  They are rare, and so this is not inline. */
static int __attribute__((noinline)) start_other(struct nbd_conn *conn,
	const struct nbd_request_header *h)
{
	const bool hash = h->type == NBD_CMD_HASH && knows_hashes(conn);

	if (h->type == NBD_CMD_DISC) {
		conn->goodbye = true;
		conn->phase = NBD_CLOSING;
		return 0;
	}
	if (hash && nbd_rx_len(conn) < NBD_REQUEST_BYTES + NBD_HASHING_BYTES) {
		conn->big_writes = false; /* more than a header is to be received */
		return 0;
	}
	struct nbd_request *rq = take_slot(conn, h);
	int r = nbd_validate_other(conn, h);
	if (hash)
		return start_hash(conn, rq, r);
	conn->rx_start += NBD_REQUEST_BYTES;
	conn->big_writes = false;
	if (r < 0) {
		refuse(rq, r);
	} else if (h->type == NBD_CMD_BLOCK_STATUS) {
		start_status(conn, rq);
	} else {
		rq->state = NBD_RQ_HELD;
		submit(rq);
	}
	return 1;
}

static int start_pieces(struct nbd_request *rq, uint32_t piece)
{
	rq->conn->rx_start += NBD_REQUEST_BYTES;
	rq->conn->big_writes = rq->type == NBD_CMD_WRITE;
	nbd_pieces_start(rq, piece);
	return 1;
}

static int start_request(struct nbd_conn *conn)
{
	struct nbd_request_header h;
	struct nbd_request *rq;
	int r;

	r = nbd_unpack_request(nbd_rx(conn), &h);
	if (r < 0)
		return r;
	if (h.type != NBD_CMD_READ && h.type != NBD_CMD_WRITE)
		return start_other(conn, &h);
	rq = take_slot(conn, &h);
	r = nbd_validate_data(conn, &h);
	if (r == 0)
		r = prepare(conn, rq);
	if (r == -EAGAIN)
		return 0;
	if (r > 0)
		return start_pieces(rq, (uint32_t)r);
	conn->rx_start += NBD_REQUEST_BYTES;
	conn->big_writes = false;
	if (h.type == NBD_CMD_WRITE) {
		conn->big_writes = h.len >= NBD_BIG_WRITE_BYTES;
		conn->current = rq;
		conn->left = h.len;
		rq->error = r;
		conn->phase = r == 0 ? NBD_PAYLOAD : NBD_DRAIN;
	} else if (r < 0) {
		refuse(rq, r);
	} else {
		submit(rq);
	}
	return 1;
}

/* Takes the payload's bytes that came into rx before its own buffer was known. */
static int take_payload(struct nbd_conn *conn)
{
	struct nbd_request *rq = conn->current;
	const size_t n = weft_min(conn->left, nbd_rx_len(conn));

	if (n > 0 && conn->phase == NBD_PAYLOAD)
		memcpy((uint8_t *)rq->buf + (rq->len - conn->left), nbd_rx(conn), n);
	conn->rx_start += n;
	conn->left -= n;
	if (conn->left > 0)
		return 0;
	conn->current = NULL;
	if (conn->phase == NBD_PAYLOAD) {
		conn->phase = NBD_REQUEST;
		submit(rq);
	} else {
		conn->phase = NBD_REQUEST;
		refuse(rq, rq->error);
	}
	return 1;
}

/* The same for a piece. */
static int take_piece(struct nbd_conn *conn)
{
	struct nbd_request *rq = conn->current;
	const size_t n = weft_min(conn->left, nbd_rx_len(conn));

	memcpy((uint8_t *)rq->buf + (rq->piece - conn->left), nbd_rx(conn), n);
	conn->rx_start += n;
	conn->left -= n;
	if (conn->left > 0)
		return 0;
	if (!nbd_pieces_received(conn))
		return 1;
	conn->current = NULL;
	conn->phase = NBD_REQUEST;
	if (rq->error)
		refuse(rq, rq->error);
	else
		submit(rq);
	return 1;
}

int nbd_transmission_step(struct nbd_conn *conn)
{
	switch (conn->phase) {
	case NBD_REQUEST:
		if (nbd_rx_len(conn) < NBD_REQUEST_BYTES)
			return 0;
		if (!conn->free) {
			conn->held_back = true;
			return 0;
		}
		return start_request(conn);
	case NBD_PAYLOAD:
	case NBD_DRAIN:
		return take_payload(conn);
	default: /* a case of its own would cost requests that fit 1 % of their instructions */
		return conn->phase == NBD_PIECE ? take_piece(conn) : 0;
	}
}
