/* SPDX-License-Identifier: MIT */
/*
 * Commands out, responses in: operations from tp_post() to their last response.
 *
 * Runs on the lane's thread.  Invariants: an operation has a slot from srp_io_post() until it is in
 * the list `done`.  A slot has at most one command in flight, whose tag no other command ever had;
 * a response with another tag ends the channel.
 */
#include "transports/srp/borrower/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>

#include "transports/rdma/device.h"

enum {
	SIGNAL_EVERY = 16, /* sends */
	MAX_BATCH = 32,
	LIST_OFF = 96,     /* an UNMAP's list in a slot's buffer */
	CREDITS_MAX = 1 << 16,
	BACKOFF_MAX_MS = 256,
};
_Static_assert((int)SRP_IMMEDIATE_OFF <= (int)LIST_OFF &&
	(int)LIST_OFF + SCSI_UNMAP_HEAD_BYTES + SCSI_UNMAP_EXTENT_BYTES <=
		(int)SRP_SEND_BYTES,
	"an IU and a list");

static const uint64_t TASK_TAG = UINT64_C(1) << 63;

/* Sends of one doorbell. */
struct batch {
	struct ibv_send_wr wrs[MAX_BATCH];
	struct ibv_sge sges[MAX_BATCH][2];
	unsigned nr;
};

/* The data of a command: in registered memory, for the target to reach. */
struct data {
	void *buf;
	uint32_t len;
	bool in; /* to us */
	uint32_t lkey, rkey;
};

static uint8_t *send_buf(const struct srp_conn *conn, unsigned i)
{
	return conn->memory + i * SRP_SEND_BYTES;
}

/* The channel's own slot. */
static struct srp_slot *own_slot(const struct srp_conn *conn)
{
	return &conn->slots[conn->tp->config.depth];
}

int srp_io_init(struct srp_conn *conn, struct weft_error *err)
{
	const struct weft_rdma_device *device = &conn->tp->base.local.devices[conn->seat.device];
	const unsigned depth = conn->tp->config.depth;
	size_t sends = (depth + 1 + SRP_SPARE_SENDS) * SRP_SEND_BYTES, recvs, len;

	conn->nr_recvs = depth + 1 + SRP_SPARE_RECVS;
	recvs = conn->nr_recvs * SRP_RECV_BYTES;
	len = sends + recvs + 2 * SRP_UNIT_DATA_BYTES;
	conn->memory = weft_rdma_pages_new(len);
	conn->slots = calloc(depth + 1, sizeof(conn->slots[0]));
	conn->recv_wrs = calloc(conn->nr_recvs, sizeof(conn->recv_wrs[0]));
	conn->recv_sges = calloc(conn->nr_recvs, sizeof(conn->recv_sges[0]));
	if (!conn->memory || !conn->slots || !conn->recv_wrs || !conn->recv_sges)
		return weft_error_set(err, ENOMEM, "cannot connect over SRP: out of memory");
	conn->recvs = conn->memory + sends;
	conn->scratch = conn->recvs + recvs;
	conn->zeros = conn->scratch + SRP_UNIT_DATA_BYTES;
	conn->mr = ibv_reg_mr(device->pd, conn->memory, len, conn->tp->base.local.access);
	if (!conn->mr)
		return weft_rdma_reg_failed(errno, len, err);
	conn->sq_room = depth + 1 + SRP_SPARE_SENDS + 2 * SIGNAL_EVERY;
	weft_rdma_spin_init(&conn->spin, conn->tp->config.spin_us);
	conn->conn.spins = conn->spin.ns > 0;
	return 0;
}

void srp_io_begin(struct srp_conn *conn, const struct srp_login_rsp *rsp)
{
	const uint32_t room = rsp->max_it_iu_bytes > SRP_IMMEDIATE_OFF
		? rsp->max_it_iu_bytes - SRP_IMMEDIATE_OFF
		: 0;

	conn->credits = rsp->delta;
	conn->depth = (unsigned)weft_min(conn->tp->config.depth, rsp->delta - 1);
	conn->max_immediate = rsp->immediate ? (uint32_t)weft_min(room, SRP_IMMEDIATE_MAX) : 0;
	for (unsigned i = 0; i < conn->depth; i++)
		conn->slots[i].next_free = (uint16_t)(i + 1);
}

/* ---- out ---- */

static void flush_batch(struct srp_conn *conn, struct batch *batch)
{
	struct ibv_send_wr *bad;

	if (batch->nr == 0)
		return;
	batch->wrs[batch->nr - 1].next = NULL;
	int r = ibv_post_send(conn->id->qp, batch->wrs, &bad);
	batch->nr = 0;
	if (r == 0)
		return;
	/* It does not matter which were posted: all come back once the queue pair is gone. */
	srp_fail(conn, r, "cannot send to %s: %s", conn->peer, strerror(r));
	srp_kill(conn);
}

/* Adds an IU, with its immediate data behind it if there is any. */
static void add_send(struct srp_conn *conn, struct batch *batch, const uint8_t *iu, uint32_t len,
	const struct data *immediate)
{
	if (batch->nr == MAX_BATCH)
		flush_batch(conn, batch);
	struct ibv_send_wr *wr = &batch->wrs[batch->nr];
	struct ibv_sge *sge = batch->sges[batch->nr];

	if (batch->nr > 0)
		wr[-1].next = wr;
	batch->nr++;
	sge[0] = (struct ibv_sge){.addr = (uintptr_t)iu, .length = len, .lkey = conn->mr->lkey};
	if (immediate)
		sge[1] = (struct ibv_sge){.addr = (uintptr_t)immediate->buf,
			.length = immediate->len,
			.lkey = immediate->lkey};
	*wr = (struct ibv_send_wr){.wr_id = srp_wr_id(SRP_WR_SEND, 0),
		.sg_list = sge,
		.num_sge = immediate ? 2 : 1,
		.opcode = IBV_WR_SEND};
	conn->sq_room--;
	conn->nr_unsignaled++;
	if (conn->nr_unsignaled < SIGNAL_EVERY && conn->sq_room > SRP_SPARE_SENDS)
		return;
	wr->wr_id = srp_wr_id(SRP_WR_SEND, conn->nr_unsignaled);
	wr->send_flags = IBV_SEND_SIGNALED;
	conn->nr_unsignaled = 0;
}

static void add_command(struct srp_conn *conn, struct batch *batch, unsigned i,
	const struct scsi_cdb *cdb, const struct data *data)
{
	struct srp_slot *slot = &conn->slots[i];
	uint8_t *iu = send_buf(conn, i), packed[SCSI_CDB_BYTES], list[SRP_BUFFER_BYTES];
	struct srp_cmd cmd = {.lun = conn->name.lun, .cdb = packed, .cdb_bytes = sizeof(packed)};
	bool immediate = data->len > 0 && !data->in && data->len <= conn->max_immediate;
	int len = scsi_pack_cdb(cdb, packed);

	assert(len > 0);
	if (++conn->next_tag == 0)
		conn->next_tag++;
	slot->tag = cmd.tag = (uint64_t)conn->next_tag << 16 | i;
	slot->again_ns = 0;
	slot->data_bytes = data->len;
	slot->data_in = data->in;
	if (data->len > 0) {
		const struct srp_data how = {.format = immediate ? SRP_IMMEDIATE : SRP_DIRECT,
			.len = data->len,
			.nr_list = !immediate,
			.list = list};

		srp_pack_buffer(&(struct srp_buffer){.addr = (uintptr_t)data->buf,
					.key = data->rkey,
					.len = data->len},
			list);
		*(data->in ? &cmd.in : &cmd.out) = how;
	}
	len = srp_pack_cmd(&cmd, iu, LIST_OFF);
	assert(len > 0);
	conn->credits--;
	if (immediate)
		add_send(conn, batch, iu, SRP_IMMEDIATE_OFF, data);
	else
		add_send(conn, batch, iu, (uint32_t)len, NULL);
}

static uint32_t range_bytes(const struct srp_conn *conn, const struct srp_slot *slot,
	uint32_t max_blocks)
{
	return (uint32_t)weft_min(slot->op->len - slot->done_bytes,
		(uint64_t)max_blocks * conn->unit.block_bytes);
}

/* UNMAP of one extent; or WRITE SAME with its UNMAP bit, where there is no UNMAP. */
static void build_trim(const struct srp_conn *conn, unsigned i, struct scsi_cdb *cdb,
	struct data *data)
{
	struct srp_slot *slot = &conn->slots[i];
	uint8_t *list = send_buf(conn, i) + LIST_OFF;

	if (!conn->unit.can_unmap) {
		slot->bytes = range_bytes(conn, slot, conn->unit.max_same);
		cdb->opcode = SCSI_OP_WRITE_SAME_16;
		cdb->unmap = true;
		cdb->blocks = slot->bytes / conn->unit.block_bytes;
		*data = (struct data){.buf = conn->zeros, .len = conn->unit.block_bytes};
		return;
	}
	slot->bytes = range_bytes(conn, slot, conn->unit.max_unmap);
	cdb->opcode = SCSI_OP_UNMAP;
	cdb->list_bytes = (uint32_t)scsi_pack_unmap_head(1, list);
	scsi_pack_unmap_extent(cdb->lba, slot->bytes / conn->unit.block_bytes,
		list + SCSI_UNMAP_HEAD_BYTES);
	cdb->lba = 0;
	*data = (struct data){.buf = list, .len = cdb->list_bytes};
}

static void build_zero(const struct srp_conn *conn, struct srp_slot *slot, struct scsi_cdb *cdb,
	struct data *data)
{
	const struct srp_unit *unit = &conn->unit;

	slot->bytes = range_bytes(conn, slot, unit->max_same);
	cdb->opcode = SCSI_OP_WRITE_SAME_16;
	cdb->unmap =
		unit->same_can_unmap && unit->reads_zeros && !(slot->op->flags & TP_NO_HOLE);
	cdb->blocks = slot->bytes / unit->block_bytes;
	*data = (struct data){.buf = conn->zeros, .len = unit->block_bytes};
}

static void build_transfer(const struct srp_conn *conn, struct srp_slot *slot,
	struct scsi_cdb *cdb, struct data *data)
{
	const struct tp_op *op = slot->op;
	const struct ibv_mr *mr = weft_rdma_local_mr(op->mem, conn->seat.device);

	slot->bytes = (uint32_t)op->len;
	cdb->opcode = op->kind == TP_READ ? SCSI_OP_READ_16 : SCSI_OP_WRITE_16;
	cdb->fua = op->flags & TP_FUA;
	cdb->blocks = slot->bytes / conn->unit.block_bytes;
	*data = (struct data){.buf = op->buf,
		.len = slot->bytes,
		.in = op->kind == TP_READ,
		.lkey = mr->lkey,
		.rkey = mr->rkey};
}

/* The next command of the slot's operation. */
static void add_next(struct srp_conn *conn, struct batch *batch, unsigned i)
{
	struct srp_slot *slot = &conn->slots[i];
	const struct tp_op *op = slot->op;
	struct scsi_cdb cdb = {.action = SCSI_NO_ACTION};
	struct data data = {0};

	slot->bytes = 0;
	if (slot->stage == SRP_STAGE_SYNC || op->kind == TP_FLUSH) {
		cdb.opcode = SCSI_OP_SYNCHRONIZE_CACHE_10; /* all of it */
	} else if (op->kind == TP_PROBE) {
		cdb.opcode = SCSI_OP_TEST_UNIT_READY;
	} else {
		cdb.lba = (op->off + slot->done_bytes) / conn->unit.block_bytes;
		if (op->kind == TP_TRIM)
			build_trim(conn, i, &cdb, &data);
		else if (op->kind == TP_ZERO)
			build_zero(conn, slot, &cdb, &data);
		else
			build_transfer(conn, slot, &cdb, &data);
	}
	if (data.len > 0 && data.rkey == 0) {
		data.lkey = conn->mr->lkey;
		data.rkey = conn->mr->rkey;
	}
	add_command(conn, batch, i, &cdb, &data);
}

static bool may_send(const struct srp_conn *conn)
{
	return conn->credits > 1 && conn->sq_room > SRP_SPARE_SENDS;
}

int srp_io_post(struct tp_conn *tp_conn, struct tp_op *const *ops, unsigned n)
{
	struct srp_conn *conn = to_srp(tp_conn);
	struct batch batch;
	unsigned nr = 0;

	batch.nr = 0;
	for (; nr < n && may_send(conn) && conn->free_slot < conn->depth; nr++) {
		unsigned i = conn->free_slot;

		conn->free_slot = conn->slots[i].next_free;
		conn->slots[i] = (struct srp_slot){.op = ops[nr]};
		add_next(conn, &batch, i);
	}
	flush_batch(conn, &batch);
	return nr > 0 ? (int)nr : -EAGAIN;
}

static void set_again_timer(struct srp_conn *conn, uint64_t at_ns)
{
	struct itimerspec when = {.it_value = {
		.tv_sec = (time_t)(at_ns / 1000000000),
		.tv_nsec = (long)(at_ns % 1000000000),
	}};

	timerfd_settime(conn->again_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void send_own(struct srp_conn *conn, struct batch *batch)
{
	uint32_t bytes = own_slot(conn)->data_bytes;
	const struct data data = {.buf = conn->scratch,
		.len = bytes,
		.in = true,
		.lkey = conn->mr->lkey,
		.rkey = conn->mr->rkey};

	memset(conn->scratch, 0, SRP_UNIT_DATA_BYTES);
	add_command(conn, batch, conn->tp->config.depth, &conn->exam_cdb, &data);
}

void srp_io_again(struct srp_conn *conn)
{
	uint64_t now_ns, next_ns = 0;
	struct batch batch;

	if (conn->next_again_ns == 0 || conn->conn.state == TP_FAILED)
		return;
	now_ns = weft_now_ns();
	if (conn->next_again_ns > now_ns)
		return;
	batch.nr = 0;
	for (unsigned i = 0; i <= conn->tp->config.depth; i++) {
		struct srp_slot *slot = &conn->slots[i];

		if (slot->again_ns == 0)
			continue;
		if (slot->again_ns <= now_ns && may_send(conn)) {
			if (slot->op)
				add_next(conn, &batch, i);
			else
				send_own(conn, &batch);
		} else if (next_ns == 0 || slot->again_ns < next_ns) {
			next_ns = slot->again_ns;
		}
	}
	flush_batch(conn, &batch);
	conn->next_again_ns = next_ns;
	/* Those that lack a credit wait for a response. */
	if (next_ns > now_ns)
		set_again_timer(conn, next_ns);
}

static void send_again_at(struct srp_conn *conn, struct srp_slot *slot, uint64_t at_ns)
{
	slot->again_ns = at_ns;
	if (conn->next_again_ns == 0 || at_ns < conn->next_again_ns) {
		conn->next_again_ns = at_ns;
		set_again_timer(conn, at_ns);
	}
}

/* Sends an IU of the channel's; a target that makes us run out of room breaks the protocol. */
static void send_spare(struct srp_conn *conn, const uint8_t *iu, size_t len)
{
	uint8_t *buf = send_buf(conn,
		conn->tp->config.depth + 1 + conn->next_spare++ % SRP_SPARE_SENDS);
	struct batch batch;

	if (conn->sq_room < 2) {
		srp_fail(conn, EPROTO, "%s asks for more than it takes answers", conn->peer);
		return;
	}
	memcpy(buf, iu, len);
	batch.nr = 0;
	add_send(conn, &batch, buf, (uint32_t)len, NULL);
	flush_batch(conn, &batch);
}

void srp_io_examine(struct srp_conn *conn)
{
	struct srp_slot *slot = own_slot(conn);

	*slot = (struct srp_slot){.data_in = true};
	if (srp_exam_next(&conn->exam, &conn->exam_cdb, &slot->data_bytes))
		send_again_at(conn, slot, 1);
}

void srp_io_reset(struct srp_conn *conn)
{
	uint8_t iu[SRP_TSK_MGMT_BYTES];
	struct srp_task task = {.lun = conn->name.lun, .function = SRP_LUN_RESET};

	conn->reset_tag = task.tag = TASK_TAG | ++conn->next_tag;
	conn->credits--;
	send_spare(conn, iu, srp_pack_task(&task, iu));
}

/* ---- in ---- */

static void finish(struct srp_conn *conn, unsigned i, int status)
{
	struct tp_op *op = conn->slots[i].op;

	conn->slots[i] = (struct srp_slot){.next_free = (uint16_t)conn->free_slot};
	conn->free_slot = i;
	op->status = status;
	op->next = NULL;
	*conn->done_end = op;
	conn->done_end = &op->next;
}

/* The command in the slot did what it should. */
static void on_good(struct srp_conn *conn, unsigned i)
{
	struct srp_slot *slot = &conn->slots[i];
	const struct tp_op *op = slot->op;

	slot->done_bytes += slot->bytes;
	slot->tries = 0;
	if (slot->stage == SRP_STAGE_DATA && (op->kind == TP_TRIM || op->kind == TP_ZERO)) {
		if (slot->done_bytes < op->len) {
			send_again_at(conn, slot, 1);
			return;
		}
		if ((op->flags & TP_FUA) && conn->unit.write_cache) {
			slot->stage = SRP_STAGE_SYNC;
			send_again_at(conn, slot, 1);
			return;
		}
	}
	if (op->kind == TP_FLUSH && atomic_exchange(&conn->nexus->deferred, false))
		finish(conn, i, -EIO);
	else
		finish(conn, i, 0);
}

static void on_failed(struct srp_conn *conn, unsigned i, int status)
{
	const struct tp_op *op = conn->slots[i].op;

	if (op->kind == TP_PROBE) /* it lives */
		status = 0;
	/* Without a cache every write that was answered is where a flush would bring it. */
	if (op->kind == TP_FLUSH && status == -EOPNOTSUPP)
		status = conn->unit.write_cache ? -EIO : 0;
	finish(conn, i, status);
}

/* False: it was tried often enough. */
static bool try_again(struct srp_conn *conn, struct srp_slot *slot, bool later)
{
	if (++slot->tries > SRP_MAX_TRIES)
		return false;
	send_again_at(conn, slot,
		later ? weft_now_ns() +
				weft_min(UINT64_C(1) << weft_min(slot->tries, 8), BACKOFF_MAX_MS) *
					1000000
		      : 1);
	return true;
}

/* Whether all of the command's data went where it should. */
static bool is_whole(const struct srp_slot *slot, const struct srp_rsp *rsp)
{
	return slot->data_bytes == 0 || (rsp->in_residual == 0 && rsp->out_residual == 0);
}

static void on_own_rsp(struct srp_conn *conn, struct srp_slot *slot, const struct srp_rsp *rsp)
{
	uint32_t bytes = slot->data_bytes;
	struct srp_judgement j;

	srp_judge(rsp, false, &j);
	if (!srp_conn_may_hear(conn, &j))
		return;
	if ((j.verdict == SRP_AGAIN || j.verdict == SRP_LATER) &&
		try_again(conn, slot, j.verdict == SRP_LATER))
		return;
	if (j.verdict == SRP_END) {
		srp_fail(conn, j.why.code, "%s: %s", conn->peer, j.why.message);
		return;
	}
	if (j.verdict != SRP_DONE)
		j.status = -EIO;
	if (rsp->in_residual > bytes)
		bytes = 0;
	else if (rsp->in_residual > 0)
		bytes -= (uint32_t)rsp->in_residual;
	conn->exam_done(conn, &j, bytes);
}

/* Any but a plain success. */
static void on_other(struct srp_conn *conn, unsigned i, const struct srp_rsp *rsp)
{
	struct srp_slot *slot = &conn->slots[i];
	struct srp_judgement j;

	srp_judge(rsp, true, &j);
	if (j.deferred)
		atomic_store(&conn->nexus->deferred, true);
	switch (j.verdict) {
	case SRP_AGAIN:
	case SRP_LATER:
		if (!try_again(conn, slot, j.verdict == SRP_LATER))
			on_failed(conn, i, -EIO);
		break;
	case SRP_END:
		srp_fail(conn, j.why.code, "%s: %s", conn->peer, j.why.message);
		break;
	case SRP_DONE:
		if (j.status < 0)
			on_failed(conn, i, j.status);
		else if (!is_whole(slot, rsp))
			on_failed(conn, i, -EIO);
		else
			on_good(conn, i);
	}
}

static void on_rsp(struct srp_conn *conn, const struct srp_rsp *rsp)
{
	unsigned i = rsp->tag & 0xffff;

	if (conn->reset_tag && rsp->tag == conn->reset_tag) {
		conn->reset_tag = 0;
		conn->reset_done(conn, rsp);
		return;
	}
	if (i > conn->tp->config.depth || conn->slots[i].tag == 0 ||
		conn->slots[i].tag != rsp->tag) {
		srp_fail(conn, EPROTO, "%s answered what was not asked", conn->peer);
		return;
	}
	conn->slots[i].tag = 0;
	if (!conn->slots[i].op)
		on_own_rsp(conn, &conn->slots[i], rsp);
	else if (rsp->status == SCSI_GOOD && !rsp->has_code && is_whole(&conn->slots[i], rsp))
		on_good(conn, i);
	else
		on_other(conn, i, rsp);
}

/* False: it breaks the protocol. */
static bool take_credits(struct srp_conn *conn, int32_t delta)
{
	conn->credits += delta;
	if (conn->credits >= 0 && conn->credits <= CREDITS_MAX)
		return true;
	srp_fail(conn, EPROTO, "%s gives credits that make no sense", conn->peer);
	return false;
}

static void answer(struct srp_conn *conn, uint8_t type, uint64_t tag)
{
	uint8_t iu[SRP_SHORT_BYTES];
	const struct srp_short other = {.tag = tag};

	send_spare(conn, iu, srp_pack_short(type, &other, iu));
}

void srp_io_received(struct srp_conn *conn, unsigned i, uint32_t len)
{
	struct srp_iu iu;

	if (conn->conn.state == TP_FAILED)
		return;
	if (len > SRP_RECV_BYTES ||
		srp_unpack_from_target(conn->recvs + i * SRP_RECV_BYTES, len, &iu) < 0) {
		srp_fail(conn, EPROTO, "%s sent what SRP does not know", conn->peer);
		return;
	}
	switch (iu.type) {
	case SRP_RSP:
		if (take_credits(conn, iu.rsp.delta))
			on_rsp(conn, &iu.rsp);
		break;
	case SRP_CRED_REQ:
	case SRP_AER_REQ:
		if (take_credits(conn, iu.other.delta))
			answer(conn, iu.type == SRP_CRED_REQ ? SRP_CRED_RSP : SRP_AER_RSP,
				iu.other.tag);
		break;
	default:
		srp_fail(conn, ENOTCONN, "%s logged us out, reason %u", conn->peer,
			iu.other.reason);
	}
}

void srp_io_give_back(struct srp_conn *conn)
{
	struct ibv_recv_wr *bad;
	unsigned nr = conn->nr_fresh_recvs;

	if (nr == 0 || conn->conn.state == TP_FAILED)
		return;
	conn->recv_wrs[nr - 1].next = NULL;
	int r = ibv_post_recv(conn->id->qp, conn->recv_wrs, &bad);
	conn->nr_posted_recvs += nr;
	conn->nr_fresh_recvs = 0;
	if (r != 0) {
		srp_fail(conn, r, "cannot post a buffer: %s", strerror(r));
		srp_kill(conn);
	}
}

void srp_io_give_up(struct srp_conn *conn)
{
	if (!conn->slots)
		return;
	for (unsigned i = 0; i < conn->depth; i++)
		if (conn->slots[i].op)
			finish(conn, i, tp_conn_op_status(&conn->conn));
}
