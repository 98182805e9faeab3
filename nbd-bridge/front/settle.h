/* SPDX-License-Identifier: MIT */
/*
 * Asking the kernel for things that need a bridge's answer: to write back what it caches of a
 * bridge's files and devices, and whether a mount is served.
 *
 * A separate process asks.  A thread of the bridge that waits for the bridge's own answer could not
 * be killed while the donor is away, and then nothing would end the mount or the device that the
 * thread waits for.  The process runs the calling program under another name.  One thread.
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
 * Has the kernel write back what it caches of the paths (fsync(2)).  With `everything` it first
 * writes back the whole machine's (sync(2)), so that file systems on those paths write too.  Later
 * done() is called from the loop with 0 or -errno; -ECHILD: the process could not ask.  Returns 0;
 * -EALREADY: one is under way; or -errno: it could not begin.
 */
int bridge_settle_begin(struct bridge_settle *settle, struct weft_loop *loop,
	const char *const *paths, unsigned nr_paths, bool everything,
	void (*done)(struct bridge_settle *settle, int result));
/* done() is not called any more.  Takes a struct that was never begun. */
void bridge_settle_end(struct bridge_settle *settle);

/*
 * Whether the mount at the path is served: 0; -ENOTCONN: it is dead; -ETIMEDOUT: there is no
 * answer; -ECHILD: the process could not ask; or another -errno.  The question is one that the
 * kernel cannot answer from memory: it remembers attributes for a day.
 */
int bridge_settle_look(const char *path, int timeout_ms);

/*
 * The process itself: main() of every program that uses these functions calls this first.  -1: this
 * is no such process; otherwise its exit status.
 */
int bridge_settle_main(int argc, char **argv);

#endif
