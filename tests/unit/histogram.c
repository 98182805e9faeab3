/* SPDX-License-Identifier: MIT */
/* The latency histogram: accuracy over its whole range, quantiles, merging. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/base/histogram.h"

static struct weft_histogram histogram, other, merged;

static int clear(void **state)
{
	memset(&histogram, 0, sizeof(histogram));
	memset(&other, 0, sizeof(other));
	memset(&merged, 0, sizeof(merged));
	return 0;
}

static void assert_within_2_percent(uint64_t got, uint64_t want)
{
	uint64_t error = got > want ? got - want : want - got;

	if (error * 50 > want)
		fail_msg("%" PRIu64 " is not within 2 %% of %" PRIu64, got, want);
}

static void every_value_comes_back_within_2_percent(void **state)
{
	unsigned last = 0;

	for (uint64_t v = 1; v < UINT64_C(1) << WEFT_HISTOGRAM_MAX_BITS; v += v / 97 + 1) {
		unsigned bucket = weft_histogram_bucket(v);

		assert_in_range(bucket, last, WEFT_HISTOGRAM_BUCKETS - 1);
		assert_within_2_percent(weft_histogram_value(bucket), v);
		last = bucket;
	}
	assert_int_equal(weft_histogram_bucket((UINT64_C(1) << WEFT_HISTOGRAM_MAX_BITS) - 1),
		WEFT_HISTOGRAM_BUCKETS - 1);
}

static void what_is_too_long_counts_as_the_longest(void **state)
{
	assert_int_equal(weft_histogram_bucket(UINT64_MAX), WEFT_HISTOGRAM_BUCKETS - 1);
	weft_histogram_add(&histogram, UINT64_MAX);
	assert_true(histogram.max == UINT64_MAX);
}

static void quantiles_of_a_ramp(void **state)
{
	for (uint64_t v = 1; v <= 100000; v++)
		weft_histogram_add(&histogram, v);
	assert_within_2_percent(weft_histogram_quantile(&histogram, 0.5), 50000);
	assert_within_2_percent(weft_histogram_quantile(&histogram, 0.99), 99000);
	assert_int_equal(weft_histogram_quantile(&histogram, 1), 100000);
	assert_int_equal(weft_histogram_quantile(&histogram, 0), 1);
}

static void an_empty_histogram_says_zero(void **state)
{
	assert_int_equal(weft_histogram_quantile(&histogram, 0.5), 0);
}

static void one_value_is_every_quantile(void **state)
{
	weft_histogram_add(&histogram, 123456);
	assert_within_2_percent(weft_histogram_quantile(&histogram, 0.01), 123456);
	assert_int_equal(weft_histogram_quantile(&histogram, 0.99), 123456);
}

static void merging_is_adding_everything(void **state)
{
	for (uint64_t v = 1; v <= 1000; v++) {
		weft_histogram_add(&histogram, v);
		weft_histogram_add(&other, v + 1000);
	}
	weft_histogram_merge(&merged, &histogram);
	weft_histogram_merge(&merged, &other);
	assert_int_equal(merged.total, 2000);
	assert_int_equal(merged.sum, 2001000);
	assert_int_equal(merged.max, 2000);
	assert_within_2_percent(weft_histogram_quantile(&merged, 0.5), 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(every_value_comes_back_within_2_percent, clear),
		cmocka_unit_test_setup(what_is_too_long_counts_as_the_longest, clear),
		cmocka_unit_test_setup(quantiles_of_a_ramp, clear),
		cmocka_unit_test_setup(an_empty_histogram_says_zero, clear),
		cmocka_unit_test_setup(one_value_is_every_quantile, clear),
		cmocka_unit_test_setup(merging_is_adding_everything, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
