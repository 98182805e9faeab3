/* SPDX-License-Identifier: MIT */
/*
 * Threads that are used again, for work that nobody waits for.
 *
 * GnuTLS 3.7 keeps some memory (224 bytes) for each thread that ever made a random number for TLS,
 * until the process ends.  So whoever makes a thread for each connection gives memory to each
 * stranger who connects, for good.  A crew has as many threads as it had work at once: they end
 * with the crew, and of a thread without work no stack is kept.  In a process that is resident
 * (resident.h) two are there from the beginning, and stacks are kept.
 */
#ifndef WEFT_FABRIC_BASE_CREW_H
#define WEFT_FABRIC_BASE_CREW_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct weft_crew {
	pthread_mutex_t lock;
	const char *name;
	size_t stack_bytes; /* 0: as the system has it */
	bool over;
	struct weft_hand *idle, *all;
};

/* The name, of 15 bytes at most and kept by the caller, is that of each thread. */
void weft_crew_init(struct weft_crew *crew, const char *name, size_t stack_bytes);
/* Waits for the work that it still has.  Nobody calls weft_crew_run() any more. */
void weft_crew_fini(struct weft_crew *crew);

/*
 * Has a thread of the crew call fn, as weft_thread_create() makes them.  Any thread; does not wait.
 * 0; -ENOMEM, -EAGAIN: there is no thread.
 */
int weft_crew_run(struct weft_crew *crew, void (*fn)(void *ctx), void *ctx);

#endif
