/* SPDX-License-Identifier: MIT */
/*
 * The guard: a process that outlives the bridge.
 *
 * Of a ublk device the kernel would keep the requests for ever, without a bridge; the guard ends
 * the device when no other bridge has come in time.
 *
 * Of sealed contents (nbd-bridge/cache/seal.h) the guard keeps the memory that seals them, and the
 * cache's, until the attachment has ended or another bridge's guard keeps both.  The next bridge
 * takes the descriptors from /proc/PID/fd.
 *
 * For the control thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_ATTACH_GUARD_H
#define WEFT_NBD_BRIDGE_MAIN_ATTACH_GUARD_H

#include "nbd-bridge/main/attach.h"

/* How long the users of a device wait for the next bridge. */
uint64_t attach_patience_ms(const struct attach_options *o);
/*
 * Starts the guard, if there may be such a device.  Called while there is one thread, and nothing
 * is open.  Failures go to the log.
 */
void attach_guard_start(struct attach *a);
enum {
	ATTACH_GUARD_FD = 3,    /* the first descriptor that the guard keeps */
	ATTACH_GUARD_KEEPS = 2, /* descriptors at most */
};
/*
 * Starts a guard that keeps nr descriptors, and guards a ublk device as well.  The caller may close
 * its own then.  While there is one thread only.  0, or -errno.
 */
int attach_guard_keep(struct attach *a, const int *fds, unsigned nr, struct weft_error *err);
/* The device is made: if the guard has nothing to keep or to guard, it ends. */
void attach_guard_settle(struct attach *a);
/* Ends the guard, if there is one: it would end the device. */
void attach_guard_end(struct attach *a);

#endif
