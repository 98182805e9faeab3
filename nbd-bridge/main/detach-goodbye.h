/* SPDX-License-Identifier: MIT */
/* What weft detach tells a donor in place of a bridge that was killed. */
#ifndef WEFT_NBD_BRIDGE_MAIN_DETACH_GOODBYE_H
#define WEFT_NBD_BRIDGE_MAIN_DETACH_GOODBYE_H

#include "fabric/base/error.h"
#include "nbd-bridge/main/state.h"

/*
 * Frees what the donor holds for the attachment of a bridge that does not live any more; afterwards
 * that bridge's generation is refused for good.  0: nothing is held (any more).  Otherwise -errno
 * with why: the donor cannot be reached (bounded by a few seconds), and frees it at the end of the
 * lease.
 */
int detach_say_goodbye(const struct bridge_state_file *state, struct weft_error *err);

#endif
