/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the transport "mem" over a donor's region: grants and fences without a wire
 * between.
 */
#include <string.h>

#include "fabric/base/util.h"
#include "tests/conformance/suite.h"
#include "transports/mem/mem.h"

static void start(struct conf *conf)
{
	const struct weft_donor_config donor = {.lease_ms = CONF_LEASE_MS};
	const struct weft_memory_spec spec = {.name = "r", .size_bytes = CONF_REGION_BYTES};
	struct mem_config *config = test_calloc(1, sizeof(*config));

	assert_int_equal(weft_donor_new(&donor, &conf->donor), 0);
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &conf->region, NULL), 0);
	assert_int_equal(weft_donor_add(conf->donor, conf->region, NULL), 0);
	config->donor = conf->donor;
	conf->peer = config;
	conf->config = config;
	conf->ops = &tp_mem_ops;
	conf->size_bytes = CONF_REGION_BYTES;
}

static void stop(struct conf *conf)
{
	weft_donor_free(conf->donor);
	weft_region_put(conf->region);
	test_free(conf->peer);
}

int main(void)
{
	static const struct conf_fixture fixture = {
		.name = "mem-donor", .start = start, .stop = stop, .epoch = true, .sessions = true};

	return conf_run(&fixture, NULL, 0);
}
