/* SPDX-License-Identifier: MIT */
/* Making threads, and waiting for them.  Any thread. */
#include "fabric/base/thread.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "fabric/base/util.h"

int weft_thread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *ctx),
	void *ctx)
{
	static const int own[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
	sigset_t others, before;

	sigfillset(&others);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(own); i++)
		sigdelset(&others, own[i]);
	/* A thread begins with the mask of the thread that makes it. */
	pthread_sigmask(SIG_SETMASK, &others, &before);
	int r = pthread_create(ret, attr, fn, ctx);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

void weft_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

bool weft_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t end_ns)
{
	const struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000),
		.tv_nsec = (long)(end_ns % 1000000000)};

	if (end_ns == UINT64_MAX)
		return pthread_cond_wait(cond, lock) == 0;
	return pthread_cond_timedwait(cond, lock, &end) != ETIMEDOUT;
}
