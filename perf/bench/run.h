/* SPDX-License-Identifier: MIT */
/*
 * Private to the run: what its three files share.  plan.c says which paths there are, run.c goes
 * over them round by round, result.c makes the JSON object of what they measured.  One thread.
 */
#ifndef WEFT_PERF_BENCH_RUN_H
#define WEFT_PERF_BENCH_RUN_H

#include "fabric/driver.h"
#include "perf/bench/bench.h"

enum { BENCH_MAX_GROUPS = 28 }; /* 7 a transport, at most */

/* Figures of one slice; below 0: not known. */
enum bench_figure { OPS_S, P50_US, BENCH_US, BRIDGE_US, DONOR_US, ALL_US, NR_FIGURES };

struct bench_measured {
	double rounds[NR_FIGURES][BENCH_MAX_ROUNDS];
	unsigned nr_rounds;
	uint64_t nr_ops, rx_bytes, tx_bytes, machine_ns;
	struct weft_histogram latency;
};

struct bench_path {
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
	struct bench_measured *cells;
};

/* What one connection or one bridge serves. */
struct bench_group {
	const struct tp_driver *driver;
	char port[8];
	bool direct, cached;
	struct bench_path *paths; /* those of the fronts that are asked for */
	unsigned nr_paths;
};

struct bench_run {
	const struct bench_options *o;
	struct bench_truth truth;
	struct bench_cell cells[BENCH_MAX_CELLS];
	unsigned nr_cells;
	struct bench_path paths[BENCH_MAX_PATHS];
	unsigned nr_paths;
	struct bench_group groups[BENCH_MAX_GROUPS];
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

/*
 * Connects for the first time: what the region is, and what the span holds from now on (truth).
 * Then the cells, and the paths in groups.  0, or -errno with err: the region is not to be had, or
 * must not be written to.  Blocks.
 */
int bench_plan(struct bench_run *run, struct weft_error *err);

/* The transport that the run begins with: the one that the URI chooses, or leads to by itself. */
const struct tp_driver *bench_first_driver(const struct bench_options *o);
/*
 * Over the transport itself.  info may be NULL.  0 with *ret, which the caller closes; or -errno
 * with err.
 */
int bench_connect_direct(const struct bench_run *run, const struct tp_driver *driver,
	const char *port, struct bench_io **ret, struct tp_info *info, struct weft_error *err);

/* Not measured from here on, for the reason given. */
void bench_give_up(struct bench_path *path, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void bench_give_up_group(struct bench_group *group, const char *why);
/* How many paths still are. */
unsigned bench_nr_measured(const struct bench_run *run);

/* The run as JSON, which the caller owns. */
json_t *bench_result(struct bench_run *run);

#endif
