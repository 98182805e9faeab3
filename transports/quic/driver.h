/* SPDX-License-Identifier: MIT */
/* The row of the transport "quic": NBD over QUIC. */
#ifndef WEFT_TRANSPORTS_QUIC_DRIVER_H
#define WEFT_TRANSPORTS_QUIC_DRIVER_H

#include "fabric/driver.h"

extern const struct tp_driver tp_quic_driver;

#endif
