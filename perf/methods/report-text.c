/* SPDX-License-Identifier: MIT */
/* A run as Markdown and as CSV, and two runs beside each other.  Functions without state. */
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/json.h"
#include "perf/methods/methods.h"

void methods_conditions(const json_t *run, char *buf, size_t len)
{
	const json_t *machine = json_object_get(run, "machine");
	char size[32];

	snprintf(buf, len,
		"Measured on %.60s: %.0f processors (%.80s), Linux %.60s%s, load %.2f before, with "
		"weft %.20s; a region of %s, seed %.0f, %.24s, %.0f s in all.  Everything ran on "
		"that machine, over %s%.40s: rates at 0 ms are of its processors, not of a "
		"network.  One program, one operation at a time; at most %s for each kind of "
		"work, and memory that was in use before.  Each byte that was read was checked.",
		text_of(machine, "host"), number_of(machine, "processors"),
		text_of(machine, "processor"), text_of(machine, "kernel"),
		json_is_true(json_object_get(machine, "virtual")) ? " (virtual)" : "",
		number_of(machine, "load_before"), text_of(run, "version"),
		weft_format_size((uint64_t)number_of(run, "region_bytes"), size, sizeof(size)),
		number_of(run, "seed"), text_of(run, "when"), number_of(run, "seconds"),
		text_of(run, "at")[0] ? "its own address " : "weft line", text_of(run, "at"),
		json_is_true(json_object_get(run, "quick")) ? "0.5 s" : "2 s");
	size_t said = strlen(buf);
	if (number_of(machine, "load_before") > number_of(machine, "processors") / 2)
		snprintf(buf + said, len - said,
			"  The machine had other work as well: do not trust these figures, measure "
			"again when it is quiet.");
}

static void conditions(const char *head, const json_t *run, FILE *out)
{
	char text[1200];

	methods_conditions(run, text, sizeof(text));
	fprintf(out, "%s%s\n", head, text);
}

void methods_print_why_not(const json_t *one, char *buf, size_t len)
{
	const json_t *rtts = json_object_get(one, "rtt_ms"), *rtt;
	int n = snprintf(buf, len, "%.300s", text_of(one, "why"));
	size_t i;

	json_array_foreach(rtts, i, rtt)
		if (n > 0 && (size_t)n < len)
			n += snprintf(buf + n, len - (size_t)n, "%s%g", i ? ", " : " (at ",
				json_number_value(rtt));
	if (json_array_size(rtts) > 0 && n > 0 && (size_t)n < len)
		snprintf(buf + n, len - (size_t)n, " ms)");
}

static void not_measured(const json_t *run, FILE *out)
{
	const json_t *one;
	char why[600];
	size_t i;

	fputs("\n## Not measured\n\n", out);
	json_array_foreach(json_object_get(run, "not_measured"), i, one) {
		methods_print_why_not(one, why, sizeof(why));
		fprintf(out, "- %s: %s\n", text_of(one, "what"), why);
	}
}

const char *methods_format(double value, char *buf)
{
	if (value < 0)
		strcpy(buf, "-");
	else if (value >= 1e6)
		snprintf(buf, 32, "%.1f M", value / 1e6);
	else if (value >= 1e4)
		snprintf(buf, 32, "%.1f k", value / 1e3);
	else
		snprintf(buf, 32, value >= 100 ? "%.0f" : "%.3g", value);
	return buf;
}

const char *methods_format_unit(double value, const char *unit, char *buf)
{
	char figure[32];

	if (strcmp(unit, "bytes") == 0 && value >= 0)
		return weft_format_size((uint64_t)value >> 10 << 10, buf, 64);
	bool ms = strcmp(unit, "us") == 0 && value >= 1e3;
	snprintf(buf, 64, "%s %s", methods_format(ms ? value / 1e3 : value, figure),
		ms ? "ms" : unit);
	return buf;
}

void methods_print_as_good(const json_t *decision, char *buf, size_t len)
{
	const json_t *one;
	size_t i;
	int n = 0;

	buf[0] = '\0';
	json_array_foreach(json_object_get(decision, "as_good"), i, one)
		if ((size_t)n < len)
			n += snprintf(buf + n, len - (size_t)n, "%s%s", i ? ", " : "",
				json_string_value(one));
}

/* A line for each situation, a column for each round trip. */
static void decisions(const json_t *run, FILE *out)
{
	const json_t *all = json_object_get(run, "decisions"), *one, *there;
	double rtts[BENCH_MAX_RTTS];
	unsigned nr = methods_rtts(run, rtts);
	char figure[64], others[400];
	size_t i;

	fprintf(out,
		"\n## Which method when\n\n%s In brackets are those that are within 20 %% of the "
		"best.\n\n| you |",
		methods_how_to_decide);
	for (unsigned k = 0; k < nr; k++)
		fprintf(out, " %g ms |", rtts[k]);
	fputs("\n|---|", out);
	for (unsigned k = 0; k < nr; k++)
		fputs("---|", out);
	json_array_foreach(all, i, one) {
		if (methods_decision(all, text_of(one, "situation"), -1) != one)
			continue;
		fprintf(out, "\n| %s |", text_of(one, "situation"));
		for (unsigned k = 0; k < nr; k++) {
			there = methods_decision(all, text_of(one, "situation"), rtts[k]);
			methods_print_as_good(there, others, sizeof(others));
			fprintf(out, " %s: %s%s%s%s |", text_of(there, "best"),
				methods_format_unit(number_of(there, "figure"),
					text_of(there, "unit"), figure),
				others[0] ? " (" : "", others, others[0] ? ")" : "");
		}
	}
	fputc('\n', out);
}

static const struct {
	const char *head, *work, *figure;
} columns[] = {{"ready, ms", "", "ready_ms"}, {"first 4 KiB, ms", "", "first_ms"},
	{"read, MB/s", "read", "MB_s"}, {"random 4 KiB, p50 us", "random_read", "p50_us"},
	{"p99 us", "random_read", "p99_us"}, {"write+flush, MB/s", "write", "MB_s"},
	{"random write+flush, ops/s", "random_write", "ops_s"}, {"fits, ops/s", "fits", "ops_s"},
	{"exceeds, ops/s", "exceeds", "ops_s"}, {"1 % update, s", "update", "seconds"},
	{"all of it, s", "copy", "seconds"}, {"CPU of reading, s/GB", "read", "cpu"},
	{"wire/byte, read", "read", "wire_per_byte"},
	{"wire/byte, update", "update", "wire_per_byte"}, {"memory, MB", "", "resident_bytes"}};

const size_t methods_nr_columns = WEFT_ARRAY_LEN(columns);

const char *methods_column_head(size_t c)
{
	return columns[c].head;
}

double methods_column(const json_t *cell, size_t c)
{
	if (strcmp(columns[c].figure, "cpu") == 0)
		return methods_cpu_per_gb(cell, columns[c].work);
	double value = methods_figure(cell, columns[c].work, columns[c].figure);

	return strcmp(columns[c].figure, "resident_bytes") == 0 && value >= 0 ? value / 1e6
									      : value;
}

static void cells(const json_t *run, FILE *out)
{
	const json_t *one;
	char text[64];
	double last = -1;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one) {
		double rtt_ms = number_of(one, "rtt_ms");

		if (rtt_ms != last) {
			fprintf(out, "\n## Round trip %g ms\n\n| method |", rtt_ms);
			for (size_t c = 0; c < WEFT_ARRAY_LEN(columns); c++)
				fprintf(out, " %s |", columns[c].head);
			fputs("\n|---|", out);
			for (size_t c = 0; c < WEFT_ARRAY_LEN(columns); c++)
				fputs("---|", out);
			fputc('\n', out);
		}
		last = rtt_ms;
		fprintf(out, "| %s%s |", methods_name(one, text),
			json_is_true(json_object_get(one, "peer")) ? " (peer)" : "");
		for (size_t c = 0; c < WEFT_ARRAY_LEN(columns); c++)
			fprintf(out, " %s |", methods_format(methods_column(one, c), text));
		fputc('\n', out);
	}
}

static void published(const json_t *run, FILE *out)
{
	const json_t *one;
	size_t i;

	fputs("\n## Published by others, not measured here\n\n| what | figure | round trip, ms | "
	      "conditions | source |\n|---|---|---|---|---|\n",
		out);
	json_array_foreach(json_object_get(run, "published"), i, one) {
		double rtt_ms = number_of(one, "rtt_ms");
		char rtt[32] = "";

		if (rtt_ms >= 0)
			snprintf(rtt, sizeof(rtt), "%g", rtt_ms);
		fprintf(out, "| %s | %s | %s | %s | %s |\n", text_of(one, "what"),
			text_of(one, "figure"), rtt, text_of(one, "conditions"),
			text_of(one, "source"));
	}
}

static void needs(const json_t *run, FILE *out)
{
	const json_t *one;
	char lines[32];
	size_t i;

	fputs("\n## What a method needs\n\n| method | privileges and kernel | what a program "
	      "does | "
	      "where in weft's source | lines |\n|---|---|---|---|---|\n",
		out);
	json_array_foreach(json_object_get(run, "methods"), i, one)
		fprintf(out, "| %s %s | %s | %s | %s | %s |\n", text_of(one, "method"),
			text_of(one, "mode"), text_of(one, "needs"), text_of(one, "effort"),
			text_of(one, "room"),
			methods_format(number_of(one, "lines"), lines));
}

void methods_print_markdown(const json_t *run, FILE *out)
{
	fputs("# Methods of sharing memory over a network\n\n", out);
	conditions("", run, out);
	not_measured(run, out);
	decisions(run, out);
	cells(run, out);
	published(run, out);
	needs(run, out);
}

void methods_print_csv(const json_t *run, FILE *out)
{
	static const char *const figures[] = {"ops", "bytes", "seconds", "MB_s", "ops_s", "p50_us",
		"p99_us", "wire_per_byte"};
	static const char *const who[] = {"client", "bridge", "donor"};
	const json_t *cell, *work;
	const char *name;
	size_t i;

	fputs("rtt_ms,method,mode,transport,peer,ready_ms,first_ms,resident_bytes,work", out);
	for (size_t k = 0; k < WEFT_ARRAY_LEN(figures); k++)
		fprintf(out, ",%s", figures[k]);
	for (size_t k = 0; k < WEFT_ARRAY_LEN(who); k++)
		fprintf(out, ",%s_user_s_per_GB,%s_system_s_per_GB", who[k], who[k]);
	fputs(",machine_s_per_GB\n", out);
	json_array_foreach(json_object_get(run, "cells"), i, cell)
		json_object_foreach(json_object_get(cell, "works"), name, work) {
			const json_t *cpu = json_object_get(work, "cpu_s_per_GB");

			fprintf(out, "%g,%s,%s,%s,%d", number_of(cell, "rtt_ms"),
				text_of(cell, "method"), text_of(cell, "mode"),
				text_of(cell, "transport"),
				json_is_true(json_object_get(cell, "peer")));
			bench_csv_number(cell, "ready_ms", out);
			bench_csv_number(cell, "first_ms", out);
			bench_csv_number(cell, "resident_bytes", out);
			fprintf(out, ",%s", name);
			for (size_t k = 0; k < WEFT_ARRAY_LEN(figures); k++)
				bench_csv_number(work, figures[k], out);
			for (size_t k = 0; k < WEFT_ARRAY_LEN(who); k++) {
				const json_t *one = json_object_get(cpu, who[k]);

				bench_csv_number(one, "user", out);
				bench_csv_number(one, "system", out);
			}
			bench_csv_number(cpu, "machine", out);
			fputc('\n', out);
		}
}

void methods_print_comparison(const json_t *a, const json_t *b, FILE *out)
{
	const json_t *one;
	char name[64];
	size_t i;

	conditions("A: ", a, out);
	conditions("\nB: ", b, out);
	fputs("\nEach figure was measured once in a run: differences of 20 % mean little.  B/A is "
	      "above 1 where B's figure is larger.\n\n",
		out);
	fprintf(out, "%-32s %8s %22s %12s %12s %8s\n", "METHOD", "RTT ms", "FIGURE", "A", "B",
		"B/A");
	json_array_foreach(json_object_get(b, "cells"), i, one) {
		double rtt_ms = number_of(one, "rtt_ms");
		const json_t *was = methods_find(a, rtt_ms, text_of(one, "method"),
			text_of(one, "mode"), text_of(one, "transport"));

		for (size_t c = 0; c < WEFT_ARRAY_LEN(columns); c++) {
			double before = methods_column(was, c), now = methods_column(one, c);
			char text[2][32];

			if (before > 0 && now > 0)
				fprintf(out, "%-32s %8g %22.22s %12s %12s %8.2f\n",
					methods_name(one, name), rtt_ms, columns[c].head,
					methods_format(before, text[0]),
					methods_format(now, text[1]), now / before);
		}
	}
}
