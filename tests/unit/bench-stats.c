/* SPDX-License-Identifier: MIT */
/*
 * Statistics of weft bench: against published figures, and against what they promise, by
 * simulation.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "perf/bench/stats.h"
#include "tests/support/seed.h"

static uint64_t seed;

static int set_up(void **state)
{
	seed = seed_or(20261125);
	return 0;
}

static double uniform(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return ((double)(seed >> 11) + 0.5) / 9007199254740992.0;
}

/* Log-normal with a long tail, as throughputs are on a busy machine. */
static double noisy(double middle, double sigma)
{
	double z = sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform());

	return middle * exp(sigma * z);
}

static void assert_near(double got, double want, double error)
{
	if (fabs(got - want) > error)
		fail_msg("%g is not within %g of %g", got, error, want);
}

static void quantiles_and_spread(void **state)
{
	const double values[] = {5, 1, 4, 2, 3};

	assert_near(stats_median(values, 5), 3, 0);
	assert_near(stats_quantile(values, 5, 0.25), 2, 0);
	assert_near(stats_quantile(values, 5, 0.9), 4.6, 1e-12);
	assert_near(stats_spread(values, 5), 100 * (4.0 - 2) / 3, 1e-9);
	assert_near(stats_median(values, 1), 5, 0);
	assert_near(stats_median(values, 0), 0, 0);
}

/* 2 / C(2n, n): no arrangement is rarer than one handful wholly above the other. */
static void complete_separation(void **state)
{
	const double a[] = {1, 2, 3, 4, 5, 6, 7}, b[] = {11, 12, 13, 14, 15, 16, 17};

	assert_near(stats_mann_whitney(a, 5, b, 5), 2.0 / 252, 1e-12);
	assert_near(stats_mann_whitney(b, 7, a, 7), 2.0 / 3432, 1e-12);
	assert_near(stats_mann_whitney(a, 3, b, 2), 2.0 / 10, 1e-12);
}

/*
 * Mann and Whitney's own table (1947) of P(U <= u): n = 4, m = 4, u = 4: 0.171; n = 5, m = 6, u =
 * 5: 0.041.
 */
static void published_tails(void **state)
{
	/* U = 4: four pairs where b is below a. */
	const double a4[] = {1, 2, 5, 7}, b4[] = {3, 4, 6, 8};
	double u = 0;

	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++)
			u += b4[j] < a4[i];
	assert_near(u, 5, 0);
	assert_near(stats_mann_whitney(a4, 4, b4, 4), 2 * 0.243, 0.001);
	const double a5[] = {1, 2, 3, 4, 10.5}, b6[] = {6, 7, 8, 9, 10, 11};
	assert_near(stats_mann_whitney(a5, 5, b6, 6), 2 * 0.041, 0.001);
}

static void equal_figures_are_no_difference(void **state)
{
	const double a[] = {7, 7, 7, 7, 7}, b[] = {7, 7, 7, 7, 7, 7};

	assert_near(stats_mann_whitney(a, 5, b, 6), 1, 0);
	assert_near(stats_mann_whitney(a, 0, b, 6), 1, 0);
	const struct stats_ratio ratio = stats_ratio(a, 5, b, 6, 0.95);
	assert_near(ratio.ratio, 1, 0);
	assert_near(ratio.low, 1, 0);
	assert_near(ratio.high, 1, 0);
}

/* Ties go through the normal approximation: close to R's wilcox.test(exact=FALSE, correct=TRUE). */
static void ties_use_the_corrected_approximation(void **state)
{
	const double a[] = {1, 2, 2, 3, 4, 5, 5, 6}, b[] = {4, 5, 6, 6, 7, 8, 8, 9};

	assert_near(stats_mann_whitney(a, 8, b, 8), 0.00798, 0.0005);
}

static void chance_alone_is_called_a_difference_as_rarely_as_promised(void **state)
{
	enum { TRIALS = 4000, N = 9 };
	unsigned found = 0;

	for (int t = 0; t < TRIALS; t++) {
		double a[N], b[N];

		for (int i = 0; i < N; i++) {
			a[i] = noisy(1000, 0.4);
			b[i] = noisy(1000, 0.4);
		}
		found += stats_mann_whitney(a, N, b, N) < 0.05;
	}
	/* 5 % at most (4 % for these sizes), and 3 standard deviations of the simulation. */
	assert_in_range(found, TRIALS * 2 / 100, TRIALS * 6 / 100);
}

static void the_interval_holds_the_true_ratio(void **state)
{
	enum { TRIALS = 3000, N = 9 };
	unsigned held = 0;

	for (int t = 0; t < TRIALS; t++) {
		double a[N], b[N];

		for (int i = 0; i < N; i++) {
			a[i] = noisy(100, 0.3);
			b[i] = noisy(150, 0.3);
		}
		const struct stats_ratio ratio = stats_ratio(a, N, b, N, 0.95);
		assert_true(ratio.low <= ratio.ratio && ratio.ratio <= ratio.high);
		held += ratio.low <= 1.5 && 1.5 <= ratio.high;
	}
	assert_in_range(held, TRIALS * 94 / 100, TRIALS * 98 / 100);
}

static void too_few_figures_give_the_widest_interval(void **state)
{
	const double a[] = {1, 2}, b[] = {3, 4};
	const struct stats_ratio ratio = stats_ratio(a, 2, b, 2, 0.95);

	assert_near(ratio.low, 1.5, 0);
	assert_near(ratio.high, 4, 0);
}

static void the_largest_handfuls_work(void **state)
{
	double a[STATS_MAX], b[STATS_MAX];

	for (int i = 0; i < STATS_MAX; i++) {
		a[i] = 100 + i;
		b[i] = 101.5 + i;
	}
	const struct stats_ratio ratio = stats_ratio(a, STATS_MAX, b, STATS_MAX, 0.95);
	assert_true(ratio.low < 1 && ratio.high > 1.01);
	assert_true(stats_mann_whitney(a, STATS_MAX, b, STATS_MAX) > 0.5);
}

static void holm_by_hand(void **state)
{
	double p[] = {0.01, 0.04, 0.03, 0.005, 0.9};

	stats_holm(p, WEFT_ARRAY_LEN(p));
	assert_near(p[3], 0.025, 1e-12); /* 5 * 0.005 */
	assert_near(p[0], 0.04, 1e-12);  /* 4 * 0.01 */
	assert_near(p[2], 0.09, 1e-12);  /* 3 * 0.03 */
	assert_near(p[1], 0.09, 1e-12);  /* 2 * 0.04, but not less than the one before */
	assert_near(p[4], 0.9, 1e-12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantiles_and_spread),
		cmocka_unit_test(complete_separation),
		cmocka_unit_test(published_tails),
		cmocka_unit_test(equal_figures_are_no_difference),
		cmocka_unit_test(ties_use_the_corrected_approximation),
		cmocka_unit_test(chance_alone_is_called_a_difference_as_rarely_as_promised),
		cmocka_unit_test(the_interval_holds_the_true_ratio),
		cmocka_unit_test(too_few_figures_give_the_widest_interval),
		cmocka_unit_test(the_largest_handfuls_work),
		cmocka_unit_test(holm_by_hand),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
