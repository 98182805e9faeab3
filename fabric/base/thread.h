/* SPDX-License-Identifier: MIT */
/*
 * Threads that we make in a program, which leave the program's signals to the program's own
 * threads.
 */
#ifndef WEFT_FABRIC_BASE_THREAD_H
#define WEFT_FABRIC_BASE_THREAD_H

#include <pthread.h>

/*
 * pthread_create(3) of a thread that blocks all signals but those that its own instructions raise
 * (SIGSEGV, SIGBUS, …): if blocked, those would end the process past any handler.  0, or -errno.
 */
int weft_thread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *ctx),
	void *ctx);

#endif
