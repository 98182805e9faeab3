/* SPDX-License-Identifier: MIT */
/* Undoes what a note says, step by step.  One thread, which holds swap_lock(). */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_DOWN_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_DOWN_H

#include "nbd-bridge/main/swap-note.h"

/*
 * Gives settings back, drains each swap space, ends its attachment, removes the note.  After an
 * error the rest is as it was, settings too, and the note says what is left: it can be tried again.
 * (Or it says more, where it could not be written.)
 */
int swap_take_down(struct swap_note *note, struct weft_error *err);

#endif
