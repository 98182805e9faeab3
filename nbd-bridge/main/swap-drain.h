/* SPDX-License-Identifier: MIT */
/* Ends swap spaces: their pages come back into memory.  One thread; swap_signals_hold() before. */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_DRAIN_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_DRAIN_H

#include "nbd-bridge/main/swap-note.h"

/*
 * Whether memory would take what is in the note's swap spaces: -ENOMEM, with how much is missing.
 * What other swap spaces have room for counts.
 */
int swap_drain_check(const struct swap_note *note, struct weft_error *err);

/*
 * swapoff(2) of one device, in a process of its own; how far it is goes to standard error each
 * second.  0, also if it is no swap space (any more).  -EINTR: a signal came, -ENOMEM: memory ran
 * out; the pages that are left stay in swap, which goes on.  -ENODEV: the device is gone, and
 * nothing can be done.  Or another -errno of swapoff(2).
 */
int swap_drain(const char *device, struct weft_error *err);

#endif
