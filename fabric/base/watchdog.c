/* SPDX-License-Identifier: MIT */
/* A timer of the kernel's that nothing of the process has to run for. */
#include "fabric/base/watchdog.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

int weft_watchdog_start(struct weft_watchdog *watchdog, unsigned seconds)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};

	if (seconds == 0)
		return 0;
	if (timer_create(CLOCK_MONOTONIC, &event, &watchdog->timer) != 0)
		return -errno;
	watchdog->seconds = seconds;
	weft_watchdog_feed(watchdog);
	return 0;
}

void weft_watchdog_feed(struct weft_watchdog *watchdog)
{
	const struct itimerspec when = {.it_value = {.tv_sec = (time_t)watchdog->seconds}};

	if (watchdog->seconds)
		timer_settime(watchdog->timer, 0, &when, NULL);
}

void weft_watchdog_end(struct weft_watchdog *watchdog)
{
	if (watchdog->seconds)
		timer_delete(watchdog->timer);
	watchdog->seconds = 0;
}
