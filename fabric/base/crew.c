/* SPDX-License-Identifier: MIT */
/* Crews; see crew.h.  A hand is its thread's while it works, else the crew's, under the lock. */
#include "fabric/base/crew.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/base/thread.h"

struct weft_hand {
	struct weft_crew *crew;
	struct weft_hand *next; /* idle */
	pthread_cond_t called;
	void (*fn)(void *ctx); /* NULL: there is no work */
	void *ctx;
};

enum { STACK_KEPT = 16 << 10 };

/* What the work had on the stack is not needed, and is nobody's to find. */
static void drop_stack(void)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
			here = ((uintptr_t)__builtin_frame_address(0) - STACK_KEPT) & ~(page - 1);
	pthread_attr_t attr;
	size_t len = 0;
	void *low = NULL;

	if (pthread_getattr_np(pthread_self(), &attr) != 0)
		return;
	pthread_attr_getstack(&attr, &low, &len);
	pthread_attr_destroy(&attr);
	if (low && (uintptr_t)low < here)
		madvise(low, here - (uintptr_t)low, MADV_DONTNEED);
}

static void *hand_main(void *arg)
{
	struct weft_hand *hand = arg;
	struct weft_crew *crew = hand->crew;

	for (;;) {
		hand->fn(hand->ctx);
		drop_stack();
		pthread_mutex_lock(&crew->lock);
		hand->fn = NULL;
		hand->next = crew->idle;
		crew->idle = hand;
		while (!hand->fn)
			pthread_cond_wait(&hand->called, &crew->lock);
		pthread_mutex_unlock(&crew->lock);
	}
	return NULL;
}

static int hire(struct weft_crew *crew, void (*fn)(void *ctx), void *ctx)
{
	struct weft_hand *hand = calloc(1, sizeof(*hand));
	pthread_attr_t attr;
	pthread_t thread;

	if (!hand)
		return -ENOMEM;
	hand->crew = crew;
	hand->fn = fn;
	hand->ctx = ctx;
	pthread_cond_init(&hand->called, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (crew->stack_bytes > 0)
		pthread_attr_setstacksize(&attr, crew->stack_bytes);
	int r = weft_thread_create(&thread, &attr, hand_main, hand);
	pthread_attr_destroy(&attr);
	if (r < 0) {
		pthread_cond_destroy(&hand->called);
		free(hand);
	}
	return r;
}

int weft_crew_run(struct weft_crew *crew, void (*fn)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&crew->lock);
	struct weft_hand *hand = crew->idle;
	if (hand) {
		crew->idle = hand->next;
		hand->fn = fn;
		hand->ctx = ctx;
		pthread_cond_signal(&hand->called);
	}
	pthread_mutex_unlock(&crew->lock);
	return hand ? 0 : hire(crew, fn, ctx);
}
