/* SPDX-License-Identifier: MIT */
/* Making threads.  Any thread. */
#include "fabric/base/thread.h"

#include <signal.h>

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
