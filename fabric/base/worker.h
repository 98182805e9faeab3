/* SPDX-License-Identifier: MIT */
/*
 * A thread with an event loop, and what such a thread needs: the time of its step, things to do at
 * the step's end, and calls from other threads.  It knows nothing of what the thread is for: an
 * owner embeds it as its first member, or anywhere.
 *
 * Until it is started, and after it was joined, it has no thread: calls run on the caller's then.
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

/* What another thread has run here; it waits, so that this lies on its stack. */
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
	/* what its thread does; NULL: it runs the loop until that is stopped */
	void (*run)(struct weft_worker *worker);
	pthread_t thread;
	bool running; /* the thread that starts and joins it writes this */
	pthread_mutex_t lock;
	pthread_cond_t called;
	struct weft_call *calls, **calls_tail; /* under the lock */
};

/* 0, or -errno of weft_loop_new(): then weft_worker_fini() has nothing to do, and may be called. */
int weft_worker_init(struct weft_worker *worker);
/* It has no thread.  Twice is no harm. */
void weft_worker_fini(struct weft_worker *worker);

/*
 * Starts its thread, which is called `name` (15 bytes at most) and takes no signals.  0, or -errno
 * of pthread_create(3).
 */
int weft_worker_start(struct weft_worker *worker, const char *name);
/* After weft_loop_stop() on its thread: waits for the thread's end.  Nothing if there is none. */
void weft_worker_join(struct weft_worker *worker);

/*
 * Runs call->fn on its thread.  Any other thread; waits until fn returned.  A worker blocks on
 * nothing, so that this is a matter of microseconds.
 */
void weft_worker_call(struct weft_worker *worker, struct weft_call *call);

/* The worker's thread.  What is queued already stays where it is. */
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
