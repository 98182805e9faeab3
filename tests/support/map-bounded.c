/* SPDX-License-Identifier: MIT */
/*
 * Threads read and write records at random in a map that is much larger than its bound, and hold
 * each against a table in plain memory.  Afterwards the donor's bytes are held against it.
 *
 *	map-bounded [-m MODE] [-t SECONDS] [-e UNITS] [-l LOCAL-BYTES] [-s STRIDE] URI
 *
 * MODE: a number of enum weft_map_mode.  UNITS: it goes on until so many were evicted.  Of STRIDE
 * units one is used.  The process's own memory is looked at meanwhile: the map may have its bound,
 * and 5 % more.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/map.h"
#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"

enum { THREADS = 4, PAGE = 4096, UNIT = 64 << 10 };

struct record {
	uint64_t count, check;
};

struct player {
	pthread_t thread;
	unsigned number;
	uint64_t state, nr_ops;
	uint32_t *counts; /* of each page */
};

static struct player players[THREADS];
static struct weft_map *map;
static uint8_t *base;
static uint64_t nr_pages, stride = 1;
static _Atomic bool stop;

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 20;
}

static uint64_t check_of(uint64_t page, unsigned number, uint64_t count)
{
	uint64_t state = (page * THREADS + number) * UINT64_C(0x9e3779b97f4a7c15) + count;

	return count ? next_random(&state) : 0;
}

static void check(const struct record *record, uint64_t page, unsigned number)
{
	uint64_t count = players[number].counts[page];

	if (record->count != count || record->check != check_of(page, number, count))
		errx(1, "page %" PRIu64 ", thread %u: %" PRIu64 ", not %" PRIu64, page, number,
			record->count, count);
}

/* Records of the threads lie side by side in a page, so that they write to one page. */
static struct record *record_of(uint8_t *at, unsigned number)
{
	return (struct record *)at + number;
}

static void *play(void *ctx)
{
	struct player *player = ctx;
	const uint64_t unit_pages = UNIT / PAGE, nr_units = nr_pages / unit_pages / stride;

	while (!atomic_load(&stop)) {
		uint64_t page = next_random(&player->state) % nr_units * stride * unit_pages +
			next_random(&player->state) % unit_pages;
		struct record *record = record_of(base + page * PAGE, player->number);

		check(record, page, player->number);
		if (next_random(&player->state) % 2) {
			uint64_t count = ++player->counts[page];

			record->check = check_of(page, player->number, count);
			record->count = count;
		}
		player->nr_ops++;
	}
	return NULL;
}

/* Of the map's memory file, whose pages are mapped twice. */
static uint64_t file_bytes(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	uint64_t bytes = 0;

	while (dir && (entry = readdir(dir))) {
		char name[64] = "";
		struct stat st;

		if (readlinkat(dirfd(dir), entry->d_name, name, sizeof(name) - 1) > 0 &&
			strncmp(name, "/memfd:weft-map ", 16) == 0 &&
			fstat(atoi(entry->d_name), &st) == 0)
			bytes = (uint64_t)st.st_blocks * 512;
	}
	if (dir)
		closedir(dir);
	return bytes;
}

/*
 * What the process has.  Not from a walk of its page tables, as Pss is: a page that moves meanwhile
 * would be counted in both places.
 */
static uint64_t memory(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long kib = 0;
	char line[128];

	if (!file)
		err(1, "/proc/self/status");
	while (fgets(line, sizeof(line), file) && sscanf(line, "RssAnon: %llu", &kib) != 1)
		;
	fclose(file);
	return (kib << 10) + file_bytes();
}

static void check_donor(struct weft *w)
{
	static uint8_t buf[UNIT];

	for (uint64_t off = 0; off + UNIT <= nr_pages * PAGE; off += UNIT * stride) {
		if (weft_pread(w, buf, UNIT, off) < 0)
			errx(1, "cannot read");
		for (uint64_t i = 0; i < UNIT / PAGE; i++)
			for (unsigned n = 0; n < THREADS; n++)
				check(record_of(buf + i * PAGE, n), off / PAGE + i, n);
	}
}

static struct weft_map_stats stats(void)
{
	struct weft_map_stats s = {.size = sizeof(s)};

	weft_map_stats(map, &s);
	return s;
}

/* Plays for so long, and until so much has left; the most that the process had. */
static uint64_t play_all(unsigned seconds, uint64_t nr_evicted)
{
	const uint64_t end_ns = weft_now_ns() + seconds * UINT64_C(1000000000);
	uint64_t most = 0;

	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&players[i].thread, NULL, play, &players[i]) != 0)
			errx(1, "no thread");
	while (weft_now_ns() < end_ns || stats().evicted < nr_evicted) {
		usleep(200000);
		most = weft_max(most, memory());
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(players[i].thread, NULL);
	return most;
}

int main(int argc, char **argv)
{
	struct weft_map_options o = {.size = sizeof(o), .local_bytes = 128 << 20};
	unsigned seconds = 5;
	uint64_t nr_ops = 0, nr_evicted = 0;
	struct weft *w;
	char why[256];

	for (int c; (c = getopt(argc, argv, "m:t:e:l:s:")) != -1;) {
		if (c == 'm')
			o.mode = (unsigned)strtoul(optarg, NULL, 0);
		else if (c == 't')
			seconds = (unsigned)strtoul(optarg, NULL, 0);
		else if (c == 'e')
			nr_evicted = strtoull(optarg, NULL, 0);
		else if (c == 'l')
			o.local_bytes = strtoull(optarg, NULL, 0);
		else if (c == 's')
			stride = strtoull(optarg, NULL, 0);
		else
			return 2;
	}
	if (optind != argc - 1 || weft_open(argv[optind], 0, &w, why, sizeof(why)) < 0)
		errx(1, "%s", optind == argc - 1 ? why : "no URI");
	nr_pages = weft_size(w) / PAGE;
	for (unsigned i = 0; i < THREADS; i++) {
		players[i] = (struct player){.number = i, .state = i + weft_now_ns(),
			.counts = weft_map_bytes(nr_pages * sizeof(uint32_t))};
		if (!players[i].counts)
			err(1, "mmap");
		/* All of it is here from the beginning: it is not the map's. */
		for (uint64_t page = 0; page < nr_pages; page++)
			*(volatile uint32_t *)&players[i].counts[page] = 0;
	}
	const uint64_t before = memory();
	if (weft_map(w, 0, weft_size(w), &o, &map, why, sizeof(why)) < 0)
		errx(1, "%s", why);
	base = weft_map_addr(map);
	uint64_t most = play_all(seconds, nr_evicted) - before;
	const struct weft_map_stats s = stats();
	if (weft_unmap(map, 0) < 0)
		errx(1, "cannot write back");
	check_donor(w);
	for (unsigned i = 0; i < THREADS; i++)
		nr_ops += players[i].nr_ops;
	printf("%s: %" PRIu64 " accesses, %" PRIu64 " units evicted, %" PRIu64 " of them dirty; "
	       "%.1f MiB at most, of a bound of %.1f\n",
		s.mode, nr_ops, s.evicted, s.evicted_dirty, (double)most / (1 << 20),
		(double)o.local_bytes / (1 << 20));
	if (most > o.local_bytes / 100 * 105)
		errx(1, "the map has more than its bound");
	weft_close(w);
	return 0;
}
