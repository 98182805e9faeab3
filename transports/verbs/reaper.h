/* SPDX-License-Identifier: MIT */
/*
 * A thread for work that drivers may take long over: destroying a queue pair may wait for many
 * seconds.  verbs_reaper_put() may be called from any thread; jobs run in order, on the reaper's.
 */
#ifndef WEFT_TRANSPORTS_VERBS_REAPER_H
#define WEFT_TRANSPORTS_VERBS_REAPER_H

struct verbs_reaper;

struct verbs_job {
	void (*fn)(struct verbs_job *job); /* may free the job */
	struct verbs_job *next;
};

/* 0, or -errno of pthread_create(3). */
int verbs_reaper_new(struct verbs_reaper **ret);
void verbs_reaper_put(struct verbs_reaper *reaper, struct verbs_job *job);
/*
 * Has the reaper run `last` when all other jobs are done, and then end; the caller must not use it
 * any more.  Waits for the end, but not for long: a driver that hangs keeps only the reaper's
 * thread.
 */
void verbs_reaper_stop(struct verbs_reaper *reaper, struct verbs_job *last);

#endif
