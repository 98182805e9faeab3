/* SPDX-License-Identifier: MIT */
/* The row of the transport "srp": SCSI over RDMA. */
#ifndef WEFT_TRANSPORTS_SRP_DRIVER_H
#define WEFT_TRANSPORTS_SRP_DRIVER_H

#include "fabric/driver.h"

extern const struct tp_driver tp_srp_driver;

#endif
