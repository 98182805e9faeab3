/* SPDX-License-Identifier: MIT */
/* weft detach says goodbye to a donor in place of a bridge that was killed. */
#ifndef WEFT_NBD_BRIDGE_MAIN_DETACH_GOODBYE_H
#define WEFT_NBD_BRIDGE_MAIN_DETACH_GOODBYE_H

#include "fabric/base/error.h"
#include "nbd-bridge/main/state.h"

/*
 * Frees the region that the donor holds for a bridge that is dead; afterwards the donor refuses
 * that bridge's generation for good.  0: nothing is held (any more).  -errno, and err says why: the
 * donor could not be reached within a few seconds, and frees the region at the end of the lease.
 */
int detach_say_goodbye(const struct bridge_state_file *state, struct weft_error *err);

#endif
