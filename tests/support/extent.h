/* SPDX-License-Identifier: MIT */
/* What a region says of a span's beginning. */
#ifndef WEFT_TESTS_SUPPORT_EXTENT_H
#define WEFT_TESTS_SUPPORT_EXTENT_H

#include "fabric/region/region.h"

/* From off on, within len bytes, there is a hole or there is none, for want bytes. */
static inline void expect_extent(struct weft_region *region, uint64_t off, uint64_t len, bool hole,
	uint64_t want)
{
	struct weft_extent extent = weft_region_extent(region, off, len);

	assert_int_equal(extent.hole, hole);
	assert_int_equal(extent.len, want);
}

#endif
