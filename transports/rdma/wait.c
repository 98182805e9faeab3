/* SPDX-License-Identifier: MIT */
/* Completion queues and their wake-ups, and what else a connection waits for. */
#include "transports/rdma/wait.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

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

int weft_rdma_watch(int epfd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

bool weft_rdma_others_are_ready(int epfd, const struct ibv_comp_channel *comp)
{
	struct epoll_event events[8];
	int n = epoll_wait(epfd, events, (int)WEFT_ARRAY_LEN(events), 0);

	for (int i = 0; i < n; i++)
		if (!comp || events[i].data.fd != comp->fd)
			return true;
	return false;
}

void weft_rdma_set_timer(int timerfd, uint64_t after_ns)
{
	struct itimerspec when = {.it_value = {
		.tv_sec = (time_t)(after_ns / 1000000000),
		.tv_nsec = (long)(after_ns % 1000000000),
	}};

	timerfd_settime(timerfd, 0, &when, NULL);
}
