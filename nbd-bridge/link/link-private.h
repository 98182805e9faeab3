/* SPDX-License-Identifier: MIT */
/* Private to nbd-bridge/link/: between a link's files. */
#ifndef WEFT_NBD_BRIDGE_LINK_LINK_PRIVATE_H
#define WEFT_NBD_BRIDGE_LINK_LINK_PRIVATE_H

#include "nbd-bridge/link/link.h"

#define MS_NS UINT64_C(1000000)

enum { LINK_BACKOFF_MAX_MS = 1000 };

/* connect.c */

/* Connects later, since there is no connection; each time after a longer wait. */
void link_back_off(struct bridge_link *link);
/* Connecting ended with the error, for the reason in link->why: decides what comes next. */
void link_refused(struct bridge_link *link, int error);
/*
 * Starts the time that requests wait, unless it runs.  Only an answer starts the time anew, not a
 * grant: a donor that grants and then never answers is no better than one that is gone.
 */
void link_set_down(struct bridge_link *link);
void link_on_retry(struct weft_timer *timer);

/* renew.c */

/* At a look at a READY connection: connects anew beside it, if it is worn. */
void link_renew(struct bridge_link *link);
/* While link->fresh is there: as for a link. */
void link_renew_progress(struct bridge_link *link);
bool link_renew_arm(struct bridge_link *link);
/* Gives the new connection up, if there is one. */
void link_renew_drop(struct bridge_link *link);

#endif
