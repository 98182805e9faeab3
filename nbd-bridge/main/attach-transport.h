/*
 * Which transport an attachment takes, and why: private to weft attach.  Main thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_ATTACH_TRANSPORT_H
#define WEFT_NBD_BRIDGE_MAIN_ATTACH_TRANSPORT_H

#include "nbd-bridge/main/attach.h"

/*
 * Makes and starts a->bridge, over RDMA where the donors offer it and it works, or over what was told.  Says why in
 * a->why.  config: with nr_donors; donors: with id, generation and epoch, gets the rest.
 */
int attach_start_bridge(struct attach *a, struct bridge_config *config, struct bridge_donor_config *donors,
	struct weft_error *err);
/* Of a try that failed: gives back what it was granted all the same. */
void attach_end_bridge(struct attach *a);

/*
 * In its place, for an attachment that is stale: asks for no grant, and whatever the donors say now changes nothing.  infos: what they granted
 * before; *why: why it is stale.
 */
int attach_start_stale(struct attach *a, struct bridge_config *config, struct bridge_donor_config *donors,
	const struct tp_info *infos, const struct weft_error *why, struct weft_error *err);

#endif
