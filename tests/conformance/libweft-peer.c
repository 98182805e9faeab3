/* SPDX-License-Identifier: MIT */
/* A donor and its handles for the conformance programs of libweft. */
#include "tests/conformance/libweft-peer.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/bridge/find.h"
#include "tests/conformance/verbs-peer.h"

struct conf *libweft_conf;
char libweft_uri[128];
const char *libweft_rdma_ip;
bool libweft_buffered;
struct libweft_starts *libweft_starts;

/* The program is linked with --wrap. */
int __real_bridge_lane_register_all(struct bridge_lane *lane, struct tp_mem **ret,
	struct weft_error *err);
int __wrap_bridge_lane_register_all(struct bridge_lane *lane, struct tp_mem **ret,
	struct weft_error *err);

int __wrap_bridge_lane_register_all(struct bridge_lane *lane, struct tp_mem **ret,
	struct weft_error *err)
{
	return libweft_buffered ? -EOPNOTSUPP : __real_bridge_lane_register_all(lane, ret, err);
}

int __real_bridge_find_and_start(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, struct bridge **bridge, struct weft_error *err);
int __wrap_bridge_find_and_start(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, struct bridge **bridge, struct weft_error *err);

int __wrap_bridge_find_and_start(struct bridge_find *find, struct bridge_config *config,
	struct bridge_donor_config *donors, struct bridge **bridge, struct weft_error *err)
{
	struct libweft_starts *starts = libweft_starts;

	if (starts && starts->nr < WEFT_ARRAY_LEN(starts->id)) {
		memcpy(starts->id[starts->nr], donors[0].id, sizeof(donors[0].id));
		starts->generation[starts->nr] = donors[0].generation;
		starts->nr_lanes[starts->nr] = config->nr_lanes;
	}
	int r = __real_bridge_find_and_start(find, config, donors, bridge, err);
	if (starts && starts->fall_back && starts->nr == 0) {
		donors[0].nr_ways = 2;
		donors[0].first_way = 0;
	}
	if (starts)
		starts->nr++;
	return r;
}

int libweft_start(void **state)
{
	libweft_conf = test_calloc(1, sizeof(*libweft_conf));
	if (libweft_rdma_ip) {
		verbs_peer_start(libweft_conf, libweft_rdma_ip, CONF_REGION_BYTES, 0);
		snprintf(libweft_uri, sizeof(libweft_uri), "weft://%s:%s/r?transport=rdma",
			libweft_rdma_ip, libweft_conf->target.port);
	} else {
		donor_peer_start(libweft_conf, false);
		snprintf(libweft_uri, sizeof(libweft_uri), "weft+unix:///r?socket=%s",
			libweft_conf->target.host);
	}
	return 0;
}

int libweft_start_buffered(void **state)
{
	libweft_buffered = true;
	return libweft_start(state);
}

int libweft_stop(void **state)
{
	libweft_buffered = false;
	libweft_starts = NULL;
	/* A test may have stopped it. */
	if (!libweft_conf)
		return 0;
	if (libweft_rdma_ip)
		verbs_peer_stop(libweft_conf);
	else
		donor_peer_stop(libweft_conf);
	test_free(libweft_conf);
	libweft_conf = NULL;
	return 0;
}

struct conf *libweft_start_another(char *uri)
{
	struct conf *conf = test_calloc(1, sizeof(*conf));

	donor_peer_start(conf, false);
	snprintf(uri, 128, "weft+unix:///r?socket=%s", conf->target.host);
	return conf;
}

void libweft_stop_another(struct conf *conf)
{
	donor_peer_stop(conf);
	test_free(conf);
}

struct weft *libweft_open(const char *uri, unsigned flags)
{
	struct weft *w;
	char why[256];

	if (weft_open(uri, flags, &w, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	return w;
}

struct weft *libweft_open_with(const struct weft_options *options)
{
	const char *uris[] = {libweft_uri};
	struct weft *w;
	char why[256];

	if (weft_open_regions(uris, 1, options, &w, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	return w;
}

uint64_t libweft_bound_ns(void)
{
	return weft_now_ns() + CONF_BOUND_MS * UINT64_C(1000000);
}

struct weft *libweft_open_when_free(const char *uri, unsigned flags)
{
	uint64_t end = libweft_bound_ns();
	struct weft *w;
	int r;

	while ((r = weft_open(uri, flags, &w, NULL, 0)) == -EBUSY) {
		assert_true(weft_now_ns() < end);
		poll(NULL, 0, 5);
	}
	assert_int_equal(r, 0);
	return w;
}

static int hold_on(void *user, int error)
{
	struct libweft_hold *hold = user;

	sem_post(&hold->held);
	sem_wait(&hold->go_on);
	return 1;
}

static void *begin_to_hold(void *ctx)
{
	struct libweft_hold *hold = ctx;
	const struct weft_completion completion = {.fn = hold_on, .user = hold};

	if (weft_aio_pread(hold->w, &hold->byte, 1, 0, &completion) <= 0)
		abort();
	return NULL;
}

void libweft_hold(struct weft *w, struct libweft_hold *hold)
{
	hold->w = w;
	sem_init(&hold->held, 0, 0);
	sem_init(&hold->go_on, 0, 0);
	assert_int_equal(pthread_create(&hold->thread, NULL, begin_to_hold, hold), 0);
	sem_wait(&hold->held);
}

void libweft_let_go(struct libweft_hold *hold)
{
	sem_post(&hold->go_on);
	pthread_join(hold->thread, NULL);
}

struct weft *libweft_open_write_back(unsigned connections)
{
	const struct weft_options options = {
		.size = sizeof(options),
		.flags = WEFT_OPEN_WRITE_BACK,
		.cache_bytes = 4 << 20,
		.connections = connections,
	};

	return libweft_open_with(&options);
}

int libweft_tell(void *user, int error)
{
	struct libweft_told *told = user;

	atomic_store(&told->error, error);
	if (atomic_load(&told->nr_freed) > 0)
		atomic_store(&told->freed_first, true);
	atomic_fetch_add(&told->nr, 1);
	return told->retire;
}

void libweft_tell_free(void *user)
{
	atomic_fetch_add(&((struct libweft_told *)user)->nr_freed, 1);
}
