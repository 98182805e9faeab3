/* SPDX-License-Identifier: MIT */
/* Completion queues and their wake-ups. */
#include "transports/rdma/wait.h"

#include <errno.h>
#include <string.h>

#include "transports/rdma/device.h"

int weft_rdma_cq_init(struct weft_rdma_cq *cq, struct ibv_context *context, unsigned entries,
	struct ibv_comp_channel **comp, struct weft_error *err)
{
	int r = 0;

	if (!*comp) {
		*comp = ibv_create_comp_channel(context);
		r = *comp ? weft_rdma_nonblocking((*comp)->fd) : errno ? -errno : -EIO;
	}
	if (r == 0) {
		cq->ibv = ibv_create_cq(context, (int)entries, cq, *comp, 0);
		r = cq->ibv ? 0 : errno ? -errno : -EIO;
	}
	return r < 0 ? weft_error_set(err, -r, "cannot make a completion queue: %s", strerror(-r))
		     : 0;
}

void weft_rdma_cq_fini(struct weft_rdma_cq *cq)
{
	if (!cq->ibv)
		return;
	ibv_ack_cq_events(cq->ibv, cq->nr_events);
	ibv_destroy_cq(cq->ibv);
	cq->ibv = NULL;
}

struct weft_rdma_cq *weft_rdma_cq_woken(struct ibv_comp_channel *comp)
{
	struct weft_rdma_cq *cq;
	struct ibv_cq *ibv;
	void *ctx;

	if (ibv_get_cq_event(comp, &ibv, &ctx) != 0)
		return NULL;
	cq = ctx;
	cq->armed = false;
	/* Each acknowledgement takes a lock: in bulk. */
	if (++cq->nr_events == 1024) {
		ibv_ack_cq_events(ibv, cq->nr_events);
		cq->nr_events = 0;
	}
	return cq;
}
