/* SPDX-License-Identifier: MIT */
/*
 * What the service manager that started this process does when the process crashes.
 *
 * Only certain knowledge counts.  A notification socket alone says nothing: other supervisors have
 * one too, and systemd takes descriptors silently and drops them where FileDescriptorStoreMax is 0.
 * Thread: the daemon's main thread; may block for a second at each question that a manager does not
 * answer.
 */
#ifndef WEFT_FABRIC_DONOR_SUPERVISION_H
#define WEFT_FABRIC_DONOR_SUPERVISION_H

#include <stdbool.h>

struct weft_supervision {
	/* descriptors that systemd keeps for us over a crash; 0: none, or not known */
	unsigned store_max;
	bool ends_children; /* processes that we started end when we do */
};

/*
 * Asks the user's manager, then the system's, for the properties of our unit,
 * org.freedesktop.systemd1(5).  If neither answers, looks at the environment, systemd.exec(5)
 * ($FDSTORE, since systemd 254).
 */
void weft_supervision_find(struct weft_supervision *ret);

#endif
