/* SPDX-License-Identifier: MIT */
/*
 * An event loop over epoll(7), or over something else that waits: file descriptors, timers and
 * wake-ups, owned by one thread.  Nothing here is thread-safe but weft_loop_wake().
 */
#ifndef WEFT_FABRIC_BASE_LOOP_H
#define WEFT_FABRIC_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct weft_loop;

/*
 * A watched descriptor.  The owner embeds it, fills fd and fn, and keeps it in
 * place while it is added.  fn runs on the loop's thread with the ready events
 * (EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP); level-triggered.  fn may modify or
 * remove any watch, its own included.
 */
struct weft_watch {
	int fd;
	void (*fn)(struct weft_watch *watch, uint32_t events);
	uint32_t events; /* set by add and modify */
	bool added;      /* private, like what follows */
	struct weft_watch *next;
	unsigned slot; /* a poller's */
};

/*
 * What a loop waits in instead of epoll_wait(2).  Watches are as with epoll(7): level-triggered;
 * the loop keeps their fd, events and added.  All on the loop's thread.
 */
struct weft_poller {
	/* -ENOMEM. */
	int (*add)(struct weft_poller *poller, struct weft_watch *watch);
	/* watch->events are new. */
	void (*modify)(struct weft_poller *poller, struct weft_watch *watch);
	/* Its fn is not called any more. */
	void (*remove)(struct weft_poller *poller, struct weft_watch *watch);
	/*
	 * Waits at most timeout_ms (-1: until something happens) and calls fn of what is ready.  0,
	 * or -errno.
	 */
	int (*wait)(struct weft_poller *poller, int timeout_ms);
};

/* A one-shot timer.  The owner embeds it and fills fn.  fn may set it again. */
struct weft_timer {
	void (*fn)(struct weft_timer *timer);
	uint64_t due_ns; /* CLOCK_MONOTONIC; 0: not set */
	struct weft_timer *next;
};

/* 0 with *ret, or -errno of epoll_create1(2), eventfd(2), -ENOMEM. */
int weft_loop_new(struct weft_loop **ret);
/* Takes NULL.  Watches and timers still set are forgotten, their fds stay open. */
void weft_loop_free(struct weft_loop *loop);

/* 0, or -errno of epoll_ctl(2) or -ENOMEM. */
int weft_loop_add(struct weft_loop *loop, struct weft_watch *watch, uint32_t events);
/* Costs nothing when the events are what they were. */
int weft_loop_modify(struct weft_loop *loop, struct weft_watch *watch, uint32_t events);
/*
 * Drops pending events of this watch too.  Does nothing for a watch that is not added.  An io_uring
 * holds the file until its next wait: if this was the last reference to the file, the effects of
 * close(2) come then.
 */
void weft_loop_remove(struct weft_loop *loop, struct weft_watch *watch);

/*
 * From the next step on the loop waits in the poller, which stays the caller's and must outlive its
 * use; NULL: in epoll_wait(2) again.  Watches move along.  May be called within a step of the loop,
 * or between two.  0, or -errno of an add: then nothing has changed.
 */
int weft_loop_use(struct weft_loop *loop, struct weft_poller *poller);

/* (Re)sets the timer to `after_ns` from now. */
void weft_loop_timer_set(struct weft_loop *loop, struct weft_timer *timer, uint64_t after_ns);
void weft_loop_timer_cancel(struct weft_loop *loop, struct weft_timer *timer);

/*
 * Runs once: waits at most timeout_ms (-1: until something happens) and calls
 * what is due, then the after-hook.  Returns 0, or -errno of epoll_wait(2)
 * (never -EINTR), or of the poller.
 */
int weft_loop_step(struct weft_loop *loop, int timeout_ms);
/* Steps until weft_loop_stop().  Returns 0, or -errno. */
int weft_loop_run(struct weft_loop *loop);
/* From the loop's thread: the current run returns after this step. */
void weft_loop_stop(struct weft_loop *loop);

/* fn runs at the end of every step: the place to send what a whole batch of events queued. */
void weft_loop_after(struct weft_loop *loop, void (*fn)(void *ctx), void *ctx);

/* Any thread: makes the loop's thread call the wake-hook soon; calls may be merged. */
void weft_loop_wake(struct weft_loop *loop);
void weft_loop_on_wake(struct weft_loop *loop, void (*fn)(void *ctx), void *ctx);

/*
 * For an owner that reads the time once a step.  share: where the owner keeps the time (0: not read
 * yet); the loop looks there before it asks the clock, and stores there what the clock said.  was:
 * what the time was a moment ago, told at the end of a step or before one; 0: not known.
 */
void weft_loop_share_now(struct weft_loop *loop, uint64_t *now_ns);
void weft_loop_was_now(struct weft_loop *loop, uint64_t now_ns);

/*
 * For a loop that several threads step in turn, one at a time, under a lock of theirs
 * (nbd-bridge/lane/drive.h): the thread that has the lock is "the loop's thread".  All but the
 * first of these functions are for such threads.
 */
/*
 * fn runs inside each weft_loop_wake(), on its thread, once the wake-up is pending.  Set before any
 * other thread knows the loop.
 */
void weft_loop_on_woken(struct weft_loop *loop, void (*fn)(void *ctx), void *ctx);
/* Calls the after-hook: between two steps, for what was queued since the last one. */
void weft_loop_finish(struct weft_loop *loop);
/*
 * Readable while a step would find a descriptor ready; for a loop that waits in epoll_wait(2).
 * Constant: any thread.
 */
int weft_loop_fd(const struct weft_loop *loop);
/* When the first timer is due, CLOCK_MONOTONIC; 0: none is set. */
uint64_t weft_loop_due_ns(const struct weft_loop *loop);
/* Whether weft_loop_stop() was called. */
bool weft_loop_is_stopped(const struct weft_loop *loop);

#endif
