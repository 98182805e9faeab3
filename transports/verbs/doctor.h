/* SPDX-License-Identifier: MIT */
/* The checks of weft doctor for RDMA.  See fabric/machine/finding.h. */
#ifndef WEFT_TRANSPORTS_VERBS_DOCTOR_H
#define WEFT_TRANSPORTS_VERBS_DOCTOR_H

#include "fabric/machine/finding.h"

/* Up to the one without a name. */
extern const struct finding_check verbs_checks[];

/*
 * doctor-netlink.c: whether a port of the device is useless, whatever its state says, since its
 * queue pair for connection requests has failed.
 */
bool verbs_management_failed(const char *device);

#endif
