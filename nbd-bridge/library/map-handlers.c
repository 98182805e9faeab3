/* SPDX-License-Identifier: MIT */
/*
 * The handlers: threads that take the page faults of a map (map-fault.c).
 *
 * The kernel wakes one of them for a fault: the first in their order that waits for one.  The last
 * is a spare, so it is woken when all others wait for the network.  A thread that waits for a page
 * that is here must not wait for others' network.  So the spare never reads: it leaves what has to
 * be read to the pump.
 *
 * A wake-up across processors takes longer than all the rest of a fault.  A handler therefore stays
 * on one processor, and now and then looks where the thread that it has served runs: it goes there,
 * if that is so twice in a row.  There it runs as soon as the thread sleeps.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "fabric/base/map.h"
#include "fabric/base/thread.h"
#include "nbd-bridge/library/map-private.h"
#include "nbd-bridge/library/map-uapi.h"

enum {
	LOOK_EVERY = 16,     /* faults, at where their threads run */
	FIELD_PROCESSOR = 39, /* of /proc/PID/stat; see proc(5) */
};

/* ---- where to run ---- */

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* The processor that the thread runs on, or ran on last; -1: not known. */
static int cpu_of(uint32_t thread)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/self/task/%u/stat", thread);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	weft_close_fd(fd);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	/* The name, the second field, may have spaces. */
	const char *at = strrchr(text, ')');
	for (int field = 2; at && field < FIELD_PROCESSOR; field++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at + 1) : -1;
}

/* Not to a processor that whoever made the map may not use. */
static void follow(struct map_handler *handler, uint32_t thread)
{
	if (handler->cpu < 0 || ++handler->nr_served % LOOK_EVERY != 0)
		return;
	const int cpu = cpu_of(thread);
	const bool again = cpu == handler->seen_cpu;

	handler->seen_cpu = cpu;
	if (!again || cpu < 0 || cpu == handler->cpu || cpu >= CPU_SETSIZE ||
		!CPU_ISSET(cpu, &handler->m->cpus))
		return;
	handler->cpu = cpu;
	stay_on(cpu);
}

/* ---- the threads ---- */

static void take_faults(struct map_handler *handler)
{
	struct uffd_msg msg;

	while (!atomic_load(&handler->m->stop_handlers) &&
		read(handler->m->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		map_serve(handler, msg.arg.pagefault.address,
			msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
		follow(handler, msg.arg.pagefault.feat.ptid);
	}
}

static void *handle(void *ctx)
{
	struct map_handler *handler = ctx;
	struct epoll_event event;

	pthread_setname_np(pthread_self(), handler->spare ? "weft-map-spare" : "weft-map");
	if (handler->cpu >= 0)
		stay_on(handler->cpu);
	while (!atomic_load(&handler->m->stop_handlers)) {
		epoll_wait(handler->epoll_fd, &event, 1, -1);
		take_faults(handler);
	}
	return NULL;
}

/* A descriptor that says when there are faults; to one at a time, in the order of these calls. */
static int open_queue(const struct weft_map *m)
{
	struct epoll_event faults = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	struct epoll_event stop = {.events = EPOLLIN};
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (epoll_ctl(fd, EPOLL_CTL_ADD, m->uffd, &faults) == 0 &&
		epoll_ctl(fd, EPOLL_CTL_ADD, m->stop_fd, &stop) == 0)
		return fd;
	int r = -errno;
	close(fd);
	return r;
}

static void end(struct map_handler *handler)
{
	weft_close_fd(handler->epoll_fd);
	weft_unmap_bytes(handler->bounce, handler->m->unit_bytes);
}

static int start(struct weft_map *m, int cpu, bool spare, struct weft_error *err)
{
	struct map_handler *handler = &m->handlers[m->nr_threads];

	*handler = (struct map_handler){.m = m, .cpu = cpu, .seen_cpu = -1, .spare = spare};
	handler->epoll_fd = open_queue(m);
	handler->bounce = m->mode->copy && !spare ? weft_map_bytes(m->unit_bytes) : NULL;
	int r = handler->epoll_fd < 0
		? handler->epoll_fd
		: weft_thread_create(&handler->thread, NULL, handle, handler);
	if (r < 0) {
		end(handler);
		return weft_error_set(err, -r, "cannot map: no thread for page faults: %s",
			strerror(-r));
	}
	m->nr_threads++;
	return 0;
}

int map_start_handlers(struct weft_map *m, struct weft_error *err)
{
	int r = 0, cpu = -1;

	if (sched_getaffinity(0, sizeof(m->cpus), &m->cpus) < 0)
		CPU_ZERO(&m->cpus);
	for (unsigned i = 0; i < m->nr_handlers && r == 0; i++) {
		/* More handlers than processors, or more processors than the set has room for. */
		do
			cpu++;
		while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &m->cpus));
		r = start(m, cpu < CPU_SETSIZE ? cpu : -1, false, err);
	}
	return r == 0 ? start(m, -1, true, err) : r;
}

void map_join_handlers(struct weft_map *m)
{
	uint64_t one = 1;

	atomic_store(&m->stop_handlers, true);
	if (write(m->stop_fd, &one, sizeof(one)) < 0)
		return; /* cannot be: nobody else writes there */
	for (unsigned i = 0; i < m->nr_threads; i++) {
		pthread_join(m->handlers[i].thread, NULL);
		end(&m->handlers[i]);
	}
	m->nr_threads = 0;
}
