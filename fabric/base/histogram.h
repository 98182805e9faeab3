/* SPDX-License-Identifier: MIT */
/*
 * A latency histogram of fixed size: log-linear like HdrHistogram, with 32 steps to each power of
 * two, so that a value that is read back is within 1.6 % of the value that was added.
 *
 * One thread adds; any thread may read meanwhile and sees a recent state.  No locks, no allocation.
 */
#ifndef WEFT_FABRIC_BASE_HISTOGRAM_H
#define WEFT_FABRIC_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

enum {
	WEFT_HISTOGRAM_STEP_BITS = 5,
	WEFT_HISTOGRAM_STEPS = 1 << WEFT_HISTOGRAM_STEP_BITS,
	WEFT_HISTOGRAM_MAX_BITS = 40, /* 2^40 ns: 18 minutes; longer values count as 18 minutes */
	WEFT_HISTOGRAM_BUCKETS =
		(WEFT_HISTOGRAM_MAX_BITS - WEFT_HISTOGRAM_STEP_BITS + 1) * WEFT_HISTOGRAM_STEPS,
};

/* All zeros: empty. */
struct weft_histogram {
	_Atomic uint64_t total; /* values added */
	_Atomic uint64_t sum;
	_Atomic uint64_t max; /* exact */
	_Atomic uint64_t buckets[WEFT_HISTOGRAM_BUCKETS];
};

/* The bucket of a value, and the middle of a bucket. */
unsigned weft_histogram_bucket(uint64_t value);
uint64_t weft_histogram_value(unsigned bucket);

/* The owner's thread only. */
void weft_histogram_add(struct weft_histogram *histogram, uint64_t value);
/* Adds the values of `from`, which may be in use, to `into`, which is the caller's. */
void weft_histogram_merge(struct weft_histogram *into, const struct weft_histogram *from);
/* The value that the share q (0 to 1) of all values does not exceed; 0 when empty. */
uint64_t weft_histogram_quantile(const struct weft_histogram *histogram, double q);

#endif
