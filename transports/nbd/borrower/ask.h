/* SPDX-License-Identifier: MIT */
/* Asks a donor over NBD what it offers; nothing is granted. */
#ifndef WEFT_TRANSPORTS_NBD_BORROWER_ASK_H
#define WEFT_TRANSPORTS_NBD_BORROWER_ASK_H

#include <stdint.h>

#include "fabric/hello.h"
#include "fabric/uri.h"

/*
 * See ask() of struct tp_driver.  The URI has a host, no socket.  Control path: blocks and
 * allocates.
 */
int nbd_ask(const struct weft_uri *uri, const struct weft_key *key, const char *certificates,
	uint32_t timeout_ms, int cancel_fd, struct weft_welcome *ret, struct weft_key *ret_pass,
	struct weft_error *err);

#endif
