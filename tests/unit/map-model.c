/* SPDX-License-Identifier: MIT */
/*
 * A map against plain arrays: threads read, write, sync, evict and prefetch at random, while the
 * mem transport delays, reorders, fails, holds and kills.  A seed names a run: WEFT_SEED; WEFT_OPS
 * says how many operations, in each mode; an argument names the cases to run, as a pattern.
 *
 * Each thread has words of its own in every page, so that each read has one right answer.  A read
 * that fails is SIGBUS, and comes again; a write that is SIGBUS was not done.  Now and then all
 * stops: after a sync the donor's memory must be the arrays.  Then the map is made anew.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/library/weft.h"
#include "tests/support/seed.h"
#include "transports/mem/mem.h"

enum {
	THREADS = 4,
	MAPPED = 4 << 20,
	WORDS = MAPPED / 8,
	ROUND = 8000, /* operations of each thread between two stops */
	OPS = 64000,
	KILLS = 2, /* in a round */
	PATIENCE_S = 60,
};

struct player {
	pthread_t thread;
	unsigned number;
	uint64_t state;
	uint64_t nr_bus;
	uint64_t *words; /* what its own are */
};

static struct weft_map *map;
static volatile uint64_t *base;
static struct player players[THREADS];
static _Atomic bool quiet;
static _Thread_local sigjmp_buf back;

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 20;
}

static void on_bus(int signo)
{
	siglongjmp(back, 1);
}

/* A word of the player's, often near the others. */
static uint64_t choose_word(struct player *player)
{
	uint64_t among = next_random(&player->state) % 2 ? WORDS : WORDS / 16;

	return next_random(&player->state) % (among / THREADS) * THREADS + player->number;
}

/* On any thread. */
static void check(uint64_t word, uint64_t found, uint64_t right)
{
	if (found == right)
		return;
	fprintf(stderr, "word %" PRIu64 " is %" PRIx64 ", not %" PRIx64 "\n", word, found, right);
	abort();
}

/*
 * True: it was done.  tsan does not look here: the kernel's page faults put this in order with what
 * the map's threads do to the page, which tsan cannot see.
 */
static bool __attribute__((no_sanitize("thread"))) touch(struct player *player,
	uint64_t word, bool writes)
{
	const uint64_t value = writes ? next_random(&player->state) : 0;

	if (sigsetjmp(back, 1) != 0) {
		player->nr_bus++;
		return false;
	}
	if (writes)
		base[word] = value;
	else
		check(word, base[word], player->words[word]);
	if (writes)
		player->words[word] = value;
	return true;
}

static void range_op(struct player *player)
{
	uint64_t from = next_random(&player->state) % MAPPED;
	uint64_t len = next_random(&player->state) % weft_min(MAPPED - from, 200000);
	const void *at = (const char *)base + from;
	int r = 0;

	switch (next_random(&player->state) % 4) {
	case 0:
		r = weft_map_sync(map, at, len, WEFT_MAP_FLUSH);
		break;
	case 1:
		r = weft_map_evict(map, at, len);
		break;
	case 2:
		r = weft_map_prefetch(map, at, len, 0);
		break;
	case 3:
		r = weft_map_prefetch(map, at, len, WEFT_MAP_WAIT);
		break;
	}
	if (r == 0 || r == -EIO || r == -ENOSPC || r == -EAGAIN || r == -EBUSY)
		return;
	fprintf(stderr, "an operation on %" PRIu64 "+%" PRIu64 ": %s\n", from, len, strerror(-r));
	abort();
}

static void *play(void *ctx)
{
	struct player *player = ctx;

	for (unsigned i = 0; i < ROUND; i++) {
		uint64_t dice = next_random(&player->state) % 200;

		if (dice == 0)
			range_op(player);
		else if (!touch(player, choose_word(player), dice % 2))
			usleep(1000);
	}
	return NULL;
}

static void *disturb(void *ctx)
{
	uint64_t *state = ctx;
	int kills = KILLS;

	while (!atomic_load(&quiet)) {
		uint64_t now = atomic_load(&mem_home.nr_ops), soon = next_random(state) % 300 + 1;

		switch (next_random(state) % 6) {
		case 0:
			atomic_store(&mem_home.delay_ns, next_random(state) % 200000);
			break;
		case 1:
			atomic_store(&mem_home.reorder, next_random(state) % 2);
			break;
		case 2:
			atomic_store(&mem_home.fail_error, soon % 2 ? EIO : ENOSPC);
			atomic_store(&mem_home.fail_at, now + soon);
			break;
		case 3:
			/* It takes a while to come back. */
			if (kills-- > 0)
				atomic_store(&mem_home.kill_at, now + soon);
			break;
		case 4:
			atomic_store(&mem_home.hold, true);
			usleep((useconds_t)(next_random(state) % 20000));
			atomic_store(&mem_home.hold, false);
			break;
		default:
			break;
		}
		usleep(3000);
	}
	atomic_store(&mem_home.delay_ns, 0);
	atomic_store(&mem_home.fail_at, 0);
	atomic_store(&mem_home.kill_at, 0);
	return NULL;
}

static void begin_map(struct weft *w, unsigned mode, uint64_t *state)
{
	const struct weft_map_options o = {
		.size = sizeof(o),
		.mode = mode,
		.unit_bytes = weft_page_bytes() << next_random(state) % 5,
		.local_bytes = mode == WEFT_MAP_RESIDENT ? 0 : 384 * weft_page_bytes(),
		.handlers = (unsigned)(next_random(state) % 3 + 1),
	};
	char why[256];
	int r = weft_map(w, 0, MAPPED, &o, &map, why, sizeof(why));

	if (r == -ENOTSUP || r == -ENOSYS) {
		printf("\nSKIP: %s\n", why);
		skip();
	}
	if (r < 0)
		fail_msg("%s", why);
	base = weft_map_addr(map);
}

static void round_of_all(uint64_t *state)
{
	pthread_t disturber;

	atomic_store(&quiet, false);
	assert_int_equal(pthread_create(&disturber, NULL, disturb, state), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&players[i].thread, NULL, play, &players[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(players[i].thread, NULL);
	atomic_store(&quiet, true);
	pthread_join(disturber, NULL);
}

/* What was held back by a fault may fail once more. */
static void end_map(void)
{
	uint64_t end_ns = weft_now_ns() + PATIENCE_S * UINT64_C(1000000000);
	struct weft_map_stats s = {.size = sizeof(s)};

	while (weft_map_sync(map, (void *)base, MAPPED, WEFT_MAP_FLUSH) < 0)
		assert_true(weft_now_ns() < end_ns);
	for (uint64_t word = 0; word < WORDS; word++)
		assert_int_equal(((uint64_t *)mem_home.base)[word],
			players[word % THREADS].words[word]);
	assert_int_equal(weft_map_stats(map, &s), 0);
	assert_true(s.resident_bytes + s.staged_bytes <= s.local_bytes);
	assert_int_equal(weft_unmap(map, 0), 0);
}

static void play_in_mode(unsigned mode)
{
	const char *ops = getenv("WEFT_OPS");
	uint64_t nr_ops = ops ? strtoull(ops, NULL, 0) : OPS, done = 0, nr_bus = 0;
	uint64_t seed = seed_or(weft_now_ns()), state = seed;
	struct sigaction catch = {.sa_handler = on_bus}, old;
	struct weft *w;
	char why[256];

	sigaction(SIGBUS, &catch, &old);
	if (weft_open("mem:///r", 0, &w, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	memset(mem_home.base, 0, MAPPED);
	for (unsigned i = 0; i < THREADS; i++)
		players[i] = (struct player){.number = i,
			.state = seed + i * 77777,
			.words = test_calloc(WORDS, sizeof(uint64_t))};
	while (done < nr_ops) {
		begin_map(w, mode, &state);
		round_of_all(&state);
		end_map();
		done += THREADS * ROUND;
	}
	for (unsigned i = 0; i < THREADS; i++) {
		nr_bus += players[i].nr_bus;
		test_free(players[i].words);
	}
	printf("%" PRIu64 " operations, %" PRIu64 " times SIGBUS\n", done, nr_bus);
	weft_close(w);
	sigaction(SIGBUS, &old, NULL);
}

static void a_paged_map_is_like_plain_memory(void **unused)
{
	play_in_mode(WEFT_MAP_PAGED);
}

static void a_compat_map_is_like_plain_memory(void **unused)
{
	play_in_mode(WEFT_MAP_COMPAT);
}

static void a_resident_map_is_like_plain_memory(void **unused)
{
	play_in_mode(WEFT_MAP_RESIDENT);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_paged_map_is_like_plain_memory),
		cmocka_unit_test(a_compat_map_is_like_plain_memory),
		cmocka_unit_test(a_resident_map_is_like_plain_memory),
	};

	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
