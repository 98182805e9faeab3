/* SPDX-License-Identifier: MIT */
/*
 * The thread that writes log lines; see log.h.  A ring of lines: `written` of `put` are out.  The
 * line that is being written is the thread's, the others are under the lock.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/log-private.h"
#include "fabric/base/thread.h"
#include "fabric/base/util.h"

enum { LINES = 256, END_MS = 1000 };

struct line {
	size_t len;
	char text[WEFT_LOG_LINE];
};

static struct ring {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct line *lines;
	uint64_t put, written, lost;
	bool over;
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void put(const char *text, size_t len)
{
	pthread_mutex_lock(&ring.lock);
	if (ring.put - ring.written < LINES) {
		struct line *line = &ring.lines[ring.put++ % LINES];

		line->len = len;
		memcpy(line->text, text, len);
		pthread_cond_broadcast(&ring.changed);
	} else {
		ring.lost++;
	}
	pthread_mutex_unlock(&ring.lock);
}

static void write_out(const char *text, size_t len)
{
	if (write(STDERR_FILENO, text, len) < 0)
		return; /* there is nowhere left to say so */
}

static void say_lost(uint64_t lost)
{
	char text[96];

	int n = snprintf(text, sizeof(text), "(%llu lines of this log found no reader in time)\n",
		(unsigned long long)lost);
	write_out(text, (size_t)n);
}

static void *writer_main(void *arg)
{
	pthread_mutex_lock(&ring.lock);
	for (;;) {
		while (ring.put == ring.written && !ring.over)
			pthread_cond_wait(&ring.changed, &ring.lock);
		if (ring.put == ring.written)
			break;
		const struct line *line = &ring.lines[ring.written % LINES];
		uint64_t lost = ring.put - ring.written == 1 ? ring.lost : 0;
		pthread_mutex_unlock(&ring.lock);
		write_out(line->text, line->len);
		if (lost)
			say_lost(lost);
		pthread_mutex_lock(&ring.lock);
		ring.lost -= lost;
		ring.written++;
		pthread_cond_broadcast(&ring.changed);
	}
	pthread_mutex_unlock(&ring.lock);
	return NULL;
}

int weft_log_start_thread(void)
{
	ring.lines = calloc(LINES, sizeof(*ring.lines));
	if (!ring.lines)
		return -ENOMEM;
	weft_cond_init(&ring.changed);
	int r = weft_thread_create(&ring.thread, NULL, writer_main, NULL);
	if (r < 0) {
		free(ring.lines);
		ring.lines = NULL;
		return r;
	}
	pthread_setname_np(ring.thread, "weft-log");
	log_write = put;
	return 0;
}

void weft_log_end_thread(void)
{
	const uint64_t end_ns = weft_now_ns() + END_MS * UINT64_C(1000000);

	if (!ring.lines)
		return;
	log_write = log_write_now;
	pthread_mutex_lock(&ring.lock);
	ring.over = true;
	pthread_cond_broadcast(&ring.changed);
	while (ring.put != ring.written &&
		weft_cond_wait_until(&ring.changed, &ring.lock, end_ns))
		;
	bool done = ring.put == ring.written;
	pthread_mutex_unlock(&ring.lock);
	/* Whoever does not read is not waited for: the thread ends with the process. */
	if (!done)
		return;
	pthread_join(ring.thread, NULL);
	pthread_cond_destroy(&ring.changed);
	free(ring.lines);
	ring.lines = NULL;
	ring.over = false;
}
