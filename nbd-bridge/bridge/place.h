/* SPDX-License-Identifier: MIT */
/*
 * Where the lanes run: on the processors near the network card that leads to the first donor, with
 * buffers in that node's memory.  The control thread's.
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_PLACE_H
#define WEFT_NBD_BRIDGE_BRIDGE_PLACE_H

#include <jansson.h>

#include "nbd-bridge/lane/lanes.h"

struct bridge_place {
	bool one_node; /* the machine has no other: nothing else here means anything */
	bool bound;
	/* of the first lane's connection to the first donor; "": none */
	char netdev[64], rdma_device[64];
	char device[64], nodes[128], cpus[512]; /* bound: near which, and to what */
	char why[256];                             /* else */
};

/*
 * The first donor was granted, all lanes run, and none of their buffers is used.  0, or -errno when
 * those cannot be made anew.
 */
int place_first(struct bridge_place *place, struct bridge_lanes *lanes, struct weft_error *err);
/* Lanes follow the connection to another network card.  Cheap if it has none. */
void place_again(struct bridge_place *place, struct bridge_lanes *lanes);
/* A new reference. */
json_t *place_json(const struct bridge_place *place);

#endif
