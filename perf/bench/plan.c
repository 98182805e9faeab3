/* SPDX-License-Identifier: MIT */
/*
 * The plan of a run: its cells, and the paths that there are between this machine and the region.
 * One thread.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/run.h"

const char *const bench_front_names[] = {"direct", "socket", "file", "nbd", "ublk"};

static void plan_cells(struct bench_run *run)
{
	const struct bench_options *o = run->o;

	for (int write = 0; write <= !o->read_only; write++) {
		for (unsigned i = 0; i < o->nr_depths; i++)
			run->cells[run->nr_cells++] =
				(struct bench_cell){write, o->sizes[0], o->depths[i]};
		for (unsigned i = 1; i < run->nr_sizes; i++)
			run->cells[run->nr_cells++] = (struct bench_cell){write, o->sizes[i],
				o->depths[o->nr_depths - 1]};
	}
}

static struct bench_group *add_group(struct bench_run *run, const struct tp_driver *driver,
	const char *port, const bool fronts[BENCH_NR_FRONTS], bool cached)
{
	struct bench_group *g = &run->groups[run->nr_groups++];
	const char *word =
		run->o->uri.socket[0] && driver->local_word ? driver->local_word : driver->word;

	*g = (struct bench_group){.driver = driver,
		.direct = fronts[BENCH_DIRECT],
		.cached = cached,
		.paths = run->paths + run->nr_paths};
	snprintf(g->port, sizeof(g->port), "%s", port);
	for (int front = 0; front < BENCH_NR_FRONTS; front++) {
		if (!fronts[front] || !run->o->fronts[front])
			continue;
		struct bench_path *path = &run->paths[run->nr_paths++];
		path->front = front;
		path->measured = true;
		snprintf(path->name, sizeof(path->name), "%s %s%s", word, bench_front_names[front],
			cached ? " cached" : "");
		path->cells = calloc(run->nr_cells, sizeof(*path->cells));
		if (!path->cells)
			abort();
		g->nr_paths++;
	}
	return g;
}

void bench_give_up(struct bench_path *path, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path->why_not, sizeof(path->why_not), fmt, ap);
	va_end(ap);
	path->measured = false;
}

void bench_give_up_group(struct bench_group *g, const char *why)
{
	for (unsigned i = 0; i < g->nr_paths; i++)
		if (g->paths[i].measured)
			bench_give_up(&g->paths[i], "%s", why);
}

unsigned bench_nr_measured(const struct bench_run *run)
{
	unsigned n = 0;

	for (unsigned i = 0; i < run->nr_paths; i++)
		n += run->paths[i].measured;
	return n;
}

static void plan_driver(struct bench_run *run, const struct tp_driver *driver, const char *port,
	const char *why_not)
{
	static const bool together[][BENCH_NR_FRONTS] = {{[BENCH_DIRECT] = true},
		{[BENCH_SOCKET] = true, [BENCH_FILE] = true}, {[BENCH_NBD] = true},
		{[BENCH_UBLK] = true}};

	for (int cached = 0; cached <= (run->o->cache != NULL); cached++)
		for (size_t i = cached; i < WEFT_ARRAY_LEN(together);
			i++) { /* the transport itself has no cache */
			struct bench_group *g = add_group(run, driver, port, together[i], cached);
			if (why_not)
				bench_give_up_group(g, why_not);
		}
}

/* The port of an offer of the transport. */
static bool offered_port(const struct tp_driver *driver, const char *offers, char port[8])
{
	struct tp_offer offer;
	bool offered = tp_next_offer(driver, &offers, &offer);

	if (offered)
		strcpy(port, offer.port);
	return offered;
}

const struct tp_driver *bench_first_driver(const struct bench_options *o)
{
	return o->uri.transport ? o->uri.transport
		: o->uri.driver ? o->uri.driver
				: tp_base_driver();
}

/*
 * A transport that is not the one that the URI leads to by itself: whether it leads there as well,
 * and at which port.
 */
static int look_for_way(const struct bench_options *o, const struct tp_driver *driver,
	const char *offers, char port[8], struct weft_error *err)
{
	if (o->uri.driver)
		return weft_error_set(err, EOPNOTSUPP, "%s", o->uri.scheme->only);
	if (o->uri.transport && o->uri.transport != driver)
		return weft_error_set(
			err, EOPNOTSUPP, "the URI says transport=%s", o->uri.transport->word);
	if (o->uri.transport) {
		if (!offered_port(driver, offers, port))
			strcpy(port, o->uri.port);
		return 0;
	}
	int r = driver->usable ? driver->usable(err) : 0;
	if (r == 0 && !offered_port(driver, offers, port))
		r = weft_error_set(err, EOPNOTSUPP, "the donor offers this region only over %s",
			offers[0] ? offers : tp_base_driver()->label);
	return r;
}

static void plan_drivers(struct bench_run *run, const char *offers)
{
	const struct bench_options *o = run->o;
	const struct tp_driver *own = o->uri.driver ? o->uri.driver : tp_base_driver();

	for (const struct tp_driver *const *at = tp_drivers;
		*at && run->nr_groups + 7 <= BENCH_MAX_GROUPS; at++) {
		struct weft_error err;
		char port[8] = "";

		if (*at == own && o->uri.transport && o->uri.transport != own) {
			snprintf(err.message, sizeof(err.message), "the URI says transport=%s",
				o->uri.transport->word);
			plan_driver(run, own, o->uri.port, err.message);
		} else if (*at == own) {
			plan_driver(run, own, o->uri.port, NULL);
		} else if (tp_driver_is_choice(*at)) {
			int r = look_for_way(o, *at, offers, port, &err);

			plan_driver(run, *at, port, r < 0 ? err.message : NULL);
		}
	}
}

int bench_connect_direct(const struct bench_run *run, const struct tp_driver *driver,
	const char *port, struct bench_io **ret, struct tp_info *info, struct weft_error *err)
{
	const struct bench_options *o = run->o;

	return bench_io_connect(driver->ops, &o->uri, port, o->key, o->read_only, o->uri.foreign,
		run->name, ret, info, err);
}

/* Twice what is in flight, so that places are not the same all the time. */
static bool fits(const struct bench_run *run, const struct tp_info *info, uint32_t size)
{
	unsigned depth = run->o->depths[run->o->nr_depths - 1];

	return run->truth.span_bytes >= UINT64_C(2) * size * depth && info->max_io_bytes >= size;
}

static int check_region(struct bench_run *run, const struct tp_info *info, struct weft_error *err)
{
	const struct bench_options *o = run->o;
	unsigned depth = o->depths[o->nr_depths - 1];

	run->region_bytes = info->size_bytes;
	run->truth.span_bytes =
		weft_min(o->span_bytes, info->size_bytes) / BENCH_BLOCK * BENCH_BLOCK;
	if (info->depth < depth)
		return weft_error_set(err, EINVAL,
			"the donor takes at most %u requests at once; see --depths", info->depth);
	while (run->nr_sizes < o->nr_sizes && fits(run, info, o->sizes[run->nr_sizes]))
		run->nr_sizes++;
	if (run->nr_sizes == 0 || (o->have_sizes && run->nr_sizes < o->nr_sizes))
		return weft_error_set(err, ENOSPC,
			"the region is too small, or takes no requests so large: %u of %u bytes in "
			"flight want twice as much; see --sizes and --depths",
			depth, o->sizes[run->nr_sizes]);
	if (info->read_only && !o->read_only)
		return weft_error_set(err, EROFS, "the region is read-only; add --read-only");
	run->truth.words = calloc(run->truth.span_bytes / BENCH_BLOCK, sizeof(uint64_t));
	return run->truth.words ? 0 : weft_error_set(err, ENOMEM, "out of memory");
}

/* The first connection: what there is, and what is in it. */
int bench_plan(struct bench_run *run, struct weft_error *err)
{
	const struct bench_options *o = run->o;
	struct bench_io *io;
	struct tp_info info;
	int r;

	bench_progress(0, "connecting to %s", o->uri_text);
	r = bench_connect_direct(run, bench_first_driver(o), o->uri.port, &io, &info, err);
	if (r < 0)
		return weft_error_prefix(err, "cannot connect to %s", o->uri_text);
	r = check_region(run, &info, err);
	if (r == 0 && !o->read_only && !o->overwrite) {
		bench_progress(0, "looking whether the region is empty");
		r = bench_sweep(io, &run->truth, BENCH_SWEEP_IS_EMPTY, err);
		if (r == -ENOTEMPTY)
			weft_error_set(err, ENOTEMPTY,
				"the region is not empty, and weft bench writes to it; --overwrite "
				"destroys what it holds, --read-only only reads");
	}
	if (r == 0) {
		bench_progress(0,
			o->read_only ? "reading what the region holds" : "filling the region");
		run->wrote = !o->read_only;
		r = bench_sweep(io, &run->truth,
			o->read_only ? BENCH_SWEEP_LEARN : BENCH_SWEEP_FILL, err);
	}
	io->close(io);
	if (r < 0)
		return r;
	plan_cells(run);
	plan_drivers(run, info.offers);
	return 0;
}
