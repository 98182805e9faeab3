/* SPDX-License-Identifier: MIT */
/*
 * How much more a cluster does with a pool: the jobs of a trace, on nodes of several sizes of
 * memory, once without a pool and once with one.  Donors are played; where leases go is decided by
 * the coordinator's own code (fabric/pool/placement.c).  As a table.
 *
 *     pool-simulate [--nodes N] [--processors N] [--slowdown SHARE] [--jobs N] [TRACE.swf]
 *
 * A trace is in the Standard Workload Format.  Without one it is made up: jobs come faster than the
 * cluster can do them, and most need little memory.
 *
 * Without a pool a job that needs more memory than its nodes have gets more nodes, whose processors
 * are idle.  With one it gets the nodes that its processes need, and leases the rest from what the
 * others, busy or not, have left of theirs; it then runs longer, by --slowdown of the share of its
 * memory that is remote.  Nodes are a job's alone.  Jobs begin in the order in which they came, and
 * of the next LOOK_AHEAD each that fits.
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/pool/placement.h"

enum {
	LOOK_AHEAD = 100,
	LEASE_GIB = 16, /* what is remote comes in so many leases */
	SECONDS_BETWEEN = 20,
};
#define RESERVE_GIB 4.0
#define GIB ((double)WEFT_GIB)

struct job {
	double comes_s, runs_s, gib;
	unsigned processors;
	/* While it runs. */
	double ends_s;
	unsigned *nodes, nr_nodes, *donors, nr_donors;
	uint64_t lease_bytes;
};

static struct {
	unsigned nr_nodes, processors, nr_made;
	double slowdown;
	struct job *jobs;
	size_t nr_jobs, room;
} input = {.nr_nodes = 256, .processors = 32, .nr_made = 5000, .slowdown = 0.5};

static struct {
	bool pool;
	double node_gib, now_s, total_gib, taken_gib; /* taken: by jobs that run */
	struct pool_place *nodes;                     /* lent: what its own job leaves of it */
	bool *busy;
	unsigned nr_idle;
	struct job **waits, **runs;
	size_t nr_wait, nr_run;
	/* What comes of it. */
	size_t nr_done, nr_never;
	double waited_s, work_s, remote_gib_s, gib_s;
} now;

static void *array(size_t nr, size_t size)
{
	void *ret = calloc(nr ? nr : 1, size);

	if (!ret)
		abort();
	return ret;
}

/* ---- the trace ---- */

static void add_job(double comes_s, double runs_s, unsigned processors, double gib)
{
	if (input.nr_jobs == input.room) {
		input.room = input.room ? 2 * input.room : 1024;
		input.jobs = reallocarray(input.jobs, input.room, sizeof(*input.jobs));
		if (!input.jobs)
			abort();
	}
	input.jobs[input.nr_jobs++] = (struct job){.comes_s = comes_s,
		.runs_s = runs_s,
		.processors = processors,
		.gib = gib};
}

/*
 * The fields that matter: 2 submitted, 4 ran, 5 processors, 7 memory of a processor in KiB; 8 and
 * 10 say what was asked for, where it is not known what was used.
 */
static void read_line(char *line)
{
	double field[11] = {0};
	int n = 1;

	for (char *at = line, *end; n < 11; at = end, n++) {
		field[n] = strtod(at, &end);
		if (end == at)
			return;
	}
	const double processors = field[5] > 0 ? field[5] : field[8];
	const double kib = field[7] > 0 ? field[7] : field[10];
	if (field[4] > 0 && processors > 0)
		add_job(field[2], field[4], (unsigned)processors,
			kib > 0 ? kib * 1024 * processors / GIB : 0);
}

static int by_arrival(const void *a, const void *b)
{
	const struct job *x = a, *y = b;

	return (x->comes_s > y->comes_s) - (x->comes_s < y->comes_s);
}

static int read_trace(const char *path)
{
	char line[1024];
	FILE *f = fopen(path, "re");

	if (!f) {
		perror(path);
		return -1;
	}
	while (fgets(line, sizeof(line), f))
		if (line[0] != ';')
			read_line(line);
	fclose(f);
	qsort(input.jobs, input.nr_jobs, sizeof(*input.jobs), by_arrival);
	return input.nr_jobs > 0 ? 0 : -1;
}

static double uniform(void)
{
	return ((double)random() + 0.5) / ((double)RAND_MAX + 1);
}

/*
 * Memory of a processor: lognormal, half of them below 1 GiB, one in twenty above 10.  So nodes of
 * 4 GiB a processor are mostly empty, and a few jobs do not fit.
 */
static void make_trace(void)
{
	double at_s = 0;

	srandom(1);
	for (unsigned i = 0; i < input.nr_made; i++) {
		const double normal = sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform());
		const unsigned processors = 1u << (unsigned)(uniform() * 10);

		at_s += -log(uniform()) * SECONDS_BETWEEN;
		add_job(at_s, 60 - log(uniform()) * 3600, processors,
			processors * exp(1.4 * normal));
	}
}

/* ---- one job ---- */

static double usable_gib(void)
{
	return now.node_gib - RESERVE_GIB;
}

static double free_gib(unsigned node)
{
	return usable_gib() - (double)now.nodes[node].used_bytes / GIB;
}

/* What it lends in sum, while a job of its own has so much of it. */
static void lend(unsigned node, double own_gib)
{
	now.nodes[node].lent_bytes = (uint64_t)(fmax(usable_gib() - own_gib, 0) * GIB);
}

static unsigned nodes_wanted(const struct job *job)
{
	const unsigned wanted = (job->processors + input.processors - 1) / input.processors;
	const double filled = ceil(job->gib / usable_gib());

	return now.pool || filled <= wanted ? wanted : (unsigned)filled;
}

static void leave(struct job *job)
{
	for (unsigned i = 0; i < job->nr_donors; i++) {
		now.nodes[job->donors[i]].used_bytes -= job->lease_bytes;
		now.nodes[job->donors[i]].nr_regions--;
	}
	for (unsigned i = 0; i < job->nr_nodes; i++) {
		now.busy[job->nodes[i]] = false;
		now.nr_idle++;
		lend(job->nodes[i], 0);
	}
	free(job->nodes);
	free(job->donors);
	job->nodes = job->donors = NULL;
	job->nr_nodes = job->nr_donors = 0;
}

/* Idle nodes, those that lend least first.  Returns what they have for it, or -1. */
static double take_nodes(struct job *job, unsigned wanted)
{
	double gib = 0;

	job->nodes = array(wanted, sizeof(*job->nodes));
	while (job->nr_nodes < wanted) {
		unsigned best = input.nr_nodes;

		for (unsigned i = 0; i < input.nr_nodes; i++)
			if (!now.busy[i] &&
				(best == input.nr_nodes || free_gib(i) > free_gib(best)))
				best = i;
		if (best == input.nr_nodes)
			return -1;
		now.busy[best] = true;
		now.nr_idle--;
		job->nodes[job->nr_nodes++] = best;
		gib += free_gib(best);
	}
	return gib;
}

static bool lease(struct job *job, double gib)
{
	const unsigned nr = (unsigned)ceil(gib / LEASE_GIB);
	const struct pool_wish wish = {.size_bytes = (uint64_t)(gib / nr * GIB), .copies = 1};

	job->donors = array(nr, sizeof(*job->donors));
	job->lease_bytes = wish.size_bytes;
	while (job->nr_donors < nr) {
		size_t chosen[POOL_COPIES_MAX];

		if (pool_place(now.nodes, input.nr_nodes, &wish, chosen) < 0)
			return false;
		job->donors[job->nr_donors++] = (unsigned)chosen[0];
		now.nodes[chosen[0]].used_bytes += wish.size_bytes;
		now.nodes[chosen[0]].nr_regions++;
	}
	return true;
}

/* That no job has: a bound, which spares many tries. */
static double free_everywhere_gib(void)
{
	return now.total_gib - now.taken_gib;
}

static bool begin(struct job *job)
{
	const unsigned wanted = nodes_wanted(job);

	if (wanted > now.nr_idle || (now.pool && job->gib > free_everywhere_gib()))
		return false;
	const double here = take_nodes(job, wanted);
	const double remote = fmax(job->gib - here, 0);

	if (here < 0 || (remote > 0 && !now.pool)) {
		leave(job);
		return false;
	}
	for (unsigned i = 0; i < job->nr_nodes; i++) {
		const unsigned node = job->nodes[i];

		lend(node, here > 0 ? free_gib(node) * fmin(job->gib / here, 1) : 0);
	}
	if (remote > 0 && !lease(job, remote)) {
		leave(job);
		return false;
	}
	const double share = remote > 0 ? remote / job->gib : 0;
	const double runs_s = job->runs_s * (1 + input.slowdown * share);
	job->ends_s = now.now_s + runs_s;
	now.runs[now.nr_run++] = job;
	now.taken_gib += job->gib;
	now.waited_s += now.now_s - job->comes_s;
	now.work_s += job->runs_s * job->processors;
	now.remote_gib_s += remote * runs_s;
	now.gib_s += job->gib * runs_s;
	return true;
}

/* ---- the cluster ---- */

/* Whether any cluster of this size can run it, when it is empty. */
static bool is_possible(const struct job *job)
{
	return nodes_wanted(job) <= input.nr_nodes && job->gib <= input.nr_nodes * usable_gib();
}

static void begin_those_that_fit(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < now.nr_wait; i++)
		if (i >= LOOK_AHEAD || !begin(now.waits[i]))
			now.waits[kept++] = now.waits[i];
	now.nr_wait = kept;
}

static size_t next_to_end(void)
{
	size_t next = 0;

	for (size_t i = 1; i < now.nr_run; i++)
		if (now.runs[i]->ends_s < now.runs[next]->ends_s)
			next = i;
	return next;
}

static void simulate(double node_gib, bool pool)
{
	char(*names)[16] = array(input.nr_nodes, sizeof(*names));
	size_t coming = 0;

	memset(&now, 0, sizeof(now));
	now.pool = pool;
	now.node_gib = node_gib;
	now.nr_idle = input.nr_nodes;
	now.total_gib = input.nr_nodes * usable_gib();
	now.nodes = array(input.nr_nodes, sizeof(*now.nodes));
	now.busy = array(input.nr_nodes, sizeof(*now.busy));
	now.waits = array(input.nr_jobs, sizeof(struct job *));
	now.runs = array(input.nr_jobs, sizeof(struct job *));
	for (unsigned i = 0; i < input.nr_nodes; i++) {
		snprintf(names[i], sizeof(names[i]), "node%05u", i);
		now.nodes[i].name = names[i];
		now.nodes[i].rack = "";
		lend(i, 0);
	}
	while (coming < input.nr_jobs || now.nr_run > 0) {
		const size_t next = next_to_end();

		if (now.nr_run == 0 ||
			(coming < input.nr_jobs &&
				input.jobs[coming].comes_s <= now.runs[next]->ends_s)) {
			struct job *job = &input.jobs[coming++];

			now.now_s = fmax(now.now_s, job->comes_s);
			if (is_possible(job))
				now.waits[now.nr_wait++] = job;
			else
				now.nr_never++;
		} else {
			struct job *job = now.runs[next];

			now.now_s = job->ends_s;
			now.runs[next] = now.runs[--now.nr_run];
			leave(job);
			now.taken_gib -= job->gib;
			now.nr_done++;
		}
		begin_those_that_fit();
	}
	now.nr_never += now.nr_wait; /* the leases of these have no place, though nothing runs */
	free(now.nodes);
	free(now.busy);
	free(now.waits);
	free(now.runs);
	free(names);
}

static void print_row(double node_gib, bool pool, double *io_rate)
{
	simulate(node_gib, pool);
	const double rate = now.work_s / now.now_s;
	printf("| %.0f | %s | %zu | %zu | %.1f | %.0f | %.1f |", node_gib, pool ? "yes" : "no",
		now.nr_done, now.nr_never, 100 * rate / ((double)input.nr_nodes * input.processors),
		now.nr_done ? now.waited_s / (double)now.nr_done / 60 : 0,
		now.gib_s > 0 ? 100 * now.remote_gib_s / now.gib_s : 0);
	if (pool)
		printf(" %+.1f %% |\n", 100 * (rate / *io_rate - 1));
	else
		printf(" |\n");
	fflush(stdout);
	*io_rate = rate;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"nodes", required_argument, NULL, 'n'},
		{"processors", required_argument, NULL, 'p'},
		{"slowdown", required_argument, NULL, 's'}, {"jobs", required_argument, NULL, 'j'},
		{0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
		if (c == 'n')
			input.nr_nodes = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'p')
			input.processors = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 's')
			input.slowdown = strtod(optarg, NULL);
		else if (c == 'j')
			input.nr_made = (unsigned)strtoul(optarg, NULL, 10);
		else
			return 2;
	if (argc - optind > 1 || input.nr_nodes == 0 || input.processors == 0)
		return 2;
	if (optind == argc)
		make_trace();
	else if (read_trace(argv[optind]) < 0)
		return 1;
	printf("%zu jobs on %u nodes of %u processors; remote memory costs %.2f of the time for "
	       "its "
	       "share\n\n| GiB a node | pool | done | impossible | processors busy %% | waited min "
	       "| "
	       "memory remote %% | throughput |\n|-|-|-|-|-|-|-|-|\n",
		input.nr_jobs, input.nr_nodes, input.processors, input.slowdown);
	for (double gib = 64; gib <= 512; gib *= 2) {
		double rate = 0;

		print_row(gib, false, &rate);
		print_row(gib, true, &rate);
	}
	free(input.jobs);
	return 0;
}
