/* SPDX-License-Identifier: MIT */
/*
 * weft-perf: runs the suites in interleaved rounds and reports.
 */
#include <errno.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "perf/harness/perf.h"
#include "perf/harness/process.h"
#include "perf/suites/suites.h"

enum { RETRIES = 3, FILTER_MAX = 4096 };

static void finish(void)
{
	perf_stop_all();
	perf_dirs_fini();
}

static void on_signal(int sig)
{
	/* The children get their SIGTERM from the kernel when we are gone. */
	_exit(128 + sig);
}

static void usage(FILE *f)
{
	fputs("Usage: weft-perf [OPTION]... [REGEX]\n"
	      "Measures the cases whose name matches REGEX (all), in interleaved rounds.\n\n"
	      "  --list           name the cases\n"
	      "  --rounds N       rounds (9)\n"
	      "  --slice-ms N     time for each case in a round (100)\n"
	      "  --quick          few cases and short slices, checked against bounds; exits with "
	      "1\n"
	      "                   if one is missed in each of four tries\n"
	      "  --json FILE      all figures\n"
	      "  --markdown FILE  the tables\n"
	      "  --benchmark_...  Google Benchmark's own (--benchmark_out holds the last case "
	      "only)\n",
		f);
}

/* How many cases from `first` on belong to its row. */
static unsigned row_len(const unsigned *cases, unsigned first, unsigned nr)
{
	const char *name = perf_table.cases[cases[first]].name;
	size_t len = (size_t)(strrchr(name, '/') - name) + 1;
	unsigned n = 1;

	while (first + n < nr && !strncmp(perf_table.cases[cases[first + n]].name, name, len))
		n++;
	return n;
}

/* n rounds of what matches. */
static int measure(const char *filter, unsigned n)
{
	WEFT_CLEANUP_FREE unsigned *cases = calloc(perf_table.nr, sizeof(*cases));
	bool progress = isatty(STDERR_FILENO);
	unsigned nr = 0;
	regex_t regex;

	if (!cases || regcomp(&regex, filter, REG_EXTENDED | REG_NOSUB))
		return -EINVAL;
	for (unsigned i = 0; i < perf_table.nr; i++)
		if (!regexec(&regex, perf_table.cases[i].name, 0, NULL, 0))
			cases[nr++] = i;
	regfree(&regex);
	if (!nr)
		return -ENOENT;
	for (unsigned i = 0; i < n; i++) {
		for (unsigned row = 0, len; row < nr; row += len) {
			if (progress)
				fprintf(stderr, "\rround %u of %u, case %u of %u ", i + 1, n,
					row + 1, nr);
			len = row_len(cases, row, nr);
			for (unsigned k = 0; k < len; k++)
				perf_shim_run(cases[row + (i + k) % len], perf_report_add);
		}
	}
	if (progress)
		fputs("\r                                        \r", stderr);
	return 0;
}

static int check_bounds(void)
{
	char filter[FILTER_MAX];
	unsigned missed = 0;

	for (int tries = 0; tries <= RETRIES; tries++) {
		printf("\n");
		missed = perf_report_check(filter, sizeof(filter));
		if (!missed || tries == RETRIES)
			break;
		printf("%u row(s) under a bound: measured again\n", missed);
		measure(filter, perf_options.rounds);
	}
	return missed ? 1 : 0;
}

int main(int argc, char **argv)
{
	const char *filter = ".", *json = NULL, *markdown = NULL;
	bool list = false;
	int r = 0, out = 1;

	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(a, "--help")) {
			usage(stdout);
			return 0;
		} else if (!strcmp(a, "--list")) {
			list = true;
		} else if (!strcmp(a, "--quick")) {
			perf_options.quick = true;
			perf_options.rounds = 7;
			perf_options.slice_ns = 40000000;
		} else if (!strcmp(a, "--rounds") && v) {
			perf_options.rounds = (unsigned)atoi(v);
			i++;
		} else if (!strcmp(a, "--slice-ms") && v) {
			perf_options.slice_ns = (uint64_t)atoi(v) * 1000000u;
			i++;
		} else if (!strcmp(a, "--json") && v) {
			json = v;
			i++;
		} else if (!strcmp(a, "--markdown") && v) {
			markdown = v;
			i++;
		} else if (!strncmp(a, "--benchmark_", 12)) {
			argv[out++] = argv[i];
		} else if (a[0] != '-') {
			filter = a;
		} else {
			fprintf(stderr, "weft-perf: unknown option or missing value: %s\n", a);
			usage(stderr);
			return 2;
		}
	}
	argv[out] = NULL;
	argc = out;
	if (perf_options.rounds < 1 || perf_options.rounds > 256 ||
		perf_options.slice_ns < 1000000) {
		fputs("weft-perf: --rounds takes 1 to 256, --slice-ms at least 1\n", stderr);
		return 2;
	}
	suite_nbd_servers();
	suite_bridge();
	suite_socket_ways();
	suite_verbs();
	suite_tls();
	if (list) {
		for (unsigned i = 0; i < perf_table.nr; i++)
			puts(perf_table.cases[i].name);
		return 0;
	}
	if (perf_dirs_init() < 0) {
		perror("weft-perf");
		return 1;
	}
	setenv("WEFT_RUN_DIR", perf_tmpdir(), 1);
	atexit(finish);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGPIPE, SIG_IGN);
	perf_shim_init(&argc, argv);
	if (measure(filter, perf_options.rounds) < 0) {
		fprintf(stderr,
			"weft-perf: '%s' matches no case, or is no regular expression; see "
			"weft-perf --list\n",
			filter);
		return 2;
	}
	perf_report_print();
	if (json && perf_report_json(json) < 0)
		r = fprintf(stderr, "weft-perf: cannot write %s\n", json);
	if (markdown && perf_report_markdown(markdown) < 0)
		r = fprintf(stderr, "weft-perf: cannot write %s\n", markdown);
	if (r)
		return 1;
	return perf_options.quick ? check_bounds() : 0;
}
