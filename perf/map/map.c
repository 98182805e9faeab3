/* SPDX-License-Identifier: MIT */
/*
 * weft_map() beside what it is made of: the transport's own reads and writes, and a bare
 * UFFDIO_COPY by a handler on the faulting thread's processor.  Whoever reads a unit and copies it
 * takes as long as both together.
 *
 *	time-map [-l | -s] [-r ROUNDS] URI
 *
 * All cases take turns in each round.  Latencies are of single accesses on processor 0; p50 and p99
 * over all rounds.  Rates are medians of the rounds, and so is the processor time that this process
 * takes meanwhile.  -l: latencies alone; -s: scans and syncs alone.  Linked with the transport mem
 * (time-map-mem), mem:///r is a region in the process itself.
 */
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"

enum {
	PAGE = 4096,
	LARGE = 64 << 10,
	SAMPLES = 400,  /* of a case in a round */
	MAX_ROUNDS = 101,
	DEPTH = 16,
	WARM = 40,     /* faults before those that are counted: the handler has come by then */
	BARE_BYTES = 64 << 20,
	DIRTY_PART = 100, /* one page of so many is dirty */
};

#define LOCAL (UINT64_C(64) << 20)

struct latency {
	const char *name;
	uint64_t ns[SAMPLES * MAX_ROUNDS];
	unsigned nr;
};

struct rate {
	const char *name, *unit;
	double of[MAX_ROUNDS], cpu_ms[MAX_ROUNDS];
	unsigned nr;
};

static struct latency read_4k = {.name = "weft_pread() 4 KiB"},
	read_64k = {.name = "weft_pread() 64 KiB"},
	bare_4k = {.name = "bare fault, UFFDIO_COPY 4 KiB, same CPU"},
	bare_64k = {.name = "bare fault, UFFDIO_COPY 64 KiB, same CPU"},
	fault_4k = {.name = "map: fault to data, units of 4 KiB"},
	far_4k = {.name = "the same, handler on another CPU"},
	full_4k = {.name = "the same, room is made first"},
	fault_64k = {.name = "map: fault to data, units of 64 KiB"},
	far_64k = {.name = "the same, handler on another CPU"},
	full_64k = {.name = "the same, room is made first"},
	first_write = {.name = "map: first write of a clean page"};
static struct rate direct_scan = {.name = "16 weft_aio_pread() of 64 KiB at a time",
	.unit = "MB/s"},
	map_scan = {.name = "map: every page in turn", .unit = "MB/s"},
	direct_sync = {.name = "the same pages by 16 weft_aio_pwrite()", .unit = "ms"},
	map_sync = {.name = "map: sync, 1 % dirty", .unit = "ms"};

static uint64_t seed = 1;

static uint64_t next_random(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return seed >> 20;
}

static void add(struct latency *latency, uint64_t begin_ns)
{
	latency->ns[latency->nr++] = weft_now_ns() - begin_ns;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

struct begin {
	uint64_t ns, cpu_ns;
};

static struct begin begin_now(void)
{
	return (struct begin){.ns = weft_now_ns(), .cpu_ns = cpu_ns()};
}

/* So many bytes since then; 0: the time itself, in ms. */
static void add_rate(struct rate *rate, struct begin begin, uint64_t bytes)
{
	const double ns = (double)(weft_now_ns() - begin.ns);

	rate->cpu_ms[rate->nr] = (double)(cpu_ns() - begin.cpu_ns) / 1e6;
	rate->of[rate->nr++] = bytes > 0 ? (double)bytes * 1e3 / ns : ns / 1e6;
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		err(1, "sched_setaffinity");
}

static void roam(void)
{
	cpu_set_t set;

	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);
}

static struct weft_map *map(struct weft *w, uint64_t local_bytes, uint64_t unit_bytes)
{
	const struct weft_map_options o = {.size = sizeof(o),
		.local_bytes = local_bytes,
		.unit_bytes = unit_bytes};
	struct weft_map *m;
	char why[256];

	if (weft_map(w, 0, weft_size(w), &o, &m, why, sizeof(why)) < 0)
		errx(1, "%s", why);
	return m;
}

static void end(struct weft_map *m)
{
	if (weft_unmap(m, 0) < 0)
		errx(1, "cannot write back");
}

/* ---- what there is without a map ---- */

static void time_reads(struct weft *w, struct latency *latency, uint64_t bytes)
{
	static char buf[LARGE];

	stay_on(0);
	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t off = next_random() % (weft_size(w) / bytes) * bytes;
		uint64_t begin_ns = weft_now_ns();

		if (weft_pread(w, buf, bytes, off) < 0)
			errx(1, "cannot read");
		add(latency, begin_ns);
	}
	roam();
}

struct bare {
	int uffd;
	uint64_t bytes;
	const char *from;
};

static void *copy_one(void *ctx)
{
	struct bare *bare = ctx;
	struct uffd_msg msg;

	stay_on(0);
	while (read(bare->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		struct uffdio_copy copy = {
			.dst = msg.arg.pagefault.address / bare->bytes * bare->bytes,
			.src = (uintptr_t)bare->from,
			.len = bare->bytes,
		};

		ioctl(bare->uffd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

static void time_bare(struct latency *latency, uint64_t bytes)
{
	static char from[LARGE];
	struct bare bare = {.bytes = bytes, .from = from};
	struct uffdio_api api = {.api = UFFD_API};
	pthread_t thread;
	char *at = mmap(NULL, BARE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		0);

	memset(from, 1, sizeof(from));
	bare.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	struct uffdio_register reg = {.range = {(uintptr_t)at, BARE_BYTES},
		.mode = UFFDIO_REGISTER_MODE_MISSING};
	if (at == MAP_FAILED || bare.uffd < 0 || ioctl(bare.uffd, UFFDIO_API, &api) < 0 ||
		madvise(at, BARE_BYTES, MADV_NOHUGEPAGE) < 0 ||
		ioctl(bare.uffd, UFFDIO_REGISTER, &reg) < 0)
		err(1, "userfaultfd");
	stay_on(0);
	if (pthread_create(&thread, NULL, copy_one, &bare) != 0)
		errx(1, "no thread");
	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t begin_ns = weft_now_ns();

		(void)((volatile char *)at)[i * bytes];
		add(latency, begin_ns);
	}
	pthread_cancel(thread);
	pthread_join(thread, NULL);
	roam();
	munmap(at, BARE_BYTES);
	close(bare.uffd);
}

/* ---- maps ---- */

/* So many of the numbers below nr, each once, in no order. */
static uint32_t *choose(uint64_t nr, unsigned of_them)
{
	uint32_t *all = malloc(nr * sizeof(*all));

	if (!all || nr < of_them)
		errx(1, "the region is too small, or the memory");
	for (uint64_t i = 0; i < nr; i++)
		all[i] = (uint32_t)i;
	for (uint64_t i = 0; i < of_them; i++) {
		uint64_t other = i + next_random() % (nr - i);
		uint32_t chosen = all[other];

		all[other] = all[i];
		all[i] = chosen;
	}
	return all;
}

/*
 * Every access is of another unit.  far: the handlers stay on another processor.  full: so many
 * units were there before that these take the room of others.
 */
static void time_faults(struct weft *w, struct latency *latency, uint64_t unit, bool far, bool full)
{
	const uint64_t local_bytes = full ? SAMPLES / 2 * unit : LOCAL;
	const unsigned warm = full ? SAMPLES / 2 : WARM;
	uint32_t *units = choose(weft_size(w) / unit, SAMPLES + warm);

	if (far)
		stay_on(1);
	struct weft_map *m = map(w, local_bytes, unit);
	volatile char *at = weft_map_addr(m);

	stay_on(0);
	for (unsigned i = 0; i < SAMPLES + warm; i++) {
		uint64_t begin_ns = weft_now_ns();

		(void)at[units[i] * unit];
		if (i >= warm)
			add(latency, begin_ns);
	}
	free(units);
	roam();
	end(m);
}

static void time_first_writes(struct weft *w)
{
	struct weft_map *m = map(w, LOCAL, LARGE);
	volatile char *at = weft_map_addr(m);

	/* Pages are protected when somebody looks at them. */
	if (weft_map_prefetch(m, (void *)at, LOCAL / 4, WEFT_MAP_WAIT) < 0 ||
		weft_map_sync(m, (void *)at, LOCAL / 4, 0) < 0)
		errx(1, "cannot prefetch");
	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t begin_ns = weft_now_ns();

		at[i * PAGE] = 1;
		add(&first_write, begin_ns);
	}
	end(m);
}

static void time_scan(struct weft *w)
{
	static char bufs[DEPTH][LARGE];
	int64_t cookies[DEPTH] = {0};
	const uint64_t size = weft_size(w);
	struct begin begin = begin_now();

	for (uint64_t i = 0; i < size / LARGE + DEPTH; i++) {
		int64_t *cookie = &cookies[i % DEPTH];

		if (*cookie > 0 && weft_aio_wait(w, *cookie) < 0)
			errx(1, "cannot read");
		*cookie = i < size / LARGE
			? weft_aio_pread(w, bufs[i % DEPTH], LARGE, i * LARGE, NULL)
			: 0;
	}
	add_rate(&direct_scan, begin, size);
	struct weft_map *m = map(w, LOCAL, LARGE);
	volatile char *at = weft_map_addr(m);
	begin = begin_now();
	for (uint64_t i = 0; i < size; i += PAGE)
		(void)at[i];
	add_rate(&map_scan, begin, size);
	end(m);
}

static void time_sync(struct weft *w)
{
	static char page[PAGE];
	int64_t cookies[DEPTH] = {0};
	uint64_t size = weft_size(w), nr = size / PAGE / DIRTY_PART;
	struct weft_map *m = map(w, size + LOCAL, LARGE);
	volatile char *at = weft_map_addr(m);

	for (uint64_t i = 0; i < size; i += PAGE)
		(void)at[i];
	if (weft_map_sync(m, (void *)at, size, 0) < 0)
		errx(1, "cannot sync");
	for (uint64_t i = 0; i < nr; i++)
		at[next_random() % (size / PAGE) * PAGE]++;
	struct begin begin = begin_now();
	if (weft_map_sync(m, (void *)at, size, 0) < 0)
		errx(1, "cannot sync");
	add_rate(&map_sync, begin, 0);
	end(m);
	begin = begin_now();
	for (uint64_t i = 0; i < nr + DEPTH; i++) {
		int64_t *cookie = &cookies[i % DEPTH];

		if (*cookie > 0 && weft_aio_wait(w, *cookie) < 0)
			errx(1, "cannot write");
		*cookie = i < nr ? weft_aio_pwrite(w, page, PAGE,
					   next_random() % (size / PAGE) * PAGE, NULL)
				 : 0;
	}
	add_rate(&direct_sync, begin, 0);
}

/* ---- figures ---- */

static int by_ns(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int by_rate(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void print_latency(struct latency *latency)
{
	if (latency->nr == 0)
		return;
	qsort(latency->ns, latency->nr, sizeof(latency->ns[0]), by_ns);
	printf("| %s | %.2f | %.2f |\n", latency->name,
		(double)latency->ns[latency->nr / 2] / 1e3,
		(double)latency->ns[latency->nr * 99 / 100] / 1e3);
}

static void print_rate(struct rate *rate)
{
	qsort(rate->of, rate->nr, sizeof(rate->of[0]), by_rate);
	qsort(rate->cpu_ms, rate->nr, sizeof(rate->cpu_ms[0]), by_rate);
	printf("| %s | %.1f %s | %.1f |\n", rate->name, rate->of[rate->nr / 2], rate->unit,
		rate->cpu_ms[rate->nr / 2]);
}

static void time_latencies(struct weft *w)
{
	const bool several = sysconf(_SC_NPROCESSORS_ONLN) > 1;

	time_reads(w, &read_4k, PAGE);
	time_faults(w, &fault_4k, PAGE, false, false);
	if (several)
		time_faults(w, &far_4k, PAGE, true, false);
	time_faults(w, &full_4k, PAGE, false, true);
	time_bare(&bare_4k, PAGE);
	time_reads(w, &read_64k, LARGE);
	time_faults(w, &fault_64k, LARGE, false, false);
	if (several)
		time_faults(w, &far_64k, LARGE, true, false);
	time_faults(w, &full_64k, LARGE, false, true);
	time_bare(&bare_64k, LARGE);
	time_first_writes(w);
}

static void print_latencies(void)
{
	puts("| | p50 us | p99 us |\n|---|---|---|");
	print_latency(&read_4k);
	print_latency(&bare_4k);
	print_latency(&fault_4k);
	print_latency(&far_4k);
	print_latency(&full_4k);
	print_latency(&read_64k);
	print_latency(&bare_64k);
	print_latency(&fault_64k);
	print_latency(&far_64k);
	print_latency(&full_64k);
	print_latency(&first_write);
}

static void print_rates(void)
{
	puts("| | median | processor time, ms |\n|---|---|---|");
	print_rate(&direct_scan);
	print_rate(&map_scan);
	print_rate(&direct_sync);
	print_rate(&map_sync);
}

int main(int argc, char **argv)
{
	bool latencies = true, rates = true;
	unsigned rounds = 5;
	struct weft *w;
	char why[256];

	for (int c; (c = getopt(argc, argv, "lr:s")) != -1;) {
		if (c == 'r')
			rounds = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'l')
			rates = false;
		else if (c == 's')
			latencies = false;
		else
			return 2;
	}
	if (optind != argc - 1 || rounds == 0 || rounds > MAX_ROUNDS)
		errx(2, "usage: time-map [-l | -s] [-r ROUNDS (1 to %d)] URI", MAX_ROUNDS);
	if (weft_open(argv[optind], 0, &w, why, sizeof(why)) < 0)
		errx(1, "%s", why);
	for (unsigned i = 0; i < rounds; i++) {
		if (latencies)
			time_latencies(w);
		if (rates) {
			time_scan(w);
			time_sync(w);
		}
	}
	weft_close(w);
	if (latencies)
		print_latencies();
	if (latencies && rates)
		puts("");
	if (rates)
		print_rates();
	return 0;
}
