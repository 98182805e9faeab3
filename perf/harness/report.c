/* SPDX-License-Identifier: MIT */
/*
 * What the rounds measured: medians, spreads, ratios; as a table, as JSON, as Markdown, and against
 * bounds.  Main thread.  Invariant: sample i of every contestant of a row is of the same round,
 * unless one was skipped.
 */
#include <errno.h>
#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/harness/perf.h"

enum { MAX_ROWS = 256, MAX_CONTESTANTS = 32, MAX_SAMPLES = 256, MAX_BOUNDS = 64, MAX_COLUMNS = 16 };

struct contestant {
	char name[PERF_NAME_MAX];
	char skipped[256];
	unsigned nr;
	struct perf_sample samples[MAX_SAMPLES];
};

struct row {
	char name[PERF_NAME_MAX];
	unsigned nr;
	struct contestant *contestants[MAX_CONTESTANTS];
};

static struct row rows[MAX_ROWS];
static unsigned nr_rows;
static struct perf_bound bounds[MAX_BOUNDS];
static unsigned nr_bounds;
static struct perf_columns columns[MAX_COLUMNS];
static unsigned nr_columns;

/* -- collecting -- */

void perf_count(struct perf_sample *sample, const char *name, double value)
{
	if (sample->nr_counters == PERF_COUNTERS_MAX)
		return;
	sample->counters[sample->nr_counters].name = name;
	sample->counters[sample->nr_counters].value = value;
	sample->nr_counters++;
}

void perf_bound_add(const struct perf_bound *bound)
{
	if (nr_bounds < MAX_BOUNDS)
		bounds[nr_bounds++] = *bound;
}

void perf_columns_add(const struct perf_columns *c)
{
	if (nr_columns < MAX_COLUMNS)
		columns[nr_columns++] = *c;
}

static struct row *row_get(const char *name, size_t len)
{
	unsigned i;

	for (i = 0; i < nr_rows; i++)
		if (strlen(rows[i].name) == len && !memcmp(rows[i].name, name, len))
			return &rows[i];
	if (i == MAX_ROWS || len >= PERF_NAME_MAX)
		return NULL;
	memcpy(rows[i].name, name, len);
	nr_rows++;
	return &rows[i];
}

static struct contestant *find(const struct row *row, const char *name)
{
	for (unsigned i = 0; i < row->nr; i++)
		if (!strcmp(row->contestants[i]->name, name))
			return row->contestants[i];
	return NULL;
}

void perf_report_add(const char *name, const char *skipped, const struct perf_sample *sample)
{
	const char *slash = strrchr(name, '/');
	struct row *row = slash ? row_get(name, (size_t)(slash - name)) : NULL;
	struct contestant *c;

	if (!row)
		return;
	c = find(row, slash + 1);
	if (!c) {
		if (row->nr == MAX_CONTESTANTS)
			return;
		c = calloc(1, sizeof(*c));
		if (!c)
			return;
		snprintf(c->name, sizeof(c->name), "%s", slash + 1);
		row->contestants[row->nr++] = c;
	}
	if (skipped)
		snprintf(c->skipped, sizeof(c->skipped), "%s", skipped);
	else if (c->nr < MAX_SAMPLES)
		c->samples[c->nr++] = *sample;
}

void perf_report_forget(const char *row)
{
	for (unsigned i = 0; i < nr_rows; i++)
		if (!strcmp(rows[i].name, row))
			for (unsigned j = 0; j < rows[i].nr; j++)
				rows[i].contestants[j]->nr = 0;
}

/* -- statistics -- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Quantile of values[], which it sorts; -1 without any. */
static double quantile(double *values, unsigned n, double q)
{
	double at = q * (double)(n - 1);
	unsigned i = (unsigned)at;

	if (!n)
		return -1;
	qsort(values, n, sizeof(*values), by_value);
	if (i + 1 >= n)
		return values[n - 1];
	return values[i] + (values[i + 1] - values[i]) * (at - i);
}

static double value_of(const struct perf_sample *s, const char *counter)
{
	for (unsigned i = 0; i < s->nr_counters; i++)
		if (!strcmp(s->counters[i].name, counter))
			return s->counters[i].value;
	return -1;
}

static double median_of(const struct contestant *c, const char *counter, double *ret_spread)
{
	double values[MAX_SAMPLES], median, low, high;
	unsigned n = 0;

	for (unsigned i = 0; i < c->nr; i++) {
		values[n] = value_of(&c->samples[i], counter);
		if (values[n] >= 0)
			n++;
	}
	median = quantile(values, n, 0.5);
	low = quantile(values, n, 0.25);
	high = quantile(values, n, 0.75);
	if (ret_spread)
		*ret_spread = median > 0 ? (high - low) / median : 0;
	return median;
}

/* The base's value in round i; "best:A,B" is the best of several. */
static double base_value(const struct row *row, const char *base, const char *counter, unsigned i)
{
	const char *suffix = strrchr(counter, '_');
	bool lower_is_better = suffix && !strcmp(suffix, "_us");
	char list[128], *save = NULL;
	double best = -1;

	snprintf(list, sizeof(list), "%s", strncmp(base, "best:", 5) ? base : base + 5);
	for (char *name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		struct contestant *c = find(row, name);

		if (c && i < c->nr) {
			double v = value_of(&c->samples[i], counter);

			if (best < 0 || (v > best) != lower_is_better)
				best = v;
		}
	}
	return best;
}

/* Median over the rounds of contestant / base; -1: not known. */
static double ratio_of(const struct row *row, const struct contestant *c, const char *base,
	const char *counter)
{
	double values[MAX_SAMPLES];
	unsigned n = 0;

	for (unsigned i = 0; i < c->nr; i++) {
		double b = base_value(row, base, counter, i);

		if (b > 0)
			values[n++] = value_of(&c->samples[i], counter) / b;
	}
	return quantile(values, n, 0.5);
}

static const struct perf_columns *columns_of(const struct row *row)
{
	static const char *const plain[] = {"ns", NULL};
	static const struct perf_ratio none[] = {{0}};
	static const struct perf_columns fallback = {"", plain, none};

	for (unsigned i = 0; i < nr_columns; i++) {
		size_t n = strlen(columns[i].suite);

		if (!strncmp(row->name, columns[i].suite, n) && row->name[n] == '/')
			return &columns[i];
	}
	return &fallback;
}

/* -- printing -- */

static void format_value(char *buf, size_t len, double v)
{
	if (v < 0)
		snprintf(buf, len, "-");
	else if (v >= 10000)
		snprintf(buf, len, "%.1fk", v / 1000);
	else if (v >= 100)
		snprintf(buf, len, "%.0f", v);
	else
		snprintf(buf, len, "%.2f", v);
}

static void print_row(FILE *f, const struct row *row, bool markdown)
{
	const struct perf_columns *cols = columns_of(row);
	const char *cell = markdown ? " | " : "  ";
	const struct perf_ratio *ratio;
	const char *const *k;
	char text[32];
	unsigned n = 2;

	fprintf(f, markdown ? "\n### %s\n\n" : "\n%s\n", row->name);
	fprintf(f, "%s%-16s", markdown ? "| " : "  ", "");
	for (k = cols->counters; *k; k++, n++)
		fprintf(f, "%s%9s", cell, *k);
	fprintf(f, "%s%7s", cell, "spread");
	for (ratio = cols->ratios; ratio->head; ratio++, n++)
		fprintf(f, "%s%10s", cell, ratio->head);
	fputs(markdown ? " |\n|---" : "\n", f);
	for (unsigned i = 1; markdown && i < n; i++)
		fputs("|---:", f);
	fputs(markdown ? "|\n" : "", f);
	for (unsigned i = 0; i < row->nr; i++) {
		const struct contestant *c = row->contestants[i];
		double spread = 0;

		fprintf(f, "%s%-16s", markdown ? "| " : "  ", c->name);
		if (!c->nr) {
			fprintf(f, "%snot measured: %s%s\n", cell, c->skipped,
				markdown ? " |" : "");
			continue;
		}
		for (k = cols->counters; *k; k++) {
			format_value(text, sizeof(text),
				median_of(c, *k, k == cols->counters ? &spread : NULL));
			fprintf(f, "%s%9s", cell, text);
		}
		fprintf(f, "%s%6.0f%%", cell, spread * 100);
		for (ratio = cols->ratios; ratio->head; ratio++) {
			format_value(text, sizeof(text),
				ratio_of(row, c, ratio->base, ratio->counter));
			fprintf(f, "%s%10s", cell, text);
		}
		fputs(markdown ? " |\n" : "\n", f);
	}
}

void perf_report_print(void)
{
	for (unsigned i = 0; i < nr_rows; i++)
		print_row(stdout, &rows[i], false);
	fflush(stdout);
}

static json_t *conditions(void)
{
	const char *commit = getenv("PERF_COMMIT"), *note = getenv("PERF_CONDITIONS");
	struct utsname u;
	char date[32], cpu[128] = "unknown", line[256];
	time_t now = time(NULL);
	FILE *f = fopen("/proc/cpuinfo", "re");

	uname(&u);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "model name : %127[^\n]", cpu) == 1)
			break;
	if (f)
		fclose(f);
	return json_pack("{ss ss ss ss si ss si sf sb}", "date", date, "commit",
		commit ? commit : "unknown", "kernel", u.release, "cpu", cpu, "cpus",
		(int)sysconf(_SC_NPROCESSORS_ONLN), "conditions", note ? note : "", "rounds",
		(int)perf_options.rounds, "slice_ms", (double)perf_options.slice_ns / 1e6, "quick",
		(int)perf_options.quick);
}

static json_t *contestant_json(const struct row *row, const struct contestant *c)
{
	const struct perf_columns *cols = columns_of(row);
	json_t *o = json_object();

	if (!c->nr) {
		json_object_set_new(o, "not_measured", json_string(c->skipped));
		return o;
	}
	for (unsigned k = 0; k < c->samples[0].nr_counters; k++) {
		const char *name = c->samples[0].counters[k].name;
		double spread, median = median_of(c, name, &spread);
		json_t *value = json_pack("{sf sf}", "median", median, "iqr_share", spread);

		if (!strcmp(name, cols->counters[0])) {
			json_t *all = json_array();

			for (unsigned i = 0; i < c->nr; i++)
				json_array_append_new(all,
					json_real(value_of(&c->samples[i], name)));
			json_object_set_new(value, "rounds", all);
		}
		json_object_set_new(o, name, value);
	}
	for (const struct perf_ratio *ratio = cols->ratios; ratio->head; ratio++) {
		char name[64];

		snprintf(name, sizeof(name), "%s of %s", ratio->counter, ratio->base);
		json_object_set_new(o, name,
			json_real(ratio_of(row, c, ratio->base, ratio->counter)));
	}
	return o;
}

/* A line for each row: what a person can still read, and diff. */
static int dump_lines(const json_t *root, const char *path)
{
	const size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(5) | JSON_ENCODE_ANY;
	const json_t *all = json_object_get(root, "rows");
	const char *name, *separator = "\n";
	FILE *f = fopen(path, "we");
	const json_t *row;
	void *at;

	if (!f)
		return -errno;
	fputs("{\"run\":", f);
	json_dumpf(json_object_get(root, "run"), f, flags);
	fputs(",\n\"rows\":{", f);
	for (at = json_object_iter((json_t *)all); at;
		at = json_object_iter_next((json_t *)all, at)) {
		name = json_object_iter_key(at);
		row = json_object_iter_value(at);
		fprintf(f, "%s\"%s\":", separator, name);
		json_dumpf(row, f, flags);
		separator = ",\n";
	}
	fputs("}}\n", f);
	return fclose(f) == 0 ? 0 : -EIO;
}

int perf_report_json(const char *path)
{
	json_t *root = json_pack("{so}", "run", conditions()), *all = json_object();
	int r;

	for (unsigned i = 0; i < nr_rows; i++) {
		json_t *row = json_object();

		for (unsigned j = 0; j < rows[i].nr; j++)
			json_object_set_new(row, rows[i].contestants[j]->name,
				contestant_json(&rows[i], rows[i].contestants[j]));
		json_object_set_new(all, rows[i].name, row);
	}
	json_object_set_new(root, "rows", all);
	r = dump_lines(root, path);
	json_decref(root);
	return r;
}

int perf_report_markdown(const char *path)
{
	json_t *run = conditions(), *value;
	FILE *f = fopen(path, "we");
	const char *key;

	if (!f) {
		json_decref(run);
		return -errno;
	}
	fputs("Medians over the rounds; spread is the interquartile range of the first column;\n"
	      "ratios are medians of the ratios within a round. CPU times are a process's own, an "
	      "operation.\n\n",
		f);
	json_object_foreach(run, key, value) {
		char *text = json_dumps(value, JSON_ENCODE_ANY);

		fprintf(f, "- %s: %s\n", key, text ? text : "?");
		free(text);
	}
	json_decref(run);
	for (unsigned i = 0; i < nr_rows; i++)
		print_row(f, &rows[i], true);
	return fclose(f) == 0 ? 0 : -EIO;
}

/* -- bounds -- */

static bool check_one(const struct row *row, const struct perf_bound *b)
{
	struct contestant *c = find(row, b->contestant);
	double ratio = c ? ratio_of(row, c, b->base, b->counter) : -1;
	bool held =
		ratio >= 0 && (!b->least || ratio >= b->least) && (!b->most || ratio <= b->most);

	printf("%s %s: %s %s of %s is %.2f, bound %s %.2f (%s)\n", held ? "held  " : "MISSED",
		row->name, b->contestant, b->counter, b->base, ratio,
		b->least ? "at least" : "at most", b->least ? b->least : b->most,
		c && !c->nr ? c->skipped : b->promise);
	return held;
}

unsigned perf_report_check(char *filter, size_t len)
{
	unsigned missed = 0;
	size_t used = 0;

	filter[0] = 0;
	for (unsigned i = 0; i < nr_rows; i++) {
		bool held = true;

		for (unsigned j = 0; j < nr_bounds; j++)
			if (!fnmatch(bounds[j].rows, rows[i].name, 0))
				held &= check_one(&rows[i], &bounds[j]);
		if (held)
			continue;
		missed++;
		used += (size_t)snprintf(filter + used, used < len ? len - used : 0, "%s^%s/",
			used ? "|" : "", rows[i].name);
		if (used >= len) {
			filter[len - 1] = 0;
			return missed;
		}
		perf_report_forget(rows[i].name);
	}
	fflush(stdout);
	return missed;
}
