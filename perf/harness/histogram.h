/*
 * Latencies: a log-linear histogram, 32 steps an octave (3 % wide).  One thread adds; merged afterwards.
 */
#ifndef PERF_HARNESS_HISTOGRAM_H
#define PERF_HARNESS_HISTOGRAM_H

#include <stdint.h>

enum { PERF_HIST_STEPS = 32, PERF_HIST_BUCKETS = PERF_HIST_STEPS * 40 };

struct perf_hist {
	uint64_t nr;
	uint32_t buckets[PERF_HIST_BUCKETS];
};

static inline void perf_hist_add(struct perf_hist *h, uint64_t ns)
{
	unsigned shift, i;

	h->nr++;
	if (ns < PERF_HIST_STEPS) {
		h->buckets[ns]++;
		return;
	}
	shift = 63 - (unsigned)__builtin_clzll(ns) - 5;
	i = (shift + 1) * PERF_HIST_STEPS + (unsigned)(ns >> shift) - PERF_HIST_STEPS;
	h->buckets[i < PERF_HIST_BUCKETS ? i : PERF_HIST_BUCKETS - 1]++;
}

static inline void perf_hist_merge(struct perf_hist *into, const struct perf_hist *from)
{
	into->nr += from->nr;
	for (unsigned i = 0; i < PERF_HIST_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

/* The value below which the share q (0 to 1) of the samples lies, in nanoseconds; 0 when empty. */
static inline uint64_t perf_hist_quantile(const struct perf_hist *h, double q)
{
	uint64_t want = (uint64_t)(q * (double)h->nr), seen = 0;

	for (unsigned i = 0; i < PERF_HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen > want) {
			unsigned shift = i / PERF_HIST_STEPS;

			if (shift == 0)
				return i;
			return (uint64_t)(i % PERF_HIST_STEPS + PERF_HIST_STEPS) << (shift - 1);
		}
	}
	return 0;
}

#endif
