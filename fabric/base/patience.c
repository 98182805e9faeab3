/* SPDX-License-Identifier: MIT */
/*
 * Telling a person what takes long.  A thread prints the text; a timer's signal would interrupt the
 * wait.  The thread takes no signals, and lives from a begin to its end.
 */
#include "fabric/base/patience.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "fabric/base/thread.h"
#include "fabric/base/util.h"

enum { PATIENCE_MS = 500 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static pthread_t thread;
static bool running, ended;
static char text[512];

static void *wait_and_tell(void *arg)
{
	const uint64_t end_ns = weft_now_ns() + PATIENCE_MS * UINT64_C(1000000);

	pthread_mutex_lock(&lock);
	while (!ended && weft_cond_wait_until(&changed, &lock, end_ns))
		;
	if (!ended)
		fprintf(stderr, "%s\n", text);
	pthread_mutex_unlock(&lock);
	return NULL;
}

void weft_patience_begin(const char *fmt, ...)
{
	va_list ap;

	weft_patience_end();
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ended = false;
	weft_cond_init(&changed);
	running = weft_thread_create(&thread, NULL, wait_and_tell, NULL) == 0;
	if (!running)
		pthread_cond_destroy(&changed);
}

void weft_patience_end(void)
{
	if (!running)
		return;
	pthread_mutex_lock(&lock);
	ended = true;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	pthread_cond_destroy(&changed);
	running = false;
}
