/* SPDX-License-Identifier: MIT */
/* The donor's NBD side for weft serve: see fabric/listener.h. */
#ifndef WEFT_TRANSPORTS_NBD_DONOR_SERVE_H
#define WEFT_TRANSPORTS_NBD_DONOR_SERVE_H

#include "fabric/listener.h"

/* Serves on the donor's sockets. */
extern const struct weft_listener_ops nbd_listener_ops;

#endif
