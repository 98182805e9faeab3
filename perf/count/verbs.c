/* SPDX-License-Identifier: MIT */
/*
 * The verbs transport's path of a request: tp_post() to the provider's post_send, its poll_cq to
 * tp_progress().  The provider is a stub in the context's table of functions, which is all that
 * those two go through; no device is needed.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "fabric/base/util.h"
#include "perf/count/count.h"
#include "transports/verbs/borrower/client.h"

enum { RING = 256 };

/* What came with IBV_SEND_SIGNALED, in order. */
static uint64_t ring[RING];
static unsigned head, tail;
static uint8_t buf[COUNT_MAX_BATCH * COUNT_BYTES];

static int stub_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	for (; wr; wr = wr->next)
		if (wr->send_flags & IBV_SEND_SIGNALED)
			ring[head++ % RING] = wr->wr_id;
	return 0;
}

static int stub_poll_cq(struct ibv_cq *cq, int max, struct ibv_wc *wc)
{
	int n = 0;

	for (; n < max && tail != head; n++) {
		wc[n].wr_id = ring[tail++ % RING];
		wc[n].status = IBV_WC_SUCCESS;
	}
	return n;
}

/* What the transport asks a device for when it sets a connection up (-Wl,--wrap). */
int __wrap_ibv_query_device(struct ibv_context *context, struct ibv_device_attr *ret);
struct ibv_mr *__wrap_ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access);

int __wrap_ibv_query_device(struct ibv_context *context, struct ibv_device_attr *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->max_qp_wr = 4096;
	return 0;
}

struct ibv_mr *__wrap_ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access)
{
	struct ibv_mr *mr = calloc(1, sizeof(*mr));

	if (!mr)
		err(1, "set-up");
	mr->addr = addr;
	mr->length = len;
	return mr;
}

__attribute__((noinline)) void weft_counted_verbs(struct tp_conn *conn, struct tp_op **ops,
	unsigned batch);

void weft_counted_verbs(struct tp_conn *conn, struct tp_op **ops, unsigned batch)
{
	struct tp_op *done[COUNT_MAX_BATCH];

	for (unsigned op = 0; op < COUNT_OPS; op += batch) {
		for (unsigned i = 0; i < batch; i++)
			ops[i]->off = (op + i) % (COUNT_REGION / COUNT_BYTES) * COUNT_BYTES;
		for (unsigned at = 0; at < batch;) {
			int n = tp_post(conn, ops + at, batch - at);

			if (n < 0)
				errx(1, "cannot post: %s", strerror(-n));
			at += (unsigned)n;
		}
		for (unsigned n = 0; n < batch;) {
			int got = tp_progress(conn, done, COUNT_MAX_BATCH);

			for (int i = 0; i < got; i++)
				if (done[i]->status < 0)
					errx(1, "an operation failed: %s",
						strerror(-done[i]->status));
			n += (unsigned)got;
		}
	}
}

void count_verbs(bool write, unsigned batch)
{
	static struct ibv_context context = {
		.ops = {.post_send = stub_post_send, .poll_cq = stub_poll_cq}};
	static struct ibv_qp qp = {.context = &context};
	static struct ibv_cq cq = {.context = &context};
	static struct rdma_cm_id id = {.qp = &qp};
	static struct verbs_chunk chunk = {.addr = 1 << 20, .rkey = 1};
	static struct ibv_mr mr = {.lkey = 1};
	static struct weft_rdma_mem registered = {.mr = {&mr}};
	static struct verbs_tp tp = {.base.tp = {.ops = &tp_verbs_ops},
		.config = {.depth = 128, .spin_us = UINT32_MAX},
		.base.local.devices = {{.context = &context, .ready = true}}};
	static struct verbs_conn conn = {.conn = {.tp = &tp.base.tp, .state = TP_READY},
		.tp = &tp,
		.data = &id,
		.cq.ibv = &cq,
		.chunk_bytes = COUNT_REGION,
		.nr_chunks = 1,
		.chunks = &chunk,
		.size_bytes = COUNT_REGION};
	static struct tp_op ops[COUNT_MAX_BATCH], *list[COUNT_MAX_BATCH];
	struct tp_mem mem = {.tp = &tp.base.tp,
		.base = buf,
		.len = sizeof(buf),
		.priv = {(uintptr_t)&registered}};
	struct weft_error error;

	conn.conn.info = (struct tp_info){.size_bytes = COUNT_REGION,
		.max_io_bytes = 1 << 20,
		.min_block_bytes = 1,
		.depth = 128};
	conn.done_end = &conn.done;
	conn.asking_end = &conn.asking;
	conn.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (verbs_io_init(&conn, &error) < 0)
		errx(1, "%s", error.message);
	for (unsigned i = 0; i < batch; i++) {
		ops[i] = (struct tp_op){.kind = write ? TP_WRITE : TP_READ,
			.len = COUNT_BYTES,
			.buf = buf + i * COUNT_BYTES,
			.mem = &mem};
		list[i] = &ops[i];
	}
	weft_counted_verbs(&conn.conn, list, batch);
}
