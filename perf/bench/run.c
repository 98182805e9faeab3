/*
 * The run: which paths there are, rounds over them, and the JSON object of what was measured.
 *
 * A region has one writer, so that a path's connection or bridge begins and ends in each round.  A bridge serves the
 * socket and the file at once, and another each kind of device.  One thread.  Invariant: nothing that was started outlives
 * bench_run().
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fabric/machine/netdev.h"
#include "fabric/transport.h"
#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/bench/stats.h"
#include "transports/nbd/borrower/client.h"
#include "transports/verbs/verbs.h"

enum {
	MAX_GROUPS = 16,
	MIN_ROUNDS = 5,
	MIN_SLICE_MS = 20,
	CONTROL_MS = 40,
};

/* Figures of one slice; below 0: not known. */
enum figure { OPS_S, P50_US, BENCH_US, BRIDGE_US, DONOR_US, ALL_US, NR_FIGURES };

struct measured {
	double rounds[NR_FIGURES][BENCH_MAX_ROUNDS];
	unsigned nr_rounds;
	uint64_t nr_ops, rx_bytes, tx_bytes, machine_ns;
	struct weft_histogram latency;
};

struct path {
	char name[48];
	enum bench_front front;
	bool measured;
	char why_not[400];
	double ready_ms[BENCH_MAX_ROUNDS];
	unsigned nr_ready, nr_lanes;
	char how[160], why[320]; /* the connection; why this transport */
	char netdev[64], rdma_device[64];
	char counted[64]; /* the interface that counts its bytes */
	bool counts_net, donor_here;
	struct measured *cells;
};

/* What one connection or one bridge serves. */
struct group {
	const char *transport; /* "tcp", "rdma" */
	const struct tp_ops *ops;
	char port[8];
	bool direct, cached;
	struct path *paths; /* those of the fronts that are asked for */
	unsigned nr_paths;
};

struct run {
	const struct bench_options *o;
	struct bench_truth truth;
	struct bench_cell cells[BENCH_MAX_CELLS];
	unsigned nr_cells;
	struct path paths[BENCH_MAX_PATHS];
	unsigned nr_paths;
	struct group groups[MAX_GROUPS];
	unsigned nr_groups;
	char name[64], dir[112];
	uint64_t region_bytes, slice_ns;
	double control[BENCH_MAX_ROUNDS];
	unsigned nr_rounds, steps;
	unsigned nr_sizes; /* of the options', that fit in the region */
	bool dirty; /* a path broke amid writes: the truth is not known */
	bool wrote;
	char when[32];
	json_t *machine;
};

const char *const bench_front_names[] = {"direct", "socket", "file", "nbd", "ublk"};
volatile sig_atomic_t bench_stop;

/* ---- plan ---- */

static void plan_cells(struct run *run)
{
	const struct bench_options *o = run->o;

	for (int write = 0; write <= !o->read_only; write++) {
		for (unsigned i = 0; i < o->nr_depths; i++)
			run->cells[run->nr_cells++] = (struct bench_cell){write, o->sizes[0], o->depths[i]};
		for (unsigned i = 1; i < run->nr_sizes; i++)
			run->cells[run->nr_cells++] = (struct bench_cell){write, o->sizes[i], o->depths[o->nr_depths - 1]};
	}
}

static struct group *add_group(struct run *run, const char *transport, const struct tp_ops *ops, const char *port,
	const bool fronts[BENCH_NR_FRONTS], bool cached)
{
	struct group *g = &run->groups[run->nr_groups++];

	*g = (struct group){
		.transport = transport, .ops = ops, .direct = fronts[BENCH_DIRECT], .cached = cached, .paths = run->paths + run->nr_paths};
	snprintf(g->port, sizeof(g->port), "%s", port);
	for (int front = 0; front < BENCH_NR_FRONTS; front++) {
		if (!fronts[front] || !run->o->fronts[front])
			continue;
		struct path *path = &run->paths[run->nr_paths++];
		path->front = front;
		path->measured = true;
		snprintf(path->name, sizeof(path->name), "%s %s%s", transport, bench_front_names[front], cached ? " cached" : "");
		path->cells = calloc(run->nr_cells, sizeof(*path->cells));
		if (!path->cells)
			abort();
		g->nr_paths++;
	}
	return g;
}

static void give_up(struct path *path, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void give_up(struct path *path, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path->why_not, sizeof(path->why_not), fmt, ap);
	va_end(ap);
	path->measured = false;
}

static void give_up_group(struct group *g, const char *why)
{
	for (unsigned i = 0; i < g->nr_paths; i++)
		if (g->paths[i].measured)
			give_up(&g->paths[i], "%s", why);
}

static void plan_transport(struct run *run, const char *transport, const struct tp_ops *ops, const char *port, const char *why_not)
{
	static const bool together[][BENCH_NR_FRONTS] = {
		{[BENCH_DIRECT] = true}, {[BENCH_SOCKET] = true, [BENCH_FILE] = true}, {[BENCH_NBD] = true}, {[BENCH_UBLK] = true}};

	for (int cached = 0; cached <= (run->o->cache != NULL); cached++)
		for (size_t i = cached; i < WEFT_ARRAY_LEN(together); i++) { /* the transport itself has no cache */
			struct group *g = add_group(run, transport, ops, port, together[i], cached);
			if (why_not)
				give_up_group(g, why_not);
		}
}

/* The port in "tcp,rdma:10809". */
static bool rdma_port(const char *offers, char port[8])
{
	const char *rdma = strstr(offers, "rdma:");

	return rdma && sscanf(rdma, "rdma:%7[0-9]", port) == 1;
}

static int rdma_usable(const char *offers, char port[8], struct weft_error *err)
{
	struct tp *tp;
	int r = tp_open(&tp_verbs_ops, NULL, &tp, err);

	if (r < 0)
		return r;
	tp_close(tp);
	if (!rdma_port(offers, port))
		return weft_error_set(err, EOPNOTSUPP, "the donor offers this region only over %s", offers[0] ? offers : "TCP");
	return 0;
}

static int connect_direct(const struct run *run, const struct tp_ops *ops, const char *port, struct bench_io **ret,
	struct tp_info *info, struct weft_error *err)
{
	const struct bench_options *o = run->o;

	return bench_io_connect(ops, &o->uri, port, o->read_only, o->uri.foreign, run->name, ret, info, err);
}

/* Twice what is in flight, so that places are not the same all the time. */
static bool fits(const struct run *run, const struct tp_info *info, uint32_t size)
{
	unsigned depth = run->o->depths[run->o->nr_depths - 1];

	return run->truth.span_bytes >= UINT64_C(2) * size * depth && info->max_io_bytes >= size;
}

static int check_region(struct run *run, const struct tp_info *info, struct weft_error *err)
{
	const struct bench_options *o = run->o;
	unsigned depth = o->depths[o->nr_depths - 1];

	run->region_bytes = info->size_bytes;
	run->truth.span_bytes = weft_min(o->span_bytes, info->size_bytes) / BENCH_BLOCK * BENCH_BLOCK;
	if (info->depth < depth)
		return weft_error_set(err, EINVAL, "the donor takes at most %u requests at once; see --depths", info->depth);
	while (run->nr_sizes < o->nr_sizes && fits(run, info, o->sizes[run->nr_sizes]))
		run->nr_sizes++;
	if (run->nr_sizes == 0 || (o->have_sizes && run->nr_sizes < o->nr_sizes))
		return weft_error_set(err, ENOSPC,
			"the region is too small, or takes no requests so large: %u of %u bytes in flight want twice as much; see --sizes and --depths",
			depth, o->sizes[run->nr_sizes]);
	if (info->read_only && !o->read_only)
		return weft_error_set(err, EROFS, "the region is read-only; add --read-only");
	run->truth.words = calloc(run->truth.span_bytes / BENCH_BLOCK, sizeof(uint64_t));
	return run->truth.words ? 0 : weft_error_set(err, ENOMEM, "out of memory");
}

/* The first connection: what there is, and what is in it. */
static int prepare(struct run *run, struct weft_error *err)
{
	const struct bench_options *o = run->o;
	bool only_rdma = o->uri.transport == WEFT_TRANSPORT_RDMA, local = o->uri.socket[0];
	const char *why_no_rdma = NULL;
	struct weft_error rdma = {0};
	struct bench_io *io;
	struct tp_info info;
	char port[8] = "";
	int r;

	bench_progress(0, "connecting to %s", o->uri_text);
	r = connect_direct(run, only_rdma ? &tp_verbs_ops : &tp_nbd_ops, o->uri.port, &io, &info, err);
	if (r < 0)
		return weft_error_prefix(err, "cannot connect to %s", o->uri_text);
	r = check_region(run, &info, err);
	if (r == 0 && !o->read_only && !o->overwrite) {
		bench_progress(0, "looking whether the region is empty");
		r = bench_sweep(io, &run->truth, BENCH_SWEEP_IS_EMPTY, err);
		if (r == -ENOTEMPTY)
			weft_error_set(err, ENOTEMPTY,
				"the region is not empty, and weft bench writes to it; --overwrite destroys what it holds, --read-only only reads");
	}
	if (r == 0) {
		bench_progress(0, o->read_only ? "reading what the region holds" : "filling the region");
		run->wrote = !o->read_only;
		r = bench_sweep(io, &run->truth, o->read_only ? BENCH_SWEEP_LEARN : BENCH_SWEEP_FILL, err);
	}
	io->close(io);
	if (r < 0)
		return r;
	plan_cells(run);
	if (local)
		why_no_rdma = "a Unix socket leads to this machine only";
	else if (o->uri.foreign)
		why_no_rdma = "an NBD server speaks TCP only";
	else if (o->uri.transport == WEFT_TRANSPORT_TCP)
		why_no_rdma = "the URI says transport=tcp";
	else if (!only_rdma && rdma_usable(info.offers, port, &rdma) < 0)
		why_no_rdma = rdma.message;
	else if (only_rdma && !rdma_port(info.offers, port))
		strcpy(port, o->uri.port);
	plan_transport(run, "rdma", &tp_verbs_ops, port, why_no_rdma);
	plan_transport(run, local ? "unix" : "tcp", &tp_nbd_ops, o->uri.port, only_rdma ? "the URI says transport=rdma" : NULL);
	return 0;
}

/* ---- a slice ---- */

struct counts {
	uint64_t bench, bridge, donor, machine, rx, tx;
};

static void count(const struct path *path, pid_t bridge, pid_t donor, struct counts *ret)
{
	ret->bench = bench_cpu_ns(0);
	ret->bridge = bridge ? bench_cpu_ns(bridge) : 0;
	ret->donor = donor ? bench_cpu_ns(donor) : 0;
	ret->machine = bench_machine_cpu_ns();
	if (path->counts_net)
		bench_net_bytes(path->counted, path->rdma_device, &ret->rx, &ret->tx);
}

static void keep(struct measured *m, const struct bench_slice *slice, const struct counts *from, const struct counts *to,
	bool have_bridge, bool have_donor)
{
	double ops = (double)slice->nr_ops, us = 1e3 * ops;
	unsigned i = m->nr_rounds++;

	m->rounds[OPS_S][i] = ops * 1e9 / (double)slice->elapsed_ns;
	m->rounds[P50_US][i] = (double)weft_histogram_quantile(&slice->latency, 0.5) / 1e3;
	m->rounds[BENCH_US][i] = (double)(to->bench - from->bench) / us;
	m->rounds[BRIDGE_US][i] = have_bridge ? (double)(to->bridge - from->bridge) / us : -1;
	m->rounds[DONOR_US][i] = have_donor ? (double)(to->donor - from->donor) / us : -1;
	m->rounds[ALL_US][i] = (double)(to->bench - from->bench + to->bridge - from->bridge + to->donor - from->donor) / us;
	m->nr_ops += slice->nr_ops;
	m->rx_bytes += to->rx - from->rx;
	m->tx_bytes += to->tx - from->tx;
	m->machine_ns += to->machine - from->machine;
	weft_histogram_merge(&m->latency, &slice->latency);
}

static unsigned nr_measured(const struct run *run)
{
	unsigned n = 0;

	for (unsigned i = 0; i < run->nr_paths; i++)
		n += run->paths[i].measured;
	return n;
}

/* All cells over one path.  A path that breaks is given up; wrong bytes end the run. */
static int run_path(struct run *run, struct path *path, struct bench_io *io, pid_t bridge, struct weft_error *err)
{
	pid_t donor = bench_local_donor(run->name);
	static struct bench_slice slice;
	struct counts from, to;
	int r = 0;

	path->donor_here = donor != 0;
	for (unsigned i = 0; r == 0 && i < run->nr_cells && !bench_stop; i++) {
		const struct bench_cell *cell = &run->cells[i];
		unsigned total = run->o->nr_rounds * nr_measured(run) * run->nr_cells;

		bench_progress(run->steps++ < total ? run->steps : total, "round %u of %u, %s: %s of %u KiB, %u in flight",
			run->nr_rounds + 1, run->o->nr_rounds, path->name, cell->write ? "writes" : "reads", cell->len >> 10,
			cell->depth);
		count(path, bridge, donor, &from);
		r = bench_work(io, &run->truth, cell, run->slice_ns, &slice, err);
		count(path, bridge, donor, &to);
		if (r == 0)
			r = bench_read_back(io, &run->truth, cell, &slice, err);
		if (r == 0)
			keep(&path->cells[i], &slice, &from, &to, bridge != 0, donor != 0);
	}
	if (r == -EILSEQ)
		return weft_error_prefix(err, "%s", path->name);
	if (r < 0) {
		give_up(path, "it failed in round %u: %s", run->nr_rounds + 1, err->message);
		run->dirty = true;
	}
	return 0;
}

/* ---- groups ---- */

static void note_connection(struct path *path, const char *how)
{
	uint64_t rx, tx;

	snprintf(path->how, sizeof(path->how), "%s", how);
	bool local = weft_netdev_of_path(how, path->netdev, path->rdma_device);
	/* To the machine itself TCP goes over lo whatever the address, and RDMA over nothing that counts. */
	strcpy(path->counted, local ? "lo" : path->netdev);
	path->counts_net = !(local && path->rdma_device[0]) && bench_net_bytes(path->counted, path->rdma_device, &rx, &tx);
}

static int run_direct(struct run *run, struct group *g, struct weft_error *err)
{
	struct path *path = g->paths;
	struct bench_io *io;
	struct tp_info info;
	int r;

	if (g->nr_paths == 0 || !path->measured)
		return 0;
	if (connect_direct(run, g->ops, g->port, &io, &info, err) < 0) {
		give_up(path, "%s", err->message);
		return 0;
	}
	path->ready_ms[path->nr_ready++] = (double)io->ready_ns / 1e6;
	note_connection(path, info.path);
	snprintf(path->why, sizeof(path->why), "no bridge: the transport itself");
	r = run_path(run, path, io, 0, err);
	io->close(io);
	return r;
}

static int open_front(const struct run *run, const struct path *path, const struct bench_bridge *bridge, struct bench_io **ret,
	struct weft_error *err)
{
	struct weft_uri uri = {.region = (char *)""};

	if (path->front == BENCH_FILE)
		return bench_io_open(bridge->file, run->o->read_only, ret, err);
	if (path->front == BENCH_NBD || path->front == BENCH_UBLK)
		return bench_io_open(bridge->device, run->o->read_only, ret, err);
	snprintf(uri.socket, sizeof(uri.socket), "%.107s", bridge->socket);
	return bench_io_connect(&tp_nbd_ops, &uri, NULL, run->o->read_only, true, run->name, ret, NULL, err);
}

static bool wanted(const struct group *g, bool fronts[BENCH_NR_FRONTS])
{
	bool any = false;

	memset(fronts, 0, BENCH_NR_FRONTS * sizeof(*fronts));
	for (unsigned i = 0; i < g->nr_paths; i++)
		any |= fronts[g->paths[i].front] = g->paths[i].measured;
	return any;
}

static int attach(const struct run *run, const struct group *g, const bool fronts[BENCH_NR_FRONTS], struct bench_bridge *ret,
	struct weft_error *err)
{
	const char *transport = strcmp(g->transport, "rdma") == 0 ? "rdma" : "tcp";

	return bench_attach(run->o, transport, fronts, g->cached ? run->o->cache : NULL, run->dir, ret, err);
}

/* One front-end that cannot be had must not take the others with it. */
static void find_culprits(struct run *run, struct group *g, struct weft_error *err)
{
	struct bench_bridge bridge;

	for (unsigned i = 0; i < g->nr_paths; i++) {
		struct path *path = &g->paths[i];
		bool alone[BENCH_NR_FRONTS] = {false};

		alone[path->front] = true;
		if (path->measured && attach(run, g, alone, &bridge, err) < 0)
			give_up(path, "%s", err->message);
		else if (path->measured)
			bench_detach(&bridge);
	}
}

static int run_bridge(struct run *run, struct group *g, unsigned round, struct weft_error *err)
{
	bool fronts[BENCH_NR_FRONTS];
	struct bench_bridge bridge;
	struct bench_io *io;
	int r = 0;

	if (!wanted(g, fronts))
		return 0;
	if (attach(run, g, fronts, &bridge, err) < 0) {
		find_culprits(run, g, err);
		if (!wanted(g, fronts))
			return 0;
		if (attach(run, g, fronts, &bridge, err) < 0) {
			give_up_group(g, err->message);
			return 0;
		}
	}
	for (unsigned k = 0; r == 0 && k < g->nr_paths && !bench_stop; k++) {
		struct path *path = &g->paths[(k + round) % g->nr_paths];

		if (!path->measured)
			continue;
		path->ready_ms[path->nr_ready++] = (double)bridge.ready_ns / 1e6;
		note_connection(path, bridge.path);
		strcpy(path->why, bridge.why);
		path->nr_lanes = bridge.nr_lanes;
		if (open_front(run, path, &bridge, &io, err) < 0) {
			give_up(path, "%s", err->message);
			continue;
		}
		r = run_path(run, path, io, bridge.pid, err);
		io->close(io);
	}
	bench_detach(&bridge);
	return r;
}

/* Makes the truth true again, over the path that the run began with. */
static int refill(struct run *run, enum bench_sweep what, struct weft_error *err)
{
	bool only_rdma = run->o->uri.transport == WEFT_TRANSPORT_RDMA;
	struct bench_io *io;
	int r = connect_direct(run, only_rdma ? &tp_verbs_ops : &tp_nbd_ops, run->o->uri.port, &io, NULL, err);

	if (r < 0)
		return r;
	r = bench_sweep(io, &run->truth, what, err);
	io->close(io);
	if (r == 0)
		run->dirty = false;
	return r;
}

static int run_round(struct run *run, unsigned round, struct weft_error *err)
{
	double room_ns = run->o->seconds * 1e9 * 0.85 / run->o->nr_rounds;
	unsigned slices = (unsigned)weft_max(nr_measured(run) * run->nr_cells, 1);
	int r = 0;

	run->slice_ns = (uint64_t)fmin(fmax(room_ns / slices, MIN_SLICE_MS * 1e6), 2e9);
	run->control[round] = bench_control(CONTROL_MS * UINT64_C(1000000));
	for (unsigned k = 0; r == 0 && k < run->nr_groups && !bench_stop; k++) {
		struct group *g = &run->groups[(k + round) % run->nr_groups];

		if (run->dirty && !run->o->read_only)
			r = refill(run, BENCH_SWEEP_FILL, err);
		if (r == 0)
			r = g->direct ? run_direct(run, g, err) : run_bridge(run, g, round, err);
	}
	return r;
}

/* ---- the JSON object ---- */

static json_t *figures(const double *values, unsigned n)
{
	json_t *rounds = json_array();

	if (n == 0 || values[0] < 0) {
		json_decref(rounds);
		return json_null();
	}
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(rounds, json_real(values[i]));
	return json_pack("{s:f, s:f, s:f, s:f, s:o}", "median", stats_median(values, n), "low", stats_quantile(values, n, 0.25),
		"high", stats_quantile(values, n, 0.75), "spread_percent", stats_spread(values, n), "rounds", rounds);
}

static double quantile_us(const struct weft_histogram *h, double q)
{
	return (double)weft_histogram_quantile(h, q) / 1e3;
}

static json_t *latency_json(const struct weft_histogram *h)
{
	static const double shares[] = {0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998,
		0.999, 0.9995, 0.9998, 0.9999, 0.99999};
	json_t *curve = json_array();

	/* No further than there were operations to tell. */
	for (size_t i = 0; i < WEFT_ARRAY_LEN(shares) && (1 - shares[i]) * (double)h->total >= 1; i++)
		json_array_append_new(curve, json_pack("[f, f]", shares[i], quantile_us(h, shares[i])));
	json_array_append_new(curve, json_pack("[f, f]", 1 - 1 / (double)weft_max(h->total, 1), (double)h->max / 1e3));
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:o}", "p50", quantile_us(h, 0.5), "p90", quantile_us(h, 0.9), "p99",
		quantile_us(h, 0.99), "p99.9", quantile_us(h, 0.999), "max", (double)h->max / 1e3, "curve", curve);
}

static json_t *cell_json(const struct path *path, const struct bench_cell *cell, const struct measured *m)
{
	double bytes = (double)m->nr_ops * cell->len, gb = bytes / 1e9;
	json_t *json = json_pack("{s:s, s:s, s:I, s:i, s:I}", "path", path->name, "op", cell->write ? "write" : "read", "block_bytes",
		(json_int_t)cell->len, "depth", (int)cell->depth, "ops", (json_int_t)m->nr_ops);
	json_t *cpu = json_pack("{s:o, s:o, s:o, s:o}", "bench", figures(m->rounds[BENCH_US], m->nr_rounds), "bridge",
		figures(m->rounds[BRIDGE_US], m->nr_rounds), "donor", figures(m->rounds[DONOR_US], m->nr_rounds), "all",
		figures(m->rounds[ALL_US], m->nr_rounds));

	json_object_set_new(json, "ops_s", figures(m->rounds[OPS_S], m->nr_rounds));
	json_object_set_new(json, "MB_s", json_real(stats_median(m->rounds[OPS_S], m->nr_rounds) * cell->len / 1e6));
	json_object_set_new(json, "latency_us", latency_json(&m->latency));
	json_object_set_new(json, "cpu_us", cpu);
	json_object_set_new(json, "cpu_s_per_GB", json_real(stats_median(m->rounds[ALL_US], m->nr_rounds) * 1e3 / cell->len));
	json_object_set_new(json, "machine_cpu_s_per_GB", json_real((double)m->machine_ns / 1e9 / gb));
	bool counts = path->counts_net;
	/* Loopback counts each byte as sent and as received. */
	double wire = strcmp(path->counted, "lo") == 0 ? (double)m->tx_bytes : (double)(m->rx_bytes + m->tx_bytes);
	json_object_set_new(json, "wire_bytes_per_GB", counts ? json_real(wire / gb) : json_null());
	return json;
}

static json_t *path_json(const struct path *path)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:b}", "path", path->name, "front", bench_front_names[path->front], "how",
		path->how, "why", path->why, "donor_cpu_known", path->donor_here);
	/* Of a bridge: threads, with a connection each. */
	json_object_set_new(json, "lanes", path->nr_lanes ? json_integer(path->nr_lanes) : json_null());

	json_object_set_new(json, "ready_ms", figures(path->ready_ms, path->nr_ready));
	json_object_set_new(json, "network", bench_network(path->rdma_device[0] ? path->netdev : path->counted, path->rdma_device, path->how));
	return json;
}

/* What has the same reason stands together. */
static void note_missing(json_t *missing, const struct path *path)
{
	json_t *last = json_array_get(missing, json_array_size(missing) - 1);

	if (last && strcmp(json_string_value(json_object_get(last, "why")), path->why_not) == 0)
		json_object_set_new(last, "paths",
			json_sprintf("%s, %s", json_string_value(json_object_get(last, "paths")), path->name));
	else
		json_array_append_new(missing, json_pack("{s:s, s:s}", "paths", path->name, "why", path->why_not));
}

static json_t *result(struct run *run)
{
	json_t *paths = json_array(), *missing = json_array(), *cells = json_array();
	const struct bench_options *o = run->o;

	for (unsigned i = 0; i < run->nr_paths; i++) {
		const struct path *path = &run->paths[i];

		if (path->why_not[0])
			note_missing(missing, path);
		if (path->measured)
			json_array_append_new(paths, path_json(path));
	}
	if (run->nr_sizes < o->nr_sizes)
		json_array_append_new(missing, json_pack("{s:s, s:s}", "paths", "larger requests", "why", "the region is too small for them"));
	for (unsigned c = 0; c < run->nr_cells; c++)
		for (unsigned i = 0; i < run->nr_paths; i++)
			if (run->paths[i].measured && run->paths[i].cells[c].nr_rounds > 0)
				json_array_append_new(cells, cell_json(&run->paths[i], &run->cells[c], &run->paths[i].cells[c]));
	json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:s, s:i, s:f}", "weft_bench", 1, "version", WEFT_VERSION, "when",
		run->when, "uri", o->uri_text, "region_bytes", (json_int_t)run->region_bytes, "span_bytes",
		(json_int_t)run->truth.span_bytes, "mode", o->read_only ? "read-only" : "read-write", "rounds", (int)run->nr_rounds,
		"slice_ms", (double)run->slice_ns / 1e6);
	json_object_set_new(json, "cache", o->cache ? json_string(o->cache) : json_null());
	json_object_set(json, "machine", run->machine);
	json_object_set_new(json, "control_ops_s", figures(run->control, run->nr_rounds));
	json_object_set_new(json, "paths", paths);
	json_object_set_new(json, "not_measured", missing);
	json_object_set_new(json, "cells", cells);
	/* Everything is made from what the file says, digit for digit. */
	char *text = json_dumps(json, JSON_REAL_PRECISION(6));
	json_t *ret = text ? json_loads(text, 0, NULL) : NULL;
	free(text);
	if (!ret)
		return json;
	json_decref(json);
	return ret;
}

/* ---- all of it ---- */

/* A front that was asked for by its name must be had over some transport. */
static int check_named(const struct run *run, struct weft_error *err)
{
	for (int front = 0; front < BENCH_NR_FRONTS; front++) {
		const struct path *missing = NULL;
		bool any = false;

		for (unsigned i = 0; i < run->nr_paths; i++)
			if (run->paths[i].front == (enum bench_front)front) {
				any |= run->paths[i].measured;
				missing = &run->paths[i];
			}
		if (run->o->named[front] && !any)
			return weft_error_set(err, ENODATA, "%s cannot be had: %s: %s", bench_front_names[front], missing->name,
				missing->why_not);
	}
	return 0;
}

static int go(struct run *run, struct weft_error *err)
{
	const struct bench_options *o = run->o;
	uint64_t start_ns = weft_now_ns();
	int r = prepare(run, err);

	bench_progress_begin(o->nr_rounds * nr_measured(run) * run->nr_cells);
	while (r == 0 && run->nr_rounds < o->nr_rounds && !bench_stop) {
		double spent = (double)(weft_now_ns() - start_ns) / 1e9;

		if (run->nr_rounds >= MIN_ROUNDS && spent > 1.4 * o->seconds)
			break;
		r = run_round(run, run->nr_rounds, err);
		if (r == 0 && run->nr_rounds == 0 && !bench_stop)
			r = check_named(run, err);
		run->nr_rounds += r == 0 && !bench_stop;
	}
	if (r == 0 && !bench_stop && !run->dirty)
		r = refill(run, BENCH_SWEEP_CHECK, err);
	if (run->wrote) {
		struct weft_error why;

		if (refill(run, BENCH_SWEEP_CLEAR, &why) < 0) {
			fprintf(stderr, "weft-bench: the region still holds the data of this run: %s\n", why.message);
			if (r == 0)
				r = weft_error_set(err, EIO, "the region is not as it was: see above");
		}
	}
	bench_progress_end();
	if (r == 0 && bench_stop)
		r = weft_error_set(err, EINTR, "stopped; nothing is reported");
	if (r == 0 && nr_measured(run) == 0)
		r = weft_error_set(err, ENODATA, "no path could be measured: %s: %s", run->paths[0].name, run->paths[0].why_not);
	return r;
}

int bench_run(const struct bench_options *o, json_t **ret, struct weft_error *err)
{
	struct run *run = calloc(1, sizeof(*run));
	time_t now = time(NULL);
	const char *tmp = getenv("TMPDIR");
	char cache[sizeof(run->dir) + sizeof("/cache")];
	int r;

	if (!run)
		return weft_error_set(err, ENOMEM, "out of memory");
	run->o = o;
	run->machine = bench_machine();
	strftime(run->when, sizeof(run->when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	snprintf(run->name, sizeof(run->name), "bench-%d", (int)getpid());
	/* A socket's path must be short. */
	snprintf(run->dir, sizeof(run->dir), "%s/weft-bench.XXXXXX", tmp && strlen(tmp) < 70 ? tmp : "/tmp");
	if (!mkdtemp(run->dir)) {
		r = weft_error_set(err, errno, "cannot make a directory for sockets: %s: %s", run->dir, strerror(errno));
	} else {
		bench_progress_begin(0);
		r = go(run, err);
		snprintf(cache, sizeof(cache), "%s/cache", run->dir); /* bench_attach()'s */
		unlink(cache);
		rmdir(run->dir);
	}
	if (r == 0)
		*ret = result(run);
	for (unsigned i = 0; i < run->nr_paths; i++)
		free(run->paths[i].cells);
	free(run->truth.words);
	json_decref(run->machine);
	free(run);
	return r;
}
