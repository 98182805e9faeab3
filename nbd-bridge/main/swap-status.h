/* SPDX-License-Identifier: MIT */
/* What weft swap status tells: collected as JSON, and printed for people.  One thread. */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_STATUS_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_STATUS_H

#include <jansson.h>

#include "nbd-bridge/main/swap.h"

/* The version of the JSON: goes up when a name or a unit changes. */
enum { SWAP_STATUS_SCHEMA = 1, SWAP_STATUS_HOLDERS = 10 };

/*
 * Of the swaps that are named, or of all; takes a second, in which pages are counted.  A new
 * reference; NULL: there is none of a name, as was said on standard error.
 */
json_t *swap_status_collect(const struct swap_options *o);
void swap_status_print(const json_t *status);

#endif
