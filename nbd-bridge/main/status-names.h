/* SPDX-License-Identifier: MIT */
/* What a shell completes: names of attachments, and URIs of regions.  One thread. */
#ifndef WEFT_NBD_BRIDGE_MAIN_STATUS_NAMES_H
#define WEFT_NBD_BRIDGE_MAIN_STATUS_NAMES_H

/*
 * Prints on standard output, a line each: "attachments": the names of this user's attachments,
 * which asks nobody; "regions": the URIs of what this user's donors on this machine lend, for which
 * each donor is waited for, half a second at most.  Anything else: nothing.  Always 0: a shell
 * that completes has no use for an error.
 */
int status_print_names(const char *kind);

#endif
