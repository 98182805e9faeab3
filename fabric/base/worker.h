/* SPDX-License-Identifier: MIT */
/*
 * A thread with an event loop, and what such a thread needs: the time of its step, things to do at
 * the step's end, and calls from other threads.  A worker does not know what it is for: its owner
 * embeds it.
 *
 * Before its start and after its join a worker has no thread: calls run on the caller's thread.
 */
#ifndef WEFT_FABRIC_BASE_WORKER_H
#define WEFT_FABRIC_BASE_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/base/loop.h"
#include "fabric/base/util.h"

/*
 * Something to do once at the end of the step.  The owner embeds it, and keeps it in place while it
 * is queued.
 */
struct weft_deferred {
	void (*fn)(struct weft_deferred *deferred);
	struct weft_deferred *next;
	bool queued;
};

/*
 * A function that another thread wants run here.  That thread waits, so the call lies on its stack.
 */
struct weft_call {
	void (*fn)(struct weft_call *call);
	struct weft_call *next;
	bool done;
};

struct weft_worker {
	struct weft_loop *loop;
	uint64_t now_ns; /* CLOCK_MONOTONIC, of this step; 0: not read yet */
	struct weft_deferred *deferred, **deferred_tail;
	/* after a wake-up, and the calls that it brought; NULL: nothing */
	void (*woken)(struct weft_worker *worker);
	/* what its thread does; NULL: runs the loop until the loop is stopped */
	void (*run)(struct weft_worker *worker);
	pthread_t thread;
	bool running; /* the thread that starts and joins it writes this */
	pthread_mutex_t lock;
	pthread_cond_t called;
	struct weft_call *calls, **calls_tail; /* under the lock */
};

/* 0, or -errno of weft_loop_new(): then weft_worker_fini() may be called, and does nothing. */
int weft_worker_init(struct weft_worker *worker);
/* The worker has no thread any more.  May be called twice. */
void weft_worker_fini(struct weft_worker *worker);

/*
 * Starts its thread, which is called `name` (15 bytes at most) and takes no signals.  0, or -errno
 * of pthread_create(3).
 */
int weft_worker_start(struct weft_worker *worker, const char *name);
/* After weft_loop_stop() on its thread: waits for the thread's end.  Nothing if there is none. */
void weft_worker_join(struct weft_worker *worker);

/*
 * Runs call->fn on its thread.  Any other thread; waits until fn returned.  A worker never blocks,
 * so this takes microseconds.
 */
void weft_worker_call(struct weft_worker *worker, struct weft_call *call);

/* On the worker's thread.  A function that is queued already keeps its place. */
void weft_worker_defer(struct weft_worker *worker, struct weft_deferred *deferred);
void weft_worker_defer_cancel(struct weft_worker *worker, struct weft_deferred *deferred);
void weft_worker_run_deferred(struct weft_worker *worker);

/* Its thread: the time, read once a step.  Whoever ends a step sets now_ns to 0. */
static inline uint64_t weft_worker_now(struct weft_worker *worker)
{
	if (!worker->now_ns)
		worker->now_ns = weft_now_ns();
	return worker->now_ns;
}

#endif
