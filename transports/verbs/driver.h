/* SPDX-License-Identifier: MIT */
/* The row of the transport "verbs": one-sided RDMA. */
#ifndef WEFT_TRANSPORTS_VERBS_DRIVER_H
#define WEFT_TRANSPORTS_VERBS_DRIVER_H

#include "fabric/driver.h"

extern const struct tp_driver tp_verbs_driver;

#endif
