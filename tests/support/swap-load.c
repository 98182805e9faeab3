/* SPDX-License-Identifier: MIT */
/*
 * swap-load MIB THREADS PAGES [SEED]: a working set that may not fit into memory.  Each thread
 * fills its share, checks all of it, checks and rewrites PAGES pages at random, and checks all of
 * it again.  Then the program prints "held", and once its standard input ends it checks all of it
 * once more.  What is in a page follows from its address, and from how often it was written.
 *
 * swap-load MIB THREADS busy [PROGRESS]: the same, but "held" comes before the pages at random,
 * which go on until standard input ends.  The file PROGRESS counts them, as a 64-bit number.
 *
 * Ends with 1 at the first wrong byte.  Prints what it took, and the page faults that read from
 * swap.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, THREADS_MAX = 64 };

struct share {
	uint64_t *words;
	uint8_t *rounds; /* of each page; locked in memory, unlike the pages */
	size_t first, nr, touches;
	uint64_t random;
	double longest_s; /* of a page at random */
};

static uint64_t no_file;
static _Atomic uint64_t *progress = (_Atomic uint64_t *)&no_file;
static _Atomic bool is_over;

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A page's words differ, and so do the pages; an odd factor makes that cheap. */
static uint64_t word(size_t page, unsigned round, size_t i)
{
	return ((uint64_t)page << 24 | (uint64_t)round << 16 | i) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(struct share *share, size_t page)
{
	uint64_t *at = share->words + page * WORDS;

	for (size_t i = 0; i < WORDS; i++)
		at[i] = word(page, share->rounds[page], i);
}

static void check(const struct share *share, size_t page)
{
	const uint64_t *at = share->words + page * WORDS;

	for (size_t i = 0; i < WORDS; i++) {
		uint64_t wanted = word(page, share->rounds[page], i);

		if (at[i] == wanted)
			continue;
		printf("wrong: page %zu, round %u, word %zu is %016" PRIx64 ", not %016" PRIx64
		       "\n",
			page, share->rounds[page], i, at[i], wanted);
		fflush(stdout);
		_exit(1);
	}
}

static void check_all(const struct share *share)
{
	for (size_t page = share->first; page < share->first + share->nr; page++)
		check(share, page);
}

/* xorshift64 */
static size_t pick(struct share *share)
{
	share->random ^= share->random << 13;
	share->random ^= share->random >> 7;
	share->random ^= share->random << 17;
	return share->first + share->random % share->nr;
}

static void touch(struct share *share)
{
	const double start_s = now_s();
	const size_t page = pick(share);

	check(share, page);
	share->rounds[page]++;
	fill(share, page);
	const double s = now_s() - start_s;
	if (s > share->longest_s)
		share->longest_s = s;
	atomic_fetch_add(progress, 1);
}

static void *begin(void *arg)
{
	struct share *share = arg;

	for (size_t page = share->first; page < share->first + share->nr; page++)
		fill(share, page);
	check_all(share);
	return NULL;
}

static void *work(void *arg)
{
	struct share *share = arg;

	begin(share);
	for (size_t i = 0; i < share->touches; i++)
		touch(share);
	check_all(share);
	return NULL;
}

static void *be_busy(void *arg)
{
	while (!atomic_load(&is_over))
		touch(arg);
	return NULL;
}

static void *check_again(void *arg)
{
	check_all(arg);
	return NULL;
}

static pthread_t threads[THREADS_MAX];

static void start(struct share *shares, unsigned nr, void *(*fn)(void *))
{
	for (unsigned i = 0; i < nr; i++)
		if (pthread_create(&threads[i], NULL, fn, &shares[i]) != 0)
			_exit(3);
}

static void join(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
}

static void run(struct share *shares, unsigned nr, void *(*fn)(void *))
{
	start(shares, nr, fn);
	join(nr);
}

/* Says so, and waits until standard input ends. */
static void hold(void)
{
	char byte;

	puts("held");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
}

static void run_busy(struct share *shares, unsigned nr)
{
	double longest_s = 0;

	run(shares, nr, begin);
	start(shares, nr, be_busy);
	hold();
	atomic_store(&is_over, true);
	join(nr);
	for (unsigned i = 0; i < nr; i++)
		if (shares[i].longest_s > longest_s)
			longest_s = shares[i].longest_s;
	printf("%" PRIu64 " pages at random, the longest took %.1f s\n", atomic_load(progress),
		longest_s);
}

/* Locked: it has to be there when nothing else is. */
static void open_progress(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *p = fd < 0 || ftruncate(fd, PAGE) < 0
		? MAP_FAILED
		: mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		exit(3);
	close(fd);
	mlock(p, PAGE);
	progress = p;
}

static void tell(const char *what, double start_s)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("%s: %.1f s, %ld major faults\n", what, now_s() - start_s, usage.ru_majflt);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static struct share shares[THREADS_MAX];
	unsigned nr = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	size_t pages = argc > 3 ? (size_t)atoll(argv[1]) << 8 : 0;

	if (argc < 4 || nr < 1 || nr > THREADS_MAX || pages < nr)
		return 2;
	const bool busy = strcmp(argv[3], "busy") == 0;
	uint64_t *words = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *rounds = mmap(NULL, pages, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (words == MAP_FAILED || rounds == MAP_FAILED)
		return 3;
	madvise(words, pages * PAGE, MADV_NOHUGEPAGE);
	mlock(rounds, pages);
	if (busy && argc > 4)
		open_progress(argv[4]);
	const uint64_t seed = !busy && argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
	for (unsigned i = 0; i < nr; i++)
		shares[i] = (struct share){words, rounds, i * (pages / nr), pages / nr,
			(size_t)atoll(argv[3]) / nr, seed * 2654435761u + i + 1, 0};
	double start_s = now_s();
	if (busy) {
		run_busy(shares, nr);
		tell("filled, checked, at random", start_s);
	} else {
		run(shares, nr, work);
		tell("filled, checked, at random, checked", start_s);
		hold();
	}
	start_s = now_s();
	run(shares, nr, check_again);
	tell("checked again", start_s);
	return 0;
}
