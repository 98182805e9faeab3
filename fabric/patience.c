/*
 * Telling what takes long.  A thread of the timer's tells it: a signal would interrupt what is waited for.  Invariant: `text` is "" when
 * there is nothing to tell.
 */
#include "fabric/patience.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { PATIENCE_MS = 500 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char text[512];
static timer_t timer;
static int have_timer;

static void tell(union sigval value)
{
	pthread_mutex_lock(&lock);
	if (text[0])
		fprintf(stderr, "%s\n", text);
	text[0] = '\0';
	pthread_mutex_unlock(&lock);
}

static void set_timer(long ms)
{
	struct itimerspec after = {.it_value.tv_sec = ms / 1000, .it_value.tv_nsec = ms % 1000 * 1000000};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = tell};

	if (!have_timer)
		have_timer = timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
	if (have_timer)
		timer_settime(timer, 0, &after, NULL);
}

void weft_patience_begin(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&lock);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_unlock(&lock);
	set_timer(PATIENCE_MS);
}

void weft_patience_end(void)
{
	pthread_mutex_lock(&lock);
	text[0] = '\0';
	pthread_mutex_unlock(&lock);
	set_timer(0);
}
