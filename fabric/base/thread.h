/* SPDX-License-Identifier: MIT */
/* Threads that are nobody's but ours: a program's signals are for the threads that it made. */
#ifndef WEFT_FABRIC_BASE_THREAD_H
#define WEFT_FABRIC_BASE_THREAD_H

#include <pthread.h>

/*
 * pthread_create(3) of a thread that takes no signals, but those that an instruction of its own
 * raises: blocked, they would end the process past any handler.  0, or -errno.
 */
int weft_thread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *ctx),
	void *ctx);

#endif
