/* SPDX-License-Identifier: MIT */
/* weft pull --watch: a file that is always the last state of a region that was marked. */
#ifndef WEFT_NBD_BRIDGE_MAIN_PULL_WATCH_H
#define WEFT_NBD_BRIDGE_MAIN_PULL_WATCH_H

#include "nbd-bridge/main/sync-command.h"

/*
 * The region is open, to be read beside a writer.  Until it is asked to stop: 0; or -errno.  The
 * file is whole whenever this ends.
 */
int pull_watch(struct sync_command *command, uint32_t interval_ms, struct weft_error *err);

#endif
