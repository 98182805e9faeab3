/* SPDX-License-Identifier: MIT */
/*
 * A scout looks whether a better way to a donor works again while another is used, and moves the
 * attachment to the better one.  It runs on the thread of its link.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_SCOUT_H
#define WEFT_NBD_BRIDGE_LINK_SCOUT_H

#include "nbd-bridge/link/link.h"

struct bridge_scout;

/* 0, or -ENOMEM. */
int scout_new(struct bridge_link *link, struct bridge_scout **ret);
/* After scout_end().  Takes NULL. */
void scout_free(struct bridge_scout *scout);
/* The link was granted or lost. */
void scout_link_changed(struct bridge_scout *scout);
/* As for a link. */
void scout_progress(struct bridge_scout *scout);
bool scout_arm(struct bridge_scout *scout);
/* Stops looking until the link is granted again.  Blocks for some LINK_GOODBYE_MS at most. */
void scout_end(struct bridge_scout *scout);

#endif
