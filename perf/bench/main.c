/* SPDX-License-Identifier: MIT */
/* weft bench: what each path to a region is worth.  One thread. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"
#include "perf/bench/bench.h"
#include "perf/methods/methods.h"

static void on_signal(int sig)
{
	bench_stop = 1;
}

static void watch_signals(void)
{
	/* the second time it is meant */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void print_json(const json_t *json, FILE *out)
{
	json_dumpf(json, out, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	fputc('\n', out);
}

static int into_file(const json_t *run, const char *path,
	void (*print)(const json_t *run, FILE *out))
{
	FILE *f = path ? fopen(path, "we") : NULL;

	if (!path)
		return 0;
	if (f)
		print(run, f);
	if (!f || fflush(f) != 0 || fclose(f) != 0) {
		fprintf(stderr, "weft-bench: cannot write %s: %s\n", path, strerror(errno));
		return 1;
	}
	return 0;
}

/* A run's reports: of paths, or of methods. */
struct reports {
	void (*text)(const json_t *run, FILE *out);
	void (*csv)(const json_t *run, FILE *out);
	void (*html)(const json_t *run, FILE *out);
};

static const struct reports of_paths = {bench_print_table, bench_print_csv, bench_print_html},
			    of_methods = {methods_print_markdown, methods_print_csv,
				    methods_print_html};

/* All of them, in a directory. */
static int into_directory(const json_t *run, const char *dir, const struct reports *r)
{
	char path[PATH_MAX];
	const struct {
		const char *name;
		void (*print)(const json_t *run, FILE *out);
	} files[] = {{"report.json", print_json}, {"report.md", r->text}, {"report.csv", r->csv},
		{"report.html", r->html}};
	int status = 0;

	if (!dir)
		return 0;
	if (mkdir(dir, 0777) < 0 && errno != EEXIST) {
		fprintf(stderr, "weft-bench: cannot make %s: %s\n", dir, strerror(errno));
		return 1;
	}
	for (size_t i = 0; i < WEFT_ARRAY_LEN(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i].name);
		status |= into_file(run, path, files[i].print);
	}
	return status;
}

static int show(const struct bench_options *o, const json_t *run)
{
	const struct reports *r = methods_is_run(run) ? &of_methods : &of_paths;
	int status = into_file(run, o->json_file, print_json) |
		into_file(run, o->csv_file, r->csv) | into_file(run, o->html_file, r->html) |
		into_directory(run, o->out, r);

	if (o->json)
		print_json(run, stdout);
	else if (o->csv)
		r->csv(run, stdout);
	else
		r->text(run, stdout);
	return status;
}

static int compare_methods(const struct bench_options *o, const json_t *a, const json_t *b)
{
	const char *why = methods_is_run(a) != methods_is_run(b)
		? "only one of the two is a run of --methods"
		: o->json || o->json_file ? "methods are compared as a table"
					  : NULL;

	if (why)
		fprintf(stderr, "weft-bench: %s\n", why);
	else
		methods_print_comparison(a, b, stdout);
	return why != NULL;
}

static int compare(const struct bench_options *o)
{
	struct weft_error err;
	unsigned worse;
	json_t *a = bench_load_run(o->compare_a, &err),
	       *b = a ? bench_load_run(o->compare_b, &err) : NULL;

	if (!a || !b) {
		fprintf(stderr, "weft-bench: %s\n", err.message);
		json_decref(a);
		return 1;
	}
	if (methods_is_run(a) || methods_is_run(b)) {
		int status = compare_methods(o, a, b);

		json_decref(a);
		json_decref(b);
		return status;
	}
	json_t *comparison = bench_compare(a, b, &worse);
	json_decref(a);
	json_decref(b);
	if (o->json_file && into_file(comparison, o->json_file, print_json) != 0)
		worse = 1;
	if (o->json)
		print_json(comparison, stdout);
	else
		bench_print_comparison(comparison, stdout);
	json_decref(comparison);
	return worse > 0;
}

static int measure_region(struct bench_options *o, json_t **ret, struct weft_error *err)
{
	int r = weft_uri_key(&o->uri, o->key_file, o->allow_insecure, &o->key, err);

	if (r == 0)
		r = bench_run(o, ret, err);
	weft_held_key_close(o->key);
	return r;
}

static int measure_line(struct bench_options *o, json_t **ret, struct weft_error *err)
{
	struct bench_line line;
	int r = bench_line_open(o->line, o->span_bytes, &line, err);

	if (r < 0)
		return r;
	r = weft_uri_parse(line.uri, &o->uri, err);
	o->uri_text = line.uri;
	/* Its donor is ours. */
	o->allow_insecure = true;
	if (r == 0)
		r = bench_run(o, ret, err);
	json_t *figures = bench_line_close(&line);
	if (r == 0)
		json_object_set_new(*ret, "line",
			json_pack("{s:s, s:o?}", "options", o->line, "figures", figures));
	else
		json_decref(figures);
	return r;
}

int main(int argc, char **argv)
{
	static struct bench_options options;
	struct weft_error err = {0};
	json_t *run = NULL;

	weft_process_begin();
	int r = bench_options_parse(argc, argv, &options);
	if (r != WEFT_GO_ON)
		return r;
	weft_log_init("weft-bench", WEFT_LOG_WARNING);
	if (options.compare_a)
		return weft_end_output("weft-bench", compare(&options));
	if (options.from) {
		run = bench_load_run(options.from, &err);
		r = run ? 0 : -err.code;
	} else {
		watch_signals();
		r = options.methods ? methods_run(&options, &run, &err)
			: options.line      ? measure_line(&options, &run, &err)
					    : measure_region(&options, &run, &err);
	}
	if (r < 0) {
		fprintf(stderr, "weft-bench: %s\n", err.message);
		return r == -EINTR ? 130 : 1;
	}
	r = show(&options, run);
	json_decref(run);
	return weft_end_output("weft-bench", r);
}
