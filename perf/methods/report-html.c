/* SPDX-License-Identifier: MIT */
/* A run as one HTML page that needs nothing else, as weft bench's own.  Functions without state. */
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/html.h"
#include "perf/bench/json.h"
#include "perf/bench/plot.h"
#include "perf/methods/methods.h"

enum { MAX_SERIES = 12 };
/* Where a round trip of 0 is drawn: both axes are logarithmic. */
static const double AT_ZERO = 0.4;

/* Colour by method, dashes by mode. */
struct line {
	const char *method, *mode, *transport;
	unsigned colour, dash;
};

static const struct line direct_lines[] = {{"library", "direct", "tcp", 0, 0},
	{"map", "paged", "tcp", 1, 0}, {"map", "compat", "tcp", 1, 1},
	{"socket", "direct", "tcp", 2, 0}, {"file", "direct", "tcp", 3, 0},
	{"nbd", "direct", "tcp", 4, 0}, {"ublk", "direct", "tcp", 4, 1},
	{"bulk", "direct", "tcp", 4, 3}},
			 managed_lines[] = {{"library", "managed", "tcp", 0, 2},
				 {"map", "paged", "tcp", 1, 0}, {"map", "resident", "tcp", 1, 2},
				 {"socket", "managed", "tcp", 2, 2},
				 {"file", "managed", "tcp", 3, 2}, {"nbd", "managed", "tcp", 4, 2},
				 {"bulk", "direct", "tcp", 4, 3}},
			 all_lines[] = {{"library", "direct", "tcp", 0, 0},
				 {"library", "managed", "tcp", 0, 2}, {"map", "paged", "tcp", 1, 0},
				 {"map", "compat", "tcp", 1, 1}, {"map", "resident", "tcp", 1, 2},
				 {"socket", "direct", "tcp", 2, 0},
				 {"socket", "managed", "tcp", 2, 2},
				 {"file", "direct", "tcp", 3, 0}, {"file", "managed", "tcp", 3, 2},
				 {"nbd", "direct", "tcp", 4, 0}, {"nbd", "managed", "tcp", 4, 2}},
			 copy_lines[] = {{"push", "hashing", "tcp", 0, 0},
				 {"move", "pre-copy", "tcp", 1, 0},
				 {"rsync", "delta", "tcp", 4, 1}},
			 transport_lines[] = {{"bulk", "direct", "tcp", 0, 3},
				 {"bulk", "direct", "tls", 1, 3}, {"bulk", "direct", "quic", 2, 3},
				 {"library", "managed", "tcp", 0, 2},
				 {"library", "managed", "tls", 1, 2},
				 {"library", "managed", "quic", 2, 2},
				 {"bulk", "direct", "rdma", 3, 3},
				 {"library", "managed", "rdma", 3, 2},
				 {"bulk", "direct", "srp", 4, 3},
				 {"library", "managed", "srp", 4, 2}},
			 peer_lines[] = {{"socket", "direct", "tcp", 2, 0},
				 {"socket", "managed", "tcp", 2, 2},
				 {"nbdkit", "direct", "tcp", 4, 0},
				 {"nbdkit", "cache", "tcp", 4, 2},
				 {"qemu", "direct", "tcp", 3, 0}, {"bulk", "direct", "tcp", 0, 3}};

static const struct drawing {
	const char *title, *work, *figure, *y_label, *good, *unit;
	const struct line *lines;
	size_t nr;
	const char *published; /* the figures of others that belong beside it; NULL: none */
} drawings[] = {
#define LINES(name, published) name##_lines, WEFT_ARRAY_LEN(name##_lines), published
	{"Reading in order, direct", "read", "MB_s", "MB a second", "higher", "MB/s",
		LINES(direct, "direct")},
	{"Reading in order, managed", "read", "MB_s", "MB a second", "higher", "MB/s",
		LINES(managed, "managed")},
	{"First 4 KiB of an open region", "", "first_ms", "milliseconds", "lower", "ms",
		LINES(all, "first")},
	{"Ready", "", "ready_ms", "milliseconds", "lower", "ms", LINES(all, "ready")},
	{"Random reads of 4 KiB, median", "random_read", "p50_us", "microseconds", "lower", "us",
		LINES(all, NULL)},
	{"Writing in order, and the flush", "write", "MB_s", "MB a second", "higher", "MB/s",
		LINES(all, "write")},
	{"Random writes of 4 KiB, and the flush", "random_write", "ops_s", "operations a second",
		"higher", "/s", LINES(all, NULL)},
	{"A working set that fits", "fits", "ops_s", "operations a second", "higher", "/s",
		LINES(all, NULL)},
	{"A working set that does not fit", "exceeds", "ops_s", "operations a second", "higher",
		"/s", LINES(all, NULL)},
	{"1 % changed, in place", "update", "seconds", "seconds", "lower", "s", LINES(all, NULL)},
	{"1 % changed, by a copying program", "update", "seconds", "seconds", "lower", "s",
		LINES(copy, NULL)},
	{"All of it to another machine", "copy", "seconds", "seconds", "lower", "s",
		LINES(copy, NULL)},
	{"Reading by transport", "read", "MB_s", "MB a second", "higher", "MB/s",
		LINES(transport, NULL)},
	{"Writing by transport", "write", "MB_s", "MB a second", "higher", "MB/s",
		LINES(transport, NULL)},
	{"Peers: reading in order", "read", "MB_s", "MB a second", "higher", "MB/s",
		LINES(peer, NULL)},
	{"Peers: writing in order, and the flush", "write", "MB_s", "MB a second", "higher",
		"MB/s", LINES(peer, NULL)},
};

/* Ascending, as they were measured or not. */
static unsigned sorted_rtts(const json_t *run, double *ret)
{
	unsigned n = methods_rtts(run, ret);

	for (unsigned i = 1; i < n; i++)
		for (unsigned k = i; k > 0 && ret[k] < ret[k - 1]; k--) {
			double value = ret[k];

			ret[k] = ret[k - 1];
			ret[k - 1] = value;
		}
	return n;
}

static const char *name_of(const struct line *line, char *buf)
{
	json_t *cell = json_pack("{s:s, s:s, s:s}", "method", line->method, "mode", line->mode,
		"transport", line->transport);

	methods_name(cell, buf);
	json_decref(cell);
	return buf;
}

static void legend(const struct line *line, FILE *out)
{
	char name[64];

	fprintf(out,
		"<span><svg viewBox=\"0 0 44 16\" aria-hidden=\"true\"><path class=\"l f%u d%u\" "
		"d=\"M2 8H42\"/>",
		line->colour, line->dash);
	plot_marker(line->colour, line->dash, 22, 8, NULL, out);
	fputs("</svg>", out);
	plot_text(name_of(line, name), out);
	fputs("</span>\n", out);
}

static void add_references(const json_t *run, const char *plot, struct plot *ret)
{
	const json_t *one;
	char at[32];
	size_t i;

	json_array_foreach(json_object_get(run, "published"), i, one) {
		double rtt_ms = number_of(one, "rtt_ms");

		if (strcmp(text_of(one, "plot"), plot) != 0 ||
			ret->nr_references == WEFT_ARRAY_LEN(ret->references))
			continue;
		struct plot_reference *r = &ret->references[ret->nr_references++];
		r->y = number_of(one, "value");
		at[0] = '\0';
		if (rtt_ms >= 0)
			snprintf(at, sizeof(at), ", %g ms", rtt_ms);
		snprintf(r->text, sizeof(r->text), "published: %.45s%s: %.30s",
			text_of(one, "what"), at, text_of(one, "figure"));
		snprintf(r->source, sizeof(r->source), "%.100s: %.90s", text_of(one, "source"),
			text_of(one, "conditions"));
	}
}

/* A figure with its own legend: not every plot has every line. */
static void draw(const json_t *run, const struct drawing *d, FILE *out)
{
	static struct plot_series series[MAX_SERIES];
	static char names[MAX_SERIES][64];
	const struct line *drawn[MAX_SERIES];
	struct plot plot = {.title = d->title,
		.x_label = "round trip, ms",
		.y_label = d->y_label,
		.good = d->good,
		.y_unit = d->unit};
	double rtts[BENCH_MAX_RTTS];
	unsigned nr = 0;

	if (d->published)
		add_references(run, d->published, &plot);
	plot.nr_x_ticks = sorted_rtts(run, rtts);
	for (unsigned i = 0; i < plot.nr_x_ticks; i++) {
		plot.x_ticks[i].at = rtts[i] > 0 ? rtts[i] : AT_ZERO;
		snprintf(plot.x_ticks[i].text, sizeof(plot.x_ticks[i].text), "%g", rtts[i]);
	}
	for (size_t l = 0; l < d->nr; l++) {
		const struct line *line = &d->lines[l];
		struct plot_series *s = &series[nr];

		*s = (struct plot_series){
			.name = names[nr], .colour = line->colour, .dash = line->dash};
		name_of(line, names[nr]);
		for (unsigned i = 0; i < plot.nr_x_ticks; i++) {
			double y = methods_figure(methods_find(run, rtts[i], line->method,
							  line->mode, line->transport),
				d->work, d->figure);

			if (y > 0)
				s->points[s->nr_points++] = (struct plot_point){
					.x = plot.x_ticks[i].at, .y = y};
		}
		if (s->nr_points > 0)
			drawn[nr++] = line;
	}
	if (nr == 0)
		return;
	fputs("<div>", out);
	plot_lines(&plot, series, nr, out);
	fputs("<div class=\"legend\">\n", out);
	for (unsigned i = 0; i < nr; i++)
		legend(drawn[i], out);
	fputs("</div></div>\n", out);
}

static void draw_all(const json_t *run, FILE *out)
{
	html_section("Plots",
		"Over the round trip of the line; both axes are logarithmic, and 0 ms is drawn at "
		"the left end. Point at a line to see it alone. Grey lines across a plot are "
		"figures that others published, of other machines and under other conditions: see "
		"the table below.",
		out);
	fputs("<div class=\"grid\">\n", out);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(drawings); i++)
		draw(run, &drawings[i], out);
	fputs("</div>\n", out);
}

static double both(const json_t *cpu, const char *who)
{
	const json_t *one = json_object_get(cpu, who);

	return json_is_object(one) ? number_of(one, "user") + number_of(one, "system") : 0;
}

/* Bars of the shortest line: processor time of who takes part, or bytes on the wire. */
static void draw_bars(const json_t *run, bool cpu, FILE *out)
{
	struct plot_bar bars[64];
	char names[64][64], title[120];
	double rtts[BENCH_MAX_RTTS];
	const json_t *one;
	unsigned nr = 0;
	size_t i;

	if (sorted_rtts(run, rtts) == 0)
		return;
	json_array_foreach(json_object_get(run, "cells"), i, one) {
		const json_t *work = json_object_get(json_object_get(one, "works"), "read"),
			     *cost = json_object_get(work, "cpu_s_per_GB");
		double wire = number_of(work, "wire_per_byte");

		if (number_of(one, "rtt_ms") != rtts[0] || !work || nr == WEFT_ARRAY_LEN(bars) ||
			(!cpu && wire < 0))
			continue;
		methods_name(one, names[nr]);
		bars[nr] = (struct plot_bar){.name = names[nr],
			.segments = {cpu ? both(cost, "client") : wire,
				cpu ? both(cost, "bridge") : 0, cpu ? both(cost, "donor") : 0}};
		snprintf(bars[nr].text, sizeof(bars[nr].text), "%.2f",
			cpu ? methods_cpu_per_gb(one, "read") : wire);
		nr++;
	}
	snprintf(title, sizeof(title), "%s of reading in order, %g ms",
		cpu ? "Processor time" : "Bytes on the wire", rtts[0]);
	plot_bars(title, "less", cpu ? "seconds a GB" : "bytes a byte that was read", bars, nr,
		out);
}

static void bars(const json_t *run, FILE *out)
{
	html_section("Processor time and traffic",
		"Processor time of the program that reads, of the process between, and of the "
		"donor. What the kernel does for nobody in particular is in CSV and JSON.",
		out);
	fputs("<div class=\"legend\"><span><i class=\"s0\"></i>the program (and its "
	      "library)</span><span><i class=\"s1\"></i>bridge or peer</span><span><i "
	      "class=\"s2\"></i>donor</span></div>\n<div class=\"grid\">\n",
		out);
	draw_bars(run, true, out);
	draw_bars(run, false, out);
	fputs("</div>\n", out);
}

/* The best for a situation at a round trip, its figure, and those that are as good. */
static void decided(const json_t *there, FILE *out)
{
	char text[440];

	fputs("<td>", out);
	html_element("b", "", text_of(there, "best"), out);
	fputs("<br/>", out);
	if (there) {
		plot_text(methods_format_unit(number_of(there, "figure"), text_of(there, "unit"),
				  text),
			out);
		methods_print_as_good(there, text, sizeof(text));
		fputs(text[0] ? "<br/>" : "", out);
		html_element("span", "dim", text, out);
	}
	fputs("</td>", out);
}

static void decisions(const json_t *run, FILE *out)
{
	const json_t *all = json_object_get(run, "decisions"), *one;
	double rtts[BENCH_MAX_RTTS];
	unsigned nr = sorted_rtts(run, rtts);
	size_t i;

	char how[600];

	snprintf(how, sizeof(how), "%s In grey are those that are within 20 %% of the best.",
		methods_how_to_decide);
	html_section("Which method when", how, out);
	fputs("<div class=\"scroll\"><table><tr><th>you …</th>", out);
	for (unsigned k = 0; k < nr; k++)
		fprintf(out, "<th>%g ms</th>", rtts[k]);
	fputs("</tr>\n", out);
	json_array_foreach(all, i, one) {
		const char *situation = text_of(one, "situation");

		if (methods_decision(all, situation, -1) != one)
			continue;
		fputs("<tr>", out);
		html_element("th", "", situation, out);
		for (unsigned k = 0; k < nr; k++)
			decided(methods_decision(all, situation, rtts[k]), out);
		fputs("</tr>\n", out);
	}
	fputs("</table></div>\n", out);
}

static void not_measured(const json_t *run, FILE *out)
{
	const json_t *one;
	char why[600];
	size_t i;

	html_section("Not measured", "", out);
	fputs("<ul>\n", out);
	json_array_foreach(json_object_get(run, "not_measured"), i, one) {
		fputs("<li>", out);
		html_element("b", "", text_of(one, "what"), out);
		methods_print_why_not(one, why, sizeof(why));
		fputs(": ", out);
		plot_text(why, out);
		fputs("</li>\n", out);
	}
	fputs("</ul>\n", out);
}

static void all_figures(const json_t *run, FILE *out)
{
	const json_t *one;
	double last = -1;
	char text[64];
	size_t i;

	html_section("All figures",
		"CSV and JSON have more: both sides' user and system time of each kind of work.",
		out);
	fputs("<div class=\"scroll\"><table><tr><th>method</th>", out);
	for (size_t c = 0; c < methods_nr_columns; c++)
		html_element("th", "n", methods_column_head(c), out);
	fputs("</tr>\n", out);
	json_array_foreach(json_object_get(run, "cells"), i, one) {
		double rtt_ms = number_of(one, "rtt_ms");

		if (rtt_ms != last)
			fprintf(out,
				"<tr class=\"row\"><th colspan=\"%zu\">round trip %g "
				"ms</th></tr>\n",
				methods_nr_columns + 1, rtt_ms);
		last = rtt_ms;
		fputs("<tr>", out);
		html_element("td", "", methods_name(one, text), out);
		for (size_t c = 0; c < methods_nr_columns; c++)
			html_element("td", "n", methods_format(methods_column(one, c), text), out);
		fputs("</tr>\n", out);
	}
	fputs("</table></div>\n", out);
}

/* A table of texts: keys of the entries of a list. */
static void table(const json_t *list, const char *const heads[], const char *const keys[],
	unsigned nr, FILE *out)
{
	const json_t *one;
	char text[32];
	size_t i;

	fputs("<div class=\"scroll\"><table><tr>", out);
	for (unsigned k = 0; k < nr; k++)
		html_element("th", "", heads[k], out);
	fputs("</tr>\n", out);
	json_array_foreach(list, i, one) {
		fputs("<tr>", out);
		for (unsigned k = 0; k < nr; k++) {
			double value = number_of(one, keys[k]);

			snprintf(text, sizeof(text), "%g", value);
			html_element("td", k ? "w" : "",
				value >= 0 ? text : text_of(one, keys[k]), out);
		}
		fputs("</tr>\n", out);
	}
	fputs("</table></div>\n", out);
}

void methods_print_html(const json_t *run, FILE *out)
{
	static const char *const needs[] = {"method", "mode", "needs", "effort", "room", "lines"},
				 *const needs_heads[] = {"method", "mode",
					 "privileges and kernel", "what a program does",
					 "where in weft's source", "lines"},
				 *const published[] = {"what", "figure", "rtt_ms", "conditions",
					 "source"},
				 *const published_heads[] = {"what", "figure", "round trip, ms",
					 "conditions", "source"};
	char text[1200];

	html_begin("Methods of sharing memory over a network", out);
	methods_conditions(run, text, sizeof(text));
	html_element("p", "", text, out);
	if (json_is_true(json_object_get(json_object_get(run, "machine"), "virtual")))
		html_element("p", "",
			"This is a virtual machine: ratios within this page mean something, "
			"absolute figures may say more about its host.",
			out);
	not_measured(run, out);
	decisions(run, out);
	draw_all(run, out);
	bars(run, out);
	html_section("Published by others, not measured here", "", out);
	table(json_object_get(run, "published"), published_heads, published,
		WEFT_ARRAY_LEN(published), out);
	html_section("What a method needs",
		"Lines: of weft's source, as wc counts them, rounded to hundreds.", out);
	table(json_object_get(run, "methods"), needs_heads, needs, WEFT_ARRAY_LEN(needs), out);
	all_figures(run, out);
	html_end(out);
}
