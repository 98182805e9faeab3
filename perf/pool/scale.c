/* SPDX-License-Identifier: MIT */
/*
 * A pool of many donors and leases, without a network: the coordinator's own code, with donors that
 * are played.  How much processor time it takes to place a lease, to hear a report and to start
 * again, how large the state and the process are, at a tenth of the leases, two tenths, and so on;
 * as a table.
 *
 *     pool-scale DIRECTORY [DONORS [LEASES [ETCD]]]
 *
 * With the URL of an etcd the state is there, and the time that it takes is none of this process.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/pool/pool.h"
#include "fabric/pool/shared.h"

enum { STEPS = 10 };

static const struct pool_caller admin = {.name = "root", .admin = true};

static struct scale {
	char path[300];
	struct pool_shared *shared; /* NULL: a file */
	struct pool *pool;
	unsigned donors, leases;
	json_t **has; /* of each donor, what it reports */
	uint64_t *times_ns;
	unsigned nr_times;
} s;

static void check(int r, const struct weft_error *err)
{
	if (r == 0)
		return;
	fprintf(stderr, "pool-scale: %s\n", err->message);
	exit(1);
}

/* Processor time: what else the machine does is no matter. */
static uint64_t spent_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The time on the clock where another process has the state. */
static uint64_t passed_ns(void)
{
	return s.shared ? weft_now_ns() : spent_ns();
}

/* Time that passes as if nothing took any: no donor is silent since others are slow. */
static void now(void)
{
	static uint64_t at_ns = UINT64_C(1000000000), kept_ns;

	/* To lead takes a sign of life each second, whatever is under way. */
	if (s.shared && weft_now_ns() - kept_ns > UINT64_C(1000000000)) {
		kept_ns = weft_now_ns();
		pool_shared_keep(s.shared);
	}
	at_ns += 1000;
	pool_at(s.pool, at_ns, (int64_t)time(NULL));
}

/* A donor that does at once what it is told. */
static void report(unsigned i)
{
	char name[32];
	json_t *answer = NULL, *one;
	struct weft_error err;
	size_t j;

	snprintf(name, sizeof(name), "node%05u", i);
	json_t *body = json_pack("{s:o, s:s, s:i, s:I, s:O, s:[], s:[]}", "uri",
		json_sprintf("weft://%s", name), "rack", (const char *)(i % 2 ? "odd" : "even"),
		"since", 1, "lent_bytes", (json_int_t)(256 * WEFT_GIB), "regions", s.has[i],
		"refused", "stays");
	now();
	check(pool_report(s.pool, &admin, name, body, &answer, &err), &err);
	json_array_foreach(json_object_get(answer, "make"), j, one) {
		json_t *region = json_copy(one);

		json_object_set_new(region, "epoch", json_string("0000000000000001"));
		json_object_set_new(region, "used", json_true());
		json_array_append_new(s.has[i], region);
	}
	json_decref(body);
	json_decref(answer);
}

static void all_report(void)
{
	for (unsigned i = 0; i < s.donors; i++)
		report(i);
}

static void alloc(unsigned i)
{
	char name[32];
	json_t *wish = json_pack("{s:I, s:s}", "size_bytes",
		(json_int_t)(WEFT_GIB * (1 + (uint64_t)random() % 4) / 2), "spread", "rack");
	json_t *ret = NULL;
	struct weft_error err;

	snprintf(name, sizeof(name), "lease%06u", i);
	now();
	const uint64_t begin = passed_ns();
	check(pool_alloc(s.pool, &admin, name, wish, &ret, &err), &err);
	s.times_ns[s.nr_times++] = passed_ns() - begin;
	json_decref(wish);
	json_decref(ret);
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double ms_at(double share)
{
	return (double)s.times_ns[(size_t)(share * (s.nr_times - 1))] / 1e6;
}

static double rss_mib(void)
{
	long pages = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%ld %ld", &pages, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return (double)resident * (double)weft_page_bytes() / (double)WEFT_MIB;
}

static void start(void)
{
	struct weft_error err;

	if (!s.shared) {
		check(pool_open(s.path, &s.pool, &err), &err);
		return;
	}
	check(pool_shared_lead(s.shared, &err), &err);
	check(pool_open_shared(s.shared, &s.pool, &err), &err);
}

static double start_again(void)
{
	const uint64_t begin = passed_ns();

	pool_close(s.pool);
	if (s.shared)
		pool_shared_resign(s.shared);
	start();
	/* It is there again once it has heard of every donor. */
	all_report();
	return (double)(passed_ns() - begin) / 1e9;
}

static void row(unsigned leases)
{
	struct stat st = {0};
	json_t *unused = NULL;

	qsort(s.times_ns, s.nr_times, sizeof(*s.times_ns), compare);
	const double p50 = ms_at(.5), p99 = ms_at(.99), most = ms_at(1);
	uint64_t begin = spent_ns();
	all_report();
	const double reports = (double)(spent_ns() - begin) / 1e6 / s.donors;
	begin = spent_ns();
	pool_status(s.pool, &admin, &unused, NULL);
	const double status = (double)(spent_ns() - begin) / 1e6;
	json_decref(unused);
	const double again = start_again();
	stat(s.path, &st);
	printf("| %u | %.2f | %.2f | %.2f | %.2f | %.1f | %.1f | %.1f | %.2f |\n", leases, p50, p99,
		most, reports, status, (double)st.st_size / (double)WEFT_MIB, rss_mib(), again);
	fflush(stdout);
	s.nr_times = 0;
}

int main(int argc, char **argv)
{
	struct weft_error err;

	if (argc < 2 || argc > 5) {
		fputs("usage: pool-scale DIRECTORY [DONORS [LEASES [ETCD]]]\n", stderr);
		return 2;
	}
	s.donors = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000;
	s.leases = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 100000;
	snprintf(s.path, sizeof(s.path), "%s/pool-scale.db", argv[1]);
	s.has = calloc(s.donors, sizeof(json_t *));
	s.times_ns = calloc(s.leases, sizeof(*s.times_ns));
	if (access(s.path, F_OK) == 0 || !s.has || !s.times_ns) {
		fprintf(stderr, "pool-scale: %s is there, or there is no memory\n", s.path);
		return 1;
	}
	const struct pool_shared_config config = {
		.endpoints = argc > 4 ? argv[4] : NULL,
		.prefix = "/pool-scale",
		.name = "pool-scale",
	};
	if (config.endpoints)
		check(pool_shared_new(&config, &s.shared, &err), &err);
	srandom(1);
	start();
	for (unsigned i = 0; i < s.donors; i++)
		s.has[i] = json_array();
	all_report();
	printf("%u donors; %s in ms unless said\n\n"
	       "| leases | placed p50 | p99 | most | a report | status | state MiB | memory MiB "
	       "(with all donors') | started again s |\n|-|-|-|-|-|-|-|-|-|\n",
		s.donors, s.shared ? "time" : "processor time");
	for (unsigned i = 0, step = 1; step <= STEPS; step++) {
		for (; i < (unsigned)((uint64_t)s.leases * step / STEPS); i++) {
			alloc(i);
			/* Donors report each second, not only when all is placed. */
			if (i % 100 == 99)
				report((unsigned)random() % s.donors);
		}
		all_report();
		row(i);
	}
	pool_close(s.pool);
	pool_shared_free(s.shared);
	return 0;
}
