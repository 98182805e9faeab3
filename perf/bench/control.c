/* SPDX-License-Identifier: MIT */
/*
 * The machine's own pace, without anything of weft: a thread that sends 4 KiB back.  What the
 * scheduler, the clock of the processor and strangers do to it, they do to the paths as well.
 */
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"

enum { BYTES = 4096 };

static void *echo(void *arg)
{
	int fd = *(int *)arg;
	char buf[BYTES];

	while (weft_read_all(fd, buf, BYTES) == 0 && weft_write_all(fd, buf, BYTES) == 0)
		;
	return NULL;
}

double bench_control(uint64_t slice_ns)
{
	char buf[BYTES] = {0};
	uint64_t start_ns, now_ns, n = 0;
	pthread_t thread;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return 0;
	if (pthread_create(&thread, NULL, echo, &fds[1]) != 0) {
		close(fds[0]);
		close(fds[1]);
		return 0;
	}
	now_ns = start_ns = weft_now_ns();
	while (now_ns - start_ns < slice_ns && weft_write_all(fds[0], buf, BYTES) == 0 &&
		weft_read_all(fds[0], buf, BYTES) == 0) {
		n++;
		now_ns = weft_now_ns();
	}
	close(fds[0]);
	pthread_join(thread, NULL);
	close(fds[1]);
	return now_ns > start_ns ? (double)n * 1e9 / (double)(now_ns - start_ns) : 0;
}
