/* SPDX-License-Identifier: MIT */
/*
 * The order in which a managed attachment pulls its region, and how it was used, for the next
 * one's.
 *
 * A file of lines "OFFSET [LENGTH]", both in bytes; without a length the one chunk that the offset
 * lies in.  Lines that begin with # say nothing.  What lies beyond the region's end is not looked
 * at; what no line names comes in the end.
 */
#ifndef WEFT_NBD_BRIDGE_CACHE_PULL_ORDER_H
#define WEFT_NBD_BRIDGE_CACHE_PULL_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"

struct pull_range {
	uint64_t off, len;
};

struct pull_order {
	struct pull_range *ranges;
	size_t nr;
};

/* -EINVAL: a line is something else; -ENOMEM; or what open(2) said. */
int pull_order_read(const char *path, struct pull_order *ret, struct weft_error *err);
void pull_order_free(struct pull_order *order);
/* All chunks of 1 << shift bytes, each once, in that order; to be freed.  -ENOMEM. */
int pull_order_chunks(const struct pull_order *order, uint64_t nr_chunks, unsigned shift,
	uint32_t **ret);

#endif
