/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side of the transport "verbs": one-sided RDMA through rdma-core.  READ and WRITE
 * cost the donor's process nothing, and neither do FLUSH (of memory), PROBE, and ZERO of up to 64
 * KiB.  The donor carries out longer ZEROs.
 *
 * config of tp_verbs_ops: a struct verbs_config, copied; NULL for the defaults.
 * tp_open() says -ENODEV on a machine without RDMA devices.  tp_target.hello must not be anonymous.
 */
#ifndef WEFT_TRANSPORTS_VERBS_VERBS_H
#define WEFT_TRANSPORTS_VERBS_VERBS_H

#include "fabric/transport.h"

/* The port for a target that names none: NBD's number, in rdma_cm's own space of ports. */
#define VERBS_DEFAULT_PORT "10809"

struct verbs_config {
	uint32_t depth; /* operations in flight on a connection; 0: 128 */
	/*
	 * How long tp_arm() looks for completions before it asks for a wake-up, while operations
	 * are in flight and looking has lately been worth while.  0: 20 us; UINT32_MAX: never
	 * looks.
	 */
	uint32_t spin_us;
};

extern const struct tp_ops tp_verbs_ops;

#endif
