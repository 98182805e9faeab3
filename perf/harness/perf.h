/* SPDX-License-Identifier: MIT */
/*
 * The harness: a C API over Google Benchmark.  A suite is a C file that adds cases to a table;
 * a case is named ROW/CONTESTANT, and the contestants of a row are compared with each other.
 *
 * One round runs every case once, and the contestants of a row right after one another, each round
 * beginning with another of them (A, B, C, …, B, C, A, …): on a machine that others use too the
 * scheduler lets the first one of a row have more than its share.  Figures are medians over the
 * rounds, ratios are medians of the ratios within a round.
 *
 * One thread, but for what a case starts itself.
 */
#ifndef PERF_HARNESS_PERF_H
#define PERF_HARNESS_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PERF_NAME_MAX = 128, PERF_COUNTERS_MAX = 16 };

/* What one run of a case measured. */
struct perf_sample {
	/* the time that counts; a suite may leave out what is not its subject */
	uint64_t elapsed_ns;
	unsigned nr_counters;
	struct {
		const char *name; /* static */
		double value;
	} counters[PERF_COUNTERS_MAX];
};

void perf_count(struct perf_sample *sample, const char *name, double value);

struct perf_case {
	char name[PERF_NAME_MAX]; /* SUITE/…/CONTESTANT, without the letters that a regex minds */
	const void *arg;          /* the suite's; lives as long as the program */
	/*
	 * Before each run, not timed.  0 with *ret_state, or -errno: the case is skipped, why (256
	 * bytes) says why.
	 */
	int (*setup)(const void *arg, void **ret_state, char *why);
	/*
	 * One timed run of about `iterations` units (slice == 0), or of about slice_ns nanoseconds
	 * (then iterations is 1).  0, or -errno with why.
	 */
	int (*run)(void *state, uint64_t iterations, uint64_t slice_ns, struct perf_sample *ret,
		char *why);
	/* After each run whose setup succeeded, not timed. */
	void (*teardown)(void *state);
	bool sliced; /* runs for a slice of time rather than for a number of iterations */
};

/* Copies the case into the table. */
void perf_add(const struct perf_case *c);

/*
 * A bound that a quick run checks: in every row that matches the glob `rows`, the median of
 * counter(contestant) / counter(base) is at least `least` (or at most `most`; 0: no bound).  Rows
 * that miss one are run again, up to three times.  base "best:A,B": the better of these in a round
 * (the lower one for counters that end in _us).
 */
struct perf_bound {
	const char *rows;
	const char *contestant, *base, *counter;
	double least, most;
	const char *promise; /* what is promised, and the slack that noise gets */
};
void perf_bound_add(const struct perf_bound *bound); /* copies the struct, not the strings */

/* Which counters and ratios a suite's table shows.  The spread is the first counter's. */
struct perf_ratio {
	const char *head, *counter, *base; /* head NULL: the last */
};
struct perf_columns {
	const char *suite;
	const char *const *counters; /* NULL-terminated */
	const struct perf_ratio *ratios;
};
void perf_columns_add(const struct perf_columns *columns);

/* Options that suites may look at. */
struct perf_options {
	unsigned rounds;
	uint64_t slice_ns;
	bool quick;
};
extern struct perf_options perf_options;

/* A directory of this run's own, removed at the end; for sockets and logs. */
const char *perf_tmpdir(void);
/* The directory of the running program: build/<preset>/bin. */
const char *perf_bindir(void);

/* Makes the first and finds the second.  0, or -errno, which errno says too. */
int perf_dirs_init(void);
/* Removes the first, unless PERF_KEEP is in the environment. */
void perf_dirs_fini(void);

/*
 * Where servers run that are reached over TCP: the far end of the line that this program runs on
 * (weft line), or here.  Its network namespace, which the caller closes, or -1: here; its IPv4
 * address.
 */
int perf_far_ns(void);
const char *perf_far_ip(void);

/* CPU time of the calling process, of all its threads. */
uint64_t perf_own_cpu_ns(void);

/* Private to the harness: shim.cc and report.c. */
struct perf_table {
	struct perf_case *cases;
	unsigned nr, capacity;
};
extern struct perf_table perf_table;

int perf_shim_init(int *argc, char **argv);
/* Runs a case of the table once, under Google Benchmark.  How many ran: 1. */
int perf_shim_run(unsigned index,
	void (*fn)(const char *name, const char *skipped, const struct perf_sample *sample));

void perf_report_add(const char *name, const char *skipped, const struct perf_sample *sample);
/* Forgets the samples of a row. */
void perf_report_forget(const char *row);
void perf_report_print(void);
/* 0, or -errno. */
int perf_report_json(const char *path);
int perf_report_markdown(const char *path);
/*
 * Checks the bounds; prints each.  Returns how many rows miss one, and in filter a regex of
 * just these rows (empty: none).
 */
unsigned perf_report_check(char *filter, size_t len);

#ifdef __cplusplus
}
#endif
#endif
