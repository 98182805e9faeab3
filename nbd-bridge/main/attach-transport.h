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

#endif
