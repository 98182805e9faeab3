/* SPDX-License-Identifier: MIT */
/*
 * Operations of the verbs transport, borrower's side: from tp_post() to their last work request, or
 * the donor's reply.
 *
 * Runs on the lane's thread.  Invariants: an operation has a slot from verbs_io_post() until it is
 * in the list `done`.  Only its last work request is signalled, and a queue pair completes in
 * order.  A slot with work requests on the send queue is done when the last of them has come back,
 * or when the queue pairs are gone.
 */
#include "transports/rdma/device.h"
#include "transports/verbs/borrower/client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_BEAT_MS = 10 };

int verbs_io_init(struct verbs_conn *conn, struct weft_error *err)
{
	struct weft_rdma_device *device = &conn->tp->base.local.devices[conn->seat.device];
	struct ibv_device_attr attr;
	size_t len = VERBS_ZERO_BYTES + (conn->tp->config.depth + 1) * sizeof(uint64_t) +
		2 * VERBS_SAID_MAX;

	conn->depth = conn->tp->config.depth;
	conn->sq_size = 2 * conn->depth + 2 * VERBS_MAX_FRAGMENTS;
	if (ibv_query_device(device->context, &attr) == 0 && attr.max_qp_wr > 0)
		conn->sq_size = (unsigned)weft_min(conn->sq_size, (uint64_t)attr.max_qp_wr);
	conn->sq_room = conn->sq_size;
	conn->scratch = weft_rdma_pages_new(len);
	if (!conn->scratch)
		return weft_error_set(err, ENOMEM, "cannot connect over RDMA: out of memory");
	memset(verbs_scratch_said(conn, WEFT_SAID_OPEN), WEFT_SAID_OPEN, VERBS_SAID_MAX);
	memset(verbs_scratch_said(conn, WEFT_SAID_CLOSED), WEFT_SAID_CLOSED, VERBS_SAID_MAX);
	conn->wrs = calloc(conn->sq_size, sizeof(conn->wrs[0]));
	conn->sges = calloc(conn->sq_size, sizeof(conn->sges[0]));
	conn->slots = calloc(conn->depth, sizeof(conn->slots[0]));
	if (!conn->wrs || !conn->sges || !conn->slots)
		return weft_error_set(err, ENOMEM, "cannot connect over RDMA: out of memory");
	for (unsigned i = 0; i < conn->depth; i++)
		conn->slots[i].next_free = (uint16_t)(i + 1);
	for (unsigned i = 0; i < conn->sq_size; i++) {
		conn->wrs[i].sg_list = &conn->sges[i];
		conn->wrs[i].num_sge = 1;
	}
	conn->scratch_mr = ibv_reg_mr(device->pd, conn->scratch, len, IBV_ACCESS_LOCAL_WRITE);
	if (!conn->scratch_mr)
		return weft_rdma_reg_failed(errno, len, err);
	weft_rdma_spin_init(&conn->spin, conn->tp->config.spin_us);
	conn->conn.spins = conn->spin.ns > 0;
	return 0;
}

/* REQUESTs: the donor carries out what one-sided access cannot. */

int verbs_send(struct verbs_conn *conn, const struct verbs_msg *msg)
{
	return verbs_bufs_send(&conn->bufs, conn->control->qp, msg, &conn->proof,
		verbs_wr_id(VERBS_WR_SEND, 0));
}

void verbs_ask(struct verbs_conn *conn, struct tp_op *op)
{
	op->next = NULL;
	*conn->asking_end = op;
	conn->asking_end = &op->next;
}

void verbs_send_requests(struct verbs_conn *conn)
{
	while (conn->asking && conn->nr_asked < VERBS_REQUESTS && conn->conn.state == TP_READY) {
		struct tp_op *op = conn->asking;
		struct verbs_msg msg;

		msg.type = VERBS_REQUEST;
		msg.cookie = (uint32_t)op->priv[0];
		msg.request.kind = op->kind == TP_FLUSH ? VERBS_FLUSH
			: op->kind == TP_HASH ? VERBS_HASH : VERBS_ZERO;
		msg.request.no_hole = op->flags & TP_NO_HOLE;
		msg.request.more = false;
		msg.request.nr_ranges = 0;
		msg.request.off = op->off;
		msg.request.len = op->len;
		if (op->kind == TP_FLUSH)
			verbs_changes_take(conn, &msg);
		if (op->kind == TP_HASH)
			msg.request.hashing = *op->hashing;
		int r = verbs_send(conn, &msg);
		if (r == -EAGAIN) { /* a buffer comes back */
			verbs_changes_put_back(conn, &msg);
			return;
		}
		if (r < 0) {
			verbs_fail(conn, -r, "cannot ask %s: %s", conn->peer, strerror(-r));
			return;
		}
		conn->asking = op->next;
		if (!conn->asking)
			conn->asking_end = &conn->asking;
		conn->slots[op->priv[0]].asked = true;
		conn->slots[op->priv[0]].more = msg.request.more;
		conn->nr_asked++;
	}
}

/* A HASH gets all of its hashes, and nothing else gets any.  False: it is not so. */
static bool take_hashes(const struct tp_op *op, const struct verbs_msg *msg)
{
	const uint32_t nr = op->kind == TP_HASH && msg->reply.error == 0
		? weft_hash_nr_blocks(op->len, op->hashing->block_bytes)
		: 0;

	if (msg->reply.nr_hashes != nr)
		return false;
	if (nr > 0)
		memcpy(op->buf, msg->reply.hashes, nr * (size_t)WEFT_HASH_BYTES);
	return true;
}

void verbs_on_reply(struct verbs_conn *conn, const struct verbs_msg *msg)
{
	const uint32_t cookie = msg->cookie;
	const int error = msg->reply.error;

	if (cookie >= conn->depth || !conn->slots[cookie].op || !conn->slots[cookie].asked) {
		verbs_fail(conn, EPROTO, "%s answered what was not asked", conn->peer);
		return;
	}
	if (!take_hashes(conn->slots[cookie].op, msg)) {
		verbs_fail(conn, EPROTO, "%s answered with other hashes than those that were asked",
			conn->peer);
		return;
	}
	conn->slots[cookie].asked = false;
	conn->nr_asked--;
	if (conn->slots[cookie].more && error == 0)
		verbs_ask(conn, conn->slots[cookie].op);
	else
		verbs_finish_slot(conn, cookie, error);
	verbs_send_requests(conn);
}

/* Posting. */

static struct ibv_send_wr *add_wr(struct verbs_conn *conn, enum ibv_wr_opcode opcode,
	const void *buf, uint32_t len, uint32_t lkey, uint64_t addr, uint32_t rkey)
{
	struct ibv_send_wr *wr = &conn->wrs[conn->nr_wrs];

	assert(conn->nr_wrs < conn->sq_room);
	if (conn->nr_wrs > 0)
		wr[-1].next = wr;
	conn->nr_wrs++;
	*wr->sg_list = (struct ibv_sge){.addr = (uintptr_t)buf, .length = len, .lkey = lkey};
	/* The other fields stay as verbs_io_init() left them. */
	wr->next = NULL;
	wr->opcode = opcode;
	wr->send_flags = 0;
	if (opcode == IBV_WR_RDMA_WRITE && len <= conn->max_inline)
		wr->send_flags = IBV_SEND_INLINE;
	wr->wr.rdma.remote_addr = addr;
	wr->wr.rdma.rkey = rkey;
	return wr;
}

/* Adds a sign of life in front of other work requests; nothing waits for its completion. */
static void add_beat(struct verbs_conn *conn, unsigned slot, uint64_t now_ns)
{
	conn->beat++;
	conn->beat_ns = now_ns;
	struct ibv_send_wr *wr = add_wr(conn, IBV_WR_RDMA_WRITE, &conn->beat, sizeof(conn->beat), 0,
		conn->beat_word.addr, conn->beat_word.rkey);
	wr->wr_id = verbs_wr_id(VERBS_WR_DATA, slot);
	wr->send_flags |= IBV_SEND_INLINE;
	conn->slots[slot].nr_wrs++;
}

static bool beat_is_due(const struct verbs_conn *conn, uint64_t now_ns)
{
	return conn->lease_ms > 0 &&
		now_ns - conn->beat_ns >=
		weft_max(conn->lease_ms / 8, MIN_BEAT_MS) * UINT64_C(1000000);
}

static void add_last(struct verbs_conn *conn, struct ibv_send_wr *wr, unsigned slot)
{
	wr->wr_id = verbs_wr_id(VERBS_WR_DATA, slot | VERBS_WR_LAST);
	wr->send_flags |= IBV_SEND_SIGNALED;
}

/*
 * Adds work requests for the range, cut where chunks end; the last one is returned.  buf NULL: the
 * source is zeros.
 */
static inline struct ibv_send_wr *add_pieces(struct verbs_conn *conn, unsigned slot,
	enum ibv_wr_opcode opcode, uint64_t off, uint64_t len, uint8_t *buf, uint32_t lkey)
{
	struct ibv_send_wr *wr = NULL;

	while (len > 0) {
		uint64_t chunk = off / conn->chunk_bytes, in_chunk = off % conn->chunk_bytes;
		uint32_t n = (uint32_t)weft_min(len, conn->chunk_bytes - in_chunk);

		wr = add_wr(conn, opcode, buf ? buf : conn->scratch, n, lkey,
			conn->chunks[chunk].addr + in_chunk, conn->chunks[chunk].rkey);
		wr->wr_id = verbs_wr_id(VERBS_WR_DATA, slot);
		conn->slots[slot].nr_wrs++;
		off += n;
		len -= n;
		if (buf)
			buf += n;
	}
	return wr;
}

static void add_range(struct verbs_conn *conn, unsigned slot, enum ibv_wr_opcode opcode,
	uint64_t off, uint64_t len, uint8_t *buf, uint32_t lkey)
{
	add_last(conn, add_pieces(conn, slot, opcode, off, len, buf, lkey), slot);
}

/* Says that the chunks of the range are about to be written, or are. */
static struct ibv_send_wr *say(struct verbs_conn *conn, unsigned slot, uint8_t word, uint64_t off,
	uint64_t len)
{
	const uint64_t first = off / WEFT_CHUNK_BYTES, last = (off + len - 1) / WEFT_CHUNK_BYTES;

	assert(last - first < VERBS_SAID_MAX);
	struct ibv_send_wr *wr = add_wr(conn, IBV_WR_RDMA_WRITE, verbs_scratch_said(conn, word),
		(uint32_t)(last - first + 1), conn->scratch_mr->lkey, conn->said.addr + first,
		conn->said.rkey);

	wr->wr_id = verbs_wr_id(VERBS_WR_DATA, slot);
	conn->slots[slot].nr_wrs++;
	return wr;
}

/*
 * While the region moves.  The same queue pair carries all out in this order, so no byte lands of
 * which nothing is said.
 */
static __attribute__((noinline)) void add_reported(struct verbs_conn *conn, unsigned slot,
	uint64_t off, uint64_t len, uint8_t *buf, uint32_t lkey)
{
	say(conn, slot, WEFT_SAID_OPEN, off, len);
	add_pieces(conn, slot, IBV_WR_RDMA_WRITE, off, len, buf, lkey);
	add_last(conn, say(conn, slot, WEFT_SAID_CLOSED, off, len), slot);
}

static void add_epoch_read(struct verbs_conn *conn, unsigned slot)
{
	uint64_t *word = verbs_scratch_word(conn, slot);

	*word = 0;
	struct ibv_send_wr *wr = add_wr(conn, IBV_WR_RDMA_READ, word, sizeof(*word),
		conn->scratch_mr->lkey, conn->epoch_word.addr, conn->epoch_word.rkey);
	conn->slots[slot].nr_wrs++;
	add_last(conn, wr, slot);
}

/* Longer ZEROs, and those that would cross many small chunks, become REQUESTs. */
static bool zero_is_written(const struct verbs_conn *conn, const struct tp_op *op)
{
	return op->len <= VERBS_ZERO_BYTES && op->len <= conn->conn.info.max_io_bytes;
}

/* The most work requests that the operation takes. */
static unsigned wrs_for(const struct verbs_conn *conn, const struct tp_op *op)
{
	switch (op->kind) {
	case TP_TRIM:
	case TP_CACHE:
	case TP_HASH:
		return 0;
	case TP_ZERO:
		return zero_is_written(conn, op) ? VERBS_MAX_FRAGMENTS + 3 : 0;
	case TP_FLUSH:
	case TP_PROBE:
		return 2;
	default: /* … a beat, and what is said of it */
		return VERBS_MAX_FRAGMENTS + 3;
	}
}

static void build(struct verbs_conn *conn, struct tp_op *op, uint64_t now_ns)
{
	unsigned i = conn->free_slot;
	struct verbs_slot *slot = &conn->slots[i];
	uint32_t lkey;

	assert(i < conn->depth);
	conn->free_slot = slot->next_free;
	*slot = (struct verbs_slot){.op = op};
	op->priv[0] = i;
	if (op->kind == TP_PROBE || (wrs_for(conn, op) > 0 && beat_is_due(conn, now_ns)))
		add_beat(conn, i, now_ns);
	switch (op->kind) {
	case TP_READ:
	case TP_WRITE:
		lkey = weft_rdma_local_mr(op->mem, conn->seat.device)->lkey;
		if (op->kind == TP_WRITE && conn->says)
			add_reported(conn, i, op->off, op->len, op->buf, lkey);
		else
			add_range(conn, i,
				op->kind == TP_READ ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, op->off,
				op->len, op->buf, lkey);
		break;
	case TP_ZERO:
		if (zero_is_written(conn, op) && conn->says)
			add_reported(conn, i, op->off, op->len, NULL, conn->scratch_mr->lkey);
		else if (zero_is_written(conn, op))
			add_range(conn, i, IBV_WR_RDMA_WRITE, op->off, op->len, NULL,
				conn->scratch_mr->lkey);
		else
			verbs_ask(conn, op);
		break;
	case TP_HASH:
		verbs_ask(conn, op);
		break;
	case TP_FLUSH: /* a READ behind them makes WRITEs visible */
	case TP_PROBE:
		add_epoch_read(conn, i);
		break;
	default: /* advice that registered memory cannot take */
		verbs_finish_slot(conn, i, 0);
	}
}

/* Rings the doorbell once for all that was built. */
static int post_chain(struct verbs_conn *conn)
{
	struct ibv_send_wr *bad;

	if (conn->nr_wrs == 0)
		return 0;
	int r = ibv_post_send(conn->data->qp, conn->wrs, &bad);
	conn->sq_room -= conn->nr_wrs;
	conn->nr_wrs = 0;
	return -r;
}

int verbs_io_post(struct tp_conn *tp_conn, struct tp_op *const *ops, unsigned n)
{
	struct verbs_conn *conn = to_verbs(tp_conn);
	uint64_t now_ns = weft_now_ns();
	unsigned i = 0;

	for (; i < n && conn->sq_room - conn->nr_wrs >= wrs_for(conn, ops[i]); i++)
		build(conn, ops[i], now_ns);
	if (i == 0)
		return -EAGAIN;
	int r = post_chain(conn);
	if (r < 0) {
		/*
		 * It does not matter which were posted: all come back once the queue pairs are
		 * gone.
		 */
		verbs_fail(conn, -r, "cannot post to %s: %s", conn->peer, strerror(-r));
		verbs_kill(conn);
	}
	verbs_send_requests(conn);
	return (int)i;
}

int verbs_post_epoch_read(struct verbs_conn *conn)
{
	struct ibv_send_wr *wr = add_wr(conn, IBV_WR_RDMA_READ,
		verbs_scratch_word(conn, conn->depth), sizeof(uint64_t), conn->scratch_mr->lkey,
		conn->epoch_word.addr, conn->epoch_word.rkey);

	wr->wr_id = verbs_wr_id(VERBS_WR_EPOCH, 0);
	wr->send_flags = IBV_SEND_SIGNALED;
	return post_chain(conn);
}

uint64_t verbs_epoch_read(const struct verbs_conn *conn)
{
	return *verbs_scratch_word((struct verbs_conn *)conn, conn->depth);
}

void verbs_give_up(struct verbs_conn *conn, bool gone)
{
	if (!conn->slots)
		return;
	for (unsigned i = 0; i < conn->depth; i++) {
		struct verbs_slot *slot = &conn->slots[i];

		if (slot->op && (gone || slot->nr_wrs == 0))
			verbs_finish_slot(conn, i, tp_conn_op_status(&conn->conn));
	}
	conn->asking = NULL;
	conn->asking_end = &conn->asking;
}
