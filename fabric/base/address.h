/* SPDX-License-Identifier: MIT */
/* What an address is.  Pure functions. */
#ifndef WEFT_FABRIC_BASE_ADDRESS_H
#define WEFT_FABRIC_BASE_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* An IPv4 address that is written as an IPv6 one (::ffff:192.0.2.1) becomes IPv4; others stay. */
void weft_address_unmap(struct sockaddr_storage *address);

/* 127.0.0.0/8 or ::1, however it is written: of this machine alone. */
bool weft_address_is_loopback(const struct sockaddr *address);

/*
 * Who shares an address's budget has the same key: an IPv4 address, the first 64 bits of an IPv6
 * address (one machine has all of those; a link-local address counts whole), or, of any other
 * address, the user.
 */
enum { WEFT_ADDRESS_KEY_BYTES = 16 };
void weft_address_key(const struct sockaddr *address, uint32_t uid, uint8_t *ret);

#endif
