/* SPDX-License-Identifier: MIT */
/*
 * A bridge as a whole: its lanes, its attachment, its cache. Owned by the control thread; functions
 * that lanes call say so.
 */
#include "nbd-bridge/bridge/bridge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/thread.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/bridge/copies-private.h"

enum { LOOK_MS = 100 }; /* between two looks whether a waiting attach is given up */

/* ---- for the attachment: any lane's thread ---- */

static struct bridge *bridge_of(struct bridge_attachment *attachment)
{
	return weft_container_of(attachment, struct bridge, attachment);
}

static void wake_lanes(struct bridge_attachment *attachment)
{
	lanes_wake(&bridge_of(attachment)->lanes);
}

static void asking(struct bridge_attachment *attachment, unsigned donor, uint64_t generation)
{
	struct cache_file *file = bridge_of(attachment)->config.cache.file;

	if (file)
		cache_file_note_generation(file, donor, generation);
}

static void epoch_is(struct bridge_attachment *attachment, unsigned donor, uint64_t epoch)
{
	struct cache_file *file = bridge_of(attachment)->config.cache.file;

	if (file)
		cache_file_set_epoch(file, donor, epoch);
}

static void changed(struct bridge_attachment *attachment)
{
	struct bridge *bridge = bridge_of(attachment);

	copies_kick(bridge->copies);
}

static const struct bridge_attachment_owner owner = {.wake_lanes = wake_lanes,
	.asking = asking,
	.epoch_is = epoch_is,
	.changed = changed};

/* ---- making and freeing ---- */

int bridge_new(const struct bridge_config *config, struct bridge **ret, struct weft_error *err)
{
	assert(config->nr_lanes > 0 && config->nr_lanes <= BRIDGE_MAX_LANES);
	struct bridge *bridge = calloc(1, sizeof(*bridge));

	if (!bridge)
		return weft_error_set(err, ENOMEM, "cannot make a bridge: out of memory");
	bridge->config = *config;
	bridge->start_ns = weft_now_ns();
	int r = attachment_init(&bridge->attachment, &config->attach, &owner, err);
	if (r < 0) {
		free(bridge);
		return r;
	}
	/* With the defaults that the attachment has filled in. */
	bridge->config.attach = bridge->attachment.config;
	lanes_init(&bridge->lanes, &bridge->attachment, config->driven);
	if (bridge->attachment.nr_copies > 1 && copies_new(bridge, &bridge->copies) < 0) {
		bridge_free(bridge);
		return weft_error_set(err, ENOMEM, "cannot make a bridge: out of memory");
	}
	for (; bridge->lanes.nr < config->nr_lanes; bridge->lanes.nr++) {
		r = lane_new(&bridge->lanes, bridge->lanes.nr,
			&bridge->lanes.lane[bridge->lanes.nr], err);
		if (r < 0) {
			bridge_free(bridge);
			return r;
		}
	}
	*ret = bridge;
	return 0;
}

void bridge_end_lanes(struct bridge *bridge)
{
	struct bridge_lanes *lanes = &bridge->lanes;

	if (bridge->copies)
		copies_end(bridge->copies, false);
	atomic_store(&lanes->stopping, true);
	for (unsigned i = 0; i < lanes->nr; i++)
		lane_join(lanes->lane[i]);
}

void bridge_free(struct bridge *bridge)
{
	if (!bridge)
		return;
	struct bridge_lanes *lanes = &bridge->lanes;

	bridge_end_lanes(bridge);
	cache_free(bridge->cache);
	for (unsigned i = 0; i < lanes->nr; i++)
		lane_free(lanes->lane[i]);
	copies_free(bridge->copies);
	lanes_fini(lanes);
	attachment_fini(&bridge->attachment);
	free(bridge);
}

/* ---- starting ---- */

static void start_links(struct bridge_lane *lane, void *ctx)
{
	lane_start_links(lane);
}

/* Waits until the lane's first connections have a result, at most until the deadline. */
static int first_result(struct bridge *bridge, unsigned lane, uint64_t deadline_ns,
	struct weft_error *err)
{
	struct bridge_lanes *lanes = &bridge->lanes;
	struct weft_error why = {0};
	bool given_up = false;
	int r;

	pthread_mutex_lock(&lanes->lock);
	while ((r = lane_first_result(lanes->lane[lane], &why)) == 0 && !given_up &&
		weft_now_ns() < deadline_ns) {
		weft_cond_wait_until(&lanes->changed, &lanes->lock,
			weft_now_ns() + LOOK_MS * UINT64_C(1000000));
		given_up = bridge->config.given_up &&
			bridge->config.given_up(bridge->config.given_up_ctx);
	}
	pthread_mutex_unlock(&lanes->lock);
	if (r < 0 && err)
		*err = why;
	if (given_up)
		return weft_error_set(err, ECANCELED, "given up");
	if (r == 0)
		return weft_error_set(err, ETIMEDOUT, "no answer for %u ms",
			bridge->config.attach.connect_timeout_ms);
	return r < 0 ? r : 0;
}

/* On the first lane's thread, which may be about to wake all lanes. */
static void drop_other_lanes(struct bridge_lane *lane, void *ctx)
{
	struct bridge_lanes *lanes = ctx;

	while (lanes->nr > 1)
		lane_free(lanes->lane[--lanes->nr]);
}

int bridge_start(struct bridge *bridge, struct weft_error *err)
{
	/* The transport has its own deadline; this one is for a transport that does not keep it. */
	uint64_t deadline_ns = weft_now_ns() +
		(bridge->config.attach.connect_timeout_ms + 2000) * UINT64_C(1000000);
	const bool managed = bridge->config.cache.bytes > 0;
	struct bridge_lanes *lanes = &bridge->lanes;
	struct cache_path path = {0};
	int r;

	r = lane_start_thread(lanes->lane[0], err);
	if (r < 0)
		return r;
	bridge_lane_run(lanes->lane[0], start_links, NULL);
	r = first_result(bridge, 0, deadline_ns, err);
	if (r < 0)
		return r;
	/* A FLUSH would not cover writes of other connections, so there can be only one. */
	if (!bridge->attachment.info.can_multi_conn)
		bridge_lane_run(lanes->lane[0], drop_other_lanes, lanes);
	for (unsigned i = 1; i < lanes->nr; i++) {
		r = lane_start_thread(lanes->lane[i], err);
		if (r < 0)
			return r;
	}
	r = place_first(&bridge->place, lanes, err);
	if (r < 0)
		return r;
	for (unsigned i = 1; i < lanes->nr; i++)
		bridge_lane_run(lanes->lane[i], start_links, NULL);
	/* The first lane has time while the others connect. */
	if (managed && !bridge->copies)
		path = cache_measure_path(lanes);
	for (unsigned i = 1; i < lanes->nr; i++)
		first_result(bridge, i, deadline_ns, NULL);
	if (bridge->copies) {
		r = copies_begin(bridge, err);
		if (r < 0)
			return r;
		if (managed)
			path = cache_measure_path(lanes);
	}
	return managed ? cache_new(lanes, &bridge->config.cache, &path, &bridge->cache, err) : 0;
}

int bridge_start_stale(struct bridge *bridge, const struct tp_info *infos,
	const struct weft_error *why, struct weft_error *err)
{
	struct bridge_lanes *lanes = &bridge->lanes;
	int r = attachment_assume_grants(&bridge->attachment, infos, err);

	if (r < 0)
		return r;
	attachment_set_stale(&bridge->attachment, why);
	snprintf(bridge->place.why, sizeof(bridge->place.why), "it began without a connection");
	for (unsigned i = 0; i < lanes->nr; i++) {
		r = lane_start_thread(lanes->lane[i], err);
		if (r < 0)
			return r;
	}
	lanes_wake(lanes);
	return 0;
}

void bridge_place_again(struct bridge *bridge)
{
	place_again(&bridge->place, &bridge->lanes);
}

/* ---- what it is ---- */

const struct tp_info *bridge_info(const struct bridge *bridge)
{
	return &bridge->attachment.info;
}

const struct bridge_config *bridge_config_of(const struct bridge *bridge)
{
	return &bridge->config;
}

struct bridge_attachment *bridge_attachment(struct bridge *bridge)
{
	return &bridge->attachment;
}

struct bridge_cache *bridge_cache(struct bridge *bridge)
{
	return bridge->cache;
}

bool bridge_is_managed(const struct bridge *bridge)
{
	return bridge->cache;
}

bool bridge_cache_is_on_disk(const struct bridge *bridge)
{
	const struct cache_file *file = bridge->config.cache.file;

	return bridge->cache && file && !cache_file_is_memory(file);
}

uint64_t bridge_dirty_bytes(const struct bridge *bridge)
{
	return bridge->cache ? cache_dirty_bytes(bridge->cache) : 0;
}

uint64_t bridge_lost_bytes(const struct bridge *bridge)
{
	return bridge->cache ? cache_lost_bytes(bridge->cache) : 0;
}

void bridge_push_now(struct bridge *bridge)
{
	if (bridge->cache)
		cache_push_now(bridge->cache);
}

unsigned bridge_nr_lanes(const struct bridge *bridge)
{
	return bridge->lanes.nr;
}

struct bridge_lane *bridge_lane(struct bridge *bridge, unsigned i)
{
	assert(i < bridge->lanes.nr);
	return bridge->lanes.lane[i];
}

struct bridge_lane *bridge_next_lane(struct bridge *bridge)
{
	return lanes_next(&bridge->lanes);
}

unsigned bridge_nr_orphans(const struct bridge *bridge)
{
	return atomic_load(&bridge->lanes.nr_orphans);
}
