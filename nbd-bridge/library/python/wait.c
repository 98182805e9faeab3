/* SPDX-License-Identifier: MIT */
/*
 * Who is inside an object, and calls that may take long.
 *
 * Python runs the handlers of signals on its first thread, between two of its own instructions.  So
 * a call of that thread looks now and then whether a signal came; the library's calls do not return
 * for one, so they run on a thread of their own meanwhile.  Other threads just call.
 */
#include "nbd-bridge/library/python/python-private.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

uint64_t py_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

bool py_hears_signals(void)
{
	return gettid() == getpid();
}

static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* Under the lock, without the GIL: until the condition is told, or PY_LOOK_MS have passed. */
static void wait_a_while(pthread_cond_t *cond, pthread_mutex_t *lock)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += PY_LOOK_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(cond, lock, &until);
}

/* The gates that calls of this thread are inside of, which wait while Python runs something. */
static _Thread_local const struct py_inside *waiting_inside;

void py_inside_begin(struct py_inside *inside, struct py_gate *gate)
{
	*inside = (struct py_inside){.gate = gate, .outer = waiting_inside};
	waiting_inside = inside;
}

void py_inside_end(const struct py_inside *inside)
{
	waiting_inside = inside->outer;
}

static bool waits_inside(const struct py_gate *gate)
{
	const struct py_inside *inside = waiting_inside;

	while (inside && inside->gate != gate)
		inside = inside->outer;
	return inside != NULL;
}

bool py_look_for_signals(struct py_gate *gate)
{
	struct py_inside inside;

	py_inside_begin(&inside, gate);
	int r = PyErr_CheckSignals();
	py_inside_end(&inside);
	return r == 0;
}

/* ---- gates ---- */

void py_gate_init(struct py_gate *gate)
{
	pthread_mutex_init(&gate->lock, NULL);
	cond_init(&gate->changed);
	gate->nr_inside = 0;
	gate->closed = true;
	gate->pid = getpid();
}

void py_gate_fini(struct py_gate *gate)
{
	pthread_cond_destroy(&gate->changed);
	pthread_mutex_destroy(&gate->lock);
}

bool py_gate_is_ours(const struct py_gate *gate)
{
	if (gate->pid == getpid())
		return true;
	PyErr_SetString(PyExc_RuntimeError,
		"a child process does not have the regions of its parent: open its own");
	return false;
}

bool py_gate_enter(struct py_gate *gate, const char *name)
{
	if (!py_gate_is_ours(gate))
		return false;
	pthread_mutex_lock(&gate->lock);
	bool open = !gate->closed;
	gate->nr_inside += open;
	pthread_mutex_unlock(&gate->lock);
	if (!open)
		PyErr_Format(PyExc_ValueError, "the %s is closed", name);
	return open;
}

void py_gate_leave(struct py_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->nr_inside--;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

void py_gate_enter_again(struct py_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->nr_inside++;
	pthread_mutex_unlock(&gate->lock);
}

static bool set_closed(struct py_gate *gate, bool closed)
{
	pthread_mutex_lock(&gate->lock);
	bool was = gate->closed;
	gate->closed = closed;
	pthread_mutex_unlock(&gate->lock);
	return was;
}

void py_gate_open(struct py_gate *gate)
{
	set_closed(gate, false);
}

bool py_gate_is_closed(struct py_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	bool closed = gate->closed;
	pthread_mutex_unlock(&gate->lock);
	return closed;
}

/* Waits a while for the last to leave. */
static bool is_empty(struct py_gate *gate)
{
	bool empty;

	Py_BEGIN_ALLOW_THREADS
	pthread_mutex_lock(&gate->lock);
	if (gate->nr_inside > 0)
		wait_a_while(&gate->changed, &gate->lock);
	empty = gate->nr_inside == 0;
	pthread_mutex_unlock(&gate->lock);
	Py_END_ALLOW_THREADS
	return empty;
}

bool py_gate_close(struct py_gate *gate)
{
	if (waits_inside(gate)) {
		PyErr_SetString(PyExc_RuntimeError,
			"a signal's handler, or a function that a call has called, cannot close "
			"what the thread's own call uses");
		return false;
	}
	bool was = set_closed(gate, true);
	while (!is_empty(gate))
		if (!py_look_for_signals(NULL)) {
			set_closed(gate, was);
			return false;
		}
	return true;
}

void py_gate_close_at_last(struct py_gate *gate)
{
	set_closed(gate, true);
	while (!is_empty(gate))
		;
}

/* ---- jobs ---- */

static void *run_job(void *arg)
{
	struct py_job *job = arg;

	job->run(job);
	pthread_mutex_lock(&job->lock);
	job->has_run = true;
	bool is_abandoned = job->is_abandoned;
	pthread_cond_signal(&job->changed);
	pthread_mutex_unlock(&job->lock);
	if (is_abandoned)
		job->abandoned(job);
	return NULL;
}

/* Signals are for the threads that there were. */
static int start_thread(struct py_job *job)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = pthread_create(&thread, &attr, run_job, job);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

/* Without the GIL. */
static bool wait_for_job(struct py_job *job)
{
	pthread_mutex_lock(&job->lock);
	if (!job->has_run)
		wait_a_while(&job->changed, &job->lock);
	bool has_run = job->has_run;
	pthread_mutex_unlock(&job->lock);
	return has_run;
}

static void abandon(struct py_job *job)
{
	pthread_mutex_lock(&job->lock);
	bool has_run = job->has_run;
	job->is_abandoned = true;
	pthread_mutex_unlock(&job->lock);
	if (has_run)
		job->abandoned(job);
}

bool py_job_do(struct py_job *job)
{
	bool has_run = false;

	pthread_mutex_init(&job->lock, NULL);
	cond_init(&job->changed);
	job->has_run = job->is_abandoned = false;
	if (!py_hears_signals() || start_thread(job) < 0) {
		Py_BEGIN_ALLOW_THREADS
		job->run(job);
		Py_END_ALLOW_THREADS
		return true;
	}
	while (!has_run) {
		Py_BEGIN_ALLOW_THREADS
		has_run = wait_for_job(job);
		Py_END_ALLOW_THREADS
		if (!has_run && !py_look_for_signals(job->gate)) {
			abandon(job);
			return false;
		}
	}
	return true;
}
