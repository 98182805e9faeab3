/* SPDX-License-Identifier: MIT */
/*
 * Accepting connections; see accept.h.  Invariant: the watch waits for EPOLLIN exactly while the
 * acceptor is not paused.
 */
#include "fabric/base/accept.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"

enum { BATCH = 64 }; /* after so many, other watches of the loop have their turn */
#define NS_PER_MS UINT64_C(1000000)
#define SAY_NS (60000 * NS_PER_MS)

static int open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

bool weft_accept_must_pause(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

int weft_accept(int listen_fd, int flags, int *spare_fd)
{
	int fd, error;

	if (*spare_fd < 0)
		*spare_fd = open_spare();
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | flags);
	error = errno;
	if (fd < 0 && (error == EMFILE || error == ENFILE) && *spare_fd >= 0) {
		close(*spare_fd);
		*spare_fd = -1;
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | flags);
		error = errno;
	}
	if (fd >= 0)
		return fd;
	/* All other errors are about that one connection: accept(2), "Error handling". */
	return weft_accept_must_pause(-error) ? -error : -EAGAIN;
}

static void say(struct weft_acceptor *acceptor, int error)
{
	uint64_t now_ns = weft_now_ns();

	if (acceptor->said_ns && now_ns - acceptor->said_ns < SAY_NS)
		return;
	acceptor->said_ns = now_ns;
	weft_warn("%s have to wait: %s%s", acceptor->what, strerror(-error),
		error == -EMFILE ? "; raise the limit (ulimit -n, or LimitNOFILE= in a unit)" : "");
}

static void on_connection(struct weft_watch *watch, uint32_t events)
{
	struct weft_acceptor *acceptor = weft_container_of(watch, struct weft_acceptor, watch);

	for (unsigned i = 0; i < BATCH && acceptor->started && !acceptor->paused; i++) {
		uint64_t wait_ns = acceptor->wait_ns ? acceptor->wait_ns(acceptor) : 0;
		int fd;

		if (wait_ns) {
			weft_acceptor_pause(acceptor, wait_ns);
			return;
		}
		fd = weft_accept(watch->fd, acceptor->flags, &acceptor->spare_fd);
		if (fd >= 0) {
			acceptor->fn(acceptor, fd);
		} else if (!weft_accept_must_pause(fd)) {
			return;
		} else if (!acceptor->make_room || !acceptor->make_room(acceptor)) {
			say(acceptor, fd);
			weft_acceptor_pause(acceptor, WEFT_ACCEPT_PAUSE_MS * NS_PER_MS);
		}
	}
}

static void on_pause_over(struct weft_timer *timer)
{
	struct weft_acceptor *acceptor = weft_container_of(timer, struct weft_acceptor, pause);

	acceptor->paused = false;
	if (weft_loop_modify(acceptor->loop, &acceptor->watch, EPOLLIN) < 0)
		weft_acceptor_pause(acceptor, WEFT_ACCEPT_PAUSE_MS * NS_PER_MS);
}

int weft_acceptor_start(struct weft_acceptor *acceptor, struct weft_loop *loop, int listen_fd)
{
	int flags = fcntl(listen_fd, F_GETFL), r;

	if (flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	acceptor->loop = loop;
	acceptor->watch = (struct weft_watch){.fd = listen_fd, .fn = on_connection};
	acceptor->pause = (struct weft_timer){.fn = on_pause_over};
	acceptor->said_ns = 0;
	acceptor->paused = false;
	r = weft_loop_add(loop, &acceptor->watch, EPOLLIN);
	if (r < 0)
		return r;
	acceptor->spare_fd = open_spare();
	acceptor->started = true;
	return 0;
}

void weft_acceptor_pause(struct weft_acceptor *acceptor, uint64_t ns)
{
	acceptor->paused = true;
	weft_loop_modify(acceptor->loop, &acceptor->watch, 0);
	weft_loop_timer_set(acceptor->loop, &acceptor->pause, ns);
}

void weft_acceptor_stop(struct weft_acceptor *acceptor)
{
	if (!acceptor->started)
		return;
	acceptor->started = false;
	weft_loop_timer_cancel(acceptor->loop, &acceptor->pause);
	weft_loop_remove(acceptor->loop, &acceptor->watch);
	weft_close_fd(acceptor->spare_fd);
	acceptor->spare_fd = -1;
}
