/* SPDX-License-Identifier: MIT */
/*
 * A run as one HTML page that needs nothing else: no script, no font, no picture of somebody
 * else's.  It is XML as well, so that any parser can check it.  Functions without state.
 */
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/bench/html.h"
#include "perf/bench/json.h"
#include "perf/bench/plot.h"

static void number(double value, const char *fmt, FILE *out)
{
	fputs("<td class=\"n\">", out);
	if (value < 0)
		fputs("-", out);
	else
		fprintf(out,
			fmt[0] == '0'           ? "%.0f"
				: fmt[0] == '1' ? "%.1f"
				: fmt[0] == '2' ? "%.2f"
				: value >= 100  ? "%.0f"
						: "%.3g",
			value);
	fputs("</td>", out);
}

static void print_glance(const json_t *run, FILE *out)
{
	struct html_span span = html_span_of(run);
	const char *op = html_has_op(run, "read") ? "read" : "write";
	char head[4][120], size[32];
	const json_t *path;
	size_t i;

	snprintf(head[0], sizeof(head[0]), "%s %s, %.0f in flight: median latency, us",
		html_size(span.least_block, size), op, span.least_depth);
	snprintf(head[1], sizeof(head[1]), "%s %ss, %.0f in flight: thousand a second",
		html_size(span.least_block, size), op, span.most_depth);
	snprintf(head[2], sizeof(head[2]), "%s %ss, %.0f in flight: MB a second",
		html_size(span.most_block, size), op, span.most_depth);
	snprintf(head[3], sizeof(head[3]), "the same: processor time, s a GB");
	html_section("At a glance",
		"A path is a transport and where one enters. direct: the transport itself, in this "
		"program. socket: a bridge's NBD socket. file: "
		"its FUSE file. nbd, ublk: its block device, made by that driver of the kernel. "
		"The bridge is a process of weft on this machine. "
		"Less time is better, and more operations and bytes.",
		out);
	fputs("<div class=\"scroll\"><table><tr><th>path</th>", out);
	for (unsigned k = 0; k < 4; k++)
		html_element("th", "n", head[k], out);
	fputs("<th class=\"n\">connected or attached after, ms</th></tr>\n", out);
	json_array_foreach(json_object_get(run, "paths"), i, path) {
		const char *name = text_of(path, "path");
		const json_t *one = html_cell(run, name, op, span.least_block, span.least_depth),
			     *many = html_cell(run, name, op, span.least_block, span.most_depth),
			     *large = html_cell(run, name, op, span.most_block, span.most_depth);
		double ops = number_of(json_object_get(many, "ops_s"), "median");

		fputs("<tr>", out);
		html_element("td", "", name, out);
		number(number_of(json_object_get(one, "latency_us"), "p50"), "1", out);
		number(ops < 0 ? ops : ops / 1e3, "1", out);
		number(number_of(large, "MB_s"), "0", out);
		number(number_of(large, "cpu_s_per_GB"), "2", out);
		number(number_of(json_object_get(path, "ready_ms"), "median"), "1", out);
		fputs("</tr>\n", out);
	}
	fputs("</table></div>\n", out);
}

static void print_cell(const json_t *cell, FILE *out)
{
	static const char *const percentiles[] = {"p50", "p90", "p99", "p99.9", "max"};
	static const char *const who[] = {"bench", "bridge", "donor"};
	const json_t *ops = json_object_get(cell, "ops_s"), *cpu = json_object_get(cell, "cpu_us");
	double wire = number_of(cell, "wire_bytes_per_GB");

	fputs("<tr>", out);
	html_element("td", "", text_of(cell, "path"), out);
	number(number_of(ops, "median"), "0", out);
	number(number_of(ops, "spread_percent"), "0", out);
	number(number_of(cell, "MB_s"), "1", out);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(percentiles); i++)
		number(number_of(json_object_get(cell, "latency_us"), percentiles[i]), "1", out);
	for (size_t i = 0; i < WEFT_ARRAY_LEN(who); i++)
		number(number_of(json_object_get(cpu, who[i]), "median"), "1", out);
	number(number_of(cell, "machine_cpu_s_per_GB"), "3", out);
	number(wire < 0 ? wire : wire / 1e9, "2", out);
	fputs("</tr>\n", out);
}

static void print_all(const json_t *run, FILE *out)
{
	char head[120], last[120] = "", size[32];
	const json_t *one;
	size_t i;

	html_section("All figures",
		"Medians over the rounds. Spread: the interquartile range in per cent of the "
		"median. CPU: microseconds of processor time an "
		"operation. Whole machine: seconds of processor time for each GB, strangers' too, "
		"counted in ticks. Network: GB for each GB of payload. Where there were fewer than "
		"1000 operations, p99.9 is the "
		"slowest.",
		out);
	fputs("<div class=\"scroll\"><table>\n<tr><th>path</th><th class=\"n\">ops/s</th><th "
	      "class=\"n\">spread %</th><th class=\"n\">MB/s</th>"
	      "<th class=\"n\">p50 us</th><th class=\"n\">p90</th><th class=\"n\">p99</th><th "
	      "class=\"n\">p99.9</th><th class=\"n\">max</th>"
	      "<th class=\"n\">CPU asking</th><th class=\"n\">bridge</th><th "
	      "class=\"n\">donor</th><th class=\"n\">whole machine</th>"
	      "<th class=\"n\">network</th></tr>\n",
		out);
	json_array_foreach(json_object_get(run, "cells"), i, one) {
		snprintf(head, sizeof(head), "%ss of %s, %.0f in flight", text_of(one, "op"),
			html_size(number_of(one, "block_bytes"), size), number_of(one, "depth"));
		if (strcmp(head, last) != 0) {
			fputs("<tr class=\"row\"><th colspan=\"14\">", out);
			plot_text(head, out);
			fputs("</th></tr>\n", out);
		}
		strcpy(last, head);
		print_cell(one, out);
	}
	fputs("</table></div>\n", out);
}

static void fact(const char *name, const json_t *value, const char *unit, FILE *out)
{
	char text[400];

	if (json_is_string(value))
		snprintf(text, sizeof(text), "%s", json_string_value(value));
	else if (json_is_boolean(value))
		snprintf(text, sizeof(text), "%s", json_is_true(value) ? "yes" : "no");
	else if (json_is_number(value) && strcmp(name, "Memory") == 0)
		weft_format_size((uint64_t)json_number_value(value), text, sizeof(text));
	else if (json_is_number(value))
		snprintf(text, sizeof(text), "%.10g%s", json_number_value(value), unit);
	else
		snprintf(text, sizeof(text), "not told by this machine");
	fputs("<tr>", out);
	html_element("th", "", name, out);
	html_element("td", json_is_null(value) || !value ? "dim" : "w", text, out);
	fputs("</tr>\n", out);
}

/* Its front-ends share the network. */
static bool first_of_transport(const json_t *run, size_t at, char ret_transport[16])
{
	const json_t *paths = json_object_get(run, "paths");
	const char *name = text_of(json_array_get(paths, at), "path");
	size_t len = strcspn(name, " ");

	snprintf(ret_transport, 16, "%.*s", (int)weft_min(len, 15), name);
	for (size_t i = 0; i < at; i++)
		if (strncmp(text_of(json_array_get(paths, i), "path"), name, len + 1) == 0)
			return false;
	return true;
}

static void say(const char *before, const char *text, const char *after, FILE *out)
{
	if (!text[0])
		return;
	fputs(before, out);
	plot_text(text, out);
	fputs(after, out);
}

/* The conditions in a sentence; the tables have them all. */
static void print_where(const json_t *run, FILE *out)
{
	const json_t *machine = json_object_get(run, "machine"), *path;
	const char *governor = text_of(machine, "governor");
	char transport[16];
	size_t i;

	fputs("<p>Measured on ", out);
	say("", text_of(machine, "host"), ": ", out);
	fprintf(out, "%.0f processors", number_of(machine, "processors"));
	say(" (", text_of(machine, "processor"), ")", out);
	say(", Linux ", text_of(machine, "kernel"), "", out);
	say(", CPU frequency governor ", governor[0] ? governor : "not told", ".", out);
	json_array_foreach(json_object_get(run, "paths"), i, path) {
		const json_t *network = json_object_get(path, "network");

		if (!first_of_transport(run, i, transport))
			continue;
		say(" ", transport, "", out);
		say(" by ", text_of(network, "rdma_device"), "", out);
		say(" over ", text_of(network, "interface"), "", out);
		if (number_of(network, "mtu") > 0)
			fprintf(out, ", MTU %.0f", number_of(network, "mtu"));
		if (number_of(network, "gid_index") >= 0)
			fprintf(out, ", GID %.0f", number_of(network, "gid_index"));
		say(" (", text_of(network, "gid_type"), ")", out);
		fputc('.', out);
	}
	fputs("</p>\n", out);
}

static void print_conditions(const json_t *run, FILE *out)
{
	static const struct {
		const char *key, *name, *unit;
	} machine_facts[] = {{"host", "Machine", ""}, {"product", "Product", ""},
		{"virtual", "Virtual machine", ""}, {"kernel", "Linux", ""},
		{"architecture", "Architecture", ""}, {"processor", "Processor", ""},
		{"processors", "Processors", ""}, {"memory_bytes", "Memory", " bytes"},
		{"governor", "CPU frequency governor", ""}, {"load_before", "Load before", ""}},
	  network_facts[] = {{"path", "Connection", ""}, {"interface", "Interface", ""},
		  {"driver", "Driver", ""}, {"mtu", "MTU", " bytes"},
		  {"speed_mbit_s", "Speed", " Mbit/s"}, {"rdma_device", "RDMA device", ""},
		  {"gid_index", "GID index", ""}, {"gid", "GID", ""}, {"gid_type", "GID type", ""},
		  {"rdma_in_software", "RDMA in software", ""}, {"rdma_type", "RDMA adapter", ""},
		  {"rdma_firmware", "RDMA firmware", ""},
		  {"rdma_mtu", "RDMA MTU, reckoned", " bytes"}};
	const json_t *machine = json_object_get(run, "machine"), *path;
	char transport[16];
	size_t i;

	html_section("Conditions", "", out);
	fputs("<div class=\"scroll\"><table>\n", out);
	for (i = 0; i < WEFT_ARRAY_LEN(machine_facts); i++)
		fact(machine_facts[i].name, json_object_get(machine, machine_facts[i].key),
			machine_facts[i].unit, out);
	fputs("</table></div>\n", out);
	json_array_foreach(json_object_get(run, "paths"), i, path) {
		const json_t *network = json_object_get(path, "network");

		if (!first_of_transport(run, i, transport))
			continue;
		fprintf(out, "<h3>Network of the paths over ");
		plot_text(transport, out);
		fputs("</h3><div class=\"scroll\"><table>\n", out);
		for (unsigned k = 0; k < WEFT_ARRAY_LEN(network_facts); k++) {
			bool rdma = strncmp(network_facts[k].key, "rdma", 4) == 0 ||
				strncmp(network_facts[k].key, "gid", 3) == 0;

			if (!rdma || strcmp(transport, "rdma") == 0)
				fact(network_facts[k].name,
					json_object_get(network, network_facts[k].key),
					network_facts[k].unit, out);
		}
		fputs("</table></div>\n", out);
	}
}

static void print_method(const json_t *run, FILE *out)
{
	const json_t *control = json_object_get(run, "control_ops_s"), *one;
	bool reads_only = strcmp(text_of(run, "mode"), "read-only") == 0;
	char span[32], count[32];
	size_t i;

	html_section("How it was measured", "", out);
	fprintf(out,
		"<p>%d rounds; each goes over all paths, beginning with another one, so that what "
		"disturbs the machine for a while disturbs "
		"them all. In a round each figure gets a slice of %.0f ms. Requests come from one "
		"thread and go to places in the first "
		"%s of the region, in an order that repeats none before all had their turn, "
		"without the kernel's cache.</p>\n",
		(int)number_of(run, "rounds"), number_of(run, "slice_ms"),
		html_size(number_of(run, "span_bytes"), span));
	fprintf(out, "<p>All data was verified: %s. 8 bytes of every 512 are looked at.</p>\n",
		reads_only ? "what was read over any path is what the region held in the beginning"
			   : "each read is compared with what was written there last, over "
			     "whatever path; writes are read back after each slice, and the "
			     "whole span at the end");
	fprintf(out,
		"<p>The machine's own pace, 4 KiB to a thread and back without weft, was %s round "
		"trips a second, with a spread of %.0f %%. "
		"When that differs between two runs, the machine did.</p>\n",
		bench_format_count(number_of(control, "median"), count),
		number_of(control, "spread_percent"));
	fputs("<p>Files and devices are opened with O_DIRECT and driven by the kernel's "
	      "asynchronous I/O. Socket and file share a bridge, and "
	      "each device has one of its own.",
		out);
	json_array_foreach(json_object_get(run, "paths"), i, one)
		if (number_of(one, "lanes") > 0) {
			fprintf(out,
				" A bridge had %.0f lanes, which are threads with a connection "
				"each.",
				number_of(one, "lanes"));
			break;
		}
	if (text_of(run, "cache")[0]) {
		fputs(" Cached: the bridge had a cache of ", out);
		plot_text(text_of(run, "cache"), out);
		fputc('.', out);
	}
	fputs("</p>\n<p>A KiB is 1024 bytes and a MiB 1024 KiB; a MB is a million bytes and a GB a "
	      "thousand million; us are "
	      "microseconds.</p>\n",
		out);
}

static void print_not_measured(const json_t *run, FILE *out)
{
	const json_t *one;
	size_t i;

	html_section("Not measured", "", out);
	fputs("<ul>\n", out);
	json_array_foreach(json_object_get(run, "not_measured"), i, one) {
		fputs("<li><b>", out);
		plot_text(text_of(one, "paths"), out);
		fputs("</b>: ", out);
		plot_text(text_of(one, "why"), out);
		fputs("</li>\n", out);
	}
	json_array_foreach(json_object_get(run, "paths"), i, one)
		if (!json_is_true(json_object_get(one, "donor_cpu_known"))) {
			fputs("<li>the donor's processor time and its machine: it runs on another "
			      "machine, as another user, or is no weft donor</li>\n",
				out);
			break;
		}
	json_array_foreach(json_object_get(run, "cells"), i, one)
		if (number_of(one, "wire_bytes_per_GB") < 0) {
			fputs("<li>bytes on the network of some paths: what stays within this "
			      "machine goes through no interface that counts</li>\n",
				out);
			break;
		}
	fputs("<li>more than one program at a time; durability (no flush was asked "
	      "for)</li>\n</ul>\n",
		out);
}

void bench_print_html(const json_t *run, FILE *out)
{
	const char *caveats[2];
	char size[32], span[32], words[512], title[220];

	snprintf(title, sizeof(title), "weft bench %.200s", text_of(run, "uri"));
	html_begin(title, out);
	fputs("<p class=\"dim\">", out);
	plot_text(text_of(run, "when"), out);
	fprintf(out, ", weft %s, %s; a region of %s, of which %s are used</p>\n",
		text_of(run, "version"), text_of(run, "mode"),
		html_size(number_of(run, "region_bytes"), size),
		html_size(number_of(run, "span_bytes"), span));
	print_where(run, out);
	if (bench_line_words(run, words, sizeof(words)))
		html_element("p", "", words, out);
	if (json_is_true(json_object_get(json_object_get(run, "machine"), "virtual")))
		fputs("<p>This is a virtual machine: ratios within this page mean something, "
		      "absolute figures may say more about its host.</p>\n",
			out);
	for (unsigned i = 0; i < bench_caveats(run, caveats); i++)
		fprintf(out, "<p>%s</p>\n", caveats[i]);
	print_glance(run, out);
	print_not_measured(run, out);
	html_print_plots(run, out);
	print_conditions(run, out);
	print_method(run, out);
	print_all(run, out);
	html_end(out);
}
