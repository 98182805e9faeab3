/* SPDX-License-Identifier: MIT */
/* Medians, Mann and Whitney's test, ratios with their confidence.  Functions without state. */
#include "perf/bench/stats.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile_sorted(const double *values, size_t n, double q)
{
	double at = q * (double)(n - 1);
	size_t i = (size_t)at;

	if (i + 1 >= n)
		return values[n - 1];
	return values[i] + (values[i + 1] - values[i]) * (at - (double)i);
}

double stats_quantile(const double *values, size_t n, double q)
{
	double ret = 0;

	if (n == 0)
		return 0;
	double *sorted = malloc(n * sizeof(*sorted));
	if (!sorted)
		abort();
	memcpy(sorted, values, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_value);
	ret = quantile_sorted(sorted, n, q);
	free(sorted);
	return ret;
}

double stats_median(const double *values, size_t n)
{
	return stats_quantile(values, n, 0.5);
}

double stats_spread(const double *values, size_t n)
{
	double median = stats_median(values, n);

	if (!(median > 0))
		return 0;
	return 100 * (stats_quantile(values, n, 0.75) - stats_quantile(values, n, 0.25)) / median;
}

/*
 * How many of all arrangements of m and n figures have a U of each value: ways[u].  A figure of the
 * larger rank is either b's, and then above all m of a, or a's: f(m, n, u) = f(m, n - 1, u - m) +
 * f(m - 1, n, u).
 */
static double *arrangements(size_t m, size_t n)
{
	size_t nr = m * n + 1;
	double *table = calloc((m + 1) * nr, sizeof(*table)); /* for the n reached so far */

	if (!table)
		abort();
	for (size_t i = 0; i <= m; i++)
		table[i * nr] = 1;
	for (size_t j = 1; j <= n; j++)
		for (size_t i = 1; i <= m; i++)
			for (size_t u = i * j + 1; u-- > 0;) {
				double with_b = u >= i ? table[i * nr + u - i] : 0;

				table[i * nr + u] = with_b + table[(i - 1) * nr + u];
			}
	memmove(table, table + m * nr, nr * sizeof(*table));
	return table;
}

/* P(U <= u). */
static double exact_tail(size_t m, size_t n, double u)
{
	double *ways = arrangements(m, n), sum = 0, all = 0;

	for (size_t i = 0; i <= m * n; i++) {
		all += ways[i];
		if ((double)i <= u)
			sum += ways[i];
	}
	free(ways);
	return sum / all;
}

static double normal_tail(double z)
{
	return 0.5 * erfc(z / M_SQRT2);
}

/* Sum over the groups of equal figures of t^3 - t. */
static double ties(const double *a, size_t nr_a, const double *b, size_t nr_b)
{
	double all[2 * STATS_MAX], sum = 0;
	size_t n = nr_a + nr_b, run = 1;

	memcpy(all, a, nr_a * sizeof(*a));
	memcpy(all + nr_a, b, nr_b * sizeof(*b));
	qsort(all, n, sizeof(*all), by_value);
	for (size_t i = 1; i <= n; i++) {
		if (i < n && all[i] == all[i - 1]) {
			run++;
			continue;
		}
		sum += (double)run * (double)run * (double)run - (double)run;
		run = 1;
	}
	return sum;
}

double stats_mann_whitney(const double *a, size_t nr_a, const double *b, size_t nr_b)
{
	double u = 0, pairs = (double)nr_a * (double)nr_b, n = (double)(nr_a + nr_b);

	assert(nr_a <= STATS_MAX && nr_b <= STATS_MAX);
	if (nr_a == 0 || nr_b == 0)
		return 1;
	for (size_t i = 0; i < nr_a; i++)
		for (size_t j = 0; j < nr_b; j++)
			u += a[i] < b[j] ? 1 : a[i] == b[j] ? 0.5 : 0;
	u = fmin(u, pairs - u);
	double tied = ties(a, nr_a, b, nr_b);
	if (tied == 0)
		return fmin(1, 2 * exact_tail(nr_a, nr_b, u));
	double variance = pairs / 12 * (n + 1 - tied / (n * (n - 1)));
	if (!(variance > 0))
		return 1; /* all are equal */
	double z = (pairs / 2 - u - 0.5) / sqrt(variance);
	return z <= 0 ? 1 : fmin(1, 2 * normal_tail(z));
}

struct stats_ratio stats_ratio(const double *a, size_t nr_a, const double *b, size_t nr_b,
	double confidence)
{
	static double ratios[STATS_MAX * STATS_MAX];
	size_t n = 0, cut = 0;

	assert(nr_a > 0 && nr_b > 0 && nr_a <= STATS_MAX && nr_b <= STATS_MAX);
	for (size_t i = 0; i < nr_a; i++)
		for (size_t j = 0; j < nr_b; j++)
			ratios[n++] = b[j] / a[i];
	qsort(ratios, n, sizeof(*ratios), by_value);
	/*
	 * The ratios from the (cut + 1)th to the last but cut hold the true one, with 1 - 2 P(U <=
	 * cut - 1).
	 */
	double *ways = arrangements(nr_a, nr_b), all = 0, below = 0;
	for (size_t i = 0; i <= n; i++)
		all += ways[i];
	while (cut + 1 <= n / 2 && (below + ways[cut]) / all <= (1 - confidence) / 2)
		below += ways[cut++];
	free(ways);
	return (struct stats_ratio){
		.ratio = quantile_sorted(ratios, n, 0.5),
		.low = ratios[cut > 0 ? cut - 1 : 0],
		.high = ratios[n - (cut > 0 ? cut : 1)],
	};
}

void stats_holm(double *p, size_t n)
{
	bool *done = calloc(n + 1, sizeof(*done));
	double most = 0;

	if (!done)
		abort();
	/*
	 * From the smallest up: p times how many are left, and never less than that of a smaller
	 * one.
	 */
	for (size_t left = n; left > 0; left--) {
		size_t at = n;

		for (size_t i = 0; i < n; i++)
			if (!done[i] && (at == n || p[i] < p[at]))
				at = i;
		done[at] = true;
		most = fmin(1, fmax(most, p[at] * (double)left));
		p[at] = most;
	}
	free(done);
}
