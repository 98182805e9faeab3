/*
 * A bridge as a whole: its lanes, what was granted, whether it is still valid.
 * Owned by the control thread; what lanes call says so.
 */
#include "nbd-bridge/bridge/bridge.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/cache.h"
#include "nbd-bridge/lane/lane.h"

enum { LOOK_MS = 100 }; /* whether an attach that waits is given up */
enum { MODEST_IO_BYTES = 8 << 20 }; /* the longest message of soft-RoCE; other devices take more */

/* The transport of a way among the bridge's. */
static uint8_t transport_of(struct bridge *bridge, const struct bridge_way *way)
{
	unsigned i = 0;

	while (i < bridge->nr_transports && (bridge->transports[i].transport != way->transport ||
						    bridge->transports[i].transport_config != way->transport_config))
		i++;
	assert(i < BRIDGE_MAX_TRANSPORTS);
	if (i == bridge->nr_transports)
		bridge->transports[bridge->nr_transports++] = *way;
	return (uint8_t)i;
}

static int make_donors(struct bridge *bridge, struct weft_error *err)
{
	struct bridge_config *config = &bridge->config;
	struct bridge_donor_config only = {
		.region = config->region,
		.ways = {{config->transport, config->transport_config, config->host, config->port}},
		.nr_ways = 1,
		.generation = config->generation,
		.epoch = config->epoch,
	};
	memcpy(only.id, config->id, sizeof(only.id));
	unsigned nr = config->nr_donors ? config->nr_donors : 1;

	assert(nr <= BRIDGE_MAX_DONORS && (nr == 1 || config->stripe_bytes > 0));
	bridge->donors = calloc(nr, sizeof(bridge->donors[0]));
	if (!bridge->donors)
		return weft_error_set(err, ENOMEM, "cannot make a bridge: out of memory");
	for (; bridge->nr_donors < nr; bridge->nr_donors++) {
		struct bridge_donor *donor = &bridge->donors[bridge->nr_donors];

		donor->bridge = bridge;
		donor->index = bridge->nr_donors;
		donor->config = config->nr_donors ? config->donors[bridge->nr_donors] : only;
		donor->generation = donor->config.generation;
		donor->version0 = donor->config.version0;
		for (unsigned i = 0; i < donor->config.nr_ways; i++)
			donor->transports[i] = transport_of(bridge, &donor->config.ways[i]);
		bridge_ways_init(&donor->ways, donor->config.nr_ways, donor->config.first_way, config->return_ms);
	}
	config->donors = NULL; /* they are copied */
	config->region = bridge->donors[0].config.region;
	bridge->map = (struct bridge_map){.nr = nr, .unit = config->stripe_bytes};
	return 0;
}

int bridge_new(const struct bridge_config *config, struct bridge **ret, struct weft_error *err)
{
	assert(config->nr_lanes > 0 && config->nr_lanes <= BRIDGE_MAX_LANES);
	struct bridge *bridge = calloc(1, sizeof(*bridge));
	pthread_condattr_t attr;

	if (!bridge)
		return weft_error_set(err, ENOMEM, "cannot make a bridge: out of memory");
	bridge->config = *config;
	bridge->start_ns = weft_now_ns();
	pthread_mutex_init(&bridge->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&bridge->changed, &attr);
	pthread_condattr_destroy(&attr);
	int r = make_donors(bridge, err);
	if (r < 0) {
		bridge_free(bridge);
		return r;
	}
	for (; bridge->nr_lanes < config->nr_lanes; bridge->nr_lanes++) {
		r = lane_new(bridge, bridge->nr_lanes, &bridge->lanes[bridge->nr_lanes], err);

		if (r < 0) {
			bridge_free(bridge);
			return r;
		}
	}
	*ret = bridge;
	return 0;
}

void bridge_free(struct bridge *bridge)
{
	if (!bridge)
		return;
	atomic_store(&bridge->stopping, true);
	for (unsigned i = 0; i < bridge->nr_lanes; i++)
		lane_join(bridge->lanes[i]);
	for (unsigned i = 0; i < bridge->nr_lanes; i++)
		lane_free(bridge->lanes[i]);
	cache_free(bridge->cache);
	pthread_cond_destroy(&bridge->changed);
	pthread_mutex_destroy(&bridge->lock);
	free(bridge->donors);
	free(bridge);
}

/* ---- starting ---- */

static struct timespec after_ms(uint32_t ms)
{
	uint64_t ns = weft_now_ns() + ms * UINT64_C(1000000);

	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

static bool is_before(const struct timespec *deadline)
{
	return weft_now_ns() < (uint64_t)deadline->tv_sec * 1000000000 + (uint64_t)deadline->tv_nsec;
}

static void start_links(struct bridge_lane *lane, void *ctx)
{
	for (unsigned i = 0; i < lane->nr_links; i++)
		link_start(&lane->links[i]);
}

/* Waits until the lane's first connection has a result, at most until the deadline. */
static int first_result(struct bridge_lane *lane, const struct timespec *deadline, struct weft_error *err)
{
	struct bridge *bridge = lane->bridge;
	bool given_up = false;
	int r;

	pthread_mutex_lock(&bridge->lock);
	while (lane->first_result == 0 && !given_up && is_before(deadline)) {
		struct timespec soon = after_ms(LOOK_MS);

		pthread_cond_timedwait(&bridge->changed, &bridge->lock, &soon);
		given_up = bridge->config.given_up && bridge->config.given_up(bridge->config.changed_ctx);
	}
	r = lane->first_result;
	if (r < 0 && err)
		*err = lane->first_error;
	pthread_mutex_unlock(&bridge->lock);
	if (given_up)
		return weft_error_set(err, ECANCELED, "given up");
	if (r == 0)
		return weft_error_set(err, ETIMEDOUT, "no answer for %u ms", bridge->config.connect_timeout_ms);
	return r < 0 ? r : 0;
}

/* On the first lane's thread: it may be about to wake them all. */
static void drop_other_lanes(struct bridge_lane *lane, void *ctx)
{
	struct bridge *bridge = ctx;

	while (bridge->nr_lanes > 1)
		lane_free(bridge->lanes[--bridge->nr_lanes]);
}

enum { MEASURE_SMALL = 2, MEASURE_READS = 4 };

/* How far the donor is: READs one after another, small ones, then large ones. */
struct measurement {
	struct bridge_request rq;
	struct bridge_waiter waiter;
	struct bridge_lane *lane;
	unsigned nr;
	uint64_t small_ns, large_ns;
	bool done;
};

static void measure_next(struct measurement *m)
{
	struct bridge *bridge = m->lane->bridge;

	m->rq.kind = TP_READ;
	m->rq.off = 0;
	m->rq.len = weft_min(m->nr < MEASURE_SMALL ? 4096 : BRIDGE_POOL_MAX, bridge->info.size_bytes);
	m->lane->now_ns = 0;
	lane_submit_direct(m->lane, &m->rq);
}

static void measured(struct bridge_request *rq, int error)
{
	struct measurement *m = weft_container_of(rq, struct measurement, rq);
	struct bridge *bridge = m->lane->bridge;
	uint64_t *ns = m->nr < MEASURE_SMALL ? &m->small_ns : &m->large_ns;

	if (error == 0)
		*ns = weft_min(*ns, weft_max(weft_now_ns() - rq->start_ns, 1));
	if (error == 0 && ++m->nr < MEASURE_READS) {
		measure_next(m);
		return;
	}
	bridge_lane_buffer_put(m->lane, rq->buf);
	pthread_mutex_lock(&bridge->lock);
	m->done = true;
	pthread_cond_broadcast(&bridge->changed);
	pthread_mutex_unlock(&bridge->lock);
}

static void measure(struct bridge_lane *lane, void *ctx)
{
	struct measurement *m = ctx;

	m->lane = lane;
	m->rq.internal = true;
	m->rq.done = measured;
	m->done = bridge_lane_buffer_get(lane, BRIDGE_POOL_MAX, &m->waiter, &m->rq.buf, &m->rq.mem) < 0;
	if (m->done)
		bridge_lane_waiter_cancel(lane, &m->waiter);
	else
		measure_next(m);
}

static void measure_path(struct bridge *bridge)
{
	struct measurement m = {.small_ns = UINT64_MAX, .large_ns = UINT64_MAX};

	bridge_lane_run(bridge->lanes[0], measure, &m);
	pthread_mutex_lock(&bridge->lock);
	while (!m.done)
		pthread_cond_wait(&bridge->changed, &bridge->lock);
	pthread_mutex_unlock(&bridge->lock);
	bool whole = m.nr == MEASURE_READS;
	uint64_t bytes = weft_min(BRIDGE_POOL_MAX, bridge->info.size_bytes);
	uint64_t moving_ns = whole && m.large_ns > m.small_ns ? m.large_ns - m.small_ns : 1000000;
	bridge->rtt_ns = whole ? m.small_ns : 1000000;
	bridge->rate = weft_max(bytes * 1000000 / weft_max(moving_ns / 1000, 1), 1000000);
}

int bridge_start(struct bridge *bridge, struct weft_error *err)
{
	/* The transport has its own deadline; this one is for a transport that does not keep it. */
	struct timespec deadline = after_ms(bridge->config.connect_timeout_ms + 2000);
	int r;

	r = lane_start_thread(bridge->lanes[0], err);
	if (r < 0)
		return r;
	bridge_lane_run(bridge->lanes[0], start_links, NULL);
	r = first_result(bridge->lanes[0], &deadline, err);
	if (r < 0)
		return r;
	/* A FLUSH would not cover what other connections wrote: one is all that can be had. */
	if (!bridge->info.can_multi_conn)
		bridge_lane_run(bridge->lanes[0], drop_other_lanes, bridge);
	for (unsigned i = 1; i < bridge->nr_lanes; i++) {
		r = lane_start_thread(bridge->lanes[i], err);
		if (r < 0)
			return r;
	}
	r = bridge_place_first(bridge, err);
	if (r < 0)
		return r;
	for (unsigned i = 1; i < bridge->nr_lanes; i++)
		bridge_lane_run(bridge->lanes[i], start_links, NULL);
	/* The first lane has time while the others connect. */
	if (bridge->config.cache_bytes > 0)
		measure_path(bridge);
	for (unsigned i = 1; i < bridge->nr_lanes; i++)
		first_result(bridge->lanes[i], &deadline, NULL);
	return bridge->config.cache_bytes > 0 ? cache_new(bridge, err) : 0;
}

void bridge_first_result(struct bridge_link *link, int result, const struct weft_error *why)
{
	struct bridge_lane *lane = link->lane;
	struct bridge *bridge = lane->bridge;

	pthread_mutex_lock(&bridge->lock);
	if (!link->has_result)
		lane->nr_results++;
	link->has_result = true;
	if (result > 0) {
		lane->nr_granted++;
	} else if (lane->failure == 0) {
		lane->failure = result;
		if (why)
			lane->first_error = *why;
	}
	/* Not before all have one: what is being granted could not be given back cleanly. */
	if (lane->nr_granted == lane->nr_links)
		lane->first_result = 1;
	else if (lane->nr_results == lane->nr_links)
		lane->first_result = lane->failure;
	pthread_cond_broadcast(&bridge->changed);
	pthread_mutex_unlock(&bridge->lock);
}

/* What was promised to the front-ends must still hold after a reconnection. */
static bool keeps_promises(const struct tp_info *was, const struct tp_info *is)
{
	return is->read_only <= was->read_only && is->can_flush >= was->can_flush &&
		is->can_fua >= was->can_fua && is->can_trim >= was->can_trim &&
		is->can_zero >= was->can_zero && is->can_fast_zero >= was->can_fast_zero &&
		is->can_cache >= was->can_cache && is->can_multi_conn >= was->can_multi_conn &&
		is->flush_each_conn <= was->flush_each_conn &&
		is->max_io_bytes >= was->max_io_bytes && is->min_block_bytes <= was->min_block_bytes;
}

static int check_again(const struct bridge_donor *donor, const struct tp_info *is, struct weft_error *err)
{
	const struct tp_info *was = &donor->info;

	if (is->has_epoch != was->has_epoch || is->epoch != was->epoch)
		return weft_error_set(err, ESTALE,
			"the region's contents are gone: its epoch was %016" PRIx64 " and is %016" PRIx64,
			was->epoch, is->epoch);
	if (is->size_bytes != was->size_bytes)
		return weft_error_set(err, ESTALE, "the region had %" PRIu64 " bytes and has %" PRIu64,
			was->size_bytes, is->size_bytes);
	if (donor->bridge->granted && !keeps_promises(&donor->bridge->info, is))
		return weft_error_set(err, EOPNOTSUPP, "the server came back and can do less than before");
	return 0;
}

/*
 * Over another transport a donor may be able to do less: nothing is promised that the ones that we have lack, so that an
 * attachment can move at any time.  FUA becomes a FLUSH, CACHE is advice.
 */
static void be_modest(struct tp_info *info)
{
	info->can_fua = info->can_fast_zero = info->can_cache = false;
	info->flush_each_conn = true;
	info->max_io_bytes = weft_min(info->max_io_bytes, MODEST_IO_BYTES);
}

static void add_info(struct tp_info *all, const struct tp_info *one)
{
	all->read_only |= one->read_only;
	all->can_flush &= one->can_flush;
	all->can_fua &= one->can_fua;
	all->can_trim &= one->can_trim;
	all->can_zero &= one->can_zero;
	all->can_fast_zero &= one->can_fast_zero;
	all->can_cache &= one->can_cache;
	all->can_multi_conn &= one->can_multi_conn;
	all->one_sided &= one->one_sided;
	all->has_epoch &= one->has_epoch;
	all->flush_each_conn |= one->flush_each_conn;
	all->max_io_bytes = weft_min(all->max_io_bytes, one->max_io_bytes);
	all->min_block_bytes = (uint32_t)weft_max(all->min_block_bytes, one->min_block_bytes);
	all->preferred_block_bytes = (uint32_t)weft_max(all->preferred_block_bytes, one->preferred_block_bytes);
	all->size_bytes = weft_min(all->size_bytes, one->size_bytes);
	if (one->lease_ms && (!all->lease_ms || one->lease_ms < all->lease_ms))
		all->lease_ms = one->lease_ms;
}

/* All were granted: what the bridge is from now on. */
static int put_together(struct bridge *bridge, struct weft_error *err)
{
	struct tp_info all = bridge->donors[0].info;

	for (unsigned i = 1; i < bridge->nr_donors; i++)
		add_info(&all, &bridge->donors[i].info);
	if (bridge->nr_transports > 1)
		be_modest(&all);
	if (bridge->config.mode != WEFT_MODE_WRITE)
		all.read_only = true;
	bridge->map.part_bytes = all.size_bytes;
	if (bridge->nr_donors > 1) {
		if (bridge->map.unit % all.min_block_bytes)
			return weft_error_set(err, EINVAL, "stripes of %" PRIu64 " bytes are no multiple of a server's blocks of %u bytes",
				bridge->map.unit, all.min_block_bytes);
		bridge->map.part_bytes -= all.size_bytes % bridge->map.unit;
		if (bridge->map.part_bytes == 0)
			return weft_error_set(err, EINVAL, "a region is smaller than a stripe of %" PRIu64 " bytes", bridge->map.unit);
		all.size_bytes = bridge->nr_donors * bridge->map.part_bytes;
	}
	bridge->info = all;
	bridge->granted = true;
	return 0;
}

int bridge_start_stale(struct bridge *bridge, const struct tp_info *infos, const struct weft_error *why, struct weft_error *err)
{
	int r;

	for (unsigned i = 0; i < bridge->nr_donors; i++)
		bridge->donors[i].info = infos[i];
	r = put_together(bridge, err);
	if (r < 0)
		return r;
	bridge_set_stale(bridge, why);
	snprintf(bridge->place.why, sizeof(bridge->place.why), "it began without a connection");
	for (unsigned i = 0; i < bridge->nr_donors; i++)
		snprintf(bridge->donors[i].used_transport, sizeof(bridge->donors[i].used_transport), "none");
	for (unsigned i = 0; i < bridge->nr_lanes; i++) {
		r = lane_start_thread(bridge->lanes[i], err);
		if (r < 0)
			return r;
		weft_loop_wake(bridge->lanes[i]->loop);
	}
	return 0;
}

/* After a reset: other contents, but nothing else that the front-ends were told may differ. */
static int check_reset(struct bridge_donor *donor, const struct tp_info *is, struct weft_error *err)
{
	if (is->size_bytes != donor->info.size_bytes)
		return weft_error_set(err, ESTALE, "the region had %" PRIu64 " bytes and has %" PRIu64 ": detach, and attach anew",
			donor->info.size_bytes, is->size_bytes);
	if (!keeps_promises(&donor->bridge->info, is))
		return weft_error_set(err, EOPNOTSUPP, "the donor can do less than before: detach, and attach anew");
	donor->info = *is;
	donor->granted = true;
	/* Before anything is written back. */
	if (donor->bridge->config.cache_file)
		cache_file_set_epoch(donor->bridge->config.cache_file, donor->index, is->epoch);
	return 0;
}

int bridge_check_grant(struct bridge_donor *donor, const struct tp_info *info, struct weft_error *err)
{
	struct bridge *bridge = donor->bridge;

	if (donor->granted)
		return check_again(donor, info, err);
	if (bridge->granted)
		return check_reset(donor, info, err);
	if (info->size_bytes == 0)
		return weft_error_set(err, ENODATA, "the region is empty");
	/* Only the first lane comes here; the others start after it. */
	donor->info = *info;
	donor->granted = true;
	for (unsigned i = 0; i < bridge->nr_donors; i++)
		if (!bridge->donors[i].granted)
			return 0;
	return put_together(bridge, err);
}

/* ---- its validity ---- */

void bridge_changed(const struct bridge *bridge)
{
	if (bridge->config.changed)
		bridge->config.changed(bridge->config.changed_ctx);
}

void bridge_wake_lanes(struct bridge *bridge)
{
	for (unsigned i = 0; i < bridge->nr_lanes; i++)
		weft_loop_wake(bridge->lanes[i]->loop);
}

void bridge_set_stale(struct bridge *bridge, const struct weft_error *why)
{
	pthread_mutex_lock(&bridge->lock);
	if (!atomic_load(&bridge->stale))
		bridge->stale_why = *why;
	atomic_store(&bridge->stale, true);
	atomic_store(&bridge->refuses, true);
	pthread_mutex_unlock(&bridge->lock);
	bridge_wake_lanes(bridge);
	bridge_changed(bridge);
}

void bridge_set_superseded(struct bridge *bridge, const struct weft_error *why)
{
	pthread_mutex_lock(&bridge->lock);
	bridge->superseded = true;
	pthread_mutex_unlock(&bridge->lock);
	bridge_set_stale(bridge, why);
}

bool bridge_is_superseded(struct bridge *bridge)
{
	pthread_mutex_lock(&bridge->lock);
	bool is = bridge->superseded;
	pthread_mutex_unlock(&bridge->lock);
	return is;
}

/* ---- stopping ---- */

static bool all_done(const struct bridge *bridge)
{
	for (unsigned i = 0; i < bridge->nr_lanes; i++)
		if (atomic_load_explicit(&bridge->lanes[i]->nr_requests, memory_order_acquire) > 0)
			return false;
	return true;
}

struct last_flush {
	struct bridge_request rq;
	struct bridge *bridge;
	bool done;
	int error;
};

static void last_flush_done(struct bridge_request *rq, int error)
{
	struct last_flush *flush = weft_container_of(rq, struct last_flush, rq);

	pthread_mutex_lock(&flush->bridge->lock);
	flush->done = true;
	flush->error = error;
	pthread_cond_broadcast(&flush->bridge->changed);
	pthread_mutex_unlock(&flush->bridge->lock);
}

static void submit_flush(struct bridge_lane *lane, void *ctx)
{
	struct last_flush *flush = ctx;

	bridge_lane_submit(lane, &flush->rq);
}

/* Up to a second's wait; true: it is done.  Under the lock. */
static bool wait_a_second(struct bridge *bridge, const bool *done)
{
	uint64_t until_ns = weft_now_ns() + UINT64_C(1000000000);
	struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000), .tv_nsec = (long)(until_ns % 1000000000)};

	while (!*done)
		if (pthread_cond_timedwait(&bridge->changed, &bridge->lock, &until) == ETIMEDOUT)
			break;
	return *done;
}

static int flush_all(struct bridge *bridge, uint32_t timeout_ms, struct weft_error *err)
{
	struct last_flush flush = {.bridge = bridge, .rq = {.kind = TP_FLUSH, .done = last_flush_done}};
	uint64_t moved = bridge->cache ? cache_pushed_bytes(bridge->cache) : 0, left_ms = timeout_ms;

	bridge_lane_run(bridge->lanes[0], submit_flush, &flush);
	pthread_mutex_lock(&bridge->lock);
	while (!wait_a_second(bridge, &flush.done) && left_ms > 0) {
		uint64_t now = bridge->cache ? cache_pushed_bytes(bridge->cache) : 0;

		/* As long as something arrives, it may take as long as it takes. */
		left_ms = now != moved ? timeout_ms : left_ms - weft_min(left_ms, 1000);
		moved = now;
	}
	bool timed_out = !flush.done;
	pthread_mutex_unlock(&bridge->lock);
	if (timed_out) {
		/* Its end fails it: afterwards nobody points at it any more. */
		lane_join(bridge->lanes[0]);
		return weft_error_set(err, ETIMEDOUT,
			"the last FLUSH was not answered: what was written last may not be durable");
	}
	if (flush.error == 0)
		return 0;
	struct weft_error why = {0};
	bridge_state(bridge, &why);
	if (atomic_load(&bridge->stale))
		weft_error_set(err, ESTALE, "the attachment was lost: %.400s", why.message);
	else
		weft_error_set(err, -flush.error, "the last FLUSH failed: %.400s",
			why.code ? why.message : strerror(-flush.error));
	return flush.error;
}

int bridge_stop(struct bridge *bridge, uint32_t timeout_ms, struct weft_error *err)
{
	uint64_t deadline_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);
	int r = 0;

	while (!all_done(bridge) && weft_now_ns() < deadline_ns)
		usleep(1000);
	if (bridge->granted && !bridge->info.read_only && bridge->lanes[0]->running)
		r = flush_all(bridge, timeout_ms, err);
	atomic_store(&bridge->stopping, true);
	for (unsigned i = 0; i < bridge->nr_lanes; i++)
		lane_join(bridge->lanes[i]);
	return r;
}

/* ---- what it is ---- */

const struct tp_info *bridge_info(const struct bridge *bridge)
{
	return &bridge->info;
}

bool bridge_is_managed(const struct bridge *bridge)
{
	return bridge->cache;
}

uint64_t bridge_dirty_bytes(const struct bridge *bridge)
{
	return bridge->cache ? cache_dirty_bytes(bridge->cache) : 0;
}

uint64_t bridge_lost_bytes(const struct bridge *bridge)
{
	return bridge->cache ? cache_lost_bytes(bridge->cache) : 0;
}

static void push_now(struct bridge_lane *lane, void *ctx)
{
	cache_push_kick(lane);
}

void bridge_push_now(struct bridge *bridge)
{
	if (bridge->cache)
		bridge_lane_run(bridge->lanes[0], push_now, NULL);
}

const struct bridge_config *bridge_config_of(const struct bridge *bridge)
{
	return &bridge->config;
}

unsigned bridge_nr_lanes(const struct bridge *bridge)
{
	return bridge->nr_lanes;
}

struct bridge_lane *bridge_lane(struct bridge *bridge, unsigned i)
{
	assert(i < bridge->nr_lanes);
	return bridge->lanes[i];
}

struct bridge_lane *bridge_next_lane(struct bridge *bridge)
{
	unsigned next = atomic_fetch_add(&bridge->next_lane, 1);

	/* A donor may refuse one connection more than it has room for; the others work. */
	for (unsigned i = 0; i < bridge->nr_lanes; i++) {
		struct bridge_lane *lane = bridge->lanes[(next + i) % bridge->nr_lanes];

		if (atomic_load(&lane->ready))
			return lane;
	}
	return bridge->lanes[next % bridge->nr_lanes];
}

uint64_t bridge_generation(const struct bridge *bridge)
{
	return atomic_load(&bridge->donors[0].generation);
}

const struct tp_info *bridge_donor_info(const struct bridge *bridge, unsigned donor)
{
	return &bridge->donors[donor].info;
}

unsigned bridge_nr_donors(const struct bridge *bridge)
{
	return bridge->nr_donors;
}

uint64_t bridge_bytes_cut_off(const struct bridge *bridge)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < bridge->nr_donors; i++)
		bytes += bridge->donors[i].info.size_bytes - bridge->map.part_bytes;
	return bytes;
}

void bridge_way_now(struct bridge *bridge, unsigned donor, struct bridge_way_now *ret)
{
	const struct bridge_donor *d = &bridge->donors[donor];

	pthread_mutex_lock(&bridge->lock);
	snprintf(ret->transport, sizeof(ret->transport), "%s", d->used_transport);
	snprintf(ret->why, sizeof(ret->why), "%s", d->way_why);
	ret->nr_changes = d->ways.nr_changes;
	ret->since_ns = d->ways.since_ns;
	pthread_mutex_unlock(&bridge->lock);
}

unsigned bridge_nr_orphans(const struct bridge *bridge)
{
	return atomic_load(&bridge->nr_orphans);
}
