/* SPDX-License-Identifier: MIT */
/*
 * A cache whose contents are sealed: what a donor sees, what it can do to a borrower, and bridges
 * that are killed at any moment.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"
#include "nbd-bridge/cache/seal.h"
#include "tests/support/bridge-io.h"
#include "tests/support/seed.h"
#include "transports/mem/mem.h"

enum { BLOCK = 4096, CHUNK = 64 << 10, BLOCKS = 1024, SLOTS = 24, NEVER_MS = 3600000 };

/* What outlives a bridge: the donor's bytes, and what its writer was told. */
struct shared {
	_Atomic uint32_t answered[BLOCKS], sent[BLOCKS];
	_Atomic uint32_t nr_writes;
	uint8_t region[BLOCKS * BLOCK];
};

static struct shared *shared;
static int seal_fd, cache_fd;
static struct mem_config mem;
static struct bridge_config config;
static uint8_t id[WEFT_ID_BYTES];
static uint8_t got[4 * CHUNK], data[4 * CHUNK];

static int set_up(void **state)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		0);
	seal_fd = memfd_create("seal", MFD_CLOEXEC);
	cache_fd = memfd_create("cache", MFD_CLOEXEC);
	weft_random(id, sizeof(id));
	memset(shared->region, 0xd7, sizeof(shared->region)); /* somebody else's */
	fill_pattern(data, sizeof(data));
	return 0;
}

static int tear_down(void **state)
{
	munmap(shared, sizeof(*shared));
	close(seal_fd);
	close(cache_fd);
	return 0;
}

/* With what a bridge before it left, if there was one. */
static void start(enum seal_kind kind, uint32_t push_ms)
{
	struct weft_error err = {0};
	static uint64_t generation = 1;

	memset(&config, 0, sizeof(config));
	mem_config_init(&mem, shared->region, sizeof(shared->region));
	config = bridge_config_for_tests(&mem);
	config.attach.generation = generation++ << 32;
	config.cache = (struct bridge_cache_config){
		.uri = "weft://test/r",
		.bytes = SLOTS * CHUNK,
		.chunk_bytes = CHUNK,
		.push_interval_ms = push_ms,
	};
	if (cache_file_on_memory(cache_fd, &config.cache.file, &err) < 0 ||
		seal_new(seal_fd, kind, &config.cache.seal, &err) < 0)
		fail_msg("%s", err.message);
	config.cache.resume = cache_file_dirty_bytes(config.cache.file) > 0;
	if (!config.cache.resume)
		cache_file_forget(config.cache.file);
	memcpy(config.attach.id, id, sizeof(id));
	bridge_begin(&config);
}

static void stop(void)
{
	struct weft_error err = {0};

	if (bridge_stop(bridge, 20000, &err) < 0)
		fail_msg("%s", err.message);
	bridge_free(bridge);
	bridge = NULL;
	seal_free(config.cache.seal);
	cache_file_close(config.cache.file);
}

static void restart(enum seal_kind kind)
{
	stop();
	start(kind, NEVER_MS);
}

static void assert_all(const uint8_t *bytes, uint8_t is, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(bytes[i], is);
}

static uint64_t nr_bad(void)
{
	return seal_nr_bad(config.cache.seal);
}

static void what_was_never_written_is_zeros_and_asked_of_nobody(void **state)
{
	start(SEAL_VERIFY, NEVER_MS);
	uint64_t before = atomic_load(&mem.nr_ops);

	for (unsigned i = 0; i < BLOCKS * BLOCK / sizeof(got); i++) {
		assert_int_equal(do_read(i % 2, i * sizeof(got), got, sizeof(got)), 0);
		assert_all(got, 0, sizeof(got));
	}
	/* A part of a block. */
	assert_int_equal(do_write(0, 5 * BLOCK + 100, data, 50, 0), 0);
	assert_int_equal(do_read(1, 5 * BLOCK, got, BLOCK), 0);
	assert_all(got, 0, 100);
	assert_memory_equal(got + 100, data, 50);
	assert_all(got + 150, 0, BLOCK - 150);
	assert_int_equal(atomic_load(&mem.nr_ops), before);
	stop();
}

static bool has_run(const uint8_t *bytes, size_t len, const uint8_t *what, size_t what_len)
{
	return memmem(bytes, len, what, what_len);
}

static void a_donor_sees_plain_bytes_or_none(void **state)
{
	for (enum seal_kind kind = SEAL_VERIFY; kind <= SEAL_ENCRYPT; kind++) {
		start(kind, NEVER_MS);
		assert_int_equal(do_write(0, CHUNK, data, sizeof(data), 0), 0);
		assert_int_equal(do_flush(1), 0);
		assert_int_equal(memcmp(shared->region + CHUNK, data, sizeof(data)) == 0,
			kind == SEAL_VERIFY);
		for (size_t i = 0; kind == SEAL_ENCRYPT && i < sizeof(data); i += 512)
			assert_false(has_run(shared->region, sizeof(shared->region), data + i, 8));
		restart(kind);
		assert_int_equal(do_read(1, CHUNK, got, sizeof(got)), 0);
		assert_memory_equal(got, data, sizeof(got));
		/* The same bytes again look like others. */
		memcpy(got, shared->region + CHUNK, sizeof(got));
		assert_int_equal(do_write(0, CHUNK, data, sizeof(data), 0), 0);
		assert_int_equal(do_flush(1), 0);
		for (size_t i = 0; kind == SEAL_ENCRYPT && i < sizeof(data); i += BLOCK)
			assert_memory_not_equal(got + i, shared->region + CHUNK + i, 16);
		stop();
		tear_down(NULL);
		set_up(NULL);
	}
}

static void what_a_donor_changed_is_an_error_and_nothing_else_is(void **state)
{
	static uint8_t old[CHUNK], swapped[BLOCK];
	uint8_t *at = shared->region;
	char text[64];

	for (enum seal_kind kind = SEAL_VERIFY; kind <= SEAL_ENCRYPT; kind++) {
		start(kind, NEVER_MS);
		assert_int_equal(do_write(0, 0, data, CHUNK, TP_FUA), 0);
		memcpy(old, at, CHUNK);
		assert_int_equal(do_write(0, 0, data + CHUNK, CHUNK, TP_FUA), 0);
		restart(kind);
		at[2 * BLOCK + 4000] ^= 0x10;                   /* changed */
		memcpy(at + 5 * BLOCK, old + 5 * BLOCK, BLOCK); /* replayed */
		memcpy(swapped, at + 8 * BLOCK, BLOCK);         /* swapped */
		memcpy(at + 8 * BLOCK, at + 9 * BLOCK, BLOCK);
		memcpy(at + 9 * BLOCK, swapped, BLOCK);
		memset(at + 11 * BLOCK, 0, BLOCK); /* forgotten */
		for (unsigned i = 0; i < 16; i++) {
			bool bad = i == 2 || i == 5 || i == 8 || i == 9 || i == 11;

			assert_int_equal(do_read(i % 2, i * BLOCK, got, BLOCK), bad ? -EIO : 0);
			if (!bad)
				assert_memory_equal(got, data + CHUNK + i * BLOCK, BLOCK);
		}
		/* Reading ahead, or of all of it, finds no more; each is counted once. */
		assert_int_equal(do_read(0, 0, got, CHUNK), -EIO);
		assert_int_equal(nr_bad(), 5);
		assert_string_equal(status_text("state", text, sizeof(text)), "ready");
		/* A part of such a block cannot be written, all of it can. */
		assert_int_equal(do_write(0, 5 * BLOCK + 512, data, 512, 0), -EIO);
		assert_int_equal(do_write(0, 5 * BLOCK, data, BLOCK, TP_FUA), 0);
		assert_int_equal(do_range(0, TP_ZERO, 9 * BLOCK, BLOCK, TP_FUA), 0);
		restart(kind);
		assert_int_equal(do_read(0, 5 * BLOCK, got, BLOCK), 0);
		assert_memory_equal(got, data, BLOCK);
		assert_int_equal(do_read(0, 9 * BLOCK, got, BLOCK), 0);
		assert_all(got, 0, BLOCK);
		assert_int_equal(do_read(0, 8 * BLOCK, got, BLOCK), -EIO);
		assert_int_equal(nr_bad(), 5);
		stop();
		tear_down(NULL);
		set_up(NULL);
		at = shared->region;
	}
}

/* Whatever the donor says of it. */
static void what_was_trimmed_or_zeroed_is_zeros(void **state)
{
	start(SEAL_ENCRYPT, NEVER_MS);
	assert_int_equal(do_write(0, 0, data, sizeof(data), TP_FUA), 0);
	assert_int_equal(do_range(0, TP_ZERO, 0, CHUNK, 0), 0);
	assert_int_equal(do_range(1, TP_TRIM, CHUNK, CHUNK, 0), 0);
	mem.fail_error = EIO;
	atomic_store(&mem.fail_at, atomic_load(&mem.nr_ops) + 1);
	assert_int_equal(do_range(0, TP_ZERO, 2 * CHUNK, CHUNK, 0), -EIO);
	for (unsigned again = 0; again < 2; again++) {
		assert_int_equal(do_read(0, 0, got, sizeof(got)), 0);
		assert_all(got, 0, 3 * CHUNK);
		assert_memory_equal(got + 3 * CHUNK, data + 3 * CHUNK, CHUNK);
		restart(SEAL_ENCRYPT);
	}
	/* And may be written again. */
	assert_int_equal(do_write(0, CHUNK + 3 * BLOCK, data, BLOCK, TP_FUA), 0);
	restart(SEAL_ENCRYPT);
	assert_int_equal(do_read(0, CHUNK, got, CHUNK), 0);
	assert_all(got, 0, 3 * BLOCK);
	assert_memory_equal(got + 3 * BLOCK, data, BLOCK);
	stop();
}

/* A WRITE that was half done when its connection was lost is done again, byte for byte. */
static void what_is_sent_again_is_the_same(void **state)
{
	start(SEAL_ENCRYPT, NEVER_MS);
	for (unsigned i = 0; i < 20; i++) {
		atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1 + i % 3);
		assert_int_equal(do_write(i % 2, i * CHUNK, data, sizeof(data), 0), 0);
		assert_int_equal(do_flush(i % 2), 0);
	}
	restart(SEAL_ENCRYPT);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(do_read(0, i * CHUNK, got, CHUNK), 0);
		assert_memory_equal(got, data, CHUNK);
	}
	assert_int_equal(nr_bad(), 0);
	stop();
}

static void a_reset_begins_empty_contents(void **state)
{
	struct weft_error err = {0};

	start(SEAL_ENCRYPT, NEVER_MS);
	assert_int_equal(do_write(0, 0, data, CHUNK, TP_FUA), 0);
	mem.epoch = 43;
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	do_write(0, CHUNK, data, BLOCK, TP_FUA);
	wait_for_state("stale");
	atomic_store(&mem.kill_at, 0);
	if (bridge_reset(bridge,
		    weft_next_incarnation(attachment_generation(bridge_attachment(bridge))), NULL,
		    NULL, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(do_read(0, 0, got, sizeof(got)), 0);
	assert_all(got, 0, sizeof(got));
	assert_int_equal(do_write(0, 0, data + BLOCK, CHUNK, TP_FUA), 0);
	stop();
	start(SEAL_ENCRYPT, NEVER_MS);
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	assert_memory_equal(got, data + BLOCK, CHUNK);
	stop();
}

/* ---- kills ---- */

static void fill(uint32_t *words, uint32_t block, uint32_t version)
{
	for (unsigned i = 0; i < BLOCK / sizeof(uint32_t); i++)
		words[i] = version ? block * 2654435761u ^ version : 0;
}

/* The block has a version that its writer may have left. */
static void check(unsigned lane, uint32_t block, unsigned nr_kills)
{
	static uint32_t words[BLOCK / sizeof(uint32_t)], want[BLOCK / sizeof(uint32_t)];
	uint32_t answered = atomic_load(&shared->answered[block]),
		 sent = atomic_load(&shared->sent[block]);
	int r = do_read(lane, (uint64_t)block * BLOCK, words, BLOCK);

	if (r < 0)
		fail_msg("block %u is an error after %u kills: %s", block, nr_kills, strerror(-r));
	for (uint32_t version = answered; version <= sent; version++) {
		fill(want, block, version);
		if (memcmp(words, want, BLOCK) == 0)
			return;
	}
	/* What was not answered may be there in part. */
	if (sent == answered)
		fail_msg("block %u is not what was written, after %u kills", block, nr_kills);
}

static void write_until_killed(enum seal_kind kind, unsigned seed)
{
	static uint32_t words[4 * BLOCK / sizeof(uint32_t)];

	start(kind, 1 + seed % 5);
	atomic_store(&mem.delay_ns, seed % 3 * 200000);
	for (;;) {
		uint32_t block = (uint32_t)rand_r(&seed) % BLOCKS;
		uint32_t nr = 1 + (uint32_t)rand_r(&seed) % 4;

		nr = (uint32_t)weft_min(nr, BLOCKS - block);
		if (rand_r(&seed) % 200 == 0)
			atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
		for (uint32_t i = 0; i < nr; i++) {
			uint32_t version = atomic_load(&shared->sent[block + i]) + 1;

			atomic_store(&shared->sent[block + i], version);
			fill(words + i * (BLOCK / sizeof(uint32_t)), block + i, version);
		}
		if (do_write((unsigned)rand_r(&seed) % 2, (uint64_t)block * BLOCK, words,
			    nr * BLOCK, 0) < 0)
			_exit(1);
		for (uint32_t i = 0; i < nr; i++)
			atomic_store(&shared->answered[block + i],
				atomic_load(&shared->sent[block + i]));
		atomic_fetch_add(&shared->nr_writes, 1);
		if (rand_r(&seed) % 4 == 0 &&
			do_read(0, (uint64_t)rand_r(&seed) % (BLOCKS - 4) * BLOCK, words,
				4 * BLOCK) < 0)
			_exit(2);
	}
}

/*
 * What was answered is in the cache's memory or at the donor; what was on its way is sealed anew,
 * whatever half of it has arrived.
 */
static void a_kill_makes_no_errors_and_loses_nothing(void **state)
{
	unsigned kills = 100, seed = (unsigned)seed_or((unsigned)getpid());
	const enum seal_kind kind = seed % 2 ? SEAL_VERIFY : SEAL_ENCRYPT;

	for (unsigned n = 0; n < kills; n++) {
		uint32_t before = atomic_load(&shared->nr_writes);
		pid_t pid = fork();
		int how;

		assert_true(pid >= 0);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			write_until_killed(kind, (unsigned)rand_r(&seed) + n);
		}
		while (atomic_load(&shared->nr_writes) == before &&
			waitpid(pid, &how, WNOHANG) == 0)
			usleep(100);
		usleep((unsigned)rand_r(&seed) % 20000);
		kill(pid, SIGKILL);
		waitpid(pid, &how, 0);
		if (!WIFSIGNALED(how) || WTERMSIG(how) != SIGKILL)
			fail_msg("a bridge ended by itself (%d), after %u kills", how, n);
		if (n % 5 != 4)
			continue;
		start(kind, NEVER_MS);
		for (uint32_t block = 0; block < BLOCKS; block++)
			check(block % 2, block, n + 1);
		assert_int_equal(do_flush(0), 0);
		assert_int_equal(nr_bad(), 0);
		/* From the donor alone, too. */
		restart(kind);
		for (uint32_t block = 0; block < BLOCKS; block++)
			check(block % 2, block, n + 1);
		/* A mixture is known from now on. */
		for (uint32_t block = 0; block < BLOCKS; block++) {
			static uint32_t words[BLOCK / sizeof(uint32_t)];

			if (shared->answered[block] == shared->sent[block])
				continue;
			shared->answered[block] = ++shared->sent[block];
			fill(words, block, shared->sent[block]);
			assert_int_equal(do_write(0, (uint64_t)block * BLOCK, words, BLOCK, 0), 0);
		}
		stop();
	}
	printf("%u writes, %u kills\n", shared->nr_writes, kills);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_never_written_is_zeros_and_asked_of_nobody),
		TEST(a_donor_sees_plain_bytes_or_none),
		TEST(what_a_donor_changed_is_an_error_and_nothing_else_is),
		TEST(what_was_trimmed_or_zeroed_is_zeros),
		TEST(what_is_sent_again_is_the_same),
		TEST(a_reset_begins_empty_contents),
		TEST(a_kill_makes_no_errors_and_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
