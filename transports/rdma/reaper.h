/* SPDX-License-Identifier: MIT */
/*
 * A thread for work that drivers may take long over: destroying a queue pair may wait for many
 * seconds.  weft_rdma_reaper_put() may be called from any thread; jobs run in order, on the
 * reaper's.
 */
#ifndef WEFT_TRANSPORTS_RDMA_REAPER_H
#define WEFT_TRANSPORTS_RDMA_REAPER_H

struct weft_rdma_reaper;

struct weft_rdma_job {
	void (*fn)(struct weft_rdma_job *job); /* may free the job */
	struct weft_rdma_job *next;
};

/* 0, or -errno of pthread_create(3). */
int weft_rdma_reaper_new(struct weft_rdma_reaper **ret);
void weft_rdma_reaper_put(struct weft_rdma_reaper *reaper, struct weft_rdma_job *job);
/*
 * Has the reaper run `last` when all other jobs are done, and then end; the caller must not use it
 * any more.  Waits for the end, but not for long: a driver that hangs keeps only the reaper's
 * thread.
 */
void weft_rdma_reaper_stop(struct weft_rdma_reaper *reaper, struct weft_rdma_job *last);

#endif
