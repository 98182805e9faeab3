/* SPDX-License-Identifier: MIT */
/* The donor's SRP side as weft serve has it: see fabric/listener.h. */
#ifndef WEFT_TRANSPORTS_SRP_DONOR_SERVE_H
#define WEFT_TRANSPORTS_SRP_DONOR_SERVE_H

#include "fabric/base/options.h"
#include "fabric/listener.h"
#include "transports/srp/donor/hosts.h"

/* The options --srp and --srp-host of weft serve, and where they are stored. */
extern struct srp_listen_settings {
	char *place; /* [ADDRESS:]PORT; NULL: no SRP */
	struct srp_hosts hosts;
} srp_listen_settings;
extern const struct weft_option srp_listen_options[];

extern const struct weft_listener_ops srp_listener_ops;

#endif
