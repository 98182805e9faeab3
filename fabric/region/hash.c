/* SPDX-License-Identifier: MIT */
/*
 * Hashes of a region's blocks.  Any number of threads at once, each with its own scratch.
 *
 * Holes are hashed without a look at them: a look would take memory for the pages of a memory
 * region, and for a file's in the page cache.
 */
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/hashing.h"
#include "fabric/region/region.h"

static const uint8_t zeros[WEFT_HASH_BLOCK_MAX];

/* The zeros of len bytes: whole blocks, and a shorter one at the end. */
static void hash_hole(const struct weft_hasher *hasher, uint32_t block_bytes, uint64_t len,
	uint8_t *ret)
{
	uint8_t one[WEFT_HASH_BYTES];

	if (len >= block_bytes)
		weft_hasher_hash(hasher, zeros, block_bytes, one);
	for (; len >= block_bytes; len -= block_bytes, ret += WEFT_HASH_BYTES)
		memcpy(ret, one, WEFT_HASH_BYTES);
	if (len > 0)
		weft_hasher_hash(hasher, zeros, len, ret);
}

static int hash_data(struct weft_region *region, const struct weft_hasher *hasher,
	uint32_t block_bytes, uint64_t off, uint64_t len, void *scratch, uint8_t *ret)
{
	if (region->map) {
		weft_hasher_hash_blocks(hasher, block_bytes, region->map + off, len, ret);
		return 0;
	}
	for (uint64_t done = 0; done < len; done += WEFT_HASH_BLOCK_MAX) {
		const uint64_t n = weft_min(WEFT_HASH_BLOCK_MAX, len - done);
		int r = weft_region_read(region, scratch, off + done, n);

		if (r < 0)
			return r;
		weft_hasher_hash_blocks(hasher, block_bytes, scratch, n, ret);
		ret += weft_hash_nr_blocks(n, block_bytes) * WEFT_HASH_BYTES;
	}
	return 0;
}

/* How many of the bytes, from off on, are of one kind; blocks that are both count as data. */
static uint64_t run(struct weft_region *region, uint32_t block_bytes, uint64_t off, uint64_t len,
	bool *ret_hole)
{
	const struct weft_extent extent = weft_region_extent(region, off, len);

	*ret_hole = extent.hole && (extent.len == len || extent.len >= block_bytes);
	if (extent.len == len)
		return len;
	if (*ret_hole)
		return extent.len - extent.len % block_bytes;
	return weft_min(len, (extent.len + block_bytes - 1) / block_bytes * block_bytes);
}

int weft_region_hash(struct weft_region *region, const struct weft_hasher *hasher,
	uint32_t block_bytes, uint64_t off, uint64_t len, void *scratch, uint8_t *ret)
{
	while (len > 0) {
		bool hole;
		const uint64_t n = run(region, block_bytes, off, len, &hole);
		int r = 0;

		if (hole)
			hash_hole(hasher, block_bytes, n, ret);
		else
			r = hash_data(region, hasher, block_bytes, off, n, scratch, ret);
		if (r < 0)
			return r;
		ret += weft_hash_nr_blocks(n, block_bytes) * WEFT_HASH_BYTES;
		off += n;
		len -= n;
	}
	return 0;
}
