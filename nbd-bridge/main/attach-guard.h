/* SPDX-License-Identifier: MIT */
/*
 * The guard of a ublk device: a process that outlives the bridge.  The kernel would keep the
 * requests of a device without a bridge for ever; the guard ends the device when no other bridge
 * has come in time.  For the control thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_ATTACH_GUARD_H
#define WEFT_NBD_BRIDGE_MAIN_ATTACH_GUARD_H

#include "nbd-bridge/main/attach.h"

/*
 * Starts the guard, if there may be such a device.  Called while there is one thread, and nothing
 * is open.  Failures go to the log.
 */
void attach_guard_start(struct attach *a);
/* The device is made: if it is of another kind, the guard ends. */
void attach_guard_settle(struct attach *a);
/* Ends the guard, if there is one: it would end the device. */
void attach_guard_end(struct attach *a);

#endif
