/* SPDX-License-Identifier: MIT */
/*
 * Two runs beside each other.  A difference is one that the ranks show (Mann and Whitney) beyond a
 * slack: a few per cent, or what the machine's own pace changed by, if that is more.  Corrected for
 * the number of rows (Holm), so that two runs of the same thing show none at all in 19 of 20 cases.
 * Functions without state.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/bench/json.h"
#include "perf/bench/stats.h"

enum { MAX_ROWS = 1024 };
#define LEAST 1.05 /* ratios below it are nobody's business */

struct row {
	const json_t *a;
	const char *what;
	bool more_is_better;
	double median_a, median_b, p, spread; /* of the run that has more */
	struct stats_ratio ratio;
};

static size_t rounds_of(const json_t *figure, double *values)
{
	const json_t *rounds = json_object_get(figure, "rounds"), *one;
	size_t i, n = 0;

	json_array_foreach(rounds, i, one)
		if (n < STATS_MAX && json_number_value(one) > 0)
			values[n++] = json_number_value(one);
	return n;
}

static bool same_cell(const json_t *a, const json_t *b)
{
	return strcmp(text_of(a, "path"), text_of(b, "path")) == 0 &&
		strcmp(text_of(a, "op"), text_of(b, "op")) == 0 &&
		json_equal(json_object_get(a, "block_bytes"), json_object_get(b, "block_bytes")) &&
		json_equal(json_object_get(a, "depth"), json_object_get(b, "depth"));
}

static bool fill(struct row *row, const json_t *a, const json_t *b, double slack)
{
	double x[STATS_MAX], y[STATS_MAX];
	size_t nr_x = rounds_of(a, x), nr_y = rounds_of(b, y);

	if (nr_x == 0 || nr_y == 0)
		return false;
	row->median_a = stats_median(x, nr_x);
	row->median_b = stats_median(y, nr_y);
	row->spread = fmax(stats_spread(x, nr_x), stats_spread(y, nr_y));
	row->ratio = stats_ratio(x, nr_x, y, nr_y, 0.95);
	row->p = 1;
	if (row->ratio.ratio > slack || row->ratio.ratio < 1 / slack) {
		for (size_t i = 0; i < nr_x; i++)
			x[i] *= row->ratio.ratio > 1 ? slack : 1 / slack;
		row->p = stats_mann_whitney(x, nr_x, y, nr_y);
	}
	return true;
}

static const json_t *find_cell(const json_t *run, const json_t *like)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(run, "cells"), i, one)
		if (same_cell(one, like))
			return one;
	return NULL;
}

/* How far the machine itself may have moved, as a factor of at least LEAST. */
static double slack_of(const json_t *a, const json_t *b, struct row *control)
{
	if (!fill(control, json_object_get(a, "control_ops_s"), json_object_get(b, "control_ops_s"),
		    1))
		return LEAST;
	return fmax(LEAST, fmax(1 / control->ratio.low, control->ratio.high));
}

static const char *verdict(const struct row *row)
{
	if (row->p >= 0.05)
		return "same";
	return (row->ratio.ratio > 1) == row->more_is_better ? "better" : "worse";
}

static json_t *row_json(const struct row *row)
{
	json_t *json = json_pack("{s:s, s:s, s:O, s:O, s:s}", "path", text_of(row->a, "path"), "op",
		text_of(row->a, "op"), "block_bytes", json_object_get(row->a, "block_bytes"),
		"depth", json_object_get(row->a, "depth"), "what", row->what);

	json_object_update_new(json,
		json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "a", row->median_a, "b",
			row->median_b, "ratio", row->ratio.ratio, "low", row->ratio.low, "high",
			row->ratio.high, "spread_percent", row->spread, "p", row->p, "verdict",
			verdict(row)));
	return json;
}

static void append_once(json_t *list, json_t *value)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
		if (json_equal(one, value))
			return;
	json_array_append(list, value);
}

json_t *bench_compare(const json_t *a, const json_t *b, unsigned *ret_worse)
{
	struct row *rows = calloc(MAX_ROWS, sizeof(*rows)), control = {.median_a = 0};
	double *p = calloc(MAX_ROWS, sizeof(*p)), slack = slack_of(a, b, &control);
	json_t *list = json_array(), *only_a = json_array(), *only_b = json_array();
	const json_t *one;
	size_t i, n = 0;

	if (!rows || !p)
		abort();
	*ret_worse = 0;
	json_array_foreach(json_object_get(a, "cells"), i, one) {
		const json_t *other = find_cell(b, one);

		if (!other || n + 2 > MAX_ROWS) {
			append_once(only_a, json_object_get(one, "path"));
			continue;
		}
		rows[n] = (struct row){.a = one, .what = "ops_s", .more_is_better = true};
		n += fill(&rows[n], json_object_get(one, "ops_s"), json_object_get(other, "ops_s"),
			slack);
		rows[n] = (struct row){.a = one, .what = "cpu_us"};
		n += fill(&rows[n], json_object_get(json_object_get(one, "cpu_us"), "all"),
			json_object_get(json_object_get(other, "cpu_us"), "all"), slack);
	}
	json_array_foreach(json_object_get(b, "cells"), i, one)
		if (!find_cell(a, one))
			append_once(only_b, json_object_get(one, "path"));
	for (i = 0; i < n; i++)
		p[i] = rows[i].p;
	stats_holm(p, n);
	for (i = 0; i < n; i++) {
		rows[i].p = p[i];
		*ret_worse += strcmp(verdict(&rows[i]), "worse") == 0;
		json_array_append_new(list, row_json(&rows[i]));
	}
	json_t *json = json_pack("{s:i, s:s, s:s, s:f, s:f, s:i, s:o, s:o, s:o}",
		"weft_bench_comparison", 1, "a", text_of(a, "when"), "b", text_of(b, "when"),
		"control_ratio", control.median_a > 0 ? control.ratio.ratio : 1.0, "slack", slack,
		"worse", (int)*ret_worse, "only_a", only_a, "only_b", only_b, "rows", list);
	free(rows);
	free(p);
	return json;
}

static void print_only(char run, const json_t *paths, FILE *out)
{
	const json_t *one;
	size_t i;

	if (json_array_size(paths) == 0)
		return;
	fprintf(out, "only in %c, wholly or in part: ", run);
	json_array_foreach(paths, i, one)
		fprintf(out, "%s%s", i > 0 ? ", " : "", json_string_value(one));
	fputc('\n', out);
}

void bench_print_comparison(const json_t *comparison, FILE *out)
{
	double slack = json_number_value(json_object_get(comparison, "slack"));
	unsigned better = 0, worse = 0, same = 0, noisy = 0;
	const json_t *one;
	char size[32];
	size_t i;

	fprintf(out, "A: %s   B: %s\n", text_of(comparison, "a"), text_of(comparison, "b"));
	fprintf(out,
		"the machine's own pace: B / A = %.2f; a difference is reported if it surely "
		"exceeds %.2f (or %.2f the other way)\n",
		json_number_value(json_object_get(comparison, "control_ratio")), slack, 1 / slack);
	fprintf(out, "%-20s %-5s %8s %5s  %-6s %10s %10s  %7s  %-14s %8s\n", "PATH", "OP", "BLOCK",
		"DEPTH", "WHAT", "MEDIAN A", "MEDIAN B", "MID B/A", "95% BETWEEN", "P");
	json_array_foreach(json_object_get(comparison, "rows"), i, one) {
		const char *what = text_of(one, "verdict");
		bool is_noisy = json_number_value(json_object_get(one, "spread_percent")) >=
			STATS_NOISY_PERCENT;
		char range[40], text[2][32];

		better += strcmp(what, "better") == 0;
		worse += strcmp(what, "worse") == 0;
		same += strcmp(what, "same") == 0;
		snprintf(range, sizeof(range), "%.2f to %.2f",
			json_number_value(json_object_get(one, "low")),
			json_number_value(json_object_get(one, "high")));
		fprintf(out, "%-20s %-5s %8s %5d  %-6s %10s %10s  %7.2f  %-14s %8.2g  %s%s\n",
			text_of(one, "path"), text_of(one, "op"),
			weft_format_size((uint64_t)json_integer_value(
						 json_object_get(one, "block_bytes")),
				size, sizeof(size)),
			(int)json_integer_value(json_object_get(one, "depth")),
			text_of(one, "what"),
			bench_format_count(json_number_value(json_object_get(one, "a")), text[0]),
			bench_format_count(json_number_value(json_object_get(one, "b")), text[1]),
			json_number_value(json_object_get(one, "ratio")), range,
			json_number_value(json_object_get(one, "p")),
			strcmp(what, "same") == 0 ? "" : what, is_noisy ? " (noisy)" : "");
		noisy += is_noisy;
	}
	print_only('A', json_object_get(comparison, "only_a"), out);
	print_only('B', json_object_get(comparison, "only_b"), out);
	if (better + worse + same == 0)
		fputs("the two runs have no path in common\n", out);
	fprintf(out, "%u better, %u worse, %u without a difference that could be shown\n", better,
		worse, same);
	bench_say_noisy(out, noisy, "row", "the rounds of A or of B", "measure both again");
	fputs("ops_s: operations a second; cpu_us: microseconds of processor time an operation, of "
	      "all processes that could be measured.\n"
	      "MID B/A: the middle of the ratios of each round of B to each round of A (Hodges and "
	      "Lehmann's estimate), which is not the\n"
	      "ratio of the two medians where rounds differ much; 95% BETWEEN: that is surely in "
	      "there.\n"
	      "P: how likely chance alone gives such a difference (Mann and Whitney's test on the "
	      "rounds, corrected for the number of rows).\n",
		out);
}
