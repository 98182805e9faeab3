/*
 * Operations of the verbs transport, borrower's side: work requests out, completions in.
 *
 * Runs on the lane's thread.  Invariants: an operation has a slot from verbs_io_post() until it stands in the list of
 * the done; only its last work request is signalled, and a queue pair completes in order; a slot whose work requests
 * are on the send queue is done when the last of them came back, or when the queue pairs are gone.
 */
#include "transports/verbs/borrower/client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
	POLL_BATCH = 32,
	LOOK_EVERY = 64,    /* calls of progress */
	RETRY_SPIN = 256,   /* calls of arm after which spinning is tried again */
	MIN_BEAT_MS = 10,
};

static uint64_t *scratch_word(struct verbs_conn *conn, unsigned i)
{
	return (uint64_t *)(conn->scratch + VERBS_ZERO_BYTES) + i;
}

static void set_spin(struct verbs_conn *conn, uint64_t ns)
{
	conn->spin_ns = ns;
	conn->conn.spins = ns > 0;
}

int verbs_io_init(struct verbs_conn *conn, struct weft_error *err)
{
	struct verbs_device *device = &conn->tp->devices[conn->device];
	struct ibv_device_attr attr;
	size_t len = VERBS_ZERO_BYTES + (conn->tp->config.depth + 1) * sizeof(uint64_t);
	void *scratch = NULL;

	conn->depth = conn->tp->config.depth;
	conn->sq_size = 2 * conn->depth + 2 * VERBS_MAX_FRAGMENTS;
	if (ibv_query_device(device->context, &attr) == 0 && attr.max_qp_wr > 0)
		conn->sq_size = (unsigned)weft_min(conn->sq_size, (uint64_t)attr.max_qp_wr);
	conn->sq_room = conn->sq_size;
	if (posix_memalign(&scratch, 4096, len) != 0)
		return weft_error_set(err, ENOMEM, "cannot connect over RDMA: out of memory");
	memset(scratch, 0, len);
	conn->scratch = scratch;
	conn->wrs = calloc(conn->sq_size, sizeof(conn->wrs[0]));
	conn->sges = calloc(conn->sq_size, sizeof(conn->sges[0]));
	conn->slots = calloc(conn->depth, sizeof(conn->slots[0]));
	if (!conn->wrs || !conn->sges || !conn->slots)
		return weft_error_set(err, ENOMEM, "cannot connect over RDMA: out of memory");
	for (unsigned i = 0; i < conn->depth; i++)
		conn->slots[i].next_free = (uint16_t)(i + 1);
	conn->scratch_mr = ibv_reg_mr(device->pd, scratch, len, IBV_ACCESS_LOCAL_WRITE);
	if (!conn->scratch_mr)
		return verbs_reg_failed(errno, len, err);
	set_spin(conn, conn->tp->config.spin_us == UINT32_MAX ? 0 : conn->tp->config.spin_us * UINT64_C(1000));
	return 0;
}

void verbs_io_fini(struct verbs_conn *conn)
{
	if (conn->scratch_mr)
		ibv_dereg_mr(conn->scratch_mr);
	free(conn->scratch);
	free(conn->slots);
	free(conn->sges);
	free(conn->wrs);
}

/* Completing operations. */

static void put_done(struct verbs_conn *conn, struct tp_op *op, int status)
{
	op->status = status;
	op->next = NULL;
	*conn->done_end = op;
	conn->done_end = &op->next;
}

static struct tp_op *take_done(struct verbs_conn *conn)
{
	struct tp_op *op = conn->done;

	conn->done = op->next;
	if (!conn->done)
		conn->done_end = &conn->done;
	return op;
}

static void free_slot(struct verbs_conn *conn, unsigned i)
{
	conn->slots[i].op = NULL;
	conn->slots[i].next_free = (uint16_t)conn->free_slot;
	conn->free_slot = i;
}

static void finish_slot(struct verbs_conn *conn, unsigned i, int status)
{
	struct tp_op *op = conn->slots[i].op;

	free_slot(conn, i);
	put_done(conn, op, status);
}

/* REQUESTs: the donor carries out what one-sided access cannot. */

int verbs_send(struct verbs_conn *conn, const struct verbs_msg *msg)
{
	return verbs_bufs_send(&conn->bufs, conn->control->qp, msg, verbs_wr_id(VERBS_WR_SEND, 0));
}

/* Operations wait in `asking` by way of op->next; priv[0] is their slot. */
static void ask(struct verbs_conn *conn, struct tp_op *op)
{
	op->next = NULL;
	*conn->asking_end = op;
	conn->asking_end = &op->next;
}

static void send_requests(struct verbs_conn *conn)
{
	while (conn->asking && conn->nr_asked < VERBS_REQUESTS && conn->conn.state == TP_READY) {
		struct tp_op *op = conn->asking;
		struct verbs_msg msg;

		msg.type = VERBS_REQUEST;
		msg.cookie = (uint32_t)op->priv[0];
		msg.request.kind = op->kind == TP_FLUSH ? VERBS_FLUSH : VERBS_ZERO;
		msg.request.no_hole = op->flags & TP_NO_HOLE;
		msg.request.more = false;
		msg.request.nr_ranges = 0;
		msg.request.off = op->off;
		msg.request.len = op->len;
		if (op->kind == TP_FLUSH)
			verbs_changes_take(conn, &msg);
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

void verbs_on_reply(struct verbs_conn *conn, uint32_t cookie, int error)
{
	if (cookie >= conn->depth || !conn->slots[cookie].op || !conn->slots[cookie].asked) {
		verbs_fail(conn, EPROTO, "%s answered what was not asked", conn->peer);
		return;
	}
	conn->slots[cookie].asked = false;
	conn->nr_asked--;
	if (conn->slots[cookie].more && error == 0)
		ask(conn, conn->slots[cookie].op);
	else
		finish_slot(conn, cookie, error);
	send_requests(conn);
}

/* Posting. */

static struct ibv_send_wr *add_wr(struct verbs_conn *conn, enum ibv_wr_opcode opcode, const void *buf,
	uint32_t len, uint32_t lkey, uint64_t addr, uint32_t rkey)
{
	struct ibv_send_wr *wr = &conn->wrs[conn->nr_wrs];
	struct ibv_sge *sge = &conn->sges[conn->nr_wrs];

	assert(conn->nr_wrs < conn->sq_room);
	if (conn->nr_wrs > 0)
		wr[-1].next = wr;
	conn->nr_wrs++;
	*sge = (struct ibv_sge){.addr = (uintptr_t)buf, .length = len, .lkey = lkey};
	*wr = (struct ibv_send_wr){
		.sg_list = sge,
		.num_sge = 1,
		.opcode = opcode,
		.wr.rdma = {.remote_addr = addr, .rkey = rkey},
	};
	if (opcode == IBV_WR_RDMA_WRITE && len <= conn->max_inline)
		wr->send_flags = IBV_SEND_INLINE;
	return wr;
}

/* A sign of life, in front of other work requests: nothing waits for its completion. */
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
		now_ns - conn->beat_ns >= weft_max(conn->lease_ms / 8, MIN_BEAT_MS) * UINT64_C(1000000);
}

static void add_last(struct verbs_conn *conn, struct ibv_send_wr *wr, unsigned slot)
{
	wr->wr_id = verbs_wr_id(VERBS_WR_DATA, slot | VERBS_WR_LAST);
	wr->send_flags |= IBV_SEND_SIGNALED;
}

/* The range, cut where chunks end.  buf NULL: the source is zeros. */
static void add_range(struct verbs_conn *conn, unsigned slot, enum ibv_wr_opcode opcode, uint64_t off,
	uint64_t len, uint8_t *buf, uint32_t lkey)
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
	add_last(conn, wr, slot);
}

static void add_epoch_read(struct verbs_conn *conn, unsigned slot)
{
	uint64_t *word = scratch_word(conn, slot);

	*word = 0;
	struct ibv_send_wr *wr = add_wr(conn, IBV_WR_RDMA_READ, word, sizeof(*word), conn->scratch_mr->lkey,
		conn->epoch_word.addr, conn->epoch_word.rkey);
	conn->slots[slot].nr_wrs++;
	add_last(conn, wr, slot);
}

/* Longer ones, and those that would cross many small chunks, are asked for. */
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
		return 0;
	case TP_ZERO:
		return zero_is_written(conn, op) ? VERBS_MAX_FRAGMENTS + 1 : 0;
	case TP_FLUSH:
	case TP_PROBE:
		return 2;
	default:
		return VERBS_MAX_FRAGMENTS + 1;
	}
}

static void build(struct verbs_conn *conn, struct tp_op *op, uint64_t now_ns)
{
	unsigned i = conn->free_slot;
	struct verbs_slot *slot = &conn->slots[i];
	struct verbs_mem *mem;

	assert(i < conn->depth);
	conn->free_slot = slot->next_free;
	*slot = (struct verbs_slot){.op = op};
	op->priv[0] = i;
	if (op->kind == TP_PROBE || (wrs_for(conn, op) > 0 && beat_is_due(conn, now_ns)))
		add_beat(conn, i, now_ns);
	switch (op->kind) {
	case TP_READ:
	case TP_WRITE:
		mem = (struct verbs_mem *)(uintptr_t)op->mem->priv[0];
		add_range(conn, i, op->kind == TP_READ ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, op->off, op->len,
			op->buf, mem->mr[conn->device]->lkey);
		break;
	case TP_ZERO:
		if (zero_is_written(conn, op))
			add_range(conn, i, IBV_WR_RDMA_WRITE, op->off, op->len, NULL, conn->scratch_mr->lkey);
		else
			ask(conn, op);
		break;
	case TP_FLUSH: /* a READ behind them makes WRITEs visible */
	case TP_PROBE:
		add_epoch_read(conn, i);
		break;
	default: /* advice that registered memory cannot take */
		finish_slot(conn, i, 0);
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
		/* How far it got does not matter: all come back once the queue pairs are gone. */
		verbs_fail(conn, -r, "cannot post to %s: %s", conn->peer, strerror(-r));
		verbs_kill(conn);
	}
	send_requests(conn);
	return (int)i;
}

int verbs_post_epoch_read(struct verbs_conn *conn)
{
	struct ibv_send_wr *wr = add_wr(conn, IBV_WR_RDMA_READ, scratch_word(conn, conn->depth),
		sizeof(uint64_t), conn->scratch_mr->lkey, conn->epoch_word.addr, conn->epoch_word.rkey);

	wr->wr_id = verbs_wr_id(VERBS_WR_EPOCH, 0);
	wr->send_flags = IBV_SEND_SIGNALED;
	return post_chain(conn);
}

uint64_t verbs_epoch_read(const struct verbs_conn *conn)
{
	return *scratch_word((struct verbs_conn *)conn, conn->depth);
}

/* Completions. */

static void fail_wc(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	if (conn->conn.state == TP_FAILED || conn->ending)
		return;
	/* The connection manager may know why. */
	verbs_look(conn);
	if (conn->conn.state == TP_FAILED)
		return;
	if (wc->status == IBV_WC_REM_ACCESS_ERR)
		verbs_fail(conn, ENOTCONN, "%s revoked the access", conn->peer);
	else
		verbs_fail(conn, -verbs_wc_errno(wc->status), "the connection to %s is lost: %s", conn->peer,
			ibv_wc_status_str(wc->status));
}

/* The last work request of the operation in slot i came back. */
static void on_last(struct verbs_conn *conn, unsigned i)
{
	struct verbs_slot *slot = &conn->slots[i];
	struct tp_op *op = slot->op;

	conn->sq_room += slot->nr_wrs;
	slot->nr_wrs = 0;
	if (slot->error < 0) {
		finish_slot(conn, i, tp_conn_op_status(&conn->conn));
		return;
	}
	if (op->kind == TP_PROBE && *scratch_word(conn, i) != verbs_epoch_to_wire(conn->epoch)) {
		verbs_fail(conn, ESTALE, "the contents at %s are gone: it has a new epoch", conn->peer);
		finish_slot(conn, i, -ESTALE);
		return;
	}
	if (op->kind == TP_WRITE || op->kind == TP_ZERO)
		verbs_changes_note(conn, op->off, op->len);
	if (op->kind == TP_FLUSH && (conn->flags & VERBS_GRANT_FLUSH_ASKS)) {
		ask(conn, op);
		send_requests(conn);
		return;
	}
	finish_slot(conn, i, 0);
}

static void on_recv(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	unsigned buf = wc->wr_id & 0xffff;
	int r = verbs_unpack(verbs_bufs_at(&conn->bufs, buf), wc->byte_len, &conn->msg);

	if (r < 0) {
		verbs_fail(conn, -r, "%s sent %s", conn->peer,
			r == -EPROTO ? "a malformed message" : "a message of another version");
		return;
	}
	r = verbs_bufs_post_recv(&conn->bufs, conn->control->qp, buf, verbs_wr_id(VERBS_WR_RECV, buf));
	if (r < 0)
		verbs_fail(conn, -r, "cannot post a buffer: %s", strerror(-r));
	else
		verbs_on_message(conn);
}

/* With an error only wr_id and status are valid. */
static void on_wc(struct verbs_conn *conn, const struct ibv_wc *wc)
{
	unsigned i = wc->wr_id & 0xffff;

	if (wc->status != IBV_WC_SUCCESS)
		fail_wc(conn, wc);
	switch ((enum verbs_wr)(wc->wr_id >> 24)) {
	case VERBS_WR_DATA:
		if (wc->status != IBV_WC_SUCCESS)
			conn->slots[i].error = -EIO;
		if (wc->wr_id & VERBS_WR_LAST)
			on_last(conn, i);
		break;
	case VERBS_WR_EPOCH:
		conn->sq_room++;
		if (wc->status == IBV_WC_SUCCESS && conn->conn.state == TP_CONNECTING)
			verbs_on_epoch(conn);
		break;
	case VERBS_WR_RECV:
		if (wc->status == IBV_WC_SUCCESS && conn->conn.state != TP_FAILED)
			on_recv(conn, wc);
		break;
	case VERBS_WR_SEND:
		verbs_bufs_sent(&conn->bufs, i);
		if (wc->status == IBV_WC_SUCCESS)
			send_requests(conn);
		break;
	}
}

unsigned verbs_poll(struct verbs_conn *conn)
{
	struct ibv_wc wc[POLL_BATCH];
	unsigned nr = 0;
	int n;

	if (!conn->cq || conn->saying_bye)
		return 0;
	do {
		n = ibv_poll_cq(conn->cq, POLL_BATCH, wc);
		for (int i = 0; i < n; i++)
			on_wc(conn, &wc[i]);
		nr += n > 0 ? (unsigned)n : 0;
	} while (n == POLL_BATCH);
	if (n < 0) {
		verbs_fail(conn, EIO, "the completion queue of the path to %s broke", conn->peer);
		verbs_kill(conn);
	}
	return nr;
}

/* What a failed connection leaves: nothing waits for work requests that cannot touch memory any more. */
static void give_up(struct verbs_conn *conn, bool gone)
{
	if (!conn->slots)
		return;
	for (unsigned i = 0; i < conn->depth; i++) {
		struct verbs_slot *slot = &conn->slots[i];

		if (slot->op && (gone || slot->nr_wrs == 0))
			finish_slot(conn, i, tp_conn_op_status(&conn->conn));
	}
	conn->asking = NULL;
	conn->asking_end = &conn->asking;
}

/* Takes the wake-up that was asked for, if it came: one was asked for at a time. */
static bool take_wakeup(struct verbs_conn *conn)
{
	struct ibv_cq *cq;
	void *ctx;

	if (!conn->armed || ibv_get_cq_event(conn->comp, &cq, &ctx) != 0)
		return false;
	conn->armed = false;
	/* Each acknowledgement takes a lock: in bulk. */
	if (++conn->nr_cq_events == 1024) {
		ibv_ack_cq_events(conn->cq, conn->nr_cq_events);
		conn->nr_cq_events = 0;
	}
	return true;
}

/* Is there anything but completions to look at? */
static void look_at_others(struct verbs_conn *conn)
{
	struct epoll_event events[6];
	int n = epoll_wait(conn->epfd, events, 6, 0);

	for (int i = 0; i < n; i++) {
		if (conn->comp && events[i].data.fd == conn->comp->fd)
			continue;
		verbs_look(conn);
		return;
	}
}

int verbs_io_progress(struct tp_conn *tp_conn, struct tp_op **done, unsigned max)
{
	struct verbs_conn *conn = to_verbs(tp_conn);
	unsigned n = 0;

	/* A wake-up that was not for completions was for something else; if all are, now and then. */
	bool awaited = conn->armed;
	if ((!take_wakeup(conn) && awaited) || conn->conn.state != TP_READY || ++conn->nr_fast >= LOOK_EVERY) {
		conn->nr_fast = 0;
		look_at_others(conn);
	}
	/*
	 * Asked after the reaper's word was taken, which is not repeated, and before the completions are: none comes after
	 * those, for slots that are free by then.
	 */
	bool gone = atomic_load(&conn->qps_gone);
	verbs_poll(conn);
	if (conn->conn.state == TP_FAILED && conn->conn.nr_outstanding > 0)
		give_up(conn, gone);
	while (n < max && conn->done)
		done[n++] = take_done(conn);
	return (int)n;
}

/* Looks for completions a little while: a wake-up costs more than many operations take. */
static bool spin(struct verbs_conn *conn)
{
	uint64_t full_ns = conn->tp->config.spin_us * UINT64_C(1000);

	if (conn->tp->config.spin_us == UINT32_MAX || conn->conn.nr_outstanding == 0)
		return false;
	if (conn->spin_ns == 0) {
		if (++conn->nr_arms < RETRY_SPIN)
			return false;
		conn->nr_arms = 0;
		set_spin(conn, full_ns);
	}
	uint64_t end_ns = weft_now_ns() + conn->spin_ns;
	do {
		if (verbs_poll(conn) > 0) {
			set_spin(conn, full_ns);
			return true;
		}
	} while (weft_now_ns() < end_ns);
	/* It did not pay: less, then not at all for a while. */
	set_spin(conn, conn->spin_ns > 2000 ? conn->spin_ns / 2 : 0);
	return false;
}

int verbs_io_arm(struct tp_conn *tp_conn)
{
	struct verbs_conn *conn = to_verbs(tp_conn);

	if (conn->done)
		return 0;
	if (conn->conn.state == TP_READY && (spin(conn) || (!conn->armed && verbs_poll(conn) > 0)))
		return 0;
	if (conn->cq && !conn->saying_bye && !conn->armed) {
		if (ibv_req_notify_cq(conn->cq, 0) != 0)
			return 0;
		conn->armed = true;
		/* What came before it was armed wakes nobody. */
		if (verbs_poll(conn) > 0)
			return 0;
	}
	return EPOLLIN;
}
