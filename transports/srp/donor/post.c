/* SPDX-License-Identifier: MIT */
/*
 * A channel's queue pair: its buffers, what is posted, what has completed.
 *
 * Threads: the channel's.  Invariant: a command's last work request is signalled, and says in its
 * wr_id for what, and how many places it gives back; the others are not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transports/rdma/device.h"
#include "transports/srp/donor/channel.h"

/* What a work request is for; the low half is a slot, or an answer. */
enum {
	WR_NONE = 0, /* not signalled */
	WR_RECV,
	WR_ANSWER,
	WR_WRITES,   /* and how many, in the third quarter */
	WR_READ,
	WR_TABLE,
	WR_PROBE,
};

static uint64_t wr_id(unsigned what, unsigned count, unsigned number)
{
	return (uint64_t)what << 48 | (uint64_t)count << 32 | number;
}

enum {
	ANSWERS_OFF = SRP_DEPTH * (SRP_IT_IU_MAX + SCSI_DATA_BYTES + SRP_PIECE_BYTES),
	MEM_BYTES = ANSWERS_OFF + SRP_NR_ANSWERS * SRP_TI_IU_MAX,
	SEND_WRS = SRP_NR_ANSWERS + SRP_NR_MOVES + 1,
};

static uint8_t *answer_at(struct srp_channel *channel, unsigned i)
{
	return channel->mem + ANSWERS_OFF + (size_t)i * SRP_TI_IU_MAX;
}

static void post_receive(struct srp_channel *channel, unsigned i)
{
	unsigned at = channel->nr_recvs++;

	channel->recv_sges[at] = (struct ibv_sge){
		.addr = (uintptr_t)srp_slot_iu(channel, i),
		.length = SRP_IT_IU_MAX,
		.lkey = channel->mr->lkey,
	};
	channel->recvs[at] = (struct ibv_recv_wr){
		.wr_id = wr_id(WR_RECV, 0, i),
		.sg_list = &channel->recv_sges[at],
		.num_sge = 1,
	};
	if (at > 0)
		channel->recvs[at - 1].next = &channel->recvs[at];
}

static uint8_t max_reads_of(struct ibv_context *context)
{
	struct ibv_device_attr attr;

	if (ibv_query_device(context, &attr) != 0 || attr.max_qp_init_rd_atom <= 0)
		return 1;
	return (uint8_t)weft_min((uint64_t)attr.max_qp_init_rd_atom, SRP_MAX_READS);
}

/* The smaller answers leave without a look at our memory, where the device can do that. */
static int make_qp(struct srp_channel *channel)
{
	struct ibv_qp_init_attr attr = {
		.send_cq = channel->left.ibv,
		.recv_cq = channel->came.ibv,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = SEND_WRS,
			.max_recv_wr = SRP_DEPTH,
			.max_send_sge = 1,
			.max_recv_sge = 1,
			.max_inline_data = SRP_INLINE_BYTES,
		},
	};

	if (rdma_create_qp(channel->id, channel->reach->pd, &attr) != 0) {
		attr.cap.max_inline_data = 0;
		if (rdma_create_qp(channel->id, channel->reach->pd, &attr) != 0)
			return -errno;
	}
	channel->max_inline = attr.cap.max_inline_data;
	return 0;
}

int srp_channel_open(struct srp_channel *channel, struct weft_error *err)
{
	struct ibv_context *context = channel->id->verbs;
	int r = weft_rdma_cq_init(&channel->came, context, SRP_DEPTH + 4, &channel->comp, err);

	if (r == 0)
		r = weft_rdma_cq_init(&channel->left, context, SEND_WRS + 4, &channel->comp, err);
	if (r < 0)
		return r;
	channel->mem = weft_rdma_pages_new(MEM_BYTES);
	if (channel->mem)
		channel->mr = ibv_reg_mr(channel->reach->pd, channel->mem, MEM_BYTES,
			IBV_ACCESS_LOCAL_WRITE);
	if (!channel->mr)
		return weft_rdma_reg_failed(channel->mem ? errno : ENOMEM, MEM_BYTES, err);
	r = make_qp(channel);
	if (r < 0)
		return weft_error_set(err, -r, "cannot make a queue pair: %s", strerror(-r));
	weft_rdma_spin_init(&channel->spin, 0);
	channel->max_reads = (unsigned)weft_max(1,
		weft_min(channel->their_reads, max_reads_of(context)));
	channel->nr_moves = SRP_NR_MOVES;
	for (unsigned i = 0; i < SRP_NR_ANSWERS; i++)
		channel->free_answers[channel->nr_free_answers++] = (uint8_t)i;
	for (unsigned i = 0; i < SRP_DEPTH; i++)
		post_receive(channel, i);
	srp_channel_ring(channel);
	return channel->over ? weft_error_set(err, EIO, "cannot post receives") : 0;
}

void srp_channel_close(struct srp_channel *channel)
{
	if (channel->mr)
		ibv_dereg_mr(channel->mr);
	free(channel->mem);
	weft_rdma_cq_fini(&channel->came);
	weft_rdma_cq_fini(&channel->left);
	if (channel->comp)
		ibv_destroy_comp_channel(channel->comp);
}

/* ---- what goes to the device ---- */

static void ring_receives(struct srp_channel *channel)
{
	struct ibv_recv_wr *bad;

	if (channel->nr_recvs == 0)
		return;
	channel->nr_recvs = 0;
	if (ibv_post_recv(channel->id->qp, channel->recvs, &bad) != 0)
		channel->over = channel->broken = true;
}

void srp_channel_ring(struct srp_channel *channel)
{
	struct ibv_send_wr *bad;

	/* The receives first: a credit may be used as soon as the initiator knows of it. */
	ring_receives(channel);
	if (channel->nr_wrs == 0)
		return;
	channel->nr_wrs = 0;
	if (ibv_post_send(channel->id->qp, channel->wrs, &bad) != 0)
		channel->over = channel->broken = true;
}

/* A work request at the end of the chain. */
static struct ibv_send_wr *add(struct srp_channel *channel, const void *local, uint32_t lkey,
	uint32_t len)
{
	if (channel->nr_wrs == SRP_CHAIN)
		srp_channel_ring(channel);
	unsigned at = channel->nr_wrs++;
	struct ibv_send_wr *wr = &channel->wrs[at];

	channel->sges[at] = (struct ibv_sge){
		.addr = (uintptr_t)local,
		.length = len,
		.lkey = lkey,
	};
	*wr = (struct ibv_send_wr){.sg_list = &channel->sges[at], .num_sge = 1};
	if (at > 0)
		wr[-1].next = wr;
	return wr;
}

/* Its completion gives back what the id says. */
static void signal_wr(struct srp_channel *channel, struct ibv_send_wr *wr, uint64_t id)
{
	wr->wr_id = id;
	wr->send_flags |= IBV_SEND_SIGNALED;
	channel->nr_posted++;
}

void srp_post_write(struct srp_channel *channel, const void *from, uint32_t lkey,
	const struct srp_buffer *to)
{
	struct ibv_send_wr *wr = add(channel, from, lkey, to->len);

	wr->opcode = IBV_WR_RDMA_WRITE;
	wr->wr.rdma.remote_addr = to->addr;
	wr->wr.rdma.rkey = to->key;
	channel->nr_open++;
}

void srp_post_writes(struct srp_channel *channel)
{
	unsigned nr = channel->nr_open;

	if (nr == 0)
		return;
	channel->nr_moves -= nr;
	channel->nr_open = 0;
	signal_wr(channel, &channel->wrs[channel->nr_wrs - 1], wr_id(WR_WRITES, nr, 0));
}

void srp_post_read(struct srp_channel *channel, struct srp_slot *slot, void *to, uint32_t lkey,
	const struct srp_buffer *from, bool table)
{
	struct ibv_send_wr *wr = add(channel, to, lkey, from->len);

	wr->opcode = IBV_WR_RDMA_READ;
	wr->wr.rdma.remote_addr = from->addr;
	wr->wr.rdma.rkey = from->key;
	channel->nr_moves--;
	channel->nr_reads++;
	slot->nr_out++;
	signal_wr(channel, wr,
		wr_id(table ? WR_TABLE : WR_READ, 1, srp_slot_number(channel, slot)));
}

void srp_post_probe(struct srp_channel *channel)
{
	struct ibv_send_wr *wr = add(channel, NULL, 0, 0);

	wr->opcode = IBV_WR_RDMA_WRITE;
	wr->num_sge = 0;
	channel->probing = true;
	signal_wr(channel, wr, wr_id(WR_PROBE, 0, 0));
}

/* The slot's receive is posted again, and its credit can be given back. */
static void give_back(struct srp_channel *channel, struct srp_slot *slot)
{
	srp_slot_note_write(channel, slot);
	if (slot->aborted)
		channel->nr_aborted--;
	slot->aborted = false;
	slot->state = SRP_FREE;
	post_receive(channel, srp_slot_number(channel, slot));
	channel->due++;
}

void srp_slot_drop(struct srp_channel *channel, struct srp_slot *slot)
{
	give_back(channel, slot);
}

static size_t pack_answer(struct srp_channel *channel, const struct srp_slot *slot, uint8_t *ret)
{
	const struct scsi_command *cmd = &slot->cmd;
	struct srp_rsp rsp = {.tag = slot->tag, .delta = (int32_t)channel->due};
	bool good;

	if (slot->has_code) {
		rsp.has_code = true;
		rsp.code = slot->code;
		good = slot->code == SRP_RSP_GOOD;
	} else {
		rsp.status = cmd->status;
		rsp.in_residual = cmd->in_residual;
		rsp.out_residual = cmd->out_residual;
		rsp.sense = cmd->sense;
		rsp.sense_bytes = cmd->sense_bytes;
		good = cmd->status == SCSI_GOOD;
	}
	rsp.solicited = good ? slot->notify_good : slot->notify_bad;
	return srp_pack_rsp(&rsp, ret);
}

bool srp_post_answer(struct srp_channel *channel, struct srp_slot *slot)
{
	if (channel->nr_free_answers == 0)
		return false;
	unsigned i = channel->free_answers[--channel->nr_free_answers];
	uint8_t *iu = answer_at(channel, i);
	give_back(channel, slot);
	size_t len = pack_answer(channel, slot, iu);
	channel->due = 0;
	channel->moves_before[i] = (uint16_t)channel->nr_open;
	channel->nr_moves -= channel->nr_open;
	channel->nr_open = 0;
	struct ibv_send_wr *wr = add(channel, iu, channel->mr->lkey, (uint32_t)len);
	wr->opcode = IBV_WR_SEND;
	if (slot->has_code ? slot->notify_good : slot->cmd.status == SCSI_GOOD ? slot->notify_good
									   : slot->notify_bad)
		wr->send_flags = IBV_SEND_SOLICITED;
	if (len <= channel->max_inline)
		wr->send_flags |= IBV_SEND_INLINE;
	signal_wr(channel, wr, wr_id(WR_ANSWER, 0, i));
	return true;
}

bool srp_wr_is_counted(uint64_t id)
{
	return id >> 48 != WR_NONE && id >> 48 != WR_RECV;
}

static void completed(struct srp_channel *channel, const struct ibv_wc *wc,
	const struct srp_completion_ops *ops)
{
	unsigned what = (unsigned)(wc->wr_id >> 48), count = (wc->wr_id >> 32) & 0xffff;
	uint32_t number = (uint32_t)wc->wr_id;
	struct srp_slot *slot = number < SRP_DEPTH ? &channel->slots[number] : NULL;

	/* Failures end the channel.  Those of work requests that are not signalled come as well. */
	if (wc->status != IBV_WC_SUCCESS)
		channel->over = true;
	channel->nr_completed += srp_wr_is_counted(wc->wr_id);
	if (wc->status != IBV_WC_SUCCESS)
		return;
	switch (what) {
	case WR_RECV:
		ops->received(channel, slot, wc->byte_len);
		break;
	case WR_ANSWER:
		channel->free_answers[channel->nr_free_answers++] = (uint8_t)number;
		channel->nr_moves += channel->moves_before[number];
		break;
	case WR_WRITES:
		channel->nr_moves += count;
		break;
	case WR_READ:
	case WR_TABLE:
		channel->nr_moves++;
		channel->nr_reads--;
		slot->nr_out--;
		ops->read(channel, slot, what == WR_TABLE);
		break;
	default:
		channel->probing = false;
	}
}

static unsigned take(struct srp_channel *channel, struct ibv_cq *cq,
	const struct srp_completion_ops *ops)
{
	struct ibv_wc wc[16];
	int nr = ibv_poll_cq(cq, WEFT_ARRAY_LEN(wc), wc);

	for (int i = 0; i < nr; i++)
		completed(channel, &wc[i], ops);
	return nr > 0 ? (unsigned)nr : 0;
}

unsigned srp_channel_take_completions(struct srp_channel *channel,
	const struct srp_completion_ops *ops)
{
	/* What has left first: what came needs places. */
	unsigned nr = take(channel, channel->left.ibv, ops);

	nr += take(channel, channel->came.ibv, ops);
	srp_channel_ring(channel);
	return nr;
}
