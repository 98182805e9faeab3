/* SPDX-License-Identifier: MIT */
/*
 * Log-linear histograms.  Written by one thread, read by any: all accesses are relaxed atomics,
 * which on the writer's side are plain loads and stores.
 */
#include "fabric/base/histogram.h"

#include <math.h>

#include "fabric/base/util.h"

unsigned weft_histogram_bucket(uint64_t value)
{
	if (value < WEFT_HISTOGRAM_STEPS)
		return (unsigned)value;
	unsigned bits = 64 - (unsigned)__builtin_clzll(value);
	if (bits > WEFT_HISTOGRAM_MAX_BITS)
		return WEFT_HISTOGRAM_BUCKETS - 1;
	/* Values of `bits` bits: their top 1 + STEP_BITS bits count from STEPS to 2 STEPS - 1. */
	unsigned shift = bits - WEFT_HISTOGRAM_STEP_BITS - 1;
	return shift * WEFT_HISTOGRAM_STEPS + (unsigned)(value >> shift);
}

uint64_t weft_histogram_value(unsigned bucket)
{
	if (bucket < 2 * WEFT_HISTOGRAM_STEPS)
		return bucket;
	unsigned shift = bucket / WEFT_HISTOGRAM_STEPS - 1;
	uint64_t low = (uint64_t)(bucket - shift * WEFT_HISTOGRAM_STEPS) << shift;
	return low + (UINT64_C(1) << shift) / 2;
}

static void bump(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
		memory_order_relaxed);
}

void weft_histogram_add(struct weft_histogram *histogram, uint64_t value)
{
	bump(&histogram->buckets[weft_histogram_bucket(value)], 1);
	bump(&histogram->total, 1);
	bump(&histogram->sum, value);
	if (value > atomic_load_explicit(&histogram->max, memory_order_relaxed))
		atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
}

void weft_histogram_merge(struct weft_histogram *into, const struct weft_histogram *from)
{
	uint64_t total = 0;

	/* The total is counted anew: beside a writer, `from->total` may be of another moment. */
	for (unsigned i = 0; i < WEFT_HISTOGRAM_BUCKETS; i++) {
		uint64_t n = atomic_load_explicit(&from->buckets[i], memory_order_relaxed);

		if (n > 0) {
			bump(&into->buckets[i], n);
			total += n;
		}
	}
	bump(&into->total, total);
	bump(&into->sum, atomic_load_explicit(&from->sum, memory_order_relaxed));
	uint64_t max = atomic_load_explicit(&from->max, memory_order_relaxed);
	if (max > into->max)
		into->max = max;
}

uint64_t weft_histogram_quantile(const struct weft_histogram *histogram, double q)
{
	uint64_t total = histogram->total;
	uint64_t seen = 0;

	if (total == 0)
		return 0;
	uint64_t rank = (uint64_t)ceil(q * (double)total);
	if (rank == 0)
		rank = 1;
	if (rank >= total)
		return histogram->max;
	for (unsigned i = 0; i < WEFT_HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= rank)
			return weft_min(weft_histogram_value(i), histogram->max);
	}
	return histogram->max;
}
