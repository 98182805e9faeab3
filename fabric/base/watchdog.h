/* SPDX-License-Identifier: MIT */
/*
 * The kernel kills a process that did not run for too long: one that is stopped, frozen by a
 * debugger, or stuck.  Its connections end with it, so that its peers learn of it.  (A kernel goes
 * on acknowledging for a process that is stopped, and asks who connects to be patient with it.)
 *
 * Threads: one owner.
 */
#ifndef WEFT_FABRIC_BASE_WATCHDOG_H
#define WEFT_FABRIC_BASE_WATCHDOG_H

#include <time.h>

struct weft_watchdog {
	unsigned seconds; /* 0: it is off */
	timer_t timer;
};

/*
 * From now on the process is killed (SIGKILL) unless weft_watchdog_feed() is called within so many
 * seconds, again and again; 0: never.  Time in which the machine is suspended does not count.
 * Children have no watchdog.  0, or -errno of timer_create(2).
 */
int weft_watchdog_start(struct weft_watchdog *watchdog, unsigned seconds);
void weft_watchdog_feed(struct weft_watchdog *watchdog);
/* Takes one that was never started (all zeros). */
void weft_watchdog_end(struct weft_watchdog *watchdog);

#endif
