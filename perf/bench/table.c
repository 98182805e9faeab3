/* SPDX-License-Identifier: MIT */
/* A run as a table and as CSV, and from its file.  Functions without state. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/bench/json.h"
#include "perf/bench/stats.h"

/* Figures that something can be drawn of: no run has others. */
static bool is_sane(const json_t *json)
{
	const json_t *value;
	const char *key;
	size_t i;

	if (json_is_number(json))
		return fabs(json_number_value(json)) < 1e20;
	json_object_foreach((json_t *)json, key, value)
		if (!is_sane(value))
			return false;
	json_array_foreach(json, i, value)
		if (!is_sane(value))
			return false;
	return true;
}

json_t *bench_load_run(const char *file, struct weft_error *err)
{
	json_error_t error;
	json_t *run = json_load_file(file, 0, &error);

	if (!run) {
		if (error.line < 0)
			weft_error_set(err, errno ? errno : EIO, "cannot read %s: %s", file,
				error.text);
		else
			weft_error_set(err, EPROTO, "%s is no JSON: line %d: %s", file, error.line,
				error.text);
		return NULL;
	}
	bool methods = json_integer_value(json_object_get(run, "weft_bench_methods")) == 1;
	if ((json_integer_value(json_object_get(run, "weft_bench")) != 1 && !methods) ||
		!json_is_array(json_object_get(run, "cells")) ||
		(!methods && !json_is_array(json_object_get(run, "paths"))) ||
		!json_is_object(json_object_get(run, "machine")) || !is_sane(run)) {
		weft_error_set(err, EPROTO, "%s is no run of weft bench --json", file);
		json_decref(run);
		return NULL;
	}
	return run;
}

static bool rdma_is_in_software(const json_t *path)
{
	return json_is_true(json_object_get(json_object_get(path, "network"), "rdma_in_software"));
}

/* As far as that can be told. */
static bool donor_is_here(const json_t *path)
{
	return json_is_true(json_object_get(path, "donor_cpu_known")) ||
		strcmp(text_of(json_object_get(path, "network"), "interface"), "lo") == 0;
}

static bool of_any_path(const json_t *run, bool (*is)(const json_t *path))
{
	const json_t *path;
	size_t i;

	json_array_foreach(json_object_get(run, "paths"), i, path)
		if (is(path))
			return true;
	return false;
}

void bench_say_noisy(FILE *out, unsigned nr, const char *what, const char *which, const char *again)
{
	if (nr > 0)
		fprintf(out,
			"%u %s%s noisy: %s differ by more than their median.  Too short, do not "
			"trust: %s with a longer --time, on a quiet machine.\n",
			nr, what, nr == 1 ? " is" : "s are", which, again);
}

unsigned bench_caveats(const json_t *run, const char *ret[2])
{
	unsigned nr = 0;

	if (of_any_path(run, donor_is_here))
		ret[nr++] = "The donor runs on this machine, too: nothing crossed a cable, and "
			    "both shared the processors.";
	if (of_any_path(run, rdma_is_in_software))
		ret[nr++] = "RDMA is emulated in software here: what it costs says nothing about "
			    "an adapter that does it.";
	return nr;
}

bool bench_line_words(const json_t *run, char *buf, size_t len)
{
	const json_t *line = json_object_get(run, "line"),
		     *figures = json_object_get(line, "figures");
	const json_t *late = json_object_get(json_object_get(figures, "near_to_far"), "late_us");

	if (!line)
		return false;
	int n = snprintf(buf, len, "over a line made for it: %s", text_of(line, "options"));
	if (late && n >= 0 && (size_t)n < len)
		snprintf(buf + n, len - (size_t)n,
			"; packets came later than planned by %.0f us (median), %.0f us (99%%)",
			number_of(late, "p50"), number_of(late, "p99"));
	return true;
}

const char *bench_format_count(double value, char *buf)
{
	if (value >= 9999.5e3)
		snprintf(buf, 32, "%.1f M", value / 1e6);
	else if (value >= 9999.5)
		snprintf(buf, 32, "%.1f k", value / 1e3);
	else
		snprintf(buf, 32, value >= 100 ? "%.0f" : "%.1f", value);
	return buf;
}

static const char *or_dash(double value, const char *fmt, char *buf)
{
	if (value < 0)
		strcpy(buf, "-");
	else
		snprintf(buf, 32, fmt[0] == '0' ? "%.0f" : fmt[0] == '2' ? "%.2f" : "%.1f", value);
	return buf;
}

static void print_row_head(const json_t *cell, FILE *out)
{
	char size[32];

	fprintf(out, "\n%ss of %s, %d in flight\n", text_of(cell, "op"),
		weft_format_size((uint64_t)number_of(cell, "block_bytes"), size, sizeof(size)),
		(int)number_of(cell, "depth"));
	fprintf(out, "  %-20s %9s %9s %7s  %9s %9s %9s  %8s %8s %8s  %9s\n", "PATH", "OPS/S",
		"MB/S", "SPREAD", "P50 us", "P99 us", "P99.9 us", "BENCH us", "BRIDGE", "DONOR",
		"NET B/B");
}

static bool same_row(const json_t *a, const json_t *b)
{
	return a && strcmp(text_of(a, "op"), text_of(b, "op")) == 0 &&
		number_of(a, "block_bytes") == number_of(b, "block_bytes") &&
		number_of(a, "depth") == number_of(b, "depth");
}

static bool is_noisy(const json_t *cell)
{
	return number_of(json_object_get(cell, "ops_s"), "spread_percent") >= STATS_NOISY_PERCENT;
}

static void print_cell(const json_t *cell, FILE *out)
{
	const json_t *ops = json_object_get(cell, "ops_s"),
		     *latency = json_object_get(cell, "latency_us"),
		     *cpu = json_object_get(cell, "cpu_us");
	double wire = number_of(cell, "wire_bytes_per_GB");
	char text[9][32];

	fprintf(out, "  %-20s %9s %9s %6s%%  %9s %9s %9s  %8s %8s %8s  %9s%s\n",
		text_of(cell, "path"), bench_format_count(number_of(ops, "median"), text[0]),
		or_dash(number_of(cell, "MB_s"), "1", text[1]),
		or_dash(number_of(ops, "spread_percent"), "0", text[2]),
		or_dash(number_of(latency, "p50"), "1", text[3]),
		or_dash(number_of(latency, "p99"), "1", text[4]),
		or_dash(number_of(latency, "p99.9"), "1", text[5]),
		or_dash(number_of(json_object_get(cpu, "bench"), "median"), "1", text[6]),
		or_dash(number_of(json_object_get(cpu, "bridge"), "median"), "1", text[7]),
		or_dash(number_of(json_object_get(cpu, "donor"), "median"), "1", text[8]),
		wire < 0 ? "-" : or_dash(wire / 1e9, "2", (char[32]){0}),
		is_noisy(cell) ? "  (noisy)" : "");
}

void bench_print_table(const json_t *run, FILE *out)
{
	const json_t *machine = json_object_get(run, "machine"),
		     *control = json_object_get(run, "control_ops_s"), *one, *last = NULL;
	char size[2][32], count[32];
	const char *caveats[2];
	char words[512];
	unsigned noisy = 0;
	size_t i;

	fprintf(out, "%s: %s, of which %s are used, %s; %d rounds of %.0f ms for each figure\n",
		text_of(run, "uri"),
		weft_format_size((uint64_t)number_of(run, "region_bytes"), size[0], 32),
		weft_format_size((uint64_t)number_of(run, "span_bytes"), size[1], 32),
		text_of(run, "mode"), (int)number_of(run, "rounds"), number_of(run, "slice_ms"));
	if (bench_line_words(run, words, sizeof(words)))
		fprintf(out, "%s\n", words);
	fprintf(out,
		"%s, Linux %s, %d processors%s; the machine's own pace: %s round trips/s, spread "
		"%.0f%%\n",
		text_of(machine, "host"), text_of(machine, "kernel"),
		(int)number_of(machine, "processors"),
		json_is_true(json_object_get(machine, "virtual")) ? " (virtual)" : "",
		bench_format_count(number_of(control, "median"), count),
		number_of(control, "spread_percent"));
	json_array_foreach(json_object_get(run, "cells"), i, one) {
		if (!same_row(last, one))
			print_row_head(one, out);
		print_cell(one, out);
		noisy += is_noisy(one);
		last = one;
	}
	fputs("\nMedians over the rounds; SPREAD: interquartile range, in % of the median; us: "
	      "microseconds, of processor time an operation for BENCH,\n"
	      "BRIDGE and DONOR; NET B/B: bytes on the network a byte of payload.  All data was "
	      "verified.\n",
		out);
	bench_say_noisy(out, noisy, "figure", "the rounds", "measure again");
	for (unsigned k = 0; k < bench_caveats(run, caveats); k++)
		fprintf(out, "%s\n", caveats[k]);
	json_array_foreach(json_object_get(run, "not_measured"), i, one)
		fprintf(out, "not measured: %s: %s\n", text_of(one, "paths"), text_of(one, "why"));
}

void bench_csv_number(const json_t *json, const char *key, FILE *out)
{
	double value = number_of(json, key);

	if (value < 0)
		fputc(',', out);
	else
		fprintf(out, ",%.6g", value);
}

void bench_print_csv(const json_t *run, FILE *out)
{
	static const char *const percentiles[] = {"p50", "p90", "p99", "p99.9", "max"};
	static const char *const who[] = {"bench", "bridge", "donor", "all"};
	const json_t *one;
	size_t i;

	fputs("path,op,block_bytes,depth,ops,ops_s,spread_percent,MB_s,p50_us,p90_us,p99_us,p99.9_"
	      "us,max_us,"
	      "bench_cpu_us,bridge_cpu_us,donor_cpu_us,all_cpu_us,cpu_s_per_GB,machine_cpu_s_per_"
	      "GB,wire_bytes_per_GB\n",
		out);
	json_array_foreach(json_object_get(run, "cells"), i, one) {
		const json_t *ops = json_object_get(one, "ops_s"),
			     *cpu = json_object_get(one, "cpu_us");

		fprintf(out, "%s,%s", text_of(one, "path"), text_of(one, "op"));
		bench_csv_number(one, "block_bytes", out);
		bench_csv_number(one, "depth", out);
		bench_csv_number(one, "ops", out);
		bench_csv_number(ops, "median", out);
		bench_csv_number(ops, "spread_percent", out);
		bench_csv_number(one, "MB_s", out);
		for (size_t k = 0; k < WEFT_ARRAY_LEN(percentiles); k++)
			bench_csv_number(json_object_get(one, "latency_us"), percentiles[k], out);
		for (size_t k = 0; k < WEFT_ARRAY_LEN(who); k++)
			bench_csv_number(json_object_get(cpu, who[k]), "median", out);
		bench_csv_number(one, "cpu_s_per_GB", out);
		bench_csv_number(one, "machine_cpu_s_per_GB", out);
		bench_csv_number(one, "wire_bytes_per_GB", out);
		fputc('\n', out);
	}
}
