/* SPDX-License-Identifier: MIT */
/*
 * The guard of a ublk device: a process that outlives the bridge.  The kernel would keep what waits
 * for a device without a bridge for ever; the guard ends the device when no other bridge came
 * within the time.  The control thread's.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_ATTACH_GUARD_H
#define WEFT_NBD_BRIDGE_MAIN_ATTACH_GUARD_H

#include "nbd-bridge/main/attach.h"

/*
 * Starts it, if there may be such a device; while there is one thread only, and nothing is open.
 * What fails is said in the log.
 */
void attach_guard_start(struct attach *a);
/* The device is made: the guard of another kind goes. */
void attach_guard_settle(struct attach *a);
/* There is nothing to guard any more, or not by this bridge. */
void attach_guard_end(struct attach *a);

#endif
