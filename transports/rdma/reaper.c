/* SPDX-License-Identifier: MIT */
/*
 * The reaper's thread and its queue.  Invariant: the thread alone frees the struct, after its last
 * job.
 */
#include "transports/rdma/reaper.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "fabric/base/thread.h"

enum { STOP_WAIT_S = 3 };

struct weft_rdma_reaper {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct weft_rdma_job *first, **end;
	struct weft_rdma_job *last;
};

static void *reaper_main(void *ctx)
{
	struct weft_rdma_reaper *reaper = ctx;
	bool done = false;

	while (!done) {
		pthread_mutex_lock(&reaper->lock);
		while (!reaper->first)
			pthread_cond_wait(&reaper->wake, &reaper->lock);
		struct weft_rdma_job *job = reaper->first;
		reaper->first = job->next;
		if (!reaper->first)
			reaper->end = &reaper->first;
		done = job == reaper->last;
		pthread_mutex_unlock(&reaper->lock);
		job->fn(job);
	}
	pthread_cond_destroy(&reaper->wake);
	pthread_mutex_destroy(&reaper->lock);
	free(reaper);
	return NULL;
}

int weft_rdma_reaper_new(struct weft_rdma_reaper **ret)
{
	struct weft_rdma_reaper *reaper = calloc(1, sizeof(*reaper));

	if (!reaper)
		return -ENOMEM;
	pthread_mutex_init(&reaper->lock, NULL);
	pthread_cond_init(&reaper->wake, NULL);
	reaper->end = &reaper->first;
	int r = weft_thread_create(&reaper->thread, NULL, reaper_main, reaper);
	if (r < 0) {
		pthread_cond_destroy(&reaper->wake);
		pthread_mutex_destroy(&reaper->lock);
		free(reaper);
		return r;
	}
	*ret = reaper;
	return 0;
}

static void put(struct weft_rdma_reaper *reaper, struct weft_rdma_job *job, bool last)
{
	pthread_mutex_lock(&reaper->lock);
	job->next = NULL;
	*reaper->end = job;
	reaper->end = &job->next;
	if (last)
		reaper->last = job;
	pthread_cond_signal(&reaper->wake);
	pthread_mutex_unlock(&reaper->lock);
}

void weft_rdma_reaper_put(struct weft_rdma_reaper *reaper, struct weft_rdma_job *job)
{
	put(reaper, job, false);
}

void weft_rdma_reaper_stop(struct weft_rdma_reaper *reaper, struct weft_rdma_job *last)
{
	pthread_t thread = reaper->thread;
	struct timespec until;

	put(reaper, last, true);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_WAIT_S;
	if (pthread_timedjoin_np(thread, NULL, &until) != 0)
		pthread_detach(thread);
}
