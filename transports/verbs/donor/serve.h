/* SPDX-License-Identifier: MIT */
/* The donor's verbs side as weft serve has it: see fabric/listener.h. */
#ifndef WEFT_TRANSPORTS_VERBS_DONOR_SERVE_H
#define WEFT_TRANSPORTS_VERBS_DONOR_SERVE_H

#include <stdbool.h>

#include "fabric/base/options.h"
#include "fabric/listener.h"

/*
 * Serves at the first of the donor's addresses that is on an RDMA device, under the same port
 * number.
 */
/* The options --rdma and --rdma-plaintext of weft serve, and where the first is stored. */
extern struct verbs_listen_settings {
	bool off;
} verbs_listen_settings;
extern const struct weft_option verbs_listen_options[];

extern const struct weft_listener_ops verbs_listener_ops;

#endif
