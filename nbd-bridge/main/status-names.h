/* SPDX-License-Identifier: MIT */
/* Names that a shell completes: those of attachments, and URIs of regions.  One thread. */
#ifndef WEFT_NBD_BRIDGE_MAIN_STATUS_NAMES_H
#define WEFT_NBD_BRIDGE_MAIN_STATUS_NAMES_H

/*
 * Prints on standard output, a line each, for "attachments" the names of this user's attachments,
 * without asking anybody; for "regions" the URIs of the regions that this user's donors on this
 * machine lend, waiting for each donor half a second at most; for any other kind nothing.  Always
 * 0: a shell that completes has no use for an error.
 */
int status_print_names(const char *kind);

#endif
