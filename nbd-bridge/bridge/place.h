/* SPDX-License-Identifier: MIT */
/*
 * Where the lanes run: on the processors near the network card that leads to the first donor, with
 * buffers in that node's memory.  For the control thread.
 */
#ifndef WEFT_NBD_BRIDGE_BRIDGE_PLACE_H
#define WEFT_NBD_BRIDGE_BRIDGE_PLACE_H

#include <jansson.h>

#include "nbd-bridge/lane/lanes.h"

struct bridge_place {
	bool one_node; /* the machine has one node only: the other fields mean nothing */
	bool bound;
	/* of the first lane's connection to the first donor; "": none */
	char netdev[64], rdma_device[64];
	/* if bound: the device that lanes are near, and what they are bound to */
	char device[64], nodes[128], cpus[512];
	char why[256];                             /* else */
};

/*
 * Called when the first donor has granted, all lanes run, and no buffer is in use.  0, or -errno if
 * the buffers cannot be made anew.
 */
int place_first(struct bridge_place *place, struct bridge_lanes *lanes, struct weft_error *err);
/* Lanes follow the connection to another network card.  Cheap if the card is the same. */
void place_again(struct bridge_place *place, struct bridge_lanes *lanes);
/* A new reference. */
json_t *place_json(const struct bridge_place *place);

#endif
