/* SPDX-License-Identifier: MIT */
/* The part of client-reply.c that client.c uses. */
#ifndef WEFT_FABRIC_NBD_CLIENT_PRIVATE_H
#define WEFT_FABRIC_NBD_CLIENT_PRIVATE_H

#include "fabric/nbd/client.h"

/*
 * Interprets received bytes, which it does not trust, up to max completions (*nr counts them).  0:
 * wants more bytes; 1: done[] is full; -EPROTO: the connection failed.
 */
int nbd_rx_parse(struct nbd_client *c, struct tp_op **done, unsigned max, unsigned *nr);
/* How many bytes beyond the payload at hand should be received. */
uint32_t nbd_rx_window(const struct nbd_client *c);

/* Gives the slot back and says how its operation ended. */
struct tp_op *nbd_slot_complete(struct nbd_client *c, struct nbd_slot *slot, int status);

#endif
