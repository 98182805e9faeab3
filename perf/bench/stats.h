/* SPDX-License-Identifier: MIT */
/*
 * What can be said about two handfuls of figures.  No distribution is assumed: ranks decide.
 * Functions without state; any thread.
 */
#ifndef WEFT_PERF_BENCH_STATS_H
#define WEFT_PERF_BENCH_STATS_H

#include <stddef.h>

enum { STATS_MAX = 64 }; /* figures in a handful */

/* Linear between the neighbours; values are left as they are.  n of 0: 0. */
double stats_quantile(const double *values, size_t n, double q);
double stats_median(const double *values, size_t n);
/* The interquartile range, in per cent of the median. */
double stats_spread(const double *values, size_t n);
enum { STATS_NOISY_PERCENT = 100 }; /* a spread from which on a median says little */

/*
 * Mann and Whitney's test, two-sided: how likely figures as different as these are if both handfuls
 * come from the same source.  Exact without ties for up to STATS_MAX figures each, else by the
 * normal approximation with its corrections for ties and continuity.  1 for an empty handful.
 */
double stats_mann_whitney(const double *a, size_t nr_a, const double *b, size_t nr_b);

struct stats_ratio {
	double ratio;     /* Hodges and Lehmann's: the median of all b / a */
	/*
	 * that hold the true ratio with the confidence asked for, or the extremes where the
	 * handfuls are too small
	 */
	double low, high;
};
/* All figures above 0, n from 1 to STATS_MAX.  confidence: 0.95. */
struct stats_ratio stats_ratio(const double *a, size_t nr_a, const double *b, size_t nr_b,
	double confidence);

/*
 * Holm's correction for many tests at once: what calls a difference only where the corrected p[] is
 * below 5 % is wrong about anything at all in at most 5 % of the cases.  In place, in the order
 * given.
 */
void stats_holm(double *p, size_t n);

#endif
