/* SPDX-License-Identifier: MIT */
/* See alias.h. */
#include "nbd-bridge/bridge/alias.h"

#include <assert.h>
#include <errno.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/lane/lane.h"
#include "nbd-bridge/link/peer.h"

static struct bridge_peer *peer_of(struct bridge *bridge)
{
	struct bridge_attachment *attachment = bridge_attachment(bridge);

	assert(attachment->config.wants_alias && attachment->nr_peers == 1);
	return &attachment->peers[0];
}

uint64_t bridge_alias_generation(struct bridge *bridge)
{
	uint8_t alias[WEFT_ID_BYTES];

	return peer_alias(peer_of(bridge), alias);
}

int bridge_alias_open(struct bridge *bridge, uint32_t timeout_ms, uint64_t *ret_generation,
	struct tp_info *ret_info, struct weft_error *err)
{
	const struct bridge_attachment_config *config = &bridge_attachment(bridge)->config;
	struct bridge_peer *peer = peer_of(bridge);
	const struct bridge_way *way = &peer->config.ways[0];
	const struct tp_driver *driver = tp_driver_of_ops(way->transport);
	uint32_t dead_ms = config->dead_timeout_ms ? config->dead_timeout_ms / 2 : 15000;
	uint8_t alias[WEFT_ID_BYTES];

	*ret_generation = peer_alias(peer, alias);
	if (*ret_generation == 0)
		return weft_error_set(err, EAGAIN, "there is no session with the donor");
	if (!driver || !driver->open_alias)
		return weft_error_set(err, EOPNOTSUPP,
			"the kernel cannot go on over %s", way->transport->name);
	return driver->open_alias(way->host, way->port, alias, timeout_ms,
		(uint32_t)weft_max(dead_ms, 1000), ret_info, err);
}

static void renounce(struct bridge_lane *lane, void *ctx)
{
	link_renounce(lane_link(lane, 0), ctx);
}

void bridge_alias_renew(struct bridge *bridge, const char *why)
{
	bridge_lane_run(bridge_lane(bridge, 0), renounce, (void *)why);
}
