/* SPDX-License-Identifier: MIT */
/* Private to nbd-bridge/bridge/: the insides of a bridge. */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_BRIDGE_PRIVATE_H
#define WEFT_NBD_BRIDGE_BRIDGE_BRIDGE_PRIVATE_H

#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge.h"
#include "nbd-bridge/bridge/place.h"
#include "nbd-bridge/cache/cache.h"

struct bridge {
	struct bridge_config config;
	struct bridge_attachment attachment;
	struct bridge_lanes lanes;
	struct bridge_cache *cache; /* NULL: direct */
	struct bridge_copies *copies; /* NULL: there are none */
	struct bridge_place place;
	uint64_t start_ns;
};

#endif
