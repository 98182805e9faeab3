/* SPDX-License-Identifier: MIT */
/*
 * The run: rounds over the paths that there are.
 *
 * A region has one writer, so that a path's connection or bridge begins and ends in each round.  A
 * bridge serves the socket and the file at once, and another each kind of device.  One thread.
 * Invariant: nothing that was started outlives bench_run().
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
#include "perf/bench/run.h"
#include "transports/nbd/borrower/client.h"

enum {
	MIN_ROUNDS = 5,
	MIN_SLICE_MS = 20,
	CONTROL_MS = 40,
};

volatile sig_atomic_t bench_stop;

/* ---- a slice ---- */

struct counts {
	uint64_t bench, bridge, donor, machine, rx, tx;
};

static void count(const struct bench_path *path, pid_t bridge, pid_t donor, struct counts *ret)
{
	ret->bench = bench_cpu_ns(0);
	ret->bridge = bridge ? bench_cpu_ns(bridge) : 0;
	ret->donor = donor ? bench_cpu_ns(donor) : 0;
	ret->machine = bench_machine_cpu_ns();
	if (path->counts_net)
		bench_net_bytes(path->counted, path->rdma_device, &ret->rx, &ret->tx);
}

static void keep(struct bench_measured *m, const struct bench_slice *slice,
	const struct counts *from, const struct counts *to, bool have_bridge, bool have_donor)
{
	double ops = (double)slice->nr_ops, us = 1e3 * ops;
	unsigned i = m->nr_rounds++;

	m->rounds[OPS_S][i] = ops * 1e9 / (double)slice->elapsed_ns;
	m->rounds[P50_US][i] = (double)weft_histogram_quantile(&slice->latency, 0.5) / 1e3;
	m->rounds[BENCH_US][i] = (double)(to->bench - from->bench) / us;
	m->rounds[BRIDGE_US][i] = have_bridge ? (double)(to->bridge - from->bridge) / us : -1;
	m->rounds[DONOR_US][i] = have_donor ? (double)(to->donor - from->donor) / us : -1;
	m->rounds[ALL_US][i] = (double)(to->bench - from->bench + to->bridge - from->bridge +
				       to->donor - from->donor) /
		us;
	m->nr_ops += slice->nr_ops;
	m->rx_bytes += to->rx - from->rx;
	m->tx_bytes += to->tx - from->tx;
	m->machine_ns += to->machine - from->machine;
	weft_histogram_merge(&m->latency, &slice->latency);
}

/* All cells over one path.  A path that breaks is given up; wrong bytes end the run. */
static int run_path(struct bench_run *run, struct bench_path *path, struct bench_io *io,
	pid_t bridge, struct weft_error *err)
{
	pid_t donor = bench_local_donor(run->name);
	static struct bench_slice slice;
	struct counts from, to;
	int r = 0;

	path->donor_here = donor != 0;
	for (unsigned i = 0; r == 0 && i < run->nr_cells && !bench_stop; i++) {
		const struct bench_cell *cell = &run->cells[i];
		unsigned total = run->o->nr_rounds * bench_nr_measured(run) * run->nr_cells;

		bench_progress(run->steps++ < total ? run->steps : total,
			"round %u of %u, %s: %s of %u KiB, %u in flight", run->nr_rounds + 1,
			run->o->nr_rounds, path->name, cell->write ? "writes" : "reads",
			cell->len >> 10, cell->depth);
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
		bench_give_up(path, "it failed in round %u: %s", run->nr_rounds + 1, err->message);
		run->dirty = true;
	}
	return 0;
}

/* ---- groups ---- */

static void note_connection(struct bench_path *path, const char *how)
{
	uint64_t rx, tx;

	snprintf(path->how, sizeof(path->how), "%s", how);
	bool local = weft_netdev_of_path(how, path->netdev, path->rdma_device);
	/*
	 * To the machine itself TCP goes over lo whatever the address, and RDMA over nothing that
	 * counts.
	 */
	strcpy(path->counted, local ? "lo" : path->netdev);
	path->counts_net = !(local && path->rdma_device[0]) &&
		bench_net_bytes(path->counted, path->rdma_device, &rx, &tx);
}

static int run_direct(struct bench_run *run, struct bench_group *g, struct weft_error *err)
{
	struct bench_path *path = g->paths;
	struct bench_io *io;
	struct tp_info info;
	int r;

	if (g->nr_paths == 0 || !path->measured)
		return 0;
	if (bench_connect_direct(run, g->driver, g->port, &io, &info, err) < 0) {
		bench_give_up(path, "%s", err->message);
		return 0;
	}
	path->ready_ms[path->nr_ready++] = (double)io->ready_ns / 1e6;
	note_connection(path, info.path);
	snprintf(path->why, sizeof(path->why), "no bridge: the transport itself");
	r = run_path(run, path, io, 0, err);
	io->close(io);
	return r;
}

static int open_front(const struct bench_run *run, const struct bench_path *path,
	const struct bench_bridge *bridge, struct bench_io **ret, struct weft_error *err)
{
	struct weft_uri uri = {.region = (char *)""};

	if (path->front == BENCH_FILE)
		return bench_io_open(bridge->file, run->o->read_only, ret, err);
	if (path->front == BENCH_NBD || path->front == BENCH_UBLK)
		return bench_io_open(bridge->device, run->o->read_only, ret, err);
	snprintf(uri.socket, sizeof(uri.socket), "%.107s", bridge->socket);
	return bench_io_connect(&tp_nbd_ops, &uri, NULL, NULL, run->o->read_only, true, run->name,
		ret, NULL, err);
}

static bool wanted(const struct bench_group *g, bool fronts[BENCH_NR_FRONTS])
{
	bool any = false;

	memset(fronts, 0, BENCH_NR_FRONTS * sizeof(*fronts));
	for (unsigned i = 0; i < g->nr_paths; i++)
		any |= fronts[g->paths[i].front] = g->paths[i].measured;
	return any;
}

static int attach(const struct bench_run *run, const struct bench_group *g,
	const bool fronts[BENCH_NR_FRONTS], struct bench_bridge *ret, struct weft_error *err)
{
	const char *transport = tp_driver_is_choice(g->driver) ? g->driver->word : "auto";

	return bench_attach(run->o, transport, fronts, g->cached ? run->o->cache : NULL, run->dir,
		ret, err);
}

/* One front-end that cannot be had must not take the others with it. */
static void find_culprits(struct bench_run *run, struct bench_group *g, struct weft_error *err)
{
	struct bench_bridge bridge;

	for (unsigned i = 0; i < g->nr_paths; i++) {
		struct bench_path *path = &g->paths[i];
		bool alone[BENCH_NR_FRONTS] = {false};

		alone[path->front] = true;
		if (path->measured && attach(run, g, alone, &bridge, err) < 0)
			bench_give_up(path, "%s", err->message);
		else if (path->measured)
			bench_detach(&bridge);
	}
}

static int run_bridge(struct bench_run *run, struct bench_group *g, unsigned round,
	struct weft_error *err)
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
			bench_give_up_group(g, err->message);
			return 0;
		}
	}
	for (unsigned k = 0; r == 0 && k < g->nr_paths && !bench_stop; k++) {
		struct bench_path *path = &g->paths[(k + round) % g->nr_paths];

		if (!path->measured)
			continue;
		path->ready_ms[path->nr_ready++] = (double)bridge.ready_ns / 1e6;
		note_connection(path, bridge.path);
		strcpy(path->why, bridge.why);
		path->nr_lanes = bridge.nr_lanes;
		if (open_front(run, path, &bridge, &io, err) < 0) {
			bench_give_up(path, "%s", err->message);
			continue;
		}
		r = run_path(run, path, io, bridge.pid, err);
		io->close(io);
	}
	bench_detach(&bridge);
	return r;
}

/* Makes the truth true again, over the path that the run began with. */
static int refill(struct bench_run *run, enum bench_sweep what, struct weft_error *err)
{
	struct bench_io *io;
	int r = bench_connect_direct(run, bench_first_driver(run->o), run->o->uri.port, &io, NULL,
		err);

	if (r < 0)
		return r;
	r = bench_sweep(io, &run->truth, what, err);
	io->close(io);
	if (r == 0)
		run->dirty = false;
	return r;
}

static int run_round(struct bench_run *run, unsigned round, struct weft_error *err)
{
	double room_ns = run->o->seconds * 1e9 * 0.85 / run->o->nr_rounds;
	unsigned slices = (unsigned)weft_max(bench_nr_measured(run) * run->nr_cells, 1);
	int r = 0;

	run->slice_ns = (uint64_t)fmin(fmax(room_ns / slices, MIN_SLICE_MS * 1e6), 2e9);
	run->control[round] = bench_control(CONTROL_MS * UINT64_C(1000000));
	for (unsigned k = 0; r == 0 && k < run->nr_groups && !bench_stop; k++) {
		struct bench_group *g = &run->groups[(k + round) % run->nr_groups];

		if (run->dirty && !run->o->read_only)
			r = refill(run, BENCH_SWEEP_FILL, err);
		if (r == 0)
			r = g->direct ? run_direct(run, g, err) : run_bridge(run, g, round, err);
	}
	return r;
}

/* ---- all of it ---- */

/* A front that was asked for by its name must be had over some transport. */
static int check_named(const struct bench_run *run, struct weft_error *err)
{
	for (int front = 0; front < BENCH_NR_FRONTS; front++) {
		const struct bench_path *missing = NULL;
		bool any = false;

		for (unsigned i = 0; i < run->nr_paths; i++)
			if (run->paths[i].front == (enum bench_front)front) {
				any |= run->paths[i].measured;
				missing = &run->paths[i];
			}
		if (run->o->named[front] && !any)
			return weft_error_set(err, ENODATA, "%s cannot be had: %s: %s",
				bench_front_names[front], missing->name, missing->why_not);
	}
	return 0;
}

static int go(struct bench_run *run, struct weft_error *err)
{
	const struct bench_options *o = run->o;
	uint64_t start_ns = weft_now_ns();
	int r = bench_plan(run, err);

	bench_progress_begin(o->nr_rounds * bench_nr_measured(run) * run->nr_cells);
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
			fprintf(stderr,
				"weft-bench: the region still holds the data of this run: %s\n",
				why.message);
			if (r == 0)
				r = weft_error_set(err, EIO,
					"the region is not as it was: see above");
		}
	}
	bench_progress_end();
	if (r == 0 && bench_stop)
		r = weft_error_set(err, EINTR, "stopped; nothing is reported");
	if (r == 0 && bench_nr_measured(run) == 0)
		r = weft_error_set(err, ENODATA, "no path could be measured: %s: %s",
			run->paths[0].name, run->paths[0].why_not);
	return r;
}

int bench_run(const struct bench_options *o, json_t **ret, struct weft_error *err)
{
	struct bench_run *run = calloc(1, sizeof(*run));
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
	snprintf(run->dir, sizeof(run->dir), "%s/weft-bench.XXXXXX",
		tmp && strlen(tmp) < 70 ? tmp : "/tmp");
	if (!mkdtemp(run->dir)) {
		r = weft_error_set(err, errno, "cannot make a directory for sockets: %s: %s",
			run->dir, strerror(errno));
	} else {
		bench_progress_begin(0);
		r = go(run, err);
		snprintf(cache, sizeof(cache), "%s/cache", run->dir); /* bench_attach()'s */
		unlink(cache);
		rmdir(run->dir);
	}
	if (r == 0)
		*ret = bench_result(run);
	for (unsigned i = 0; i < run->nr_paths; i++)
		free(run->paths[i].cells);
	free(run->truth.words);
	json_decref(run->machine);
	free(run);
	return r;
}
