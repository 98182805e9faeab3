/* SPDX-License-Identifier: MIT */
/*
 * libweft against another build of it, in turn: blocking reads and writes of 4 KiB, and
 * asynchronous reads at depth 16.
 *
 *	time-library [-c CASE] [-r ROUNDS] [-s SECONDS] URI NEW.so [OLD.so]
 *
 * Every measurement is a process of its own, which opens the region by the library that it loads.
 * The builds take turns in each round, each round beginning with another one; figures are medians
 * over the rounds, ratios medians of the ratios within a round.  -c: only the cases whose names
 * begin so.  OLD.so may lack what NEW.so has: then its blocking reads are what everything is
 * compared with.
 */
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"

enum {
	IO_BYTES = 4096,
	DEPTH = 16,
	THREADS = 4,
	MAX_ROUNDS = 101,
	MAX_SAMPLES = 1 << 19, /* the rest is counted, and not looked at */
	BUSY_MS = 5000, /* for the donor to hear the goodbye of the one before */
};

/* The library that is measured, and what of it is used. */
struct library {
	int (*open)(const char *uri, unsigned flags, struct weft **ret, char *why, size_t why_size);
	void (*close)(struct weft *w);
	uint64_t (*size)(const struct weft *w);
	int (*pread)(struct weft *w, void *buf, size_t len, uint64_t off);
	int (*pwrite)(struct weft *w, const void *buf, size_t len, uint64_t off);
	int64_t (*aio_pread)(struct weft *w, void *buf, size_t len, uint64_t off,
		const struct weft_completion *completion);
	int (*aio_wait)(struct weft *w, int64_t cookie);
	int (*aio_poll)(struct weft *w, int timeout_ms);
};

struct figures {
	double ops_s, p50_us;
};

struct run {
	const struct library *lib;
	struct weft *w;
	uint64_t end_ns, seed, nr_blocks, nr, nr_of_others;
	uint32_t *took_ns;
	unsigned max_samples;
};

static void add_sample(struct run *run, uint64_t ns)
{
	if (run->nr < run->max_samples)
		run->took_ns[run->nr] = (uint32_t)weft_min(ns, UINT32_MAX);
	run->nr++;
}

static int compare_samples(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double median_us(struct run *run)
{
	uint64_t nr = weft_min(run->nr, run->max_samples);

	qsort(run->took_ns, nr, sizeof(run->took_ns[0]), compare_samples);
	return nr ? run->took_ns[nr / 2] / 1e3 : 0;
}

static uint64_t next_off(struct run *run)
{
	run->seed = run->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (run->seed >> 33) % run->nr_blocks * IO_BYTES;
}

static void one_after_another(struct run *run, bool write)
{
	static _Thread_local char buf[IO_BYTES];
	uint64_t begin_ns = weft_now_ns(), now_ns;
	int r;

	do {
		uint64_t off = next_off(run);

		r = write ? run->lib->pwrite(run->w, buf, IO_BYTES, off)
			  : run->lib->pread(run->w, buf, IO_BYTES, off);
		if (r < 0)
			errx(1, "%s: %s", write ? "write" : "read", strerror(-r));
		now_ns = weft_now_ns();
		add_sample(run, now_ns - begin_ns);
		begin_ns = now_ns;
	} while (now_ns < run->end_ns);
}

static void reads(struct run *run)
{
	one_after_another(run, false);
}

static void writes(struct run *run)
{
	one_after_another(run, true);
}

static void *reader(void *ctx)
{
	reads(ctx);
	return NULL;
}

static void threads(struct run *run)
{
	struct run *runs = calloc(THREADS, sizeof(*runs));
	pthread_t ids[THREADS];
	uint64_t total = 0;

	if (!runs)
		errx(1, "out of memory");
	for (unsigned i = 0; i < THREADS; i++) {
		runs[i] = *run;
		runs[i].seed += i;
		runs[i].max_samples = MAX_SAMPLES / THREADS;
		runs[i].took_ns = run->took_ns + i * runs[i].max_samples;
		if (pthread_create(&ids[i], NULL, reader, &runs[i]) != 0)
			errx(1, "no thread");
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(ids[i], NULL);
		total += runs[i].nr;
	}
	/* The first one's speak for all. */
	run->nr = runs[0].nr;
	run->nr_of_others = total - runs[0].nr;
	free(runs);
}

struct slot {
	struct run *run;
	uint64_t begin_ns;
	char buf[IO_BYTES];
};

static struct slot slots[DEPTH];
static unsigned in_flight;

static int read_again(void *user, int error);

static void begin_read(struct slot *slot)
{
	const struct weft_completion completion = {.fn = read_again, .user = slot};
	struct run *run = slot->run;

	slot->begin_ns = weft_now_ns();
	int64_t cookie =
		run->lib->aio_pread(run->w, slot->buf, IO_BYTES, next_off(run), &completion);
	if (cookie < 0)
		errx(1, "read: %s", strerror((int)-cookie));
}

static int read_again(void *user, int error)
{
	struct slot *slot = user;
	struct run *run = slot->run;
	uint64_t now_ns = weft_now_ns();

	if (error < 0)
		errx(1, "read: %s", strerror(-error));
	add_sample(run, now_ns - slot->begin_ns);
	if (now_ns < run->end_ns)
		begin_read(slot);
	else
		in_flight--;
	return 1;
}

static void at_depth(struct run *run)
{
	in_flight = DEPTH;
	for (unsigned i = 0; i < DEPTH; i++) {
		slots[i].run = run;
		begin_read(&slots[i]);
	}
	while (in_flight > 0)
		if (run->lib->aio_poll(run->w, -1) < 0)
			errx(1, "poll failed");
}

/* Without completions: the oldest is waited for, and another one begun. */
static void in_a_ring(struct run *run)
{
	int64_t cookies[DEPTH];
	unsigned left = DEPTH;

	for (unsigned i = 0; i < DEPTH; i++) {
		slots[i].begin_ns = weft_now_ns();
		cookies[i] =
			run->lib->aio_pread(run->w, slots[i].buf, IO_BYTES, next_off(run), NULL);
	}
	for (unsigned i = 0; left > 0; i = (i + 1) % DEPTH) {
		if (run->lib->aio_wait(run->w, cookies[i]) < 0)
			errx(1, "read failed");
		uint64_t now_ns = weft_now_ns();
		add_sample(run, now_ns - slots[i].begin_ns);
		slots[i].begin_ns = now_ns;
		if (now_ns < run->end_ns)
			cookies[i] = run->lib->aio_pread(run->w, slots[i].buf, IO_BYTES,
				next_off(run), NULL);
		else
			left--;
	}
}

static const struct {
	const char *name;
	void (*fn)(struct run *run);
	bool aio;
} cases[] = {
	{"read/4K", reads, false},
	{"write/4K", writes, false},
	{"read/4K-4-threads", threads, false},
	{"read/4K-aio-16", at_depth, true},
	{"read/4K-aio-16-wait", in_a_ring, true},
};

/* ---- a process a measurement ---- */

static bool load(const char *path, struct library *lib)
{
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!so)
		errx(1, "%s", dlerror());
	*(void **)&lib->open = dlsym(so, "weft_open");
	*(void **)&lib->close = dlsym(so, "weft_close");
	*(void **)&lib->size = dlsym(so, "weft_size");
	*(void **)&lib->pread = dlsym(so, "weft_pread");
	*(void **)&lib->pwrite = dlsym(so, "weft_pwrite");
	*(void **)&lib->aio_pread = dlsym(so, "weft_aio_pread");
	*(void **)&lib->aio_wait = dlsym(so, "weft_aio_wait");
	*(void **)&lib->aio_poll = dlsym(so, "weft_aio_poll");
	if (!lib->open || !lib->close || !lib->size || !lib->pread || !lib->pwrite)
		errx(1, "%s is no libweft", path);
	return lib->aio_pread && lib->aio_wait && lib->aio_poll;
}

static void measure(const char *path, unsigned which, const char *uri, double seconds,
	int result_fd)
{
	struct library lib;
	bool has_aio = load(path, &lib);
	struct run *run = calloc(1, sizeof(*run));
	struct figures figures = {0};
	uint64_t busy_until_ns = weft_now_ns() + BUSY_MS * UINT64_C(1000000);
	char why[512];
	int r;

	if (!run || !(run->took_ns = calloc(MAX_SAMPLES, sizeof(run->took_ns[0]))))
		errx(1, "out of memory");
	if (cases[which].aio && !has_aio)
		exit(weft_write_all(result_fd, &figures, sizeof(figures)) < 0);
	while ((r = lib.open(uri, 0, &run->w, why, sizeof(why))) == -EBUSY &&
		weft_now_ns() < busy_until_ns)
		poll(NULL, 0, 10);
	if (r < 0)
		errx(1, "%s", why);
	run->lib = &lib;
	run->max_samples = MAX_SAMPLES;
	run->nr_blocks = lib.size(run->w) / IO_BYTES;
	run->seed = weft_now_ns();
	/* Warm first, for a tenth of the time. */
	run->end_ns = weft_now_ns() + (uint64_t)(seconds * 1e8);
	cases[which].fn(run);
	run->nr = run->nr_of_others = 0;
	uint64_t begin_ns = weft_now_ns();
	run->end_ns = begin_ns + (uint64_t)(seconds * 1e9);
	cases[which].fn(run);
	figures.ops_s =
		(double)(run->nr + run->nr_of_others) * 1e9 / (double)(weft_now_ns() - begin_ns);
	figures.p50_us = median_us(run);
	lib.close(run->w);
	exit(weft_write_all(result_fd, &figures, sizeof(figures)) < 0);
}

static struct figures measure_apart(const char *path, unsigned which, const char *uri,
	double seconds)
{
	struct figures figures;
	int fds[2], status;

	if (pipe(fds) < 0)
		err(1, "pipe");
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0)
		measure(path, which, uri, seconds, fds[1]);
	close(fds[1]);
	int r = weft_read_all(fds[0], &figures, sizeof(figures));
	close(fds[0]);
	if (waitpid(pid, &status, 0) < 0 || status != 0 || r < 0)
		errx(1, "%s: %s failed", path, cases[which].name);
	return figures;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, unsigned n)
{
	qsort(values, n, sizeof(values[0]), compare_doubles);
	return values[n / 2];
}

static struct figures all[WEFT_ARRAY_LEN(cases)][2][MAX_ROUNDS];

/* base: of each round; NULL: there is no other build. */
static void print_row(unsigned which, const char *build, const struct figures *figures,
	const struct figures *base, unsigned rounds)
{
	double ops_s[MAX_ROUNDS], p50_us[MAX_ROUNDS], rate[MAX_ROUNDS], took[MAX_ROUNDS];

	for (unsigned i = 0; i < rounds; i++) {
		ops_s[i] = figures[i].ops_s;
		p50_us[i] = figures[i].p50_us;
		rate[i] = base ? figures[i].ops_s / base[i].ops_s : 0;
		took[i] = base ? figures[i].p50_us / base[i].p50_us : 0;
	}
	if (ops_s[0] == 0)
		return;
	printf("| %s | %s | %.0f | %.1f |", cases[which].name, build, median(ops_s, rounds),
		median(p50_us, rounds));
	if (base)
		printf(" %.2f | %.3f |\n", median(rate, rounds), median(took, rounds));
	else
		printf(" | |\n");
}

int main(int argc, char **argv)
{
	unsigned rounds = 7;
	double seconds = 1;
	const char *only = "";
	int c;

	while ((c = getopt(argc, argv, "c:r:s:")) != -1) {
		if (c == 'c')
			only = optarg;
		else if (c == 'r')
			rounds = (unsigned)atoi(optarg);
		else if (c == 's')
			seconds = atof(optarg);
		else
			return 2;
	}
	argv += optind;
	argc -= optind;
	if (argc < 2 || argc > 3 || rounds == 0 || rounds > MAX_ROUNDS || seconds <= 0)
		errx(2,
			"usage: time-library [-c CASE] [-r ROUNDS] [-s SECONDS] URI NEW.so "
			"[OLD.so]");
	unsigned nr_builds = (unsigned)argc - 1;
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned which = 0; which < WEFT_ARRAY_LEN(cases); which++)
			for (unsigned i = 0; i < nr_builds &&
				strncmp(cases[which].name, only, strlen(only)) == 0;
				i++) {
				unsigned build = (round + i) % nr_builds;

				all[which][build][round] =
					measure_apart(argv[1 + build], which, argv[0], seconds);
			}
	printf("| case | build | ops/s | p50 us | rate / old | p50 / old "
	       "|\n|---|---|---|---|---|---|\n");
	for (unsigned which = 0; which < WEFT_ARRAY_LEN(cases); which++) {
		const struct figures *old = nr_builds > 1 ? all[which][1] : NULL;

		/* What it cannot do: blocking reads instead. */
		if (old && old[0].ops_s == 0)
			old = all[0][1];
		print_row(which, "new", all[which][0], old, rounds);
		if (nr_builds > 1)
			print_row(which, "old", all[which][1], NULL, rounds);
	}
	return 0;
}
