/* SPDX-License-Identifier: MIT */
/* The row of the transport "mem", which the table has in test builds. */
#ifndef WEFT_TRANSPORTS_MEM_DRIVER_H
#define WEFT_TRANSPORTS_MEM_DRIVER_H

#include "fabric/driver.h"

extern const struct tp_driver tp_mem_driver;

#endif
