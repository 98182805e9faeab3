/* SPDX-License-Identifier: MIT */
/*
 * An event loop over epoll(7) or a poller.  Owned by one thread.  Invariant: `ready[]` holds
 * only events of watches that are still added; removal clears them.
 */
#include "fabric/base/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/util.h"

enum { LOOP_BATCH = 64 };

struct weft_loop {
	int epfd;
	int wakefd;
	bool stopped;
	struct weft_poller *poller; /* NULL: epoll */
	struct weft_watch *watches;
	struct weft_timer *timers; /* soonest first; there are few */
	struct epoll_event ready[LOOP_BATCH];
	int nr_ready, next_ready;
	void (*after_fn)(void *);
	void *after_ctx;
	void (*wake_fn)(void *);
	void *wake_ctx;
	uint64_t *now_ns; /* the owner's, of this step; NULL: there is none */
	uint64_t was_now_ns; /* a moment ago; 0: not known */
	void (*woken_fn)(void *);
	void *woken_ctx;
	struct weft_watch wake_watch;
};

static void on_wake(struct weft_watch *watch, uint32_t events)
{
	struct weft_loop *loop = weft_container_of(watch, struct weft_loop, wake_watch);
	uint64_t n;

	if (read(loop->wakefd, &n, sizeof(n)) == sizeof(n) && loop->wake_fn)
		loop->wake_fn(loop->wake_ctx);
}

int weft_loop_new(struct weft_loop **ret)
{
	struct weft_loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return -ENOMEM;
	loop->wakefd = -1;
	loop->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epfd < 0) {
		r = -errno;
		goto fail;
	}
	loop->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wakefd < 0) {
		r = -errno;
		goto fail;
	}
	loop->wake_watch.fd = loop->wakefd;
	loop->wake_watch.fn = on_wake;
	r = weft_loop_add(loop, &loop->wake_watch, EPOLLIN);
	if (r < 0)
		goto fail;
	*ret = loop;
	return 0;
fail:
	weft_loop_free(loop);
	return r;
}

void weft_loop_free(struct weft_loop *loop)
{
	if (!loop)
		return;
	weft_close_fd(loop->wakefd);
	weft_close_fd(loop->epfd);
	free(loop);
}

static int epoll_add(struct weft_loop *loop, struct weft_watch *watch)
{
	struct epoll_event ev = {.events = watch->events, .data.ptr = watch};

	return epoll_ctl(loop->epfd, EPOLL_CTL_ADD, watch->fd, &ev) < 0 ? -errno : 0;
}

static void epoll_remove(struct weft_loop *loop, struct weft_watch *watch)
{
	epoll_ctl(loop->epfd, EPOLL_CTL_DEL, watch->fd, NULL);
	for (int i = loop->next_ready; i < loop->nr_ready; i++)
		if (loop->ready[i].data.ptr == watch)
			loop->ready[i].data.ptr = NULL;
}

static int watches_add(struct weft_loop *loop, struct weft_poller *poller, struct weft_watch *watch)
{
	return poller ? poller->add(poller, watch) : epoll_add(loop, watch);
}

static void watches_remove(struct weft_loop *loop, struct weft_poller *poller,
	struct weft_watch *watch)
{
	if (poller)
		poller->remove(poller, watch);
	else
		epoll_remove(loop, watch);
}

int weft_loop_add(struct weft_loop *loop, struct weft_watch *watch, uint32_t events)
{
	watch->events = events;
	int r = watches_add(loop, loop->poller, watch);
	if (r < 0)
		return r;
	watch->added = true;
	watch->next = loop->watches;
	loop->watches = watch;
	return 0;
}

int weft_loop_modify(struct weft_loop *loop, struct weft_watch *watch, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = watch};

	if (watch->events == events)
		return 0;
	if (!loop->poller && epoll_ctl(loop->epfd, EPOLL_CTL_MOD, watch->fd, &ev) < 0)
		return -errno;
	watch->events = events;
	if (loop->poller)
		loop->poller->modify(loop->poller, watch);
	return 0;
}

void weft_loop_remove(struct weft_loop *loop, struct weft_watch *watch)
{
	struct weft_watch **at = &loop->watches;

	if (!watch->added)
		return;
	watch->added = false;
	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	watches_remove(loop, loop->poller, watch);
}

int weft_loop_use(struct weft_loop *loop, struct weft_poller *poller)
{
	struct weft_watch *watch, *end;
	int r = 0;

	/* The new one finds again what the old one had found: watches are level-triggered. */
	for (end = loop->watches; end; end = end->next) {
		r = watches_add(loop, poller, end);
		if (r < 0)
			break;
	}
	for (watch = loop->watches; watch != end; watch = watch->next)
		watches_remove(loop, r < 0 ? poller : loop->poller, watch);
	if (r == 0)
		loop->poller = poller;
	return r;
}

void weft_loop_timer_cancel(struct weft_loop *loop, struct weft_timer *timer)
{
	for (struct weft_timer **p = &loop->timers; *p; p = &(*p)->next) {
		if (*p == timer) {
			*p = timer->next;
			break;
		}
	}
	timer->due_ns = 0;
}

void weft_loop_timer_set(struct weft_loop *loop, struct weft_timer *timer, uint64_t after_ns)
{
	struct weft_timer **p = &loop->timers;

	weft_loop_timer_cancel(loop, timer);
	timer->due_ns = weft_now_ns() + after_ns;
	while (*p && (*p)->due_ns <= timer->due_ns)
		p = &(*p)->next;
	timer->next = *p;
	*p = timer;
}

static void run_timers(struct weft_loop *loop)
{
	uint64_t now;

	if (!loop->timers)
		return;
	now = loop->now_ns && *loop->now_ns ? *loop->now_ns : weft_now_ns();
	if (loop->now_ns)
		*loop->now_ns = now;
	while (loop->timers && loop->timers->due_ns <= now) {
		struct weft_timer *timer = loop->timers;

		loop->timers = timer->next;
		timer->due_ns = 0;
		timer->fn(timer);
	}
}

static int wait_in_epoll(struct weft_loop *loop, int timeout_ms)
{
	int n = epoll_wait(loop->epfd, loop->ready, LOOP_BATCH, timeout_ms);

	if (n < 0) {
		if (errno != EINTR)
			return -errno;
		n = 0;
	}
	loop->nr_ready = n;
	for (loop->next_ready = 0; loop->next_ready < loop->nr_ready;) {
		struct epoll_event ev = loop->ready[loop->next_ready++];
		struct weft_watch *watch = ev.data.ptr;

		if (watch)
			watch->fn(watch, ev.events);
	}
	loop->nr_ready = 0;
	return 0;
}

int weft_loop_step(struct weft_loop *loop, int timeout_ms)
{
	if (loop->timers) {
		uint64_t now = loop->was_now_ns ? loop->was_now_ns : weft_now_ns();
		uint64_t due = loop->timers->due_ns;
		/* Rounded up: waking a millisecond early would spin until it is due. */
		uint64_t ms = due > now ? (due - now + 999999) / 1000000 : 0;

		if (timeout_ms < 0 || ms < (uint64_t)timeout_ms)
			timeout_ms = (int)weft_min(ms, 3600 * 1000);
	}
	loop->was_now_ns = 0;
	int r = loop->poller ? loop->poller->wait(loop->poller, timeout_ms)
			     : wait_in_epoll(loop, timeout_ms);
	if (r < 0)
		return r;
	run_timers(loop);
	if (loop->after_fn)
		loop->after_fn(loop->after_ctx);
	return 0;
}

int weft_loop_run(struct weft_loop *loop)
{
	int r = 0;

	loop->stopped = false;
	while (!loop->stopped && r == 0)
		r = weft_loop_step(loop, -1);
	return r;
}

void weft_loop_stop(struct weft_loop *loop)
{
	loop->stopped = true;
}

void weft_loop_after(struct weft_loop *loop, void (*fn)(void *ctx), void *ctx)
{
	loop->after_fn = fn;
	loop->after_ctx = ctx;
}

void weft_loop_on_wake(struct weft_loop *loop, void (*fn)(void *ctx), void *ctx)
{
	loop->wake_fn = fn;
	loop->wake_ctx = ctx;
}

void weft_loop_wake(struct weft_loop *loop)
{
	uint64_t one = 1;

	/* EAGAIN means that a wake-up is pending already. */
	while (write(loop->wakefd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	if (loop->woken_fn)
		loop->woken_fn(loop->woken_ctx);
}

void weft_loop_share_now(struct weft_loop *loop, uint64_t *now_ns)
{
	loop->now_ns = now_ns;
}

void weft_loop_was_now(struct weft_loop *loop, uint64_t now_ns)
{
	loop->was_now_ns = now_ns;
}

void weft_loop_on_woken(struct weft_loop *loop, void (*fn)(void *ctx), void *ctx)
{
	loop->woken_fn = fn;
	loop->woken_ctx = ctx;
}

void weft_loop_finish(struct weft_loop *loop)
{
	if (loop->after_fn)
		loop->after_fn(loop->after_ctx);
}

int weft_loop_fd(const struct weft_loop *loop)
{
	return loop->epfd;
}

uint64_t weft_loop_due_ns(const struct weft_loop *loop)
{
	return loop->timers ? loop->timers->due_ns : 0;
}

bool weft_loop_is_stopped(const struct weft_loop *loop)
{
	return loop->stopped;
}
