/* SPDX-License-Identifier: MIT */
/*
 * The borrower's side of the transport "quic": a connection is QUIC_STREAMS streams, each an NBD
 * client of its own (fabric/nbd/client.h).
 *
 * tp_open() takes a struct quic_client_config, or NULL.
 */
#ifndef WEFT_TRANSPORTS_QUIC_BORROWER_CLIENT_H
#define WEFT_TRANSPORTS_QUIC_BORROWER_CLIENT_H

#include <stdint.h>

#include "fabric/transport.h"

struct quic_client_config {
	uint32_t depth; /* operations in flight of a connection; 0: 128 */
};

extern const struct tp_ops tp_quic_ops;

#endif
