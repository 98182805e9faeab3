/* SPDX-License-Identifier: MIT */
/*
 * Asking the kernel what only a bridge can answer: to write back what it caches of a bridge's files
 * and devices, and whether a mount is served.
 *
 * A process of its own asks: a thread of the bridge that waits for the bridge's answer cannot be
 * killed while the donor is away; then nothing would end the mount or the device that it waits for.
 * It is the program that calls, under another name.  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_FRONT_SETTLE_H
#define WEFT_NBD_BRIDGE_FRONT_SETTLE_H

#include "fabric/base/error.h"
#include "fabric/base/loop.h"

struct bridge_settle {
	struct weft_loop *loop;
	struct weft_watch watch; /* a pidfd */
	int pid;                 /* 0: none is under way */
	void (*done)(struct bridge_settle *settle, int result);
};

enum { BRIDGE_SETTLE_PATHS = 4 };

/*
 * Writes back what is cached of the paths (fsync(2)), and before that, with `everything`, of the
 * whole machine (sync(2)): what file systems that lie on them have not written yet.  done() is
 * called with 0 or -errno, later, from the loop; with -ECHILD if the process could not ask.  0,
 * -EALREADY: one is under way; or -errno: it could not be begun.
 */
int bridge_settle_begin(struct bridge_settle *settle, struct weft_loop *loop,
	const char *const *paths, unsigned nr_paths, bool everything,
	void (*done)(struct bridge_settle *settle, int result));
/* done() is not called any more.  Takes one that was never begun. */
void bridge_settle_end(struct bridge_settle *settle);

/*
 * Whether what is mounted at the path is served: 0; -ENOTCONN: it is dead; -ETIMEDOUT: there is no
 * answer; -ECHILD: it could not be asked; or another -errno.  The kernel is asked for what it does
 * not remember: attributes outlive who served them by a day.
 */
int bridge_settle_look(const char *path, int timeout_ms);

/*
 * The process itself: what main() of every program that calls these has to do first.  -1: this is
 * not one; else its exit status.
 */
int bridge_settle_main(int argc, char **argv);

#endif
