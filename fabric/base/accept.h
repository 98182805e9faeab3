/* SPDX-License-Identifier: MIT */
/*
 * Accepting connections from a listening socket: one place for what every listener has to survive,
 * which is a process or a machine that is out of descriptors or memory.
 *
 * The socket stays readable then, so that a loop that only tried again would spin.  A spare
 * descriptor is kept for that time: it lets one connection through (the one that asks what is
 * wrong, or that comes back); after it the listener pauses until a descriptor can be had again.
 *
 * Threads: an acceptor belongs to its loop's thread; weft_accept() to any.
 */
#ifndef WEFT_FABRIC_BASE_ACCEPT_H
#define WEFT_FABRIC_BASE_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/loop.h"

enum { WEFT_ACCEPT_PAUSE_MS = 100 }; /* between two looks whether there are descriptors again */

/*
 * accept4(2).  *spare_fd: -1 at first; a descriptor that this function keeps, the caller's to close
 * in the end.  A descriptor; -EAGAIN: nobody is waiting, or the peer left again; -EMFILE: the
 * process has none left, and the spare is in use; -ENFILE, -ENOBUFS, -ENOMEM: neither has the
 * machine.  After those the caller has to pause.
 */
int weft_accept(int listen_fd, int flags, int *spare_fd);
/* Whether an error of weft_accept() is one of those. */
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
	 * Out of descriptors: whether it gave some up, so that it is worth trying again at once.
	 * NULL: never.
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
/* Accepts no more.  An acceptor that was not started is let be. */
void weft_acceptor_stop(struct weft_acceptor *acceptor);

#endif
