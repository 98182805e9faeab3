/* SPDX-License-Identifier: MIT */
/* The bridges under swap spaces: weft attach and weft detach, and what a bridge says.  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_BRIDGE_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_BRIDGE_H

#include <jansson.h>

#include "nbd-bridge/main/swap.h"

/*
 * Attaches the URIs as one device under this name.  locked: with weft attach --swap.  What weft
 * attach has to say of a failure goes to standard error.
 */
int swap_attach(const struct swap_options *o, const char *name, char *const *uris, unsigned nr,
	bool locked, struct weft_error *err);
/*
 * Ends the attachment, whatever its donor says: of a swap space that was drained nothing is worth
 * keeping.  One that there is not is no error.
 */
int swap_detach(const char *name, struct weft_error *err);
/* A new reference to the bridge's status; -ESRCH: nobody answers, and why. */
int swap_ask_bridge(const char *name, json_t **ret, struct weft_error *err);
/* Whether the kernel still has the device that the attachment made; else it is somebody else's. */
bool swap_has_device(const struct swap_member *member);
/* Whether there is an attachment of this name, alive or dead. */
bool swap_is_attached(const char *name);

#endif
