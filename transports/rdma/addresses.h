/* SPDX-License-Identifier: MIT */
/* This machine's addresses that RDMA has.  Any thread. */
#ifndef WEFT_TRANSPORTS_RDMA_ADDRESSES_H
#define WEFT_TRANSPORTS_RDMA_ADDRESSES_H

#include <stdbool.h>
#include <sys/socket.h>

/* Whether this is no address of a machine's, but stands for all of them. */
bool weft_rdma_is_any(const struct sockaddr *address);
/*
 * Our addresses that other machines may reach and that are on an RDMA device, with port 0: how many
 * of them, up to max, are in ret.
 */
unsigned weft_rdma_addresses(struct sockaddr_storage *ret, unsigned max);

#endif
