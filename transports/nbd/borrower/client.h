/* SPDX-License-Identifier: MIT */
/*
 * The transport "nbd": a donor over TCP (or a Unix socket), and any other NBD server.
 *
 * A thread does the handshake: our own with donors, libnbd's with other servers.  Then our own
 * transmission phase takes over on the socket: it pipelines, allocates nothing, and receives
 * straight into registered memory.
 *
 * config of tp_nbd_ops: a struct nbd_client_config, or NULL for the defaults.
 * tp_close() may wait for a resolver that is still at work for a connection given up.
 */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_H
#define WEFT_TRANSPORTS_NBD_BORROWER_CLIENT_H

#include "fabric/transport.h"

struct nbd_client_config {
	uint32_t depth; /* operations in flight per connection, up to 1024; 0: 512 */
};

extern const struct tp_ops tp_nbd_ops;

#endif
