/* SPDX-License-Identifier: MIT */
/*
 * A thread with an event loop.  Everything runs on that thread, except making, starting, joining
 * and calling.
 */
#include "fabric/base/worker.h"

#include "fabric/base/thread.h"

static void run_calls(void *ctx)
{
	struct weft_worker *worker = ctx;
	struct weft_call *call;

	pthread_mutex_lock(&worker->lock);
	while ((call = worker->calls) != NULL) {
		worker->calls = call->next;
		if (!worker->calls)
			worker->calls_tail = &worker->calls;
		pthread_mutex_unlock(&worker->lock);
		call->fn(call);
		pthread_mutex_lock(&worker->lock);
		call->done = true;
		pthread_cond_broadcast(&worker->called);
	}
	pthread_mutex_unlock(&worker->lock);
	if (worker->woken)
		worker->woken(worker);
}

int weft_worker_init(struct weft_worker *worker)
{
	worker->deferred_tail = &worker->deferred;
	worker->calls_tail = &worker->calls;
	int r = weft_loop_new(&worker->loop);
	if (r < 0)
		return r;
	pthread_mutex_init(&worker->lock, NULL);
	pthread_cond_init(&worker->called, NULL);
	weft_loop_on_wake(worker->loop, run_calls, worker);
	weft_loop_share_now(worker->loop, &worker->now_ns);
	return 0;
}

void weft_worker_fini(struct weft_worker *worker)
{
	if (!worker->loop)
		return;
	weft_loop_free(worker->loop);
	worker->loop = NULL;
	pthread_cond_destroy(&worker->called);
	pthread_mutex_destroy(&worker->lock);
}

static void *worker_main(void *arg)
{
	struct weft_worker *worker = arg;

	if (worker->run)
		worker->run(worker);
	else
		weft_loop_run(worker->loop);
	return NULL;
}

int weft_worker_start(struct weft_worker *worker, const char *name)
{
	int r = weft_thread_create(&worker->thread, NULL, worker_main, worker);

	if (r < 0)
		return r;
	pthread_setname_np(worker->thread, name);
	worker->running = true;
	return 0;
}

void weft_worker_join(struct weft_worker *worker)
{
	if (!worker->running)
		return;
	pthread_join(worker->thread, NULL);
	worker->running = false;
}

void weft_worker_call(struct weft_worker *worker, struct weft_call *call)
{
	call->next = NULL;
	call->done = false;
	if (!worker->running) {
		call->fn(call);
		return;
	}
	pthread_mutex_lock(&worker->lock);
	*worker->calls_tail = call;
	worker->calls_tail = &call->next;
	weft_loop_wake(worker->loop);
	while (!call->done)
		pthread_cond_wait(&worker->called, &worker->lock);
	pthread_mutex_unlock(&worker->lock);
}

/* ---- the end of a step ---- */

void weft_worker_defer(struct weft_worker *worker, struct weft_deferred *deferred)
{
	if (deferred->queued)
		return;
	deferred->queued = true;
	deferred->next = NULL;
	*worker->deferred_tail = deferred;
	worker->deferred_tail = &deferred->next;
}

void weft_worker_defer_cancel(struct weft_worker *worker, struct weft_deferred *deferred)
{
	if (!deferred->queued)
		return;
	for (struct weft_deferred **p = &worker->deferred; *p; p = &(*p)->next) {
		if (*p != deferred)
			continue;
		*p = deferred->next;
		if (!deferred->next)
			worker->deferred_tail = p;
		break;
	}
	deferred->queued = false;
}

void weft_worker_run_deferred(struct weft_worker *worker)
{
	while (worker->deferred) {
		struct weft_deferred *deferred = worker->deferred;

		worker->deferred = deferred->next;
		if (!worker->deferred)
			worker->deferred_tail = &worker->deferred;
		deferred->queued = false;
		deferred->fn(deferred);
	}
}
