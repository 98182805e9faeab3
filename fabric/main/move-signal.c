/* SPDX-License-Identifier: MIT */
/* Signals to weft move: the first calls off what can be called off, the second ends the program. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/main/move.h"

static volatile sig_atomic_t interrupted;
static int interrupted_fd = -1; /* an eventfd, which is readable then */

static void on_signal(int signo)
{
	const uint64_t one = 1;

	interrupted = 1;
	if (write(interrupted_fd, &one, sizeof(one)) < 0)
		return; /* it is readable already */
}

int move_catch_signals(struct weft_error *err)
{
	/* A second signal ends the program. */
	const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	interrupted_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (interrupted_fd < 0)
		return weft_error_set(err, errno, "cannot make an eventfd: %s", strerror(errno));
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return 0;
}

void move_release_signals(void)
{
	weft_close_fd(interrupted_fd);
}

bool move_is_interrupted(void)
{
	return interrupted;
}

void move_rest(int ms)
{
	struct pollfd p = {.fd = interrupted ? -1 : interrupted_fd, .events = POLLIN};

	poll(&p, 1, ms);
}

int move_until_interrupted(void)
{
	return interrupted ? -1 : interrupted_fd;
}
