/* SPDX-License-Identifier: MIT */
/*
 * The transport "verbs": one-sided RDMA through rdma-core, borrower's side.  READ and WRITE cost
 * the donor's process nothing; so do FLUSH (of memory), PROBE and ZERO of up to 64 KiB.  Longer
 * ZEROs are carried out by the donor.
 *
 * config of tp_verbs_ops: a struct verbs_config, copied; NULL for the defaults.
 * tp_open() says -ENODEV on a machine without RDMA devices.  tp_target.hello must not be anonymous.
 */
#ifndef WEFT_TRANSPORTS_VERBS_VERBS_H
#define WEFT_TRANSPORTS_VERBS_VERBS_H

#include "fabric/transport.h"

/*
 * The port that is tried when the target names none: NBD's number, in rdma_cm's own space of ports.
 */
#define VERBS_DEFAULT_PORT "10809"

struct verbs_config {
	uint32_t depth; /* operations in flight on a connection; 0: 128 */
	/*
	 * How long tp_arm() looks for completions before it asks for a wake-up, while operations
	 * are in flight and as long as looking has paid lately.  0: 20 us; UINT32_MAX: never looks.
	 */
	uint32_t spin_us;
};

extern const struct tp_ops tp_verbs_ops;

#endif
