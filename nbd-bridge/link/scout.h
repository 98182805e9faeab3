/* SPDX-License-Identifier: MIT */
/*
 * Looks whether a better way to a donor works again, beside the one that is used, and moves the
 * attachment to it.  On the thread of the link that it is beside.
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
/* Looks no more, until its link is granted again.  Blocks for up to some LINK_GOODBYE_MS. */
void scout_end(struct bridge_scout *scout);

#endif
