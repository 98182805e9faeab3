/* SPDX-License-Identifier: MIT */
/*
 * The JSON object of what a run measured: tables, CSV, the page and the comparison are made from it
 * alone.  Functions without state.
 */
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/run.h"
#include "perf/bench/stats.h"

static json_t *figures(const double *values, unsigned n)
{
	json_t *rounds = json_array();

	if (n == 0 || values[0] < 0) {
		json_decref(rounds);
		return json_null();
	}
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(rounds, json_real(values[i]));
	return json_pack("{s:f, s:f, s:f, s:f, s:o}", "median", stats_median(values, n), "low",
		stats_quantile(values, n, 0.25), "high", stats_quantile(values, n, 0.75),
		"spread_percent", stats_spread(values, n), "rounds", rounds);
}

static double quantile_us(const struct weft_histogram *h, double q)
{
	return (double)weft_histogram_quantile(h, q) / 1e3;
}

static json_t *latency_json(const struct weft_histogram *h)
{
	static const double shares[] = {0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
		0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99999};
	json_t *curve = json_array();

	/* No further than there were operations to tell. */
	for (size_t i = 0; i < WEFT_ARRAY_LEN(shares) && (1 - shares[i]) * (double)h->total >= 1;
		i++)
		json_array_append_new(curve,
			json_pack("[f, f]", shares[i], quantile_us(h, shares[i])));
	json_array_append_new(curve,
		json_pack("[f, f]", 1 - 1 / (double)weft_max(h->total, 1), (double)h->max / 1e3));
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:o}", "p50", quantile_us(h, 0.5), "p90",
		quantile_us(h, 0.9), "p99", quantile_us(h, 0.99), "p99.9", quantile_us(h, 0.999),
		"max", (double)h->max / 1e3, "curve", curve);
}

static json_t *cell_json(const struct bench_path *path, const struct bench_cell *cell,
	const struct bench_measured *m)
{
	double bytes = (double)m->nr_ops * cell->len, gb = bytes / 1e9;
	json_t *json = json_pack("{s:s, s:s, s:I, s:i, s:I}", "path", path->name, "op",
		cell->write ? "write" : "read", "block_bytes", (json_int_t)cell->len, "depth",
		(int)cell->depth, "ops", (json_int_t)m->nr_ops);
	json_t *cpu = json_pack("{s:o, s:o, s:o, s:o}", "bench",
		figures(m->rounds[BENCH_US], m->nr_rounds), "bridge",
		figures(m->rounds[BRIDGE_US], m->nr_rounds), "donor",
		figures(m->rounds[DONOR_US], m->nr_rounds), "all",
		figures(m->rounds[ALL_US], m->nr_rounds));

	json_object_set_new(json, "ops_s", figures(m->rounds[OPS_S], m->nr_rounds));
	json_object_set_new(json, "MB_s",
		json_real(stats_median(m->rounds[OPS_S], m->nr_rounds) * cell->len / 1e6));
	json_object_set_new(json, "latency_us", latency_json(&m->latency));
	json_object_set_new(json, "cpu_us", cpu);
	json_object_set_new(json, "cpu_s_per_GB",
		json_real(stats_median(m->rounds[ALL_US], m->nr_rounds) * 1e3 / cell->len));
	json_object_set_new(json, "machine_cpu_s_per_GB",
		json_real((double)m->machine_ns / 1e9 / gb));
	bool counts = path->counts_net;
	/* Loopback counts each byte as sent and as received. */
	double wire = strcmp(path->counted, "lo") == 0 ? (double)m->tx_bytes
						       : (double)(m->rx_bytes + m->tx_bytes);
	json_object_set_new(json, "wire_bytes_per_GB", counts ? json_real(wire / gb) : json_null());
	return json;
}

static json_t *path_json(const struct bench_path *path)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:b}", "path", path->name, "front",
		bench_front_names[path->front], "how", path->how, "why", path->why,
		"donor_cpu_known", path->donor_here);
	/* Of a bridge: threads, with a connection each. */
	json_object_set_new(json, "lanes",
		path->nr_lanes ? json_integer(path->nr_lanes) : json_null());

	json_object_set_new(json, "ready_ms", figures(path->ready_ms, path->nr_ready));
	json_object_set_new(json, "network",
		bench_network(path->rdma_device[0] ? path->netdev : path->counted,
			path->rdma_device, path->how));
	return json;
}

/* What has the same reason stands together. */
static void note_missing(json_t *missing, const struct bench_path *path)
{
	json_t *last = json_array_get(missing, json_array_size(missing) - 1);

	if (last && strcmp(json_string_value(json_object_get(last, "why")), path->why_not) == 0)
		json_object_set_new(last, "paths",
			json_sprintf("%s, %s", json_string_value(json_object_get(last, "paths")),
				path->name));
	else
		json_array_append_new(missing,
			json_pack("{s:s, s:s}", "paths", path->name, "why", path->why_not));
}

json_t *bench_result(struct bench_run *run)
{
	json_t *paths = json_array(), *missing = json_array(), *cells = json_array();
	const struct bench_options *o = run->o;

	for (unsigned i = 0; i < run->nr_paths; i++) {
		const struct bench_path *path = &run->paths[i];

		if (path->why_not[0])
			note_missing(missing, path);
		if (path->measured)
			json_array_append_new(paths, path_json(path));
	}
	if (run->nr_sizes < o->nr_sizes)
		json_array_append_new(missing,
			json_pack("{s:s, s:s}", "paths", "larger requests", "why",
				"the region is too small for them"));
	for (unsigned c = 0; c < run->nr_cells; c++)
		for (unsigned i = 0; i < run->nr_paths; i++)
			if (run->paths[i].measured && run->paths[i].cells[c].nr_rounds > 0)
				json_array_append_new(cells,
					cell_json(&run->paths[i], &run->cells[c],
						&run->paths[i].cells[c]));
	json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:s, s:i, s:f}", "weft_bench", 1,
		"version", WEFT_VERSION, "when", run->when, "uri", o->uri_text, "region_bytes",
		(json_int_t)run->region_bytes, "span_bytes", (json_int_t)run->truth.span_bytes,
		"mode", o->read_only ? "read-only" : "read-write", "rounds", (int)run->nr_rounds,
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
