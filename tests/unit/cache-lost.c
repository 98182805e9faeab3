/* SPDX-License-Identifier: MIT */
/*
 * A cache file of which some cannot be read or written: whoever wants that fails, nobody gets
 * anything else for it, and the rest goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/bridge/bridge-private.h"
#include "nbd-bridge/cache/cache-private.h"
#include "nbd-bridge/cache/mapped.h"
#include "tests/support/bridge-io.h"
#include "tests/support/emulated.h"
#include "transports/mem/mem.h"

enum {
	BLOCK = 4096,
	CHUNK = 64 << 10,
	CHUNK_BLOCKS = CHUNK / BLOCK,
	BLOCKS = 1024,
	SLOTS = 24,
	NEVER_MS = 3600000
};

static uint8_t region[BLOCKS * BLOCK], data[BLOCKS * BLOCK], got[BLOCKS * BLOCK];
static char dir[64], path[80];
static int no_pages; /* an empty file */
static struct mem_config mem;
static struct bridge_config config;
static struct cache_file *file;
static struct seal *seal; /* NULL: the contents are not sealed */

static uint8_t old_byte(size_t i)
{
	return (uint8_t)(i / BLOCK * 7 + 1);
}

static int set_up(void **state)
{
	strcpy(dir, "/tmp/weft-cache-lost.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/cache", dir);
	no_pages = memfd_create("empty", MFD_CLOEXEC);
	for (size_t i = 0; i < sizeof(region); i++) {
		region[i] = old_byte(i);
		data[i] = (uint8_t)~old_byte(i);
	}
	return no_pages < 0;
}

static int tear_down(void **state)
{
	close(no_pages);
	unlink(path);
	rmdir(dir);
	return 0;
}

static int try_start(struct weft_error *err)
{
	assert_int_equal(cache_file_open(path, true, &file, err), 0);
	bool resumes = cache_file_dirty_bytes(file) > 0;
	mem_config_init(&mem, region, sizeof(region));
	config = bridge_config_for_tests(&mem);
	if (resumes)
		config.attach.generation = cache_file_generation(file, 0) + 1;
	config.cache = cache_config_in_file(file, SLOTS * CHUNK, CHUNK, NEVER_MS);
	config.cache.seal = seal;
	int r = bridge_new(&config, &bridge, err);
	return r < 0 ? r : bridge_start(bridge, err);
}

/* Before a test that loses one block: that is a page, and the signal says where it is. */
static void need_blocks_to_lose(void)
{
	SKIP_IF_EMULATED("s390x", "gives a SIGBUS a wrong address");
	if (sysconf(_SC_PAGESIZE) > BLOCK) {
		print_message("SKIP: a page of this machine has several blocks, and none is lost "
			      "alone\n");
		skip();
	}
}

static void start(void)
{
	struct weft_error err = {0};

	need_blocks_to_lose();
	if (try_start(&err) < 0)
		fail_msg("cannot start: %s", err.message);
}

static int stop(uint32_t timeout_ms)
{
	struct weft_error err = {0};
	int r = bridge_stop(bridge, timeout_ms, &err);

	bridge_free(bridge);
	bridge = NULL;
	cache_file_close(file);
	return r;
}

/* The page has no bytes from now on, whatever the disk says of it. */
static void lose_page(void *page)
{
	assert_true(mmap(page, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, no_pages,
			    0) == page);
}

/* Where the cache has the region's block. */
static uint8_t *place_of(unsigned block)
{
	const struct cache_chunk *chunk = &bridge->cache->chunks[block / CHUNK_BLOCKS];

	assert_true(chunk->slot > 0);
	return bridge->cache->memory + (size_t)(chunk->slot - 1) * CHUNK +
		(size_t)(block % CHUNK_BLOCKS) * BLOCK;
}

static int write_block(unsigned block)
{
	return do_write(block % 2, (uint64_t)block * BLOCK, data + (size_t)block * BLOCK, BLOCK, 0);
}

/* 0: right, as it should be now; or the error. */
static int read_block(unsigned block, const uint8_t *right)
{
	int r = do_read((block + 1) % 2, (uint64_t)block * BLOCK, got, BLOCK);

	if (r == 0)
		assert_memory_equal(got, right + (size_t)block * BLOCK, BLOCK);
	return r;
}

static void a_lost_block_that_the_donor_has_is_fetched_anew(void **state)
{
	start();
	assert_int_equal(read_block(3, region), 0);
	lose_page(place_of(3));
	assert_int_equal(read_block(3, region), 0);
	/*
	 * One that is kept in its slot by a neighbour which is dirty fails, and is at the donor as
	 * it was.
	 */
	assert_int_equal(read_block(100, region), 0);
	assert_int_equal(write_block(101), 0);
	lose_page(place_of(100));
	assert_int_equal(read_block(100, region), -EIO);
	assert_int_equal(read_block(100, region), -EIO);
	assert_int_equal(read_block(101, data), 0);
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(read_block(100, region), 0);
	assert_int_equal(cache_number("lost_bytes"), 0);
	assert_int_equal(stop(20000), 0);
	assert_memory_equal(region + 101 * BLOCK, data + 101 * BLOCK, BLOCK);
}

struct rescued {
	uint64_t torn_off, nr_torn, nr_dirty;
};

static int look(void *ctx, uint64_t off, uint64_t len, enum cache_content content,
	const void *bytes)
{
	struct rescued *rescued = ctx;

	if (content == CACHE_CONTENT_TORN) {
		rescued->torn_off = off;
		rescued->nr_torn++;
		assert_null(bytes);
	} else if (content == CACHE_CONTENT_DIRTY) {
		assert_memory_equal(bytes, data + off, len);
		rescued->nr_dirty++;
	} else {
		assert_memory_equal(bytes, region + off, len);
	}
	return 0;
}

/* how: what finds it first. */
static void lose_what_is_dirty(int (*how)(void))
{
	struct rescued rescued = {0};

	start();
	for (unsigned block = 16; block < 48; block++)
		assert_int_equal(write_block(block), 0);
	lose_page(place_of(20));
	int first = how();
	assert_true(first == -EIO || first == 0);
	assert_int_equal(read_block(20, data), -EIO);
	assert_int_equal(read_block(21, data), 0);
	assert_int_equal(write_block(20), -EIO);
	assert_int_equal(write_block(21), 0);
	assert_int_equal(do_read(0, 16 * BLOCK, got, 8 * BLOCK), -EIO);
	assert_int_equal(cache_each(bridge_cache(bridge), look, &rescued), 0);
	assert_int_equal(rescued.nr_torn, 1);
	assert_int_equal(rescued.torn_off, 20 * BLOCK);
	/* Nothing says that it is safe, and all the others are. */
	assert_int_equal(do_flush(0), -EIO);
	assert_int_equal(do_flush(1), -EIO);
	assert_int_equal(cache_number("dirty_bytes"), BLOCK);
	assert_int_equal(cache_number("lost_bytes"), BLOCK);
	for (unsigned block = 16; block < 48; block++)
		for (unsigned i = 0; i < BLOCK; i++)
			assert_int_equal(region[block * BLOCK + i],
				block == 20 ? old_byte(20 * BLOCK) : data[block * BLOCK + i]);
	uint64_t begin_ns = weft_now_ns();
	assert_int_equal(stop(20000), -EIO);
	assert_true(weft_now_ns() - begin_ns < UINT64_C(10000000000));
}

static int by_read(void)
{
	return read_block(20, data);
}

static int by_write(void)
{
	return write_block(20);
}

static int by_flush(void)
{
	return do_flush(0);
}

static int by_rescue(void)
{
	struct rescued rescued = {0};

	return cache_each(bridge_cache(bridge), look, &rescued);
}

static void a_lost_dirty_block_found_by_a_read_fails_flushes(void **state)
{
	lose_what_is_dirty(by_read);
}

static void a_lost_dirty_block_found_by_a_write_fails_flushes(void **state)
{
	lose_what_is_dirty(by_write);
}

static void a_lost_dirty_block_found_by_a_flush_fails_flushes(void **state)
{
	lose_what_is_dirty(by_flush);
}

static void a_lost_dirty_block_found_by_a_rescue_fails_flushes(void **state)
{
	lose_what_is_dirty(by_rescue);
}

/*
 * A write of several blocks ends at the lost one: those before it are written, and get to the
 * donor; those behind it are as they were.
 */
static void a_write_over_a_lost_block_is_no_mixture(void **state)
{
	start();
	assert_int_equal(do_read(0, 0, got, CHUNK), 0);
	lose_page(place_of(5));
	assert_int_equal(do_write(0, 0, data, CHUNK, 0), -EIO);
	assert_int_equal(read_block(4, data), 0);
	assert_int_equal(read_block(6, region), 0);
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(read_block(5, region), 0);
	assert_memory_equal(region, data, 5 * BLOCK);
	assert_int_equal(region[5 * BLOCK], old_byte(5 * BLOCK));
	assert_int_equal(stop(20000), 0);
}

/* Zeros that nobody asks the donor for may be lost before anybody has seen them. */
static void a_part_of_a_lost_block_of_sealed_zeros_is_written_or_fails(void **state)
{
	const int fd = memfd_create("seal", MFD_CLOEXEC);
	struct weft_error err = {0};

	assert_int_equal(seal_new(fd, SEAL_VERIFY, &seal, &err), 0);
	close(fd);
	start();
	assert_int_equal(write_block(0), 0);
	lose_page(place_of(5));
	/* A neighbour that is dirty keeps the slot, and then nobody does. */
	assert_int_equal(do_write(0, 5 * BLOCK + 100, data, 50, 0), -EIO);
	assert_int_equal(do_flush(0), 0);
	assert_int_equal(do_write(0, 5 * BLOCK + 100, data, 50, 0), 0);
	assert_int_equal(do_read(0, 5 * BLOCK, got, BLOCK), 0);
	assert_int_equal(got[99], 0);
	assert_memory_equal(got + 100, data, 50);
	assert_int_equal(got[150], 0);
	assert_int_equal(stop(20000), 0);
	seal_free(seal);
	seal = NULL;
}

/*
 * Somebody made the file shorter: each request is answered, and rightly, or fails; however many
 * there are.
 */
static void a_file_that_became_shorter_fails_requests_and_hangs_none(void **state)
{
	unsigned errors = 0;
	uint64_t was;

	for (unsigned tail = 0; tail < 2; tail++) {
		start();
		for (unsigned block = 0; block < 12 * CHUNK_BLOCKS; block++)
			assert_int_equal(write_block(block), 0);
		/* The last half of the slots, then everything. */
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(truncate(path, tail == 0 ? st.st_size - SLOTS / 2 * CHUNK : 0), 0);
		was = errors;
		for (unsigned round = 0; round < 3; round++)
			for (unsigned block = 0; block < BLOCKS; block++) {
				bool written = block < 12 * CHUNK_BLOCKS;
				int r = read_block(block, written ? data : region);

				assert_true(r == 0 || r == -EIO);
				errors += r < 0;
			}
		if (tail == 1) {
			assert_true(errors - was > 12 * CHUNK_BLOCKS);
			for (unsigned block = 0; block < BLOCKS; block++)
				assert_int_equal(write_block(block), -EIO);
			assert_int_equal(do_flush(0), -EIO);
			assert_int_equal(stop(20000), -EIO);
		} else {
			int r = do_flush(0);

			assert_true(r == 0 || r == -EIO);
			assert_int_equal(stop(20000), r);
		}
		/* Old or new, nothing else. */
		for (unsigned block = 0; block < BLOCKS; block++) {
			if (region[(size_t)block * BLOCK] != data[(size_t)block * BLOCK])
				assert_int_equal(region[(size_t)block * BLOCK],
					old_byte((size_t)block * BLOCK));
			memset(region + (size_t)block * BLOCK, old_byte((size_t)block * BLOCK),
				BLOCK);
		}
		unlink(path);
	}
}

/* A lane that connects anew, or writes for the first time, notes that in the header. */
static void a_grant_is_noted_beside_a_header_that_is_gone(void **state)
{
	bool wrote;

	start();
	assert_int_equal(truncate(path, 0), 0);
	cache_file_note_granted(file, 0, 7, false);
	assert_int_equal(cache_file_granted(file, 0, &wrote), 7);
	assert_false(wrote);
	cache_file_note_granted(file, 0, 7, true);
	assert_int_equal(cache_file_granted(file, 0, &wrote), 7);
	assert_true(wrote);
	assert_int_equal(stop(20000), 0);
}

/* What the table does not say would be missed by the next bridge. */
static void without_its_table_nothing_is_written(void **state)
{
	start();
	assert_int_equal(write_block(0), 0);
	lose_page(cache_file_data(file) - BLOCK);
	assert_int_equal(write_block(1), -EIO);
	assert_int_equal(read_block(0, data), 0);
	/*
	 * It gets to the donor, but the file would have it written back again, over what comes
	 * later.
	 */
	assert_int_equal(do_flush(0), -EIO);
	assert_memory_equal(region, data, BLOCK);
	assert_int_equal(region[BLOCK], old_byte(BLOCK));
	assert_int_equal(stop(20000), -EIO);
}

/* ---- a file alone ---- */

static void make_file(uint32_t nr_slots)
{
	static struct cache_file_identity identity;
	struct weft_error err;

	strcpy(identity.uri, "weft://test/r");
	identity.size_bytes = UINT64_C(1) << 30;
	identity.chunk_bytes = CHUNK;
	identity.nr_slots = nr_slots;
	identity.nr_donors = 1;
	assert_int_equal(cache_file_open(path, true, &file, &err), 0);
	assert_int_equal(cache_file_reset(file, &identity, &err), 0);
}

static int count_content(void *ctx, uint64_t off, uint64_t len, enum cache_content content,
	const void *bytes)
{
	((unsigned *)ctx)[content]++;
	return 0;
}

static void what_cannot_be_read_is_torn_and_the_rest_is_saved(void **state)
{
	unsigned counts[3] = {0};
	uint64_t unknown;

	need_blocks_to_lose();
	make_file(64); /* two pages of table */
	uint8_t *bytes = cache_file_data(file);
	for (unsigned slot = 0; slot < 64; slot++)
		cache_file_mark(file, slot, 3, slot * CHUNK_BLOCKS + 3);
	lose_page(bytes + 7 * CHUNK + 3 * BLOCK);
	assert_int_equal(cache_file_each(file, count_content, counts, &unknown), 0);
	assert_int_equal(counts[CACHE_CONTENT_TORN], 1);
	assert_int_equal(counts[CACHE_CONTENT_DIRTY], 63);
	assert_int_equal(unknown, 0);
	lose_page(bytes - BLOCK);
	memset(counts, 0, sizeof(counts));
	assert_int_equal(cache_file_dirty_bytes(file), (32 + 512) * BLOCK);
	assert_int_equal(cache_file_each(file, count_content, counts, &unknown), 0);
	assert_int_equal(counts[CACHE_CONTENT_TORN], 1);
	assert_int_equal(counts[CACHE_CONTENT_DIRTY], 31);
	assert_int_equal(unknown, 512 * BLOCK);
	/* Nor does it die of its header. */
	lose_page(bytes - 4 * BLOCK);
	cache_file_note_generation(file, 0, 7);
	cache_file_set_epoch(file, 0, 8);
	assert_int_equal(cache_file_generation(file, 0), 7);
	assert_int_equal(cache_file_epoch(file, 0), 8);
	cache_file_close(file);
}

static int die(void *ctx)
{
	return *(volatile uint8_t *)ctx;
}

static void an_address_of_what_is_not_there_is_told(void **state)
{
	uint8_t *pages = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, no_pages, 0);
	const void *at = NULL;
	uint8_t byte = 0;

	need_blocks_to_lose();
	mapped_init();
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(mapped_copy(&byte, pages + i, 1, &at), -EIO);
		/* s390x tells no more */
		assert_int_equal((uintptr_t)at / BLOCK, (uintptr_t)pages / BLOCK);
	}
	assert_int_equal(mapped_try(die, pages + BLOCK, &at), -EIO);
	assert_ptr_equal(at, pages + BLOCK);
	assert_int_equal(ftruncate(no_pages, BLOCK), 0);
	assert_int_equal(mapped_copy(pages, &byte, 1, NULL), 0);
	assert_int_equal(ftruncate(no_pages, 0), 0);
	munmap(pages, 2 * BLOCK);
}

static void refused(int code, bool make)
{
	struct weft_error err;

	assert_int_equal(cache_file_open(path, make, &file, &err), code);
	assert_non_null(strstr(err.message, path));
}

static void what_is_no_file_is_not_opened(void **state)
{
	char target[96];
	struct stat st;

	/* A link that leads nowhere makes nothing there. */
	snprintf(target, sizeof(target), "%s/target", dir);
	assert_int_equal(symlink(target, path), 0);
	refused(-ELOOP, true);
	assert_int_equal(lstat(target, &st), -1);
	/* One that leads somewhere. */
	close(open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	refused(-ELOOP, true);
	refused(-ELOOP, false);
	unlink(target);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(-EINVAL, true);
	refused(-EINVAL, false); /* opening it to read would wait for a writer */
	unlink(path);
	refused(-ENOENT, false);
	assert_int_equal(mkdir(path, 0700), 0);
	refused(-EINVAL, true);
	rmdir(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_address_of_what_is_not_there_is_told, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(what_is_no_file_is_not_opened, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_cannot_be_read_is_torn_and_the_rest_is_saved,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_block_that_the_donor_has_is_fetched_anew,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_dirty_block_found_by_a_read_fails_flushes,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_dirty_block_found_by_a_write_fails_flushes,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_dirty_block_found_by_a_flush_fails_flushes,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_dirty_block_found_by_a_rescue_fails_flushes,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_write_over_a_lost_block_is_no_mixture, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_part_of_a_lost_block_of_sealed_zeros_is_written_or_fails, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			a_file_that_became_shorter_fails_requests_and_hangs_none, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(a_grant_is_noted_beside_a_header_that_is_gone,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_its_table_nothing_is_written, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
