/* SPDX-License-Identifier: MIT */
/*
 * A cache in a file: bridges that are killed at any moment, what the next one finds, and files that
 * are something else.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/file.h"
#include "tests/support/bridge-io.h"
#include "tests/support/seed.h"
#include "transports/mem/mem.h"

enum { BLOCK = 4096, CHUNK = 64 << 10, BLOCKS = 1024, SLOTS = 24 };

/*
 * What outlives a bridge: the donor's bytes, and how far each block was written, as its writer was
 * told.
 */
struct shared {
	_Atomic uint32_t answered[BLOCKS], sent[BLOCKS];
	_Atomic uint32_t nr_writes;
	uint8_t region[BLOCKS * BLOCK];
};

static struct shared *shared;
static char path[64];
static struct mem_config mem;
static struct bridge_config config;
static uint8_t id[WEFT_ID_BYTES];

static int set_up(void **state)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		0);
	strcpy(path, "/tmp/weft-cache-file.XXXXXX");
	int fd = mkstemp(path);
	close(fd);
	weft_random(id, sizeof(id));
	return shared == MAP_FAILED || fd < 0;
}

static int tear_down(void **state)
{
	munmap(shared, sizeof(*shared));
	unlink(path);
	return 0;
}

/* Its writes may take a moment, so that it is killed with some under way. */
static struct cache_file *start(uint64_t generation, uint32_t push_ms)
{
	struct cache_file *file;
	struct weft_error err = {0};

	if (cache_file_open(path, true, &file, &err) < 0)
		fail_msg("%s", err.message);
	bool resumes = cache_file_dirty_bytes(file) > 0;
	if (!resumes)
		cache_file_forget(file);
	mem_config_init(&mem, shared->region, sizeof(shared->region));
	config = bridge_config_for_tests(&mem);
	config.attach.generation = resumes ? cache_file_generation(file, 0) + 1 : generation;
	config.cache = cache_config_in_file(file, SLOTS * CHUNK, CHUNK, push_ms);
	memcpy(config.attach.id, id, sizeof(id));
	bridge_begin(&config);
	return file;
}

static void stop(struct cache_file *file)
{
	struct weft_error err = {0};

	if (bridge_stop(bridge, 20000, &err) < 0)
		fail_msg("%s", err.message);
	bridge_free(bridge);
	bridge = NULL;
	cache_file_close(file);
}

static void fill(uint32_t *words, uint32_t block, uint32_t version)
{
	for (unsigned i = 0; i < BLOCK / sizeof(uint32_t); i++)
		words[i] = block * 2654435761u ^ version;
}

/* The version of what the donor has; UINT32_MAX: a mixture. */
static uint32_t version_of(uint32_t block)
{
	const uint32_t *words = (const uint32_t *)(shared->region + (size_t)block * BLOCK);
	uint32_t version = words[0] ^ block * 2654435761u;

	for (unsigned i = 1; i < BLOCK / sizeof(uint32_t); i++)
		if ((words[i] ^ block * 2654435761u) != version)
			return UINT32_MAX;
	return version;
}

static void write_until_killed(unsigned seed)
{
	static uint32_t words[BLOCK / sizeof(uint32_t)];

	start(UINT64_C(1) << 32, 1 + seed % 20);
	atomic_store(&mem.delay_ns, seed % 3 * 300000);
	for (;;) {
		uint32_t block = (uint32_t)rand_r(&seed) % BLOCKS;
		uint32_t version = atomic_load(&shared->sent[block]) + 1;

		atomic_store(&shared->sent[block], version);
		fill(words, block, version);
		if (do_write((unsigned)rand_r(&seed) % 2, (uint64_t)block * BLOCK, words, BLOCK,
			    0) < 0)
			_exit(1);
		atomic_store(&shared->answered[block], version);
		atomic_fetch_add(&shared->nr_writes, 1);
	}
}

static unsigned from_environment(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

static void no_answered_write_is_lost_when_the_bridge_is_killed(void **state)
{
	unsigned kills = from_environment("WEFT_KILLS", 40),
		 seed = (unsigned)seed_or((unsigned)getpid());

	for (uint32_t block = 0; block < BLOCKS; block++)
		fill((uint32_t *)(shared->region + (size_t)block * BLOCK), block, 0);
	for (unsigned n = 0; n < kills; n++) {
		int how;
		uint32_t before = atomic_load(&shared->nr_writes);
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			write_until_killed((unsigned)rand_r(&seed));
		}
		while (atomic_load(&shared->nr_writes) == before &&
			waitpid(pid, &how, WNOHANG) == 0)
			usleep(100);
		usleep((unsigned)rand_r(&seed) % 30000);
		kill(pid, SIGKILL);
		waitpid(pid, &how, 0);
		assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
		/* Every few: what there is after the last. */
		if (n % 4 != 3 && n + 1 != kills)
			continue;
		struct cache_file *file = start(UINT64_C(1) << 32, 1000);
		assert_int_equal(do_flush(0), 0);
		assert_int_equal(cache_file_dirty_bytes(file), 0);
		stop(file);
		for (uint32_t block = 0; block < BLOCKS; block++) {
			uint32_t version = version_of(block), answered = shared->answered[block],
				 sent = shared->sent[block];

			/* What was under way may be there in part. */
			if (version == UINT32_MAX && sent == answered)
				fail_msg("block %u is a mixture, after %u kills", block, n + 1);
			if (version != UINT32_MAX && (version < answered || version > sent))
				fail_msg("block %u has version %u; %u was answered, %u sent, after "
					 "%u kills",
					block, version, answered, sent, n + 1);
			fill((uint32_t *)(shared->region + (size_t)block * BLOCK), block, sent);
			shared->answered[block] = sent;
		}
	}
	printf("%u writes, %u kills\n", shared->nr_writes, kills);
}

struct seen {
	uint64_t dirty, torn;
};

static int look(void *ctx, uint64_t off, uint64_t len, enum cache_content content, const void *data)
{
	struct seen *seen = ctx;

	if (content == CACHE_CONTENT_TORN)
		seen->torn += len;
	else
		seen->dirty += len;
	assert_true((content == CACHE_CONTENT_TORN) == (data == NULL));
	return 0;
}

/*
 * As a restart of the machine leaves it: another boot's, and one block whose bytes did not get to
 * the disk.
 */
static void what_a_restart_tore_is_told(void **state)
{
	static struct cache_file_identity identity;
	struct cache_file *file;
	struct weft_error err;

	strcpy(identity.uri, "weft://test/r");
	identity.size_bytes = BLOCKS * BLOCK - 100;
	identity.chunk_bytes = CHUNK;
	identity.nr_slots = SLOTS;
	identity.nr_donors = 1;
	for (unsigned restarted = 0; restarted < 2; restarted++) {
		struct seen seen = {0};
		uint64_t unknown;

		strcpy(identity.boot, restarted ? "another" : "");
		assert_int_equal(cache_file_open(path, true, &file, &err), 0);
		assert_true(restarted || !cache_file_identity(file));
		assert_int_equal(cache_file_reset(file, &identity, &err), 0);
		assert_int_equal(cache_file_same_boot(file), !restarted);
		uint8_t *data = cache_file_data(file);
		memset(data, 7, CHUNK);
		for (unsigned i = 0; i < 4; i++)
			cache_file_mark(file, 0, i, i);
		cache_file_mark(file, 1, 15, BLOCKS - 1); /* the last of the region */
		data[2 * BLOCK + 99] ^= 1;
		assert_int_equal(cache_file_each(file, look, &seen, &unknown), 0);
		/* Nothing can be torn while the machine runs. */
		assert_int_equal(seen.torn, restarted ? BLOCK : 0);
		assert_int_equal(seen.dirty, (restarted ? 4 : 5) * BLOCK - 100);
		cache_file_close(file);
	}
}

/* Whatever one bit of the header or of the table says, nothing outside the file is touched. */
static void damaged_files_are_refused_or_harmless(void **state)
{
	static struct cache_file_identity identity;
	struct cache_file *file;
	struct weft_error err;
	unsigned seed = 4711, refused = 0;
	struct stat st;

	strcpy(identity.uri, "weft://test/r");
	identity.size_bytes = BLOCKS * BLOCK;
	identity.chunk_bytes = CHUNK;
	identity.nr_slots = SLOTS;
	identity.nr_donors = 1;
	assert_int_equal(cache_file_open(path, true, &file, &err), 0);
	assert_int_equal(cache_file_reset(file, &identity, &err), 0);
	for (unsigned i = 0; i < 16; i++)
		cache_file_mark(file, 3, i, 16 + i);
	cache_file_close(file);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	for (unsigned i = 0; i < 2000; i++) {
		off_t at =
			i < 1000 ? rand_r(&seed) % 4400 : 8192 + rand_r(&seed) % (SLOTS * 16 * 8);
		uint8_t was, is;

		assert_int_equal(pread(fd, &was, 1, at), 1);
		is = was ^ (uint8_t)(1 << rand_r(&seed) % 8);
		assert_int_equal(pwrite(fd, &is, 1, at), 1);
		int r = cache_file_open(path, false, &file, &err);
		if (r == 0) {
			struct seen seen = {0};
			uint64_t unknown;

			assert_int_equal(cache_file_each(file, look, &seen, &unknown), 0);
			assert_true(seen.dirty + seen.torn <= 17 * BLOCK);
			cache_file_close(file);
		}
		refused += r == -EINVAL;
		assert_true(r == 0 || r == -EINVAL);
		assert_int_equal(pwrite(fd, &was, 1, at), 1);
	}
	assert_int_equal(refused, 1000); /* the header's */
	for (off_t len = 1; len < st.st_size; len = len * 2 + 1) {
		assert_int_equal(ftruncate(fd, len), 0);
		assert_int_equal(cache_file_open(path, false, &file, &err), -EINVAL);
	}
	close(fd);
}

static int nr_registrations;

static int refuse_the_fourth(struct tp *tp, struct tp_mem *memory, struct weft_error *err)
{
	if (++nr_registrations == 4)
		return weft_error_set(err, ENOMEM, "no more memory can be locked");
	return tp_mem_ops.reg(tp, memory, err);
}

/*
 * The second lane has no memory for it: an error, and what the file holds stays, or gets to the
 * donor.
 */
static void an_attach_that_fails_loses_nothing(void **state)
{
	static uint8_t block[BLOCK] = {7};
	struct tp_ops ops = tp_mem_ops;
	struct cache_file *file = start(UINT64_C(1) << 32, 3600000);
	struct weft_error err;

	atomic_store(&mem.hold, true);
	assert_int_equal(do_write(0, 3 * BLOCK, block, BLOCK, 0), 0);
	bridge_stop(bridge, 0, NULL);
	bridge_free(bridge);
	cache_file_close(file);
	assert_int_equal(cache_file_open(path, true, &file, &err), 0);
	assert_int_equal(cache_file_dirty_bytes(file), BLOCK);
	atomic_store(&mem.hold, false);
	ops.reg = refuse_the_fourth;
	config.attach.transport = &ops;
	config.cache.file = file;
	config.cache.resume = true;
	config.attach.generation = cache_file_generation(file, 0) + 1;
	nr_registrations = 0;
	assert_int_equal(bridge_new(&config, &bridge, &err), 0);
	assert_int_equal(bridge_start(bridge, &err), -ENOMEM);
	assert_string_equal(err.message, "no more memory can be locked");
	bridge_stop(bridge, 5000, NULL);
	bridge_free(bridge);
	bridge = NULL;
	if (cache_file_dirty_bytes(file) == 0)
		assert_memory_equal(shared->region + 3 * BLOCK, block, BLOCK);
	cache_file_close(file);
}

static void *reset(void *ctx)
{
	struct weft_error err;

	*(int *)ctx = bridge_reset(bridge,
		weft_next_incarnation(attachment_generation(bridge_attachment(bridge))), NULL, NULL,
		&err);
	return NULL;
}

/*
 * Until it has succeeded nothing is answered, and whoever is killed then leaves nothing that could
 * be taken for the old contents' or the new ones'.
 */
static void a_reset_takes_nothing_before_it_knows_of_what(void **state)
{
	static uint8_t block[BLOCK] = {1};
	struct cache_file *file = start(UINT64_C(1) << 32, 3600000);
	uint64_t end = weft_now_ns() + UINT64_C(20000000000);
	pthread_t thread;
	int r = -1;

	assert_int_equal(cache_file_epoch(file, 0), 42);
	mem.epoch = 43;
	atomic_store(&mem.kill_at, atomic_load(&mem.nr_ops) + 1);
	do_read(0, 0, block, BLOCK);
	while (strcmp(bridge_state(bridge, NULL), "stale") != 0) {
		assert_true(weft_now_ns() < end);
		usleep(1000);
	}
	atomic_store(&mem.kill_at, 0);
	atomic_store(&mem.refuse, ECONNREFUSED);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&thread, NULL, reset, &r), 0);
		while (strcmp(bridge_state(bridge, NULL), "stale") == 0)
			usleep(100);
		assert_int_equal(do_write(0, 5 * BLOCK, block, BLOCK, 0), -EIO);
		assert_int_equal(do_read(1, 900 * BLOCK, block, BLOCK), -EIO);
		assert_int_equal(cache_file_dirty_bytes(file), 0);
		assert_int_equal(cache_file_epoch(file, 0), 0);
		assert_true(cache_file_same_boot(file));
		if (i == 1)
			atomic_store(&mem.refuse, 0);
		pthread_join(thread, NULL);
		assert_int_equal(r, i == 0 ? -ECONNREFUSED : 0);
		assert_int_equal(strcmp(bridge_state(bridge, NULL), "stale") == 0, i == 0);
	}
	assert_int_equal(cache_file_epoch(file, 0), 43);
	assert_int_equal(do_write(0, 5 * BLOCK, block, BLOCK, 0), 0);
	stop(file);
	assert_memory_equal(shared->region + 5 * BLOCK, block, BLOCK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_answered_write_is_lost_when_the_bridge_is_killed,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_attach_that_fails_loses_nothing, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(a_reset_takes_nothing_before_it_knows_of_what,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_a_restart_tore_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(damaged_files_are_refused_or_harmless, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
