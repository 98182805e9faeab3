/* SPDX-License-Identifier: MIT */
/*
 * The client that servers are measured with: it measures what is right, and it finds what is wrong.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <libnbd.h>

#include "perf/harness/nbd-client.h"
#include "tests/support/nbd-donor.h"

enum { SPAN = 8 << 20, SLICE_NS = 20000000 };

static struct nbd_donor donor;
static struct perf_nbd_result result;
static char why[256];
static struct nbd_handle *spoiler;

static int setup(void **state)
{
	nbd_donor_start(&donor, SPAN, NULL, 0);
	spoiler = nbd_create();
	nbd_set_export_name(spoiler, "m");
	return nbd_connect_unix(spoiler, donor.socket);
}

static int teardown(void **state)
{
	nbd_close(spoiler);
	nbd_donor_end(&donor);
	return 0;
}

static struct perf_nbd_target target_of(bool tcp)
{
	struct perf_nbd_target target = {.port = donor.port, .export_name = "m"};

	if (!tcp)
		snprintf(target.unix_path, sizeof(target.unix_path), "%s", donor.socket);
	return target;
}

static struct perf_nbd_client *open_load(bool tcp, bool write, uint32_t len, unsigned conns)
{
	const struct perf_nbd_load load = {.write = write, .len = len, .depth = 4, .conns = conns,
		.span = SPAN, .generation = 7};
	struct perf_nbd_target target = target_of(tcp);
	struct perf_nbd_client *client = NULL;

	assert_int_equal(perf_nbd_open(&target, &load, &client, why), 0);
	return client;
}

static void populate(void)
{
	struct perf_nbd_target target = target_of(false);

	assert_int_equal(perf_nbd_populate(&target, SPAN, why), 0);
}

/* By another client: the region's memory is the server's threads', not this one's. */
static void spoil(uint64_t off)
{
	static const uint8_t wrong[8];

	assert_int_equal(nbd_pwrite(spoiler, wrong, sizeof(wrong), off, 0), 0);
}

static void each_word_of_a_populated_span_is_checked(void **state)
{
	static const uint32_t lens[] = {512, 4096, 1 << 20};

	populate();
	for (unsigned i = 0; i < 6; i++) {
		uint32_t len = lens[i / 2];
		struct perf_nbd_client *client = open_load(i % 2, false, len, 1);

		/* A busy machine may give a slice to others whole. */
		for (unsigned k = 0; k == 0 || (k < 100 && result.ops == 0); k++)
			assert_int_equal(perf_nbd_run(client, SLICE_NS, &result, why), 0);
		assert_true(result.ops > 0);
		assert_true(result.all_ops >= result.ops);
		assert_int_equal(result.latency.total, result.all_ops);
		/* A word that two receives share is not looked at: there are few of those. */
		assert_in_range(result.words, result.all_ops * (len / 512) * 9 / 10,
			result.all_ops * (len / 512));
		perf_nbd_close(client);
	}
}

static void two_connections_measure_together(void **state)
{
	struct perf_nbd_client *client;

	populate();
	client = open_load(true, false, 4096, 2);
	assert_int_equal(perf_nbd_run(client, SLICE_NS, &result, why), 0);
	assert_true(result.ops > 0);
	perf_nbd_close(client);
}

static void a_wrong_byte_is_found(void **state)
{
	struct perf_nbd_client *client;

	populate();
	for (uint64_t off = 0; off < SPAN; off += 4096)
		spoil(off + 3 * 512);
	client = open_load(false, false, 4096, 1);
	assert_int_equal(perf_nbd_run(client, SLICE_NS, &result, why), -EILSEQ);
	assert_non_null(strstr(why, "other bytes"));
	perf_nbd_close(client);
}

static void a_write_that_was_lost_is_found(void **state)
{
	struct perf_nbd_client *client;

	populate();
	client = open_load(false, true, 4096, 2);
	assert_int_equal(perf_nbd_run(client, SLICE_NS, &result, why), 0);
	assert_int_equal(perf_nbd_check(client, why), 0);
	assert_int_equal(perf_nbd_run(client, SLICE_NS, &result, why), 0);
	populate(); /* with other words than the load's */
	assert_int_equal(perf_nbd_check(client, why), -EILSEQ);
	perf_nbd_close(client);
}

static void an_error_of_the_server_is_told(void **state)
{
	const struct perf_nbd_load beyond = {.len = 4096, .depth = 1, .conns = 1, .span = 1 << 30};
	struct perf_nbd_target target = target_of(false), nobody = target;
	struct perf_nbd_client *client;

	assert_int_equal(perf_nbd_open(&target, &beyond, &client, why), 0);
	assert_int_equal(perf_nbd_run(client, SLICE_NS, &result, why), -EIO);
	perf_nbd_close(client);
	strcat(nobody.unix_path, ".not");
	assert_true(perf_nbd_open(&nobody, &beyond, &client, why) < 0);
	assert_true(why[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_word_of_a_populated_span_is_checked),
		cmocka_unit_test(two_connections_measure_together),
		cmocka_unit_test(a_wrong_byte_is_found),
		cmocka_unit_test(a_write_that_was_lost_is_found),
		cmocka_unit_test(an_error_of_the_server_is_told),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
