/* SPDX-License-Identifier: MIT */
/*
 * libweft's handles: opening, calls that block, closing.  A handle is a bridge, and its callers
 * drive the lanes.
 */
#include "nbd-bridge/library/weft.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "nbd-bridge/library/weft-private.h"

enum {
	CONNECT_MS = 10000,
	ANSWER_MS = 30000,
	DEAD_MS = 10000,
	CLOSE_MS = 30000,   /* without progress in writing back the cache */
	PUSH_MS = 1000,
	MAX_DEFAULT_LANES = 4,
	/* locked memory of a connection over RDMA: its buffers, and some more */
	LOCKED_BYTES = 6 << 20,
};

#define STRIPE_DEFAULT (UINT64_C(256) << 10)
#define STRIPE_MIN UINT64_C(4096)
#define STRIPE_MAX (UINT64_C(1) << 30)

enum {
	ALL_FLAGS = WEFT_OPEN_READ_ONLY | WEFT_OPEN_SHARED | WEFT_OPEN_WRITE_BACK |
		WEFT_OPEN_NEW_CONTENTS | WEFT_OPEN_ALLOW_INSECURE
};

/* ---- options ---- */

static int copy_options(const struct weft_options *given, struct weft_options *ret,
	struct weft_error *err)
{
	const struct weft_options none = {.size = sizeof(none)};

	*ret = none;
	if (!given)
		return 0;
	if (given->size < offsetof(struct weft_options, flags) + sizeof(given->flags))
		return weft_error_set(err, EINVAL,
			"cannot open: options.size is not the struct's size");
	memcpy(ret, given, weft_min(given->size, sizeof(*ret)));
	/* Options of a later version: fields that this version does not know must be 0. */
	for (size_t i = sizeof(*ret); i < given->size; i++)
		if (((const char *)given)[i] != 0)
			return weft_error_set(err, E2BIG,
				"cannot open: an option is of a later version of this library");
	return 0;
}

static int check_options(struct weft_options *o, unsigned nr_uris, struct weft_error *err)
{
	const unsigned flags = o->flags;

	if (flags & ~(unsigned)ALL_FLAGS ||
		(flags & WEFT_OPEN_SHARED && !(flags & WEFT_OPEN_READ_ONLY)))
		return weft_error_set(err, EINVAL,
			"cannot open: unknown flags, or SHARED without READ_ONLY");
	if (flags & WEFT_OPEN_WRITE_BACK && !o->cache_bytes)
		return weft_error_set(err, EINVAL,
			"cannot open: WRITE_BACK is for a handle with cache_bytes");
	if (flags & WEFT_OPEN_NEW_CONTENTS && flags & WEFT_OPEN_READ_ONLY)
		return weft_error_set(err, EINVAL,
			"cannot open: NEW_CONTENTS is for a handle that writes");
	if (nr_uris == 0 || nr_uris > BRIDGE_MAX_DONORS)
		return weft_error_set(err, EINVAL, "cannot open %u regions: 1 to %d can be opened",
			nr_uris, BRIDGE_MAX_DONORS);
	if (o->connections > BRIDGE_MAX_LANES)
		return weft_error_set(err, EINVAL, "cannot open: %u connections are more than %d",
			o->connections, BRIDGE_MAX_LANES);
	if (o->cache_bytes && o->cache_bytes < BRIDGE_CACHE_MIN)
		return weft_error_set(err, EINVAL, "cannot open: a cache has %d bytes at least",
			BRIDGE_CACHE_MIN);
	if (nr_uris == 1 && (o->stripe_bytes || flags & WEFT_OPEN_NEW_CONTENTS))
		return weft_error_set(err, EINVAL,
			"cannot open: stripe_bytes and NEW_CONTENTS are for several regions");
	if (nr_uris > 1 && !o->stripe_bytes)
		o->stripe_bytes = STRIPE_DEFAULT;
	if (nr_uris > 1 &&
		(o->stripe_bytes < STRIPE_MIN || o->stripe_bytes > STRIPE_MAX ||
			o->stripe_bytes & (o->stripe_bytes - 1)))
		return weft_error_set(err, EINVAL,
			"cannot open: stripe_bytes is a power of two from 4 KiB to 1 GiB, not "
			"%" PRIu64,
			o->stripe_bytes);
	return 0;
}

/* Four lanes would be of no use on a machine with one processor. */
static unsigned default_lanes(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < 1 ? 1 : (unsigned)weft_min((uint64_t)cpus, MAX_DEFAULT_LANES);
}

static int parse_uris(struct weft *w, const char *const *uris, unsigned nr_uris,
	struct weft_error *err)
{
	for (; w->nr_uris < nr_uris; w->nr_uris++) {
		const struct weft_uri *first = &w->uris[0], *uri = &w->uris[w->nr_uris];
		int r = weft_uri_parse(uris[w->nr_uris], &w->uris[w->nr_uris], err);

		if (r < 0)
			return r;
		w->find.donors[w->nr_uris].uri = uri;
		if (nr_uris > 1)
			w->find.donors[w->nr_uris].label = uris[w->nr_uris];
		if (uri->foreign == first->foreign && uri->transport == first->transport)
			continue;
		w->nr_uris++;
		return weft_error_set(err, EINVAL, "cannot open: %s",
			uri->foreign != first->foreign
				? "weft:// donors and other servers are not striped together"
				: "all regions have the same ?transport=");
	}
	w->find.choice = w->uris[0].transport;
	return 0;
}

/* ---- opening ---- */

static void changed(void *ctx)
{
	library_maps_changed(ctx);
}

static void configure(
	struct weft *w, const struct weft_options *o, struct bridge_config *config)
{
	*config = (struct bridge_config){
		.attach = {
			.nr_donors = w->nr_uris,
			.stripe_bytes = o->stripe_bytes,
			.new_contents = o->flags & WEFT_OPEN_NEW_CONTENTS,
			.foreign = w->uris[0].foreign,
			.mode = o->flags & WEFT_OPEN_SHARED      ? WEFT_MODE_SHARED
				: o->flags & WEFT_OPEN_READ_ONLY ? WEFT_MODE_READ
								 : WEFT_MODE_WRITE,
			.timeout_ms = o->timeout_ms ? o->timeout_ms : ANSWER_MS,
			.dead_timeout_ms = o->dead_timeout_ms ? o->dead_timeout_ms : DEAD_MS,
			.connect_timeout_ms = CONNECT_MS,
			.changed = changed,
			.changed_ctx = w,
		},
		.cache = {
			.bytes = o->cache_bytes,
			.write_through = !(o->flags & WEFT_OPEN_WRITE_BACK),
			.push_interval_ms = PUSH_MS,
		},
		.nr_lanes = o->connections ? o->connections : default_lanes(),
		.driven = true,
	};
	snprintf(config->attach.name, sizeof(config->attach.name), "libweft-%d", (int)getpid());
}

static bool may_lock(unsigned nr_lanes)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
		limit.rlim_cur / LOCKED_BYTES >= nr_lanes;
}

static int start_bridge(struct weft *w, const struct weft_options *o, struct weft_error *err)
{
	struct bridge_donor_config donors[BRIDGE_MAX_DONORS] = {0};
	struct bridge_config config;
	int r;

	for (unsigned i = 0; i < w->nr_uris; i++) {
		weft_random(donors[i].id, sizeof(donors[i].id));
		donors[i].generation = weft_next_incarnation(0);
	}
	configure(w, o, &config);
	r = bridge_find_and_start(&w->find, &config, donors, &w->bridge, err);
	/*
	 * Many users may lock 8 MiB, which is enough for one connection over RDMA; one is better
	 * than none.
	 */
	bool fell_back = r == 0 && donors[0].nr_ways > 1 && donors[0].first_way == 0;
	if (!o->connections && config.nr_lanes > 1 && !may_lock(config.nr_lanes) &&
		(r == -ENOMEM || fell_back)) {
		/*
		 * Asks as the next incarnation: a donor may not have heard yet that the first one
		 * has gone.
		 */
		for (unsigned i = 0; i < w->nr_uris; i++)
			donors[i].generation = weft_next_incarnation(donors[i].generation);
		configure(w, o, &config);
		config.nr_lanes = 1;
		r = bridge_find_and_start(&w->find, &config, donors, &w->bridge, err);
	}
	return r;
}

static int make_lanes(struct weft *w, struct weft_error *err)
{
	unsigned nr = bridge_nr_lanes(w->bridge);

	w->lanes = calloc(nr, sizeof(w->lanes[0]));
	if (!w->lanes)
		return weft_error_set(err, ENOMEM, "cannot open: out of memory");
	for (; w->nr_lanes < nr; w->nr_lanes++) {
		int r = library_lane_init(&w->lanes[w->nr_lanes], w,
			bridge_lane(w->bridge, w->nr_lanes));

		if (r < 0)
			return weft_error_set(err, -r, "cannot open: %s", strerror(-r));
	}
	return 0;
}

static int open_handle(struct weft *w, const struct weft_options *o, struct weft_error *err)
{
	int r = start_bridge(w, o, err);

	if (r < 0)
		return r;
	w->info = *bridge_info(w->bridge);
	w->write_back = o->flags & WEFT_OPEN_WRITE_BACK;
	w->has_cache = o->cache_bytes > 0;
	w->stripe_bytes = o->stripe_bytes;
	if (!(o->flags & WEFT_OPEN_READ_ONLY) && w->info.read_only)
		return weft_error_set(err, EROFS, "region '%.100s' is read-only",
			w->uris[0].region);
	return make_lanes(w, err);
}

static int find_keys(struct weft *w, const struct weft_options *o, struct weft_error *err)
{
	w->find.key_file = o->key_file;
	w->find.allow_insecure = o->flags & WEFT_OPEN_ALLOW_INSECURE;
	int r = bridge_find_keys(&w->find, w->nr_uris, err);
	w->find.key_file = NULL; /* the caller's */
	return r;
}

static pthread_once_t debug_once = PTHREAD_ONCE_INIT;

int weft_open_regions(const char *const *uris, unsigned nr_uris, const struct weft_options *options,
	struct weft **ret, char *why, size_t why_size)
{
	struct weft_error err = {0};
	struct weft_options o;
	struct weft *w = NULL;
	int r = library_lane_in_completion
		? weft_error_set(&err, EDEADLK, "cannot open: a completion must not block")
		: copy_options(options, &o, &err);

	pthread_once(&debug_once, weft_debug_enable_from_environment);
	if (r == 0)
		r = check_options(&o, nr_uris, &err);
	if (r == 0) {
		w = calloc(1, sizeof(*w));
		r = w ? 0 : weft_error_set(&err, ENOMEM, "cannot open: out of memory");
	}
	if (r == 0) {
		pthread_mutex_init(&w->reset_lock, NULL);
		pthread_mutex_init(&w->lock, NULL);
		atomic_store(&w->aio_fd, -1);
		r = parse_uris(w, uris, nr_uris, &err);
	}
	if (r == 0)
		r = find_keys(w, &o, &err);
	if (r == 0)
		r = open_handle(w, &o, &err);
	if (r == 0)
		*ret = w;
	else
		weft_close(w);
	if (r < 0 && why_size > 0)
		snprintf(why, why_size, "%s", err.message);
	return r;
}

int weft_open(const char *uri, unsigned flags, struct weft **ret, char *why, size_t why_size)
{
	const struct weft_options options = {.size = sizeof(options), .flags = flags};

	return weft_open_regions(&uri, 1, &options, ret, why, why_size);
}

/* The last FLUSH has to cover all commands that succeed. */
static void write_back(struct weft *w)
{
	unsigned before = 0, nr;
	uint64_t end_ns = 0;

	for (; (nr = weft_aio_in_flight(w)) > 0; usleep(1000)) {
		if (nr != before)
			end_ns = weft_now_ns() + CLOSE_MS * UINT64_C(1000000);
		if (weft_now_ns() >= end_ns)
			break;
		before = nr;
	}
	bridge_stop(w->bridge, nr > 0 ? 0 : CLOSE_MS, NULL);
}

void weft_close(struct weft *w)
{
	if (!w)
		return;
	while (w->maps)
		if (weft_unmap(w->maps, 0) < 0)
			weft_unmap(w->maps, WEFT_UNMAP_DISCARD);
	/* This comes first: commands that completions begin could keep the handle busy for ever. */
	atomic_store(&w->closing, true);
	if (w->bridge && w->write_back)
		write_back(w);
	if (w->bridge)
		bridge_end_lanes(w->bridge);
	for (unsigned i = 0; i < w->nr_lanes; i++)
		library_lane_fini(&w->lanes[i]);
	bridge_free(w->bridge);
	bridge_find_fini(&w->find);
	aio_fini(w);
	for (unsigned i = 0; i < w->nr_uris; i++)
		weft_uri_fini(&w->uris[i]);
	pthread_mutex_destroy(&w->lock);
	pthread_mutex_destroy(&w->reset_lock);
	free(w->lanes);
	free(w);
}

/* ---- what it is ---- */

uint64_t weft_size(const struct weft *w)
{
	return w->info.size_bytes;
}

int weft_transport(struct weft *w, unsigned n, char *buf, size_t size)
{
	struct bridge_way_now now;

	if (n >= w->nr_uris)
		return -EINVAL;
	peer_way_now(&bridge_attachment(w->bridge)->peers[n], &now);
	snprintf(buf, size, "%s", now.transport);
	return 0;
}

/* ---- calls that block ---- */

static int transfer(struct weft *w, uint8_t kind, void *buf, uint64_t off, uint64_t len)
{
	int r = command_check(w, kind, off, len);

	if (r == 0 && library_is_mapped(w, buf, len))
		r = -EINVAL;
	return r < 0 || len == 0 ? r : library_call(w, kind, buf, off, len);
}

int weft_pread(struct weft *w, void *buf, size_t len, uint64_t off)
{
	return transfer(w, TP_READ, buf, off, len);
}

int weft_pwrite(struct weft *w, const void *buf, size_t len, uint64_t off)
{
	return transfer(w, TP_WRITE, (void *)buf, off, len);
}

int weft_flush(struct weft *w)
{
	return library_call(w, TP_FLUSH, NULL, 0, 0);
}
