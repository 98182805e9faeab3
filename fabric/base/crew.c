/* SPDX-License-Identifier: MIT */
/* Crews; see crew.h.  A hand is its thread's while it works, else the crew's, under the lock. */
#include "fabric/base/crew.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fabric/base/resident.h"
#include "fabric/base/thread.h"

struct weft_hand {
	struct weft_crew *crew;
	struct weft_hand *next; /* idle */
	pthread_cond_t called;
	void (*fn)(void *ctx); /* NULL: there is no work */
	void *ctx;
	pthread_t thread;
	struct weft_hand *other; /* of all */
};

enum {
	STACK_KEPT = 16 << 10,
	RESIDENT_HANDS = 2, /* to connect anew, and to look at a better way */
};

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

/* Idle until there is work: true; false: the crew is over. */
static bool wait_for_work(struct weft_crew *crew, struct weft_hand *hand)
{
	pthread_mutex_lock(&crew->lock);
	hand->fn = NULL;
	hand->next = crew->idle;
	crew->idle = hand;
	while (!hand->fn && !crew->over)
		pthread_cond_wait(&hand->called, &crew->lock);
	pthread_mutex_unlock(&crew->lock);
	return hand->fn != NULL;
}

static void *hand_main(void *arg)
{
	struct weft_hand *hand = arg;

	/* Not that of the thread which needed it: a lane's would count as a lane. */
	pthread_setname_np(pthread_self(), hand->crew->name);
	do {
		hand->fn(hand->ctx);
		drop_stack();
	} while (wait_for_work(hand->crew, hand));
	return NULL;
}

void weft_crew_fini(struct weft_crew *crew)
{
	struct weft_hand *hand;

	pthread_mutex_lock(&crew->lock);
	crew->over = true;
	for (hand = crew->all; hand; hand = hand->other)
		pthread_cond_signal(&hand->called);
	pthread_mutex_unlock(&crew->lock);
	while ((hand = crew->all)) {
		crew->all = hand->other;
		pthread_join(hand->thread, NULL);
		pthread_cond_destroy(&hand->called);
		free(hand);
	}
	pthread_mutex_destroy(&crew->lock);
}

static int hire(struct weft_crew *crew, void (*fn)(void *ctx), void *ctx)
{
	struct weft_hand *hand = calloc(1, sizeof(*hand));
	pthread_attr_t attr;

	if (!hand)
		return -ENOMEM;
	hand->crew = crew;
	hand->fn = fn;
	hand->ctx = ctx;
	pthread_cond_init(&hand->called, NULL);
	pthread_attr_init(&attr);
	if (crew->stack_bytes > 0)
		pthread_attr_setstacksize(&attr, crew->stack_bytes);
	/* Under the lock, so that whoever ends the crew finds the hand. */
	pthread_mutex_lock(&crew->lock);
	int r = weft_thread_create(&hand->thread, &attr, hand_main, hand);
	if (r == 0) {
		hand->other = crew->all;
		crew->all = hand;
	}
	pthread_mutex_unlock(&crew->lock);
	pthread_attr_destroy(&attr);
	if (r < 0) {
		pthread_cond_destroy(&hand->called);
		free(hand);
	}
	return r;
}

static void nothing(void *ctx)
{
}

void weft_crew_init(struct weft_crew *crew, const char *name, size_t stack_bytes)
{
	*crew = (struct weft_crew){.name = name, .stack_bytes = stack_bytes};
	pthread_mutex_init(&crew->lock, NULL);
	/* Later there may be no memory for threads; without these it is tried then. */
	for (unsigned i = 0; i < RESIDENT_HANDS && weft_is_resident(); i++)
		hire(crew, nothing, NULL);
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
