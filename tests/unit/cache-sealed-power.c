/* SPDX-License-Identifier: MIT */
/*
 * Sealed contents whose bridge ends with its machine's power, or is killed, at any moment: what was
 * flushed is there, no block is an error by itself, and none is anything that was never written.
 *
 * A loss of power is played: the bridge is a process that is killed, and its files become what a
 * disk may have of them.  Of the seal's file that is all that an fdatasync(2) covered, and any
 * sectors of what came after; of the mapped cache file its state at the last fdatasync(2), and any
 * pages of what came after.  The donor has what had arrived, the last WRITE perhaps in part.
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
#include "nbd-bridge/cache/seal.h"
#include "tests/support/bridge-io.h"
#include "tests/support/seed.h"
#include "transports/mem/mem.h"

enum {
	BLOCK = 4096,
	CHUNK = 64 << 10,
	BLOCKS = 1024,
	SLOTS = 24,
	SECTOR = 512,
	NEVER_MS = 3600000,
	WORDS = BLOCK / sizeof(uint32_t),
	FILE_MAX = 8 << 20,
	WRITES_MAX = 128 << 20,
};

struct record {
	uint64_t off, len;
};

/* What outlives a bridge: what its writer was told, the donor's bytes, what its disk was told. */
struct shared {
	_Atomic uint32_t flushed[BLOCKS], answered[BLOCKS], sent[BLOCKS];
	_Atomic uint32_t nr_writes, nr_flushes, nr_syncs;
	/* of the seal's file: writes, as records with their bytes, so far and synced */
	_Atomic uint64_t written, synced;
	/* of the cache file: which of the two states is on disk; 0: that of before */
	_Atomic uint32_t state, state_len[2];
	ino_t seal_ino, cache_ino;
	uint8_t region[BLOCKS * BLOCK];
	uint8_t states[2][FILE_MAX];
	uint8_t writes[WRITES_MAX];
};

static struct shared *shared;
static char dir[] = "/tmp/weft-power.XXXXXX", seal_file[64], cache_file[64];
static const uint8_t key[SEAL_KEY_BYTES] = {1, 2, 3};
static struct mem_config mem;
static struct bridge_config config;
static uint8_t id[WEFT_ID_BYTES];
static uint64_t fails_at; /* the donor's first operation that fails; 0: none */
static _Atomic bool disk_fails;
static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER;

ssize_t __real_pwrite(int fd, const void *bytes, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t len, off_t off);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fsync(int fd);
int __wrap_fsync(int fd);

static ino_t inode_of(int fd)
{
	struct stat st;

	return shared && fstat(fd, &st) == 0 ? st.st_ino : 0;
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t len, off_t off)
{
	if (!shared || !shared->seal_ino || inode_of(fd) != shared->seal_ino)
		return __real_pwrite(fd, bytes, len, off);
	pthread_mutex_lock(&recording);
	const struct record record = {(uint64_t)off, len};
	uint64_t at = atomic_load(&shared->written);
	if (at + sizeof(record) + len > WRITES_MAX)
		_exit(3);
	memcpy(shared->writes + at, &record, sizeof(record));
	memcpy(shared->writes + at + sizeof(record), bytes, len);
	ssize_t n = __real_pwrite(fd, bytes, len, off);
	atomic_store(&shared->written, at + sizeof(record) + len);
	pthread_mutex_unlock(&recording);
	return n;
}

/* What was written before the call is on disk when it returns; of the rest nobody knows. */
static void sync_begins(int fd, uint64_t *ret_written)
{
	const ino_t ino = inode_of(fd);

	*ret_written = ino && ino == shared->seal_ino ? atomic_load(&shared->written) : 0;
	if (!ino || ino != shared->cache_ino)
		return;
	const uint32_t next = atomic_load(&shared->state) == 1 ? 2 : 1;
	struct stat st;
	fstat(fd, &st);
	if (st.st_size > FILE_MAX ||
		pread(fd, shared->states[next - 1], (size_t)st.st_size, 0) != st.st_size)
		_exit(4);
	atomic_store(&shared->state_len[next - 1], (uint32_t)st.st_size);
	atomic_store(&shared->state, next);
}

static int sync_one(int fd, int (*real)(int fd))
{
	uint64_t written;

	if (atomic_load(&disk_fails)) {
		errno = EIO;
		return -1;
	}
	sync_begins(fd, &written);
	int r = real(fd);
	if (written > atomic_load(&shared->synced))
		atomic_store(&shared->synced, written);
	if (shared)
		atomic_fetch_add(&shared->nr_syncs, 1);
	return r;
}

int __wrap_fdatasync(int fd)
{
	return shared ? sync_one(fd, __real_fdatasync) : __real_fdatasync(fd);
}

int __wrap_fsync(int fd)
{
	return shared ? sync_one(fd, __real_fsync) : __real_fsync(fd);
}

/* ---- the machine ---- */

static uint8_t *read_file(const char *path, size_t *ret_len)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *bytes = calloc(1, FILE_MAX);
	ssize_t n = read(fd, bytes, FILE_MAX);

	assert_true(bytes && n >= 0 && n < FILE_MAX);
	*ret_len = (size_t)n;
	return bytes;
}

/* In its place: its inode stays. */
static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
	WEFT_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	assert_int_equal(weft_write_all(fd, bytes, len), 0);
}

static uint8_t *seal_on_disk; /* as the last loss of power, or clean end, left it */
static size_t seal_len;

static void grow(uint64_t end)
{
	assert_true(end <= FILE_MAX);
	seal_len = weft_max(seal_len, (size_t)end);
}

static void lose_power_of_seal(unsigned *seed)
{
	const uint64_t written = atomic_load(&shared->written);

	for (uint64_t at = 0; at < written;) {
		struct record record;

		memcpy(&record, shared->writes + at, sizeof(record));
		const uint8_t *bytes = shared->writes + at + sizeof(record);
		const bool certain = at < atomic_load(&shared->synced);
		grow(record.off + record.len);
		for (uint64_t i = 0; i < record.len; i += SECTOR)
			if (certain || rand_r(seed) % 2)
				memcpy(seal_on_disk + record.off + i, bytes + i,
					weft_min(SECTOR, record.len - i));
		at += sizeof(record) + record.len;
	}
	write_file(seal_file, seal_on_disk, seal_len);
}

static void lose_power_of_cache(unsigned *seed)
{
	const uint32_t state = atomic_load(&shared->state);
	size_t len;
	uint8_t *now = read_file(cache_file, &len);

	if (state) {
		const uint8_t *synced = shared->states[state - 1];
		const size_t was = atomic_load(&shared->state_len[state - 1]);

		for (size_t i = 0; i < len; i += BLOCK)
			if (i < was && rand_r(seed) % 2)
				memcpy(now + i, synced + i, weft_min(BLOCK, was - i));
	}
	write_file(cache_file, now, len);
	free(now);
}

static void begin_recording(void)
{
	struct stat st;

	assert_int_equal(stat(seal_file, &st), 0);
	shared->seal_ino = st.st_ino;
	assert_int_equal(stat(cache_file, &st), 0);
	shared->cache_ino = st.st_ino;
	atomic_store(&shared->written, 0);
	atomic_store(&shared->synced, 0);
	atomic_store(&shared->state, 0);
	free(seal_on_disk);
	seal_on_disk = read_file(seal_file, &seal_len);
}

/* ---- bridges ---- */

static void start(enum seal_kind kind, bool anew, bool same_boot, uint32_t push_ms)
{
	static uint64_t generation = 1;
	struct weft_error err = {0};

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
	struct seal_identity identity = {.uri = "weft://test/r", .nr_donors = 1};
	if (cache_file_open(cache_file, true, &config.cache.file, &err) < 0 ||
		seal_open(seal_file, key, kind, anew, &config.cache.seal, &err) < 0 ||
		seal_note(config.cache.seal, &identity, &err) < 0)
		fail_msg("%s", err.message);
	config.cache.resume = same_boot && cache_file_dirty_bytes(config.cache.file) > 0;
	memcpy(config.attach.id, id, sizeof(id));
	atomic_store(&mem.fail_error, EIO);
	atomic_store(&mem.fail_at, fails_at);
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

static void fill(uint32_t *words, uint32_t block, uint32_t version)
{
	for (unsigned i = 0; i < WORDS; i++)
		words[i] = version ? block * 2654435761u ^ version : 0;
}

/* The block's version, which its writer may have left. */
static uint32_t check(uint32_t block, uint32_t from, unsigned nr)
{
	static uint32_t words[WORDS], want[WORDS];
	const uint32_t sent = atomic_load(&shared->sent[block]);
	int r = do_read(block % 2, (uint64_t)block * BLOCK, words, BLOCK);

	if (r < 0)
		fail_msg("block %u is an error after %u ends: %s", block, nr, strerror(-r));
	for (uint32_t version = from; version <= sent; version++) {
		fill(want, block, version);
		if (memcmp(words, want, BLOCK) == 0)
			return version;
	}
	fail_msg("block %u is not what was written, after %u ends: it has to be of %u to %u, and "
		 "has %u and %u",
		block, nr, from, sent, words[0] ^ block * 2654435761u,
		words[WORDS - 1] ^ block * 2654435761u);
	return 0;
}

static void *kill_at(void *ctx)
{
	while (atomic_load(&mem.nr_ops) < atomic_load(&mem.kill_at))
		usleep(20);
	/* The operation is half done some time after it was accepted. */
	usleep((unsigned)(uintptr_t)ctx);
	kill(getpid(), SIGKILL);
	return NULL;
}

static void write_one(unsigned *seed)
{
	static uint32_t words[16 * WORDS];
	const uint32_t block = (uint32_t)rand_r(seed) % BLOCKS;
	const uint32_t nr =
		(uint32_t)weft_min(1 + (uint32_t)rand_r(seed) % (rand_r(seed) % 4 ? 3 : 16),
			BLOCKS - block);

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t version = atomic_load(&shared->sent[block + i]) + 1;

		atomic_store(&shared->sent[block + i], version);
		fill(words + i * WORDS, block + i, version);
	}
	if (do_write((unsigned)rand_r(seed) % 2, (uint64_t)block * BLOCK, words, nr * BLOCK, 0) < 0)
		_exit(1);
	for (uint32_t i = 0; i < nr; i++)
		atomic_store(&shared->answered[block + i], atomic_load(&shared->sent[block + i]));
	atomic_fetch_add(&shared->nr_writes, 1);
}

static void flush(void)
{
	if (do_flush(0) < 0)
		_exit(2);
	for (uint32_t i = 0; i < BLOCKS; i++)
		atomic_store(&shared->flushed[i], atomic_load(&shared->answered[i]));
	atomic_fetch_add(&shared->nr_flushes, 1);
}

static void write_until_killed(enum seal_kind kind, bool same_boot, unsigned seed)
{
	pthread_t thread;

	start(kind, false, same_boot, 1 + seed % 5);
	atomic_store(&mem.delay_ns, seed % 3 * 200000);
	if (seed % 2) {
		atomic_store(&mem.kill_at, 1 + (uint64_t)rand_r(&seed) % 200);
		pthread_create(&thread, NULL, kill_at,
			(void *)(uintptr_t)((unsigned)rand_r(&seed) % 400));
	}
	for (;;) {
		write_one(&seed);
		if (rand_r(&seed) % 16 == 0)
			flush();
	}
}

static void run_one(enum seal_kind kind, bool same_boot, unsigned *seed)
{
	/* It ends after so much of its work, not of time: a busy machine does little in that. */
	const uint32_t until = atomic_load(&shared->nr_writes) + 1 + (uint32_t)rand_r(seed) % 40;
	pid_t pid = fork();
	int how = 0;
	bool ended = false;

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		write_until_killed(kind, same_boot, (unsigned)rand_r(seed));
	}
	while (atomic_load(&shared->nr_writes) < until && !ended)
		if (waitpid(pid, &how, WNOHANG) == 0)
			usleep(100);
		else
			ended = true;
	usleep((unsigned)rand_r(seed) % 2000);
	if (!ended) {
		kill(pid, SIGKILL);
		waitpid(pid, &how, 0);
	}
	if (!WIFSIGNALED(how) || WTERMSIG(how) != SIGKILL)
		fail_msg("a bridge ended by itself (%d)", how);
}

static void check_all(enum seal_kind kind, bool power, unsigned nr)
{
	static uint32_t found[BLOCKS];

	start(kind, false, !power, NEVER_MS);
	for (uint32_t block = 0; block < BLOCKS; block++)
		found[block] = check(block,
			atomic_load(power ? &shared->flushed[block] : &shared->answered[block]),
			nr);
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(seal_nr_bad(config.cache.seal), 0);
	stop();
	/* From the donor alone, too; and whatever it was stays. */
	start(kind, false, !power, NEVER_MS);
	for (uint32_t block = 0; block < BLOCKS; block++) {
		assert_int_equal(check(block, 0, nr), found[block]);
		atomic_store(&shared->flushed[block], found[block]);
		atomic_store(&shared->answered[block], found[block]);
		atomic_store(&shared->sent[block], found[block]);
	}
	stop();
}

static void no_end_of_power_makes_errors_or_loses_what_was_flushed(void **state)
{
	unsigned ends = 40, seed = (unsigned)seed_or((unsigned)getpid());
	const enum seal_kind kind = seed % 2 ? SEAL_VERIFY : SEAL_ENCRYPT;

	start(kind, true, true, NEVER_MS);
	assert_int_equal(do_flush(0), 0);
	stop();
	begin_recording();
	bool power = true;
	for (unsigned n = 1; n <= ends; n++) {
		run_one(kind, !power, &seed);
		power = rand_r(&seed) % 4 != 0;
		if (power) {
			lose_power_of_seal(&seed);
			lose_power_of_cache(&seed);
			/* A second loss, before the first one's traces are gone. */
			if (rand_r(&seed) % 8 == 0) {
				for (uint32_t i = 0; i < BLOCKS; i++)
					atomic_store(&shared->answered[i], shared->flushed[i]);
				begin_recording();
				run_one(kind, false, &seed);
				lose_power_of_seal(&seed);
				lose_power_of_cache(&seed);
			}
		}
		shared->seal_ino = shared->cache_ino = 0;
		check_all(kind, power, n);
		begin_recording();
	}
	printf("%u writes, %u flushes, %u syncs, %u ends\n", shared->nr_writes, shared->nr_flushes,
		shared->nr_syncs, ends);
	assert_true(shared->nr_flushes > 0 && shared->nr_syncs > shared->nr_flushes);
}

/* Nothing is sent whose rows may not be on disk; and it goes on when they can be again. */
static void a_disk_that_fails_fails_flushes_and_loses_nothing(void **state)
{
	static uint8_t got[BLOCK], old[BLOCK], new[BLOCK];

	for (enum seal_kind kind = SEAL_VERIFY; kind <= SEAL_ENCRYPT; kind++) {
		memset(old, 0x11, sizeof(old));
		memset(new, 0x22, sizeof(new));
		start(kind, true, true, NEVER_MS);
		assert_int_equal(do_write(0, 5 * BLOCK, old, BLOCK, 0), 0);
		assert_int_equal(do_flush(0), 0);
		static uint8_t at_donor[BLOCK];
		memcpy(at_donor, shared->region + 5 * BLOCK, BLOCK);
		atomic_store(&disk_fails, true);
		assert_int_equal(do_write(1, 5 * BLOCK, new, BLOCK, 0), 0);
		for (unsigned i = 0; i < 12; i++)
			assert_int_equal(do_flush(i % 2), -EIO);
		assert_memory_equal(shared->region + 5 * BLOCK, at_donor, BLOCK);
		assert_int_equal(do_range(0, TP_ZERO, 2 * CHUNK, CHUNK, TP_FUA), -EIO);
		atomic_store(&disk_fails, false);
		assert_int_equal(do_flush(0), 0);
		assert_memory_not_equal(shared->region + 5 * BLOCK, at_donor, BLOCK);
		stop();
		start(kind, false, false, NEVER_MS);
		assert_int_equal(do_read(0, 5 * BLOCK, got, BLOCK), 0);
		assert_memory_equal(got, new, BLOCK);
		stop();
	}
}

/* More rows are logged without a FLUSH than a log has room for, some of them again and again. */
static void a_log_that_is_full_is_followed_by_another(void **state)
{
	static uint8_t bytes[4 * CHUNK], got[4 * CHUNK];

	start(SEAL_ENCRYPT, true, true, 1);
	for (unsigned round = 0; round < 12; round++)
		for (uint64_t off = 0; off < sizeof(shared->region); off += sizeof(bytes)) {
			memset(bytes, (int)(round + off / sizeof(bytes)), sizeof(bytes));
			assert_int_equal(do_write(round % 2, off, bytes, sizeof(bytes), 0), 0);
		}
	assert_int_equal(do_range(0, TP_ZERO, CHUNK, CHUNK, 0), 0);
	assert_int_equal(do_flush(0), 0);
	stop();
	start(SEAL_ENCRYPT, false, false, NEVER_MS);
	for (uint64_t off = 0; off < sizeof(shared->region); off += sizeof(bytes)) {
		memset(bytes, (int)(11 + off / sizeof(bytes)), sizeof(bytes));
		if (off == 0)
			memset(bytes + CHUNK, 0, CHUNK);
		assert_int_equal(do_read(0, off, got, sizeof(got)), 0);
		assert_memory_equal(got, bytes, sizeof(got));
	}
	assert_int_equal(seal_nr_bad(config.cache.seal), 0);
	stop();
}

/* A bridge that writes these blocks, and is killed before they are flushed. */
static void write_and_be_killed(enum seal_kind kind, const uint8_t *bytes, uint64_t off, size_t len)
{
	static uint8_t before[sizeof(shared->region)];

	memcpy(before, shared->region, sizeof(before));
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		start(kind, false, true, 1);
		if (do_write(0, off, bytes, len, 0) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	while (memcmp(before + off + len - 1, shared->region + off + len - 1, 1) == 0 &&
		waitpid(pid, NULL, WNOHANG) == 0)
		usleep(100);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* The donor has the bytes of before, and cannot read them at the first try. */
static void a_failed_read_of_doubts_makes_no_block_bad(void **state)
{
	enum { OFF = 5 * BLOCK, LEN = 4 * BLOCK };
	static uint8_t got[LEN], old[LEN], new[LEN], at_donor[LEN];
	uint64_t most_ops = 0, least_ops = UINT64_MAX;

	memset(old, 0x11, sizeof(old));
	memset(new, 0x22, sizeof(new));
	start(SEAL_VERIFY, true, true, NEVER_MS);
	assert_int_equal(do_write(0, OFF, old, LEN, 0), 0);
	assert_int_equal(do_flush(0), 0);
	stop();
	memcpy(at_donor, shared->region + OFF, LEN);
	write_and_be_killed(SEAL_VERIFY, new, OFF, LEN);
	size_t len;
	uint8_t *left = read_file(seal_file, &len);
	/* Bridges look at the donor before. */
	for (fails_at = 1; fails_at <= 6; fails_at++) {
		memcpy(shared->region + OFF, at_donor, LEN);
		write_file(seal_file, left, len);
		unlink(cache_file);
		start(SEAL_VERIFY, false, false, NEVER_MS);
		atomic_store(&mem.fail_at, 0);
		most_ops = weft_max(most_ops, atomic_load(&mem.nr_ops));
		least_ops = weft_min(least_ops, atomic_load(&mem.nr_ops));
		assert_int_equal(do_read(0, OFF, got, LEN), 0);
		assert_memory_equal(got, old, LEN);
		stop();
	}
	fails_at = 0;
	free(left);
	/* One of them asked for each block by itself. */
	assert_true(most_ops >= least_ops + LEN / BLOCK);
}

static int set_up(void **state)
{
	assert_non_null(mkdtemp(dir));
	snprintf(seal_file, sizeof(seal_file), "%s/cache.seal", dir);
	snprintf(cache_file, sizeof(cache_file), "%s/cache", dir);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	weft_random(id, sizeof(id));
	memset(shared->region, 0xd7, sizeof(shared->region)); /* somebody else's */
	return shared == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **state)
{
	free(seal_on_disk);
	unlink(seal_file);
	unlink(cache_file);
	rmdir(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disk_that_fails_fails_flushes_and_loses_nothing),
		cmocka_unit_test(a_log_that_is_full_is_followed_by_another),
		cmocka_unit_test(a_failed_read_of_doubts_makes_no_block_bad),
		cmocka_unit_test(no_end_of_power_makes_errors_or_loses_what_was_flushed),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
