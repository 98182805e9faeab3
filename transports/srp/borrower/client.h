/* SPDX-License-Identifier: MIT */
/*
 * The transport "srp", borrower's side: a unit of any SRP target, as an initiator.
 *
 * The target moves the data by RDMA, from and to the lanes' registered buffers.  It knows neither
 * epochs nor generations; what it knows of an attachment is an initiator port.
 *
 * config of tp_srp_ops: a struct srp_client_config, or NULL for the defaults.
 */
#ifndef WEFT_TRANSPORTS_SRP_BORROWER_CLIENT_H
#define WEFT_TRANSPORTS_SRP_BORROWER_CLIENT_H

#include "fabric/transport.h"

struct srp_client_config {
	uint32_t depth; /* operations in flight a channel, up to 1024; 0: 128 */
	/* how long to look for completions before waiting; 0: 20; UINT32_MAX: not at all */
	uint32_t spin_us;
};

extern const struct tp_ops tp_srp_ops;

#endif
