/* SPDX-License-Identifier: MIT */
/* The page's plots.  Functions without state. */
#include <math.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/bench/html.h"
#include "perf/bench/json.h"
#include "perf/bench/plot.h"

enum { MAX_SERIES = BENCH_MAX_PATHS };

/* ---- paths ---- */

/*
 * Colour by where one enters; dashes by transport and cache.  Old runs have a front `device`, and
 * neither nbd nor ublk.
 */
static unsigned colour_of(const json_t *path)
{
	unsigned i = 0;

	while (i < BENCH_NR_FRONTS - 1 && strcmp(text_of(path, "front"), bench_front_names[i]) != 0)
		i++;
	return i;
}

static unsigned dash_of(const json_t *path)
{
	const char *name = text_of(path, "path");

	return (strncmp(name, "rdma", 4) == 0 ? 0 : 1) + (strstr(name, " cached") ? 2 : 0);
}

/* A line for each kind of dash. */
static void print_legend(const json_t *run, FILE *out)
{
	const json_t *path, *last = NULL;
	size_t i;

	fputs("<div class=\"legend\">\n", out);
	json_array_foreach(json_object_get(run, "paths"), i, path) {
		if (last && dash_of(last) != dash_of(path))
			fputs("</div><div class=\"legend\">\n", out);
		last = path;
		fprintf(out,
			"<span><svg viewBox=\"0 0 44 16\" aria-hidden=\"true\"><path class=\"l f%u "
			"d%u\" d=\"M2 8H42\"/>",
			colour_of(path), dash_of(path));
		plot_marker(colour_of(path), dash_of(path), 22, 8, NULL, out);
		fputs("</svg>", out);
		plot_text(text_of(path, "path"), out);
		fputs("</span>\n", out);
	}
	fputs("</div>\n", out);
}

/* ---- plots ---- */

static void plot_throughput(const json_t *run, const char *op, bool over_depth, FILE *out)
{
	static struct plot_series series[MAX_SERIES];
	const json_t *paths = json_object_get(run, "paths"), *path;
	struct html_span span = html_span_of(run);
	double values[12];
	unsigned nr = over_depth
		? html_values_of(run, "depth", "block_bytes", span.least_block, values, 12)
		: html_values_of(run, "block_bytes", "depth", span.most_depth, values, 12);
	char title[120], size[32];
	struct plot plot = {.title = title,
		.x_label = over_depth ? "requests in flight" : "bytes a request",
		.y_label = over_depth ? "operations a second" : "MB a second",
		.y_unit = over_depth ? "operations/s" : "MB/s",
		.good = "higher",
		.nr_x_ticks = nr};
	size_t i;

	if (over_depth)
		snprintf(title, sizeof(title), "Operations a second: %ss of %s", op,
			html_size(span.least_block, size));
	else
		snprintf(title, sizeof(title), "MB a second: %ss, %.0f in flight", op,
			span.most_depth);
	for (unsigned k = 0; k < nr; k++) {
		plot.x_ticks[k].at = values[k];
		if (over_depth)
			snprintf(plot.x_ticks[k].text, sizeof(plot.x_ticks[k].text), "%.0f",
				values[k]);
		else
			weft_format_size((uint64_t)values[k], plot.x_ticks[k].text,
				sizeof(plot.x_ticks[k].text));
	}
	unsigned n = 0;
	json_array_foreach(paths, i, path) {
		struct plot_series *s = &series[n];

		if (n == MAX_SERIES)
			break;
		*s = (struct plot_series){.name = text_of(path, "path"),
			.colour = colour_of(path),
			.dash = dash_of(path)};
		for (unsigned k = 0; k < nr; k++) {
			double block = over_depth ? span.least_block : values[k],
			       depth = over_depth ? values[k] : span.most_depth;
			const json_t *ops =
				json_object_get(html_cell(run, s->name, op, block, depth), "ops_s");
			double scale = over_depth ? 1 : block / 1e6;

			if (ops)
				s->points[s->nr_points++] = (struct plot_point){values[k],
					number_of(ops, "median") * scale,
					number_of(ops, "low") * scale,
					number_of(ops, "high") * scale};
		}
		n++;
	}
	plot_lines(&plot, series, n, out);
}

static void plot_latency(const json_t *run, const char *op, FILE *out)
{
	static const struct {
		double share;
		const char *text;
	} ticks[] = {{0, ""}, {0.5, "50 %"}, {0.9, "90 %"}, {0.99, "99 %"}, {0.999, "99.9 %"},
		{0.9999, "99.99 %"}, {0.99999, "99.999 %"}};
	static struct plot_series series[MAX_SERIES];
	const json_t *path, *point;
	struct html_span span = html_span_of(run);
	char title[120], size[32];
	struct plot plot = {.title = title,
		.x_label = "percentile: this share of the operations took no longer",
		.y_label = "microseconds",
		.y_unit = "us",
		.good = "lower",
		.sparse = true};
	double most = 1;
	unsigned n = 0;
	size_t i, k;

	snprintf(title, sizeof(title), "Latency: %ss of %s, %.0f in flight", op,
		html_size(span.least_block, size), span.least_depth);
	json_array_foreach(json_object_get(run, "paths"), i, path) {
		struct plot_series *s = &series[n];
		const json_t *cell = html_cell(run, text_of(path, "path"), op, span.least_block,
			span.least_depth);

		if (!cell || n == MAX_SERIES)
			continue;
		*s = (struct plot_series){.name = text_of(path, "path"),
			.colour = colour_of(path),
			.dash = dash_of(path)};
		json_array_foreach(json_object_get(json_object_get(cell, "latency_us"), "curve"), k,
			point) {
			double share = json_number_value(json_array_get(point, 0)),
			       x = 1 / (1 - fmin(share, 0.999999));

			if (s->nr_points < PLOT_MAX_POINTS)
				s->points[s->nr_points++] = (struct plot_point){.x = x,
					.y = json_number_value(json_array_get(point, 1))};
			most = fmax(most, x);
		}
		n++;
	}
	for (k = 0; k < WEFT_ARRAY_LEN(ticks) && (k == 0 || 1 / (1 - ticks[k - 1].share) < most);
		k++) {
		plot.x_ticks[k].at = 1 / (1 - ticks[k].share);
		strcpy(plot.x_ticks[k].text, ticks[k].text);
		plot.nr_x_ticks++;
	}
	plot_lines(&plot, series, n, out);
}

static void plot_cost(const json_t *run, const char *op, double block, bool cpu, FILE *out)
{
	static const char *const who[PLOT_MAX_SEGMENTS] = {"bench", "bridge", "donor"};
	struct plot_bar bars[MAX_SERIES];
	struct html_span span = html_span_of(run);
	const json_t *path;
	char title[120], size[32];
	unsigned n = 0;
	size_t i;

	snprintf(title, sizeof(title), "%s: %ss of %s, %.0f in flight",
		cpu ? "Processor time" : "Network", op, html_size(block, size), span.most_depth);
	json_array_foreach(json_object_get(run, "paths"), i, path) {
		const json_t *cell =
			html_cell(run, text_of(path, "path"), op, block, span.most_depth);
		double wire = number_of(cell, "wire_bytes_per_GB") / 1e9;

		if (!cell || n == MAX_SERIES || (!cpu && wire < 0))
			continue;
		bars[n] = (struct plot_bar){.name = text_of(path, "path"),
			.segments = {cpu ? 0 : wire, -1, -1}};
		for (unsigned k = 0; cpu && k < PLOT_MAX_SEGMENTS; k++) {
			double us =
				number_of(json_object_get(json_object_get(cell, "cpu_us"), who[k]),
					"median");

			bars[n].segments[k] = us < 0 ? us : us * 1e3 / block;
		}
		if (cpu)
			snprintf(bars[n].text, sizeof(bars[n].text), "%.3g s",
				number_of(cell, "cpu_s_per_GB"));
		else
			snprintf(bars[n].text, sizeof(bars[n].text), "%.2f GB", wire);
		n++;
	}
	plot_bars(title, "lower",
		cpu ? "seconds of processor time for each GB of payload"
		    : "GB on the network for each GB of payload",
		bars, n, out);
}

static void for_both(const json_t *run,
	void (*plot)(const json_t *run, const char *op, double block, bool flag, FILE *out),
	double block, bool flag, FILE *out)
{
	if (html_has_op(run, "read"))
		plot(run, "read", block, flag, out);
	if (html_has_op(run, "write"))
		plot(run, "write", block, flag, out);
}

static void throughput_plot(const json_t *run, const char *op, double block, bool flag, FILE *out)
{
	plot_throughput(run, op, flag, out);
}

static void latency_plot(const json_t *run, const char *op, double block, bool flag, FILE *out)
{
	plot_latency(run, op, out);
}

static bool any_wire(const json_t *run)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one)
		if (number_of(one, "wire_bytes_per_GB") >= 0)
			return true;
	return false;
}

void html_print_plots(const json_t *run, FILE *out)
{
	struct html_span span = html_span_of(run);

	html_section("Latency",
		"How long one request takes when nothing else is under way. The line's right end "
		"is the slowest of all. "
		"Both axes are logarithmic. Point at a line to see it alone.",
		out);
	print_legend(run, out);
	fputs("<div class=\"grid\">\n", out);
	for_both(run, latency_plot, 0, false, out);
	fputs("</div>\n", out);
	html_section("Throughput over depth",
		"More requests in flight hide the way there and back, until something is busy all "
		"the time. "
		"Bars span the middle half of the rounds. Both axes are logarithmic.",
		out);
	print_legend(run, out);
	fputs("<div class=\"grid\">\n", out);
	for_both(run, throughput_plot, 0, true, out);
	fputs("</div>\n", out);
	html_section("Throughput over block size",
		"Larger requests spread the cost of a request over more bytes. Both axes are "
		"logarithmic.",
		out);
	print_legend(run, out);
	fputs("<div class=\"grid\">\n", out);
	for_both(run, throughput_plot, 0, false, out);
	fputs("</div>\n", out);
	html_section("Processor time",
		"Of the processes that take part: the program that asks (this one), the bridge, "
		"and the donor where it runs on this machine. "
		"What the kernel does in interrupts and threads of its own is in the table below, "
		"as the whole machine's time.",
		out);
	fputs("<div class=\"legend\"><span><i class=\"s0\"></i>the program that "
	      "asks</span><span><i class=\"s1\"></i>bridge</span>"
	      "<span><i class=\"s2\"></i>donor</span></div>\n<div class=\"grid\">\n",
		out);
	for_both(run, plot_cost, span.least_block, true, out);
	if (span.most_block > span.least_block)
		for_both(run, plot_cost, span.most_block, true, out);
	fputs("</div>\n", out);
	html_section("Bytes on the network",
		any_wire(run) ? "As the interface counts them, headers, acknowledgements and other "
				"traffic of the same "
				"interface included; sent and received together (on loopback, "
				"once). Paths that are missing here go where nothing "
				"counts."
			      : "Not measured: no interface counts them on these paths.",
		out);
	fputs("<div class=\"grid\">\n", out);
	for_both(run, plot_cost, span.least_block, false, out);
	if (span.most_block > span.least_block)
		for_both(run, plot_cost, span.most_block, false, out);
	fputs("</div>\n", out);
}
