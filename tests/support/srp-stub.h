/* SPDX-License-Identifier: MIT */
/*
 * A channel of the SRP borrower over a queue pair that is none: what it sends is kept, and what a
 * target would send is put into its buffers.  Included by one file of each program.
 */
#ifndef WEFT_TESTS_SUPPORT_SRP_STUB_H
#define WEFT_TESTS_SUPPORT_SRP_STUB_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "transports/srp/borrower/conn.h"

enum {
	STUB_DEPTH = 8,
	STUB_SENT_MAX = 64,
	STUB_BUF_BYTES = 1 << 20,
	STUB_BLOCKS = 4096,
};

/* What was sent last, oldest first; those before are forgotten. */
struct stub_sent {
	uint8_t iu[256]; /* its beginning */
	uint32_t len;    /* all of it */
};

struct stub {
	struct srp_conn conn;
	struct srp_tp tp;
	struct ibv_context context;
	struct ibv_qp qp;
	struct ibv_cq cq;
	struct rdma_cm_id id;
	struct ibv_mr mr;
	struct weft_rdma_mem registered;
	struct tp_mem mem;
	uint8_t *buf;
	struct stub_sent sent[STUB_SENT_MAX];
	unsigned nr_sent;
	struct ibv_wc wcs[STUB_SENT_MAX];
	unsigned nr_wcs;
};

static struct stub *stub_now;

static int stub_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct stub *s = stub_now;

	for (; wr; wr = wr->next) {
		struct stub_sent *sent = &s->sent[s->nr_sent++ % STUB_SENT_MAX];
		uint32_t len = 0;

		for (int i = 0; i < wr->num_sge; i++) {
			uint32_t n = wr->sg_list[i].length;
			uint32_t kept = (uint32_t)weft_min(n, sizeof(sent->iu) - len);

			memcpy(sent->iu + len, (void *)(uintptr_t)wr->sg_list[i].addr, kept);
			len += kept;
			sent->len = i ? sent->len + n : n;
		}
		if ((wr->send_flags & IBV_SEND_SIGNALED) && s->nr_wcs < STUB_SENT_MAX)
			s->wcs[s->nr_wcs++] =
				(struct ibv_wc){.wr_id = wr->wr_id, .opcode = IBV_WC_SEND};
	}
	return 0;
}

static int stub_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	return 0;
}

static int stub_poll_cq(struct ibv_cq *cq, int max, struct ibv_wc *wc)
{
	struct stub *s = stub_now;
	int n = (int)s->nr_wcs < max ? (int)s->nr_wcs : max;

	memcpy(wc, s->wcs, (size_t)n * sizeof(*wc));
	s->nr_wcs -= (unsigned)n;
	memmove(s->wcs, s->wcs + n, s->nr_wcs * sizeof(*wc));
	return n;
}

static int stub_req_notify_cq(struct ibv_cq *cq, int solicited)
{
	return 0;
}

/* Ready, with `credits` of a target and the unit as told. */
static struct stub *stub_new(uint32_t credits, const struct srp_unit *unit)
{
	const struct srp_login_rsp rsp = {.delta = credits,
		.max_it_iu_bytes = SRP_IMMEDIATE_OFF + SRP_IMMEDIATE_MAX,
		.immediate = true};
	struct stub *s = calloc(1, sizeof(*s));
	struct srp_conn *conn = &s->conn;
	const size_t sends = (STUB_DEPTH + 1 + SRP_SPARE_SENDS) * SRP_SEND_BYTES;

	stub_now = s;
	s->context.ops.post_send = stub_post_send;
	s->context.ops.post_recv = stub_post_recv;
	s->context.ops.poll_cq = stub_poll_cq;
	s->context.ops.req_notify_cq = stub_req_notify_cq;
	s->qp.context = s->cq.context = &s->context;
	s->id.qp = &s->qp;
	s->mr = (struct ibv_mr){.lkey = 7, .rkey = 8};
	s->registered.mr[0] = &s->mr;
	s->buf = calloc(1, STUB_BUF_BYTES);
	s->tp.base.tp.ops = &tp_srp_ops;
	s->tp.config = (struct srp_client_config){.depth = STUB_DEPTH, .spin_us = UINT32_MAX};
	s->mem = (struct tp_mem){.tp = &s->tp.base.tp,
		.base = s->buf,
		.len = STUB_BUF_BYTES,
		.priv = {(uintptr_t)&s->registered}};
	conn->tp = &s->tp;
	conn->id = &s->id;
	conn->cq.ibv = &s->cq;
	conn->mr = &s->mr;
	conn->nr_recvs = STUB_DEPTH + 1 + SRP_SPARE_RECVS;
	conn->memory = calloc(1, sends + conn->nr_recvs * SRP_RECV_BYTES + 2 * SRP_UNIT_DATA_BYTES);
	conn->recvs = conn->memory + sends;
	conn->scratch = conn->recvs + conn->nr_recvs * SRP_RECV_BYTES;
	conn->zeros = conn->scratch + SRP_UNIT_DATA_BYTES;
	conn->slots = calloc(STUB_DEPTH + 1, sizeof(conn->slots[0]));
	conn->recv_wrs = calloc(conn->nr_recvs, sizeof(conn->recv_wrs[0]));
	conn->recv_sges = calloc(conn->nr_recvs, sizeof(conn->recv_sges[0]));
	conn->nr_posted_recvs = conn->nr_recvs;
	conn->sq_room = STUB_DEPTH + 64;
	conn->done_end = &conn->done;
	conn->epfd = epoll_create1(EPOLL_CLOEXEC);
	conn->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	conn->again_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	conn->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	conn->nexus = srp_nexus_get(&(struct srp_nexus_key){.initiator = 1});
	conn->aborted = true; /* there is no queue pair to end */
	strcpy(conn->peer, "192.0.2.7:5555");
	conn->phase = SRP_PHASE_READY;
	srp_io_begin(conn, &rsp);
	conn->unit = *unit;
	conn->conn.tp = &s->tp.base.tp;
	conn->conn.info = (struct tp_info){.size_bytes = unit->size_bytes,
		.max_io_bytes = 1 << 20,
		.min_block_bytes = unit->block_bytes,
		.depth = conn->depth,
		.can_flush = true,
		.can_fua = true,
		.can_trim = true,
		.can_zero = true};
	conn->conn.state = TP_READY;
	return s;
}

static void stub_free(struct stub *s)
{
	struct srp_conn *conn = &s->conn;

	free(conn->memory);
	free(conn->slots);
	free(conn->recv_wrs);
	free(conn->recv_sges);
	close(conn->epfd);
	close(conn->timerfd);
	close(conn->again_fd);
	close(conn->wake_fd);
	srp_nexus_put(conn->nexus);
	free(s->buf);
	free(s);
}

/* The target sends these bytes; the next progress finds them. */
static void stub_receive(struct stub *s, const uint8_t *iu, uint32_t len)
{
	static unsigned next;
	unsigned i = next++ % s->conn.nr_recvs;

	if (s->nr_wcs == STUB_SENT_MAX)
		return;
	memcpy(s->conn.recvs + i * SRP_RECV_BYTES, iu, len < SRP_RECV_BYTES ? len : SRP_RECV_BYTES);
	s->wcs[s->nr_wcs++] = (struct ibv_wc){
		.wr_id = srp_wr_id(SRP_WR_RECV, i), .opcode = IBV_WC_RECV, .byte_len = len};
}

/* The nth of the IUs that were sent, from 0. */
static inline const struct stub_sent *stub_sent_at(const struct stub *s, unsigned n)
{
	assert(n < s->nr_sent && s->nr_sent - n <= STUB_SENT_MAX);
	return &s->sent[n % STUB_SENT_MAX];
}

#endif
