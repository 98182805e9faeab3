/* SPDX-License-Identifier: MIT */
/*
 * Waiting for completions: looking for them for a little while, then a wake-up that is asked for.
 *
 * Threads: the owner's of the queue, or of the descriptor.  A wake-up is asked for once, until it
 * has come and was taken.
 */
#ifndef WEFT_TRANSPORTS_RDMA_WAIT_H
#define WEFT_TRANSPORTS_RDMA_WAIT_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/base/util.h"

enum {
	WEFT_RDMA_SPIN_US = 20,     /* how long to look, unless told */
	WEFT_RDMA_SPIN_AGAIN = 256, /* sleeps after which looking is tried again */
	WEFT_RDMA_SPIN_LEAST_NS = 2000,
};

/*
 * How long it is worth looking: a wake-up takes longer than many operations.  Looking in vain makes
 * the time shorter, until it is not worth it for a while.
 */
struct weft_rdma_spin {
	uint64_t full_ns; /* 0: never */
	uint64_t ns;      /* as of now */
	uint64_t end_ns;
	unsigned nr_sleeps; /* without looking */
};

/* us: 0: WEFT_RDMA_SPIN_US; UINT32_MAX: never. */
static inline void weft_rdma_spin_init(struct weft_rdma_spin *spin, uint32_t us)
{
	spin->full_ns = us == UINT32_MAX ? 0 : (us ? us : WEFT_RDMA_SPIN_US) * UINT64_C(1000);
	spin->ns = spin->full_ns;
}

/* True: look, at least once, and as long as weft_rdma_spin_goes_on() says so. */
static inline bool weft_rdma_spin_begin(struct weft_rdma_spin *spin)
{
	if (spin->full_ns == 0)
		return false;
	if (spin->ns == 0) {
		if (++spin->nr_sleeps < WEFT_RDMA_SPIN_AGAIN)
			return false;
		spin->nr_sleeps = 0;
		spin->ns = spin->full_ns;
	}
	spin->end_ns = weft_now_ns() + spin->ns;
	return true;
}

/* The look found nothing.  False: it was in vain, and is over. */
static inline bool weft_rdma_spin_goes_on(struct weft_rdma_spin *spin)
{
	if (weft_now_ns() < spin->end_ns)
		return true;
	spin->ns = spin->ns > WEFT_RDMA_SPIN_LEAST_NS ? spin->ns / 2 : 0;
	return false;
}

static inline void weft_rdma_spin_found(struct weft_rdma_spin *spin)
{
	spin->ns = spin->full_ns;
}

/* A completion queue, and its wake-up. */
struct weft_rdma_cq {
	struct ibv_cq *ibv; /* NULL: there is none */
	bool armed;
	unsigned nr_events; /* that are not acknowledged */
};

/*
 * Makes a queue of so many entries and, if *comp is NULL, a completion channel for it, whose
 * descriptor does not block; the caller destroys that after the queue, also after a failure.  The
 * queue stays where it is in memory.  0, or -errno.
 */
int weft_rdma_cq_init(struct weft_rdma_cq *cq, struct ibv_context *context, unsigned entries,
	struct ibv_comp_channel **comp, struct weft_error *err);
/* Takes one that was not made. */
void weft_rdma_cq_fini(struct weft_rdma_cq *cq);

/* The queue whose wake-up has come and is taken now; NULL: none has. */
struct weft_rdma_cq *weft_rdma_cq_woken(struct ibv_comp_channel *comp);

/*
 * Asks for a wake-up at the next completion, unless that was done.  Completions that came before
 * wake nobody, so look behind it.  0; or the device's -errno, and nobody will be woken.
 */
static inline int weft_rdma_cq_arm(struct weft_rdma_cq *cq)
{
	if (!cq->armed) {
		int r = ibv_req_notify_cq(cq->ibv, 0);

		if (r != 0)
			return -r;
		cq->armed = true;
	}
	return 0;
}

/* ---- a poll descriptor of a connection's, epoll(7)'s ---- */

/* Adds fd, which is told of when there is something to read.  0, or -errno. */
int weft_rdma_watch(int epfd, int fd);
/* Whether any but the completion channel (NULL: there is none) is ready.  Does not wait. */
bool weft_rdma_others_are_ready(int epfd, const struct ibv_comp_channel *comp);
/* A timerfd(2)'s: once, after so long; 0: not any more. */
void weft_rdma_set_timer(int timerfd, uint64_t after_ns);

#endif
