/* SPDX-License-Identifier: MIT */
/*
 * The alias of a bridge's session (fabric/hello.h), by which somebody else of this machine, the
 * kernel, reads and writes over a connection of its own.  Only where config.attach.wants_alias.
 * The control thread's.
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_ALIAS_H
#define WEFT_NBD_BRIDGE_BRIDGE_ALIAS_H

#include "nbd-bridge/bridge/bridge.h"

/* The generation of the session that there is now, whose alias is good; 0: there is none. */
uint64_t bridge_alias_generation(struct bridge *bridge);
/*
 * A connection by the alias: see open_alias() of fabric/driver.h.  Blocks for up to timeout_ms.
 * The socket, with the session's generation; -EAGAIN: there is no session; or -errno.
 */
int bridge_alias_open(struct bridge *bridge, uint32_t timeout_ms, uint64_t *ret_generation,
	struct tp_info *ret_info, struct weft_error *err);
/*
 * Gives the session up, for one at the next generation: the donor then carries out nothing any more
 * that came by the old alias.
 */
void bridge_alias_renew(struct bridge *bridge, const char *why);

#endif
