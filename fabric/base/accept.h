/* SPDX-License-Identifier: MIT */
/*
 * Accepting connections from a listening socket.  Every listener has to survive a process or a
 * machine that is out of descriptors or memory; how is written once, here.
 *
 * In that case the socket stays readable, so a loop that only tried again would spin.  A spare
 * descriptor is kept for that time and lets one connection through (of somebody who asks what is
 * wrong, or who comes back).  After that the listener pauses until a descriptor can be had again.
 *
 * Threads: an acceptor belongs to its loop's thread; any thread may call weft_accept().
 */
#ifndef WEFT_FABRIC_BASE_ACCEPT_H
#define WEFT_FABRIC_BASE_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/loop.h"

enum { WEFT_ACCEPT_PAUSE_MS = 100 }; /* between two looks for descriptors */

/*
 * accept4(2).  *spare_fd: -1 at first; this function keeps a descriptor there, which the caller
 * closes in the end.  Returns a descriptor; -EAGAIN: nobody is waiting, or the peer left again;
 * -EMFILE: the process has no descriptor left, and the spare is in use; -ENFILE, -ENOBUFS, -ENOMEM:
 * the machine has none left.  After an error but -EAGAIN the caller has to pause.
 */
int weft_accept(int listen_fd, int flags, int *spare_fd);
/* Whether the caller has to pause after this error of weft_accept(). */
bool weft_accept_must_pause(int error);

struct weft_acceptor {
	/* The owner's, constant while it is started. */
	/* takes fd; may pause or stop the acceptor */
	void (*fn)(struct weft_acceptor *acceptor, int fd);
	/*
	 * Asked before each connection is accepted: 0, or for how many nanoseconds to pause.  NULL:
	 * always 0.
	 */
	uint64_t (*wait_ns)(struct weft_acceptor *acceptor);
	/*
	 * Called when there are no descriptors.  True: the owner gave some up, so another try is
	 * worth while at once.  NULL: never.
	 */
	bool (*make_room)(struct weft_acceptor *acceptor);
	int flags;        /* of accept4(2), beside SOCK_CLOEXEC */
	const char *what; /* for the log: "connections over TCP" */
	/* Private. */
	struct weft_loop *loop;
	struct weft_watch watch;
	struct weft_timer pause;
	uint64_t said_ns;
	int spare_fd;
	bool started, paused;
};

/*
 * Accepts from a listening socket, which is made non-blocking and stays the owner's.  0, or -errno
 * of fcntl(2), epoll_ctl(2).
 */
int weft_acceptor_start(struct weft_acceptor *acceptor, struct weft_loop *loop, int listen_fd);
/* Accepts nothing for a while. */
void weft_acceptor_pause(struct weft_acceptor *acceptor, uint64_t ns);
/* Accepts no more.  Does nothing for an acceptor that was not started. */
void weft_acceptor_stop(struct weft_acceptor *acceptor);

#endif
