/* SPDX-License-Identifier: MIT */
/*
 * Who has swapped pages, for the log when they are lost.  Looking reads a file of each process of
 * the machine, and the kernel takes memory for that.  So a thread of its own does it, of ordinary
 * priority, while the main thread and the lanes, which come before everybody, find the donor again.
 * The main thread asks it, and waits for nothing; what was seen is the thread's.
 */
#include "nbd-bridge/main/attach.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "fabric/base/log.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"
#include "fabric/machine/swapped.h"

enum {
	LOOK_MS = 2000, /* on a machine that has less to give its processes than they want */
	END_MS = 5000, /* more than two looks */
	NAMED_MAX = 32, /* processes that the log names */
};

/* What the thread is asked for, and does in this order. */
enum {
	FORGET = 1 << 0, /* what was seen is old once a donor is lost again */
	LOOK = 1 << 1,
	TELL = 1 << 2,
	END = 1 << 3,
};

static struct {
	pthread_t thread;
	bool running;
	const char *name; /* the attachment's */
	sem_t asked;
	_Atomic unsigned wanted;
	struct weft_swapped list[NAMED_MAX];
	struct weft_swapped_all all;
} looker;

static void look(void)
{
	weft_swapped("", weft_now_ns() + LOOK_MS * UINT64_C(1000000), looker.list, NAMED_MAX,
		&looker.all);
}

static void tell(void)
{
	const struct weft_swapped *list = looker.list;
	char size[32];

	/* Nobody was waited for. */
	if (looker.all.nr == 0)
		look();
	const unsigned nr = looker.all.nr;
	weft_err("'%s': %s%u process%s swapped pages, here or elsewhere, %s in all", looker.name,
		looker.all.cut ? "at least " : "", nr, nr == 1 ? " has" : "es have",
		weft_format_size(looker.all.bytes, size, sizeof(size)));
	for (unsigned i = 0; i < nr && i < NAMED_MAX; i++)
		weft_err("'%s': pid %d (%s) has %s of swapped pages", looker.name,
			(int)list[i].pid, list[i].name,
			weft_format_size(list[i].bytes, size, sizeof(size)));
	if (nr > NAMED_MAX)
		weft_err("'%s': %u more have less", looker.name, nr - NAMED_MAX);
}

/* It was made with the main thread's priority. */
static void come_after_lanes(void)
{
	const struct sched_param none = {0};

	sched_setscheduler(0, SCHED_OTHER, &none);
	setpriority(PRIO_PROCESS, 0, 0);
}

static void *looker_main(void *ctx)
{
	unsigned wanted;

	come_after_lanes();
	do {
		while (sem_wait(&looker.asked) < 0 && errno == EINTR)
			;
		wanted = atomic_exchange(&looker.wanted, 0);
		if (wanted & FORGET)
			looker.all.nr = 0;
		if (wanted & LOOK)
			look();
		if (wanted & TELL)
			tell();
	} while (!(wanted & END));
	return NULL;
}

static void ask(unsigned what)
{
	if (what == FORGET)
		atomic_fetch_and(&looker.wanted, ~(unsigned)LOOK);
	atomic_fetch_or(&looker.wanted, what);
	sem_post(&looker.asked);
}

int attach_swapped_start(struct attach *a, struct weft_error *err)
{
	looker.name = a->options.name;
	sem_init(&looker.asked, 0, 0);
	int r = weft_thread_create(&looker.thread, NULL, looker_main, NULL);
	if (r < 0)
		return weft_error_set(err, -r, "cannot start a thread: %s", strerror(-r));
	pthread_setname_np(looker.thread, "weft-swapped");
	looker.running = true;
	return 0;
}

static void look_again(struct weft_timer *timer)
{
	struct attach *a = weft_container_of(timer, struct attach, swapped_look);

	if (strcmp(bridge_state(a->bridge, NULL), "reconnecting") == 0)
		ask(LOOK);
}

static void look_while_it_is_waited_for(struct attach *a, uint64_t silent_ns)
{
	/* Once more shortly before requests fail. */
	const uint64_t late_ns = a->options.dead_timeout_ms * UINT64_C(900000);

	ask(LOOK);
	a->swapped_look.fn = look_again;
	weft_loop_timer_set(a->loop, &a->swapped_look,
		late_ns > silent_ns ? late_ns - silent_ns : 1);
}

static void tell_lost(const struct attach *a)
{
	weft_err("'%s': every page that is swapped to it is out of reach, and the kernel ends who "
		 "wants one (SIGBUS)%s",
		a->options.name,
		a->options.copies == 1
			? "; copies at several donors outlive the loss of one (--mirror)"
			: "");
	ask(TELL);
}

void attach_follow_swapped(struct attach *a, const char *state, uint64_t silent_ns)
{
	if (!looker.running)
		return;
	weft_loop_timer_cancel(a->loop, &a->swapped_look);
	if (strcmp(state, "reconnecting") == 0)
		look_while_it_is_waited_for(a, silent_ns);
	else if (strcmp(state, "ready") == 0)
		ask(FORGET);
	else if (strcmp(state, "stale") == 0 || strcmp(state, "dead") == 0)
		tell_lost(a);
}

void attach_swapped_end(void)
{
	struct timespec end;

	if (!looker.running)
		return;
	looker.running = false;
	ask(END);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += END_MS / 1000;
	/* It may wait for memory: then it ends with the process. */
	pthread_clockjoin_np(looker.thread, NULL, CLOCK_MONOTONIC, &end);
}
