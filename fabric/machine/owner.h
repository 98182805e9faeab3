/* SPDX-License-Identifier: MIT */
/* Whose socket the other end of a connection is.  No state, any thread. */
#ifndef WEFT_FABRIC_MACHINE_OWNER_H
#define WEFT_FABRIC_MACHINE_OWNER_H

#include <stdint.h>
#include <sys/socket.h>

/*
 * The user who made the socket at `theirs` that is connected to `ours` over TCP, both in this
 * network namespace: what the kernel says (sock_diag(7)), as this user namespace has the number.
 * Asks the kernel once and does not wait; where netlink is not to be had it reads the kernel's
 * tables.  0; -ENOENT: there is no such socket, it was closed, or the kernel has no tcp_diag; or
 * -errno of sendto(2), recvfrom(2).
 */
int weft_socket_owner(const struct sockaddr *theirs, const struct sockaddr *ours,
	uint32_t *ret_uid);

#endif
