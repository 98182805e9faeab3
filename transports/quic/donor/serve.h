/* SPDX-License-Identifier: MIT */
/* The donor's QUIC side as weft serve has it: see fabric/listener.h. */
#ifndef WEFT_TRANSPORTS_QUIC_DONOR_SERVE_H
#define WEFT_TRANSPORTS_QUIC_DONOR_SERVE_H

#include "fabric/base/options.h"
#include "fabric/listener.h"

/* The option --quic of weft serve, and where it is stored. */
extern struct quic_listen_settings {
	char *place; /* [ADDRESS:]PORT; NULL: no QUIC */
} quic_listen_settings;
extern const struct weft_option quic_listen_options[];

extern const struct weft_listener_ops quic_listener_ops;

#endif
