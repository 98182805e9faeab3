/* SPDX-License-Identifier: MIT */
/*
 * Threads read and write records all over a map, each its own, and hold them against a table in
 * plain memory, while something happens to the donor, to the line or to this process.
 *
 *	map-trouble [-m MODE] [-d DEAD-TIMEOUT-MS] [-t SECONDS] URI
 *
 * MODE: a number of enum weft_map_mode.  "busy" on standard output says that the threads fault.
 *
 * With -t the contents stay: no access is SIGBUS, and in the end, which SIGTERM brings before time
 * is up, the donor has every write.
 * Without it they are lost while the threads run: an access is right, or it is SIGBUS; once on_lost
 * was called it is SIGBUS.  In both cases none takes longer than the dead timeout and SLACK_MS.
 */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"

enum {
	THREADS = 8,
	PAGE = 4096,
	LOCAL_BYTES = 2 << 20,
	UNIT_BYTES = 16 << 10,
	BUSY_FAULTS = 200,
	AFTER_LOSS = 50, /* accesses of each thread that have to be SIGBUS */
	UNKNOWN = UINT32_MAX, /* a count: a write of the record was cut off */
	BOUND_S = 100,
	SLACK_MS = 10000, /* beside the dead timeout, for a busy machine */
};

/* Not all zeros: count is at least 1, from the beginning. */
struct record {
	uint64_t count, check;
};

struct player {
	pthread_t thread;
	unsigned number;
	uint64_t state, nr_ops, nr_bus, longest_ns;
	uint32_t *counts; /* of each page */
};

static struct player players[THREADS];
static struct weft *w;
static struct weft_map *map;
static uint8_t *base;
static uint64_t nr_pages;
static unsigned pause_us;
static bool may_be_lost = true;
static _Atomic bool stop;
static _Atomic int lost;

static _Thread_local sigjmp_buf out;
static _Thread_local volatile sig_atomic_t is_inside;

static void on_bus(int signo)
{
	if (!is_inside)
		abort();
	siglongjmp(out, 1);
}

static void on_lost(void *ctx, int error)
{
	atomic_store(&lost, error);
}

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 20;
}

static struct record record_for(uint64_t page, unsigned number, uint64_t count)
{
	uint64_t state = (page * THREADS + number) * UINT64_C(0x9e3779b97f4a7c15) + count;

	return (struct record){count, next_random(&state)};
}

static void check(const struct record *record, uint64_t page, unsigned number)
{
	const struct record want = record_for(page, number, players[number].counts[page]);

	if (want.count != UNKNOWN && (record->count != want.count || record->check != want.check))
		errx(1, "page %" PRIu64 ", thread %u: %" PRIu64 " (%" PRIx64 "), not %" PRIu64,
			page, number, record->count, record->check, want.count);
}

/* One access, which may be SIGBUS. */
static void touch(struct player *player, uint64_t page, bool writes)
{
	volatile struct record *at =
		(volatile struct record *)(base + page * PAGE) + player->number;
	const struct record found = {at->count, at->check};

	check(&found, page, player->number);
	if (!writes || player->counts[page] == UNKNOWN)
		return;
	const uint32_t count = player->counts[page];
	const struct record next = record_for(page, player->number, count + 1);
	player->counts[page] = UNKNOWN;
	at->check = next.check;
	at->count = next.count;
	player->counts[page] = count + 1;
}

/* False: it was SIGBUS. */
static bool try_to_touch(struct player *player)
{
	const uint64_t begin_ns = weft_now_ns();
	bool done = sigsetjmp(out, 1) == 0;

	if (done) {
		const uint64_t page = next_random(&player->state) % nr_pages;

		is_inside = 1;
		touch(player, page, next_random(&player->state) % 2);
	}
	is_inside = 0;
	player->longest_ns = weft_max(player->longest_ns, weft_now_ns() - begin_ns);
	player->nr_ops++;
	player->nr_bus += !done;
	return done;
}

static void *play(void *ctx)
{
	struct player *player = ctx;

	for (unsigned nr_after = 0; nr_after < AFTER_LOSS && !atomic_load(&stop);) {
		const bool is_lost = atomic_load(&lost) != 0;
		const bool done = try_to_touch(player);

		if (done && is_lost)
			errx(1, "an access of contents that are lost");
		if (!done && !may_be_lost)
			errx(1, "SIGBUS");
		nr_after += is_lost;
		if (pause_us || !done)
			usleep(done ? pause_us : 1000);
	}
	return NULL;
}

static struct weft_map_stats stats(void)
{
	struct weft_map_stats s = {.size = sizeof(s)};

	weft_map_stats(map, &s);
	return s;
}

/* What every thread expects at first. */
static void fill(uint8_t *buf, size_t len)
{
	for (uint64_t off = 0; off < weft_size(w); off += len) {
		for (size_t at = 0; at < len; at += PAGE)
			for (unsigned n = 0; n < THREADS; n++)
				((struct record *)(buf + at))[n] =
					record_for((off + at) / PAGE, n, 1);
		if (weft_pwrite(w, buf, len, off) < 0)
			errx(1, "cannot write");
	}
}

static void check_donor(uint8_t *buf, size_t len)
{
	for (uint64_t off = 0; off < weft_size(w); off += len) {
		if (weft_pread(w, buf, len, off) < 0)
			errx(1, "cannot read");
		for (size_t at = 0; at < len; at += PAGE)
			for (unsigned n = 0; n < THREADS; n++)
				check((struct record *)(buf + at) + n, (off + at) / PAGE, n);
	}
}

static void start_players(void)
{
	for (unsigned i = 0; i < THREADS; i++) {
		players[i] = (struct player){.number = i, .state = i + weft_now_ns(),
			.counts = malloc(nr_pages * sizeof(uint32_t))};
		if (!players[i].counts)
			err(1, "malloc");
		for (uint64_t page = 0; page < nr_pages; page++)
			players[i].counts[page] = 1;
	}
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&players[i].thread, NULL, play, &players[i]) != 0)
			errx(1, "no thread");
	while (stats().faults < BUSY_FAULTS)
		usleep(1000);
	puts("busy");
	fflush(stdout);
}

static void join_players(void)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += BOUND_S;
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_timedjoin_np(players[i].thread, NULL, &end) != 0)
			errx(1, "thread %u hangs", i);
}

static void wait_until_lost(void)
{
	const uint64_t end_ns = weft_now_ns() + BOUND_S * UINT64_C(1000000000);

	while (!atomic_load(&lost)) {
		if (weft_now_ns() > end_ns)
			errx(1, "the contents are not lost");
		usleep(10000);
	}
}

static void wait_for_the_end(const sigset_t *term, unsigned seconds)
{
	const struct timespec time = {.tv_sec = seconds};

	if (sigtimedwait(term, NULL, &time) < 0 && errno != EAGAIN)
		err(1, "sigtimedwait");
}

static void report(uint32_t dead_timeout_ms)
{
	const struct weft_map_stats s = stats();
	uint64_t nr_ops = 0, nr_bus = 0, longest_ns = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		nr_ops += players[i].nr_ops;
		nr_bus += players[i].nr_bus;
		longest_ns = weft_max(longest_ns, players[i].longest_ns);
	}
	printf("%s: %" PRIu64 " accesses, %" PRIu64 " of them SIGBUS, %" PRIu64 " faults; the "
	       "longest took %.0f ms%s%s\n",
		s.mode, nr_ops, nr_bus, s.faults, (double)longest_ns / 1e6,
		atomic_load(&lost) ? "; lost: " : "",
		atomic_load(&lost) ? strerror(-atomic_load(&lost)) : "");
	if (longest_ns / 1000000 > dead_timeout_ms + SLACK_MS)
		errx(1, "an access took too long");
}

int main(int argc, char **argv)
{
	static uint8_t buf[64 << 10];
	struct weft_options options = {.size = sizeof(options), .dead_timeout_ms = 1000};
	struct weft_map_options o = {
		.size = sizeof(o), .unit_bytes = UNIT_BYTES, .on_lost = on_lost};
	const struct sigaction bus = {.sa_handler = on_bus};
	unsigned seconds = 0;
	char why[256];
	sigset_t term;

	for (int c; (c = getopt(argc, argv, "m:d:t:")) != -1;) {
		if (c == 'm')
			o.mode = (unsigned)strtoul(optarg, NULL, 0);
		else if (c == 'd')
			options.dead_timeout_ms = (uint32_t)strtoul(optarg, NULL, 0);
		else if (c == 't')
			seconds = (unsigned)strtoul(optarg, NULL, 0);
		else
			return 2;
	}
	/* Of all threads: they begin with this mask. */
	sigemptyset(&term);
	if (seconds)
		sigaddset(&term, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &term, NULL);
	const char *const uri = argv[optind];
	if (optind != argc - 1 || weft_open_regions(&uri, 1, &options, &w, why, sizeof(why)) < 0)
		errx(1, "%s", optind == argc - 1 ? why : "no URI");
	/* All of it is here after a while, and faults no more: so it is to take longer. */
	if (o.mode == WEFT_MAP_RESIDENT) {
		o.unit_bytes = PAGE;
		pause_us = 1000;
	} else {
		o.local_bytes = LOCAL_BYTES;
	}
	may_be_lost = seconds == 0;
	nr_pages = weft_size(w) / PAGE;
	fill(buf, sizeof(buf));
	if (weft_map(w, 0, weft_size(w), &o, &map, why, sizeof(why)) < 0)
		errx(1, "%s", why);
	base = weft_map_addr(map);
	weft_map_advise(map, WEFT_MAP_RANDOM);
	sigaction(SIGBUS, &bus, NULL);
	start_players();
	if (may_be_lost)
		wait_until_lost();
	else
		wait_for_the_end(&term, seconds);
	if (!may_be_lost)
		atomic_store(&stop, true);
	join_players();
	report(options.dead_timeout_ms);
	if (!may_be_lost && atomic_load(&lost))
		errx(1, "the contents are lost: %s", strerror(-atomic_load(&lost)));
	int r = weft_unmap(map, may_be_lost ? WEFT_UNMAP_DISCARD : 0);
	if (r < 0)
		errx(1, "cannot write back: %s", strerror(-r));
	if (!may_be_lost)
		check_donor(buf, sizeof(buf));
	weft_close(w);
	return 0;
}
