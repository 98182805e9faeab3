/* SPDX-License-Identifier: MIT */
/* A connection by a session's alias, for whoever goes on with it as a stock client. */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_ALIAS_H
#define WEFT_TRANSPORTS_NBD_BORROWER_ALIAS_H

#include <stdint.h>

#include "fabric/transport.h"

/* See open_alias() of struct tp_driver. */
int nbd_open_alias(const char *host, const char *port, const uint8_t *alias, uint32_t timeout_ms,
	uint32_t dead_ms, struct tp_info *ret, struct weft_error *err);

#endif
