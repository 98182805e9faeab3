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
 * Ends the member's attachment, whatever its donor says: of a swap space that was drained nothing
 * is worth keeping.  No error: there is none, or one of somebody else's by this name.  One that may
 * be somebody else's is ended only if nobody uses it.  -EUCLEAN: its state is damaged.
 */
int swap_detach(const struct swap_member *member, struct weft_error *err);
/* Notes what tells the device that the attachment made from others.  Or -errno. */
int swap_note_backend(struct swap_member *member, struct weft_error *err);
/* A new reference to the bridge's status; -ESRCH: nobody answers, and why. */
int swap_ask_bridge(const char *name, json_t **ret, struct weft_error *err);
/*
 * Whether the kernel has the device that the attachment made where it was noted: 1; 0: it is
 * somebody else's by now; -errno: that cannot be told.
 */
int swap_has_device(const struct swap_member *member);
/* Whether there is an attachment of this name, alive or dead. */
bool swap_is_attached(const char *name);

#endif
