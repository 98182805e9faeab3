/* SPDX-License-Identifier: MIT */
/*
 * Threads that we make in a program, which leave the program's signals to the program's own
 * threads; and waits of threads for each other, with a bound that a change of the wall clock does
 * not move.
 */
#ifndef WEFT_FABRIC_BASE_THREAD_H
#define WEFT_FABRIC_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * pthread_create(3) of a thread that blocks all signals but those that its own instructions raise
 * (SIGSEGV, SIGBUS, …): if blocked, those would end the process past any handler.  0, or -errno.
 */
int weft_thread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *ctx),
	void *ctx);

/* A condition for weft_cond_wait_until(): its clock is that of weft_now_ns(). */
void weft_cond_init(pthread_cond_t *cond);
/*
 * Waits, the lock held, until the condition is signalled, perhaps for nothing.  False:
 * weft_now_ns() is end_ns before that.  UINT64_MAX: however long it takes.
 */
bool weft_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t end_ns);

#endif
