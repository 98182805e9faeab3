/* SPDX-License-Identifier: MIT */
/*
 * The order in which a managed attachment pulls its region.  An attachment can save how the region
 * was used as such an order for the next one.
 *
 * A file of lines "OFFSET [LENGTH]", both in bytes.  Without a length a line means the chunk that
 * the offset lies in.  Lines that begin with # are comments.  Bytes beyond the region's end are
 * ignored; chunks that no line names come last.
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

/* 0; -EINVAL: a line is something else; -ENOMEM; or what open(2) said. */
int pull_order_read(const char *path, struct pull_order *ret, struct weft_error *err);
void pull_order_free(struct pull_order *order);
/*
 * The numbers of all chunks of 1 << shift bytes, each once, in that order; to be freed.  0, or
 * -ENOMEM.
 */
int pull_order_chunks(const struct pull_order *order, uint64_t nr_chunks, unsigned shift,
	uint32_t **ret);

#endif
