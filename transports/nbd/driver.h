/* SPDX-License-Identifier: MIT */
/* The row of the transport "nbd": a donor over TCP or a Unix socket, and any other NBD server. */
#ifndef WEFT_TRANSPORTS_NBD_DRIVER_H
#define WEFT_TRANSPORTS_NBD_DRIVER_H

#include "fabric/driver.h"

extern const struct tp_driver tp_nbd_driver;

#endif
