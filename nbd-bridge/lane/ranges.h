/* SPDX-License-Identifier: MIT */
/*
 * Sets of ranges of bytes, as a bit for each so many bytes: which bytes a copy lacks, which ones
 * somebody is writing.  Any thread, without locks.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_RANGES_H
#define WEFT_NBD_BRIDGE_LANE_RANGES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct ranges {
	unsigned shift;   /* a bit stands for 1 << shift bytes */
	uint64_t nr;      /* bits */
	_Atomic uint64_t nr_set;
	_Atomic uint64_t *bits;
};

/* All bits are clear.  0, or -ENOMEM: then ranges_fini() does nothing. */
int ranges_init(struct ranges *ranges, uint64_t bytes, unsigned shift);
/* All zero: does nothing. */
void ranges_fini(struct ranges *ranges);

/* Every bit that the range touches; the range has bytes, and they are inside. */
void ranges_set(struct ranges *ranges, uint64_t off, uint64_t len);
void ranges_clear(struct ranges *ranges, uint64_t off, uint64_t len);
bool ranges_has_any(const struct ranges *ranges, uint64_t off, uint64_t len);
/*
 * For sets that are locks, whose nr_set means nothing.  take: sets the bits if all are clear;
 * false: somebody has one, and nothing changed.  give: clears them.
 */
bool ranges_take(struct ranges *ranges, uint64_t off, uint64_t len);
void ranges_give(struct ranges *ranges, uint64_t off, uint64_t len);

/*
 * The first run of set bits that ends behind `from`, cut off at max bytes and at the end of the
 * range that was initialized; false: there is none.
 */
bool ranges_next(const struct ranges *ranges, uint64_t from, uint64_t max, uint64_t bytes,
	uint64_t *ret_off, uint64_t *ret_len);

static inline bool ranges_empty(const struct ranges *ranges)
{
	return atomic_load_explicit(&ranges->nr_set, memory_order_acquire) == 0;
}

#endif
