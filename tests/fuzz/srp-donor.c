/* SPDX-License-Identifier: MIT */
/*
 * What hostile initiators send over channels of the SRP donor, in whatever order work requests
 * complete: all that is posted lies inside the region's chunks or the channel's buffers, the send
 * queue has room for it, nothing behind an IU is read, and in the end each request was answered or
 * dropped, with its credit given back.
 *
 * Two channels are a writer's, one a reader's.  An event is a byte that says whose and what, and
 * bytes that belong to it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "transports/srp/donor/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __asan_poison_memory_region(void const volatile *addr, size_t size);
void __asan_unpoison_memory_region(void const volatile *addr, size_t size);

enum {
	NR_CHANNELS = 3,
	REGION_BYTES = 256 << 10,
	CHUNK_BYTES = 64 << 10,
	LKEY = 7,        /* of a channel's buffers; chunks have those behind it */
	MAX_WRS = SRP_NR_ANSWERS + SRP_NR_MOVES + 1,
	MEM_BYTES = SRP_DEPTH * (SRP_IT_IU_MAX + SCSI_DATA_BYTES + SRP_PIECE_BYTES) +
		SRP_NR_ANSWERS * SRP_TI_IU_MAX,
};

/* A work request that has not completed. */
struct posted {
	uint64_t id; /* 0: not signalled */
	void *reads; /* where a READ's bytes go; NULL: it is none */
	uint32_t len;
};

struct side {
	struct srp_channel channel;
	struct ibv_context context;
	struct ibv_qp qp;
	struct ibv_cq came, left;
	struct rdma_cm_id id;
	struct ibv_mr mr;
	bool receives[SRP_DEPTH];
	struct ibv_wc received[SRP_DEPTH];
	unsigned nr_received;
	struct posted posted[MAX_WRS];
	unsigned nr_posted;
	unsigned may_complete;
	uint64_t nr_sent, nr_credits; /* by the initiator; that came back */
	bool gone;
};

static struct side sides[NR_CHANNELS];
static struct srp_listener listener;
static struct weft_region *region;
static uint32_t lkeys[REGION_BYTES / CHUNK_BYTES];
static const uint8_t *input;
static size_t left;

static uint8_t next(void)
{
	if (left == 0)
		return 0;
	left--;
	return *input++;
}

static struct side *side_of(const struct ibv_qp *qp)
{
	return weft_container_of(qp, struct side, qp);
}

static void check_inside(struct side *s, const struct ibv_sge *sge)
{
	const uintptr_t mem = (uintptr_t)s->channel.mem;
	const uintptr_t bytes = (uintptr_t)weft_region_memory(region);

	if (sge->length == 0)
		return;
	if (sge->lkey == LKEY) {
		assert(sge->addr >= mem && sge->addr - mem <= MEM_BYTES);
		assert(sge->length <= MEM_BYTES - (sge->addr - mem));
		return;
	}
	uint64_t off = sge->addr - bytes, chunk = sge->lkey - LKEY - 1;
	assert(sge->addr >= bytes && off < REGION_BYTES && sge->length <= REGION_BYTES - off);
	assert(off / CHUNK_BYTES == chunk && (off + sge->length - 1) / CHUNK_BYTES == chunk);
}

static void answered(struct side *s, const struct ibv_sge *sge)
{
	struct srp_iu iu;

	assert(srp_unpack_from_target((uint8_t *)(uintptr_t)sge->addr, sge->length, &iu) == 0);
	assert(iu.type == SRP_RSP && iu.rsp.delta >= 0);
	s->nr_credits += (uint64_t)iu.rsp.delta;
	assert(s->nr_credits <= s->nr_sent);
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct side *s = side_of(qp);

	for (; wr; wr = wr->next) {
		const bool signalled = wr->send_flags & IBV_SEND_SIGNALED;
		const bool reads = wr->opcode == IBV_WR_RDMA_READ;

		assert(s->nr_posted < MAX_WRS);
		assert(wr->num_sge <= 1 && (!reads || signalled));
		if (wr->num_sge == 1)
			check_inside(s, wr->sg_list);
		if (wr->opcode == IBV_WR_SEND)
			answered(s, wr->sg_list);
		s->posted[s->nr_posted++] = (struct posted){
			.id = signalled ? wr->wr_id : 0,
			.reads = reads ? (void *)(uintptr_t)wr->sg_list->addr : NULL,
			.len = reads ? wr->sg_list->length : 0,
		};
	}
	return 0;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct side *s = side_of(qp);

	for (; wr; wr = wr->next) {
		uint32_t slot = (uint32_t)wr->wr_id;

		assert(slot < SRP_DEPTH && !s->receives[slot]);
		s->receives[slot] = true;
		__asan_unpoison_memory_region(srp_slot_iu(&s->channel, slot), SRP_IT_IU_MAX);
	}
	return 0;
}

static int poll_came(struct side *s, int max, struct ibv_wc *wc)
{
	int n = 0;

	while (n < max && s->nr_received > 0) {
		wc[n++] = s->received[0];
		memmove(s->received, s->received + 1, --s->nr_received * sizeof(*s->received));
	}
	return n;
}

static int poll_left(struct side *s, int max, struct ibv_wc *wc)
{
	int n = 0;

	while (n < max && s->nr_posted > 0 && s->may_complete > 0) {
		struct posted p = s->posted[0];

		memmove(s->posted, s->posted + 1, --s->nr_posted * sizeof(*s->posted));
		s->may_complete--;
		for (uint32_t i = 0; i < p.len; i++)
			((uint8_t *)p.reads)[i] = i < 64 ? next() : 0;
		if (p.id)
			wc[n++] = (struct ibv_wc){.wr_id = p.id, .status = IBV_WC_SUCCESS};
	}
	return n;
}

static int poll_cq(struct ibv_cq *cq, int max, struct ibv_wc *wc)
{
	struct side *s = weft_container_of(cq->context, struct side, context);

	return cq == &s->came ? poll_came(s, max, wc) : poll_left(s, max, wc);
}

static void wake(struct srp_member *member)
{
}

static void open_side(unsigned i, struct weft_grant *grant, uint16_t immediate_off)
{
	const uint8_t initiator[SRP_PORT_BYTES] = {[15] = (uint8_t)(1 + (i == 2))};
	struct side *s = &sides[i];
	struct srp_channel *c = &s->channel;
	uint8_t *mem = c->mem ? c->mem : malloc(MEM_BYTES), result;

	memset(s, 0, sizeof(*s));
	s->context.ops.post_send = post_send;
	s->context.ops.post_recv = post_recv;
	s->context.ops.poll_cq = poll_cq;
	s->qp.context = s->came.context = s->left.context = &s->context;
	s->id.qp = &s->qp;
	s->mr.lkey = LKEY;
	c->listener = &listener;
	c->id = &s->id;
	c->came.ibv = &s->came;
	c->left.ibv = &s->left;
	c->max_inline = SRP_INLINE_BYTES;
	c->mr = &s->mr;
	c->wake_fd = -1;
	c->member.wake = wake;
	c->region = region;
	c->grant = grant;
	c->lkeys = lkeys;
	c->mem = mem;
	c->immediate_off = immediate_off;
	c->max_reads = 4;
	c->nr_moves = SRP_NR_MOVES;
	for (unsigned k = 0; k < SRP_NR_ANSWERS; k++)
		c->free_answers[c->nr_free_answers++] = (uint8_t)k;
	for (unsigned k = 0; k < SRP_DEPTH; k++)
		s->receives[k] = true;
	assert(c->mem && srp_unit_enter(&listener.units, region, initiator, "h", i == 2, 1, false,
				 0, &c->member, &result, NULL) == 0);
}

/* As the channel's thread ends it. */
static void close_side(struct side *s)
{
	if (!s->gone)
		srp_unit_leave(&listener.units, &s->channel.member);
	s->gone = true;
}

static void receive(struct side *s)
{
	unsigned slot = next() % SRP_DEPTH, type = next();
	size_t len = (size_t)next() << 5;

	len += next() & 31;
	len = weft_min(weft_min(len, left), SRP_IT_IU_MAX);
	for (unsigned i = 0; i < SRP_DEPTH && !s->receives[slot]; i++)
		slot = (slot + 1) % SRP_DEPTH;
	if (!s->receives[slot])
		return; /* RNR */
	uint8_t *iu = srp_slot_iu(&s->channel, slot);
	memcpy(iu, input, len);
	input += len;
	left -= len;
	if (len > 0 && type < 0xe0)
		iu[0] = type < 0x20 ? SRP_TSK_MGMT : SRP_CMD;
	__asan_poison_memory_region(iu + len, SRP_IT_IU_MAX - len);
	s->receives[slot] = false;
	s->nr_sent++;
	s->received[s->nr_received++] = (struct ibv_wc){.wr_id = UINT64_C(1) << 48 | slot,
		.status = IBV_WC_SUCCESS, .byte_len = (uint32_t)len};
}

/* True: there may be more to do. */
static bool step(struct side *s, unsigned may_complete)
{
	if (s->gone)
		return false;
	s->may_complete = may_complete;
	unsigned nr = srp_channel_take_completions(&s->channel, &srp_command_ops);
	bool more = srp_channel_run(&s->channel);
	srp_channel_look_at_tasks(&s->channel);
	srp_channel_ring(&s->channel);
	if (srp_channel_must_end(&s->channel))
		close_side(s);
	return nr > 0 || more || (may_complete && s->nr_posted > 0);
}

static void check_idle(const struct side *s)
{
	if (s->gone)
		return;
	for (unsigned i = 0; i < SRP_DEPTH; i++)
		assert(s->channel.slots[i].state == SRP_FREE && s->receives[i]);
	assert(s->channel.nr_aborted == 0 && s->channel.nr_reads == 0);
	assert(s->channel.nr_moves == SRP_NR_MOVES);
	assert(s->channel.nr_free_answers == SRP_NR_ANSWERS);
	assert(s->nr_credits + s->channel.due == s->nr_sent);
}

static void finish(void)
{
	bool more;
	unsigned rounds = 0;

	left = 0;
	do {
		more = false;
		for (unsigned i = 0; i < NR_CHANNELS; i++)
			more |= step(&sides[i], MAX_WRS);
		assert(++rounds < 1 << 20);
	} while (more || rounds < 4);
	for (unsigned i = 0; i < NR_CHANNELS; i++)
		check_idle(&sides[i]);
}

static void begin(void)
{
	struct weft_memory_spec spec = {.name = "m", .size_bytes = REGION_BYTES};

	if (region)
		return;
	assert(weft_region_new_memory(&spec, NULL, NULL, &region, NULL) == 0);
	pthread_mutex_init(&listener.acceptor.lock, NULL);
	srp_units_init(&listener.units, CHUNK_BYTES, "donor");
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(lkeys); i++)
		lkeys[i] = LKEY + 1 + i;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct weft_grant grant;

	if (size < 2)
		return 0;
	begin();
	input = data;
	left = size;
	const uint16_t off = next() & 1 ? SRP_CMD_BYTES + 20 : 0;
	for (unsigned i = 0; i < NR_CHANNELS; i++)
		open_side(i, &grant, off);
	while (left > 0) {
		uint8_t what = next();
		struct side *s = &sides[what % 4 % NR_CHANNELS];

		if (what & 0x40 && !s->gone)
			receive(s);
		else
			step(s, what >> 2 & 15);
	}
	finish();
	for (unsigned i = 0; i < NR_CHANNELS; i++) {
		close_side(&sides[i]);
		for (unsigned k = 0; k < SRP_DEPTH; k++)
			if (!sides[i].receives[k])
				__asan_unpoison_memory_region(
					srp_slot_iu(&sides[i].channel, k), SRP_IT_IU_MAX);
	}
	return 0;
}
