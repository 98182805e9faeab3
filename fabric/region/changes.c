/* SPDX-License-Identifier: MIT */
/*
 * Which chunks of a region change, while somebody copies it.
 *
 * Threads: the bitmap is made under the donor's lock, and freed with the region: a thread that saw
 * `tracked` may use it at any time.  Bits are set and taken by any thread.
 * Invariant: a bit is set after the bytes are there, and taken before the bytes are read.  So a
 * byte that the reader missed has its bit set again.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fabric/base/util.h"
#include "fabric/region/region-private.h"

enum { BITS = 64 };
#define MAX_NAP_NS UINT64_C(20000000)

static uint64_t nr_words(const struct weft_region *region)
{
	return (weft_region_nr_chunks(region) + BITS - 1) / BITS;
}

int weft_region_track(struct weft_region *region)
{
	if (!region->changes)
		region->changes = calloc(nr_words(region), sizeof(*region->changes));
	if (!region->changes)
		return -ENOMEM;
	for (uint64_t i = 0; i < nr_words(region); i++)
		atomic_store_explicit(&region->changes[i], 0, memory_order_relaxed);
	atomic_store(&region->pace_ns_per_mib, 0);
	atomic_store(&region->tracked, true);
	return 0;
}

void weft_region_untrack(struct weft_region *region)
{
	atomic_store(&region->tracked, false);
	atomic_store(&region->pace_ns_per_mib, 0);
}

/*
 * The writer's answer waits, and so does whoever waits for the answer.  A small write costs as much
 * as its chunk, which has to be copied again.
 */
static void hold_back(const struct weft_region *region, uint64_t len)
{
	uint64_t pace = atomic_load_explicit(&region->pace_ns_per_mib, memory_order_relaxed);
	uint64_t ns = weft_min(len * pace / WEFT_MIB, MAX_NAP_NS);
	struct timespec nap = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	if (ns > 0)
		nanosleep(&nap, NULL);
}

void weft_region_track_change(struct weft_region *region, uint64_t off, uint64_t len)
{
	/* What was made before `tracked` was set is there. */
	if (len == 0 || !atomic_load_explicit(&region->tracked, memory_order_acquire))
		return;
	const uint64_t first = off / WEFT_CHUNK_BYTES, last = (off + len - 1) / WEFT_CHUNK_BYTES;

	for (uint64_t i = first; i <= last; i++)
		atomic_fetch_or_explicit(&region->changes[i / BITS], UINT64_C(1) << i % BITS,
			memory_order_release);
	hold_back(region, (last - first + 1) * WEFT_CHUNK_BYTES);
}

void weft_region_take_changes(struct weft_region *region, uint64_t first, uint64_t nr,
	uint64_t *ret)
{
	assert(first % BITS == 0 && first + nr <= weft_region_nr_chunks(region));
	memset(ret, 0, (nr + BITS - 1) / BITS * sizeof(*ret));
	/* First: a report that ends meanwhile leaves bits. */
	region_take_reports(region, first, nr, ret);
	for (uint64_t i = 0; i < (nr + BITS - 1) / BITS; i++)
		ret[i] |= atomic_exchange(&region->changes[first / BITS + i], 0);
}
