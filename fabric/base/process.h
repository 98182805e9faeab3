/* SPDX-License-Identifier: MIT */
/*
 * The environment of a process, which may be odd, and its signals.  The rules are the same for all
 * our programs.
 */
#ifndef WEFT_FABRIC_BASE_PROCESS_H
#define WEFT_FABRIC_BASE_PROCESS_H

#include "fabric/base/loop.h"

/*
 * The first thing in every main(), before anything is opened or a thread is started.
 *
 * - Descriptors 0, 1 and 2 are open afterwards.  One that was closed becomes /dev/null, opened so
 *   that its use fails.  Otherwise the next file would get its number, and code that means a
 *   terminal would read or overwrite that file.
 * - Standard output and error wait for a slow reader (O_NONBLOCK is cleared for us alone).
 * - No signal is blocked; SIGCHLD and SIGPIPE do what they do by default, so that children can be
 *   waited for; SIGXFSZ is an error of the write (EFBIG).  SIGHUP, SIGINT and SIGQUIT stay ignored
 *   where nohup(1) or a shell had them ignored.
 * - The umask takes no right from the owner.
 * - $WEFT_DEBUG turns debug lines on (fabric/base/log.h).
 */
void weft_process_begin(void);

/*
 * For daemons, before they start threads: as many descriptors as may be had, and no core dump,
 * which would hold keys and other people's memory.  prlimit(1) allows a dump of one process again.
 */
void weft_process_set_limits(void);

/*
 * The signals of a daemon.  The thread that calls weft_signals_watch() is the loop's, and no other
 * thread is started yet.
 *
 * SIGTERM and SIGINT ask it to end: fn is called with the number, on the loop's thread.  SIGUSR2
 * asks it to make way for its successor: with hand_over fn is called for that too, without it
 * SIGUSR2 is ignored.  SIGHUP, SIGPIPE and SIGUSR1 are ignored: the end of a terminal's session, of
 * a peer or of a pipe is no reason to end a daemon.
 */
struct weft_signals {
	struct weft_watch watch;
	void (*fn)(struct weft_signals *signals, int signo);
};

/* The path of a program that is installed beside this one.  0; -ENOENT: it cannot be told. */
int weft_program_beside(const char *name, char *buf, size_t len);

/*
 * For a process that a daemon starts, and ends itself.  A service manager sends SIGTERM to all
 * processes of the daemon; such a process ignores that, since the daemon may go on for a while.
 */
void weft_signals_ignore(void);

/* 0, or -errno of signalfd(2) or weft_loop_add(). */
int weft_signals_watch(struct weft_signals *signals, struct weft_loop *loop, bool hand_over,
	void (*fn)(struct weft_signals *signals, int signo));
/* Takes one that was never watched (all zeros). */
void weft_signals_end(struct weft_signals *signals, struct weft_loop *loop);

/*
 * Whether another process is gone, or on its way out: a killed process holds its sockets and locks
 * until it has given its memory back.
 */
bool weft_process_is_dying(pid_t pid);

#endif
