/* SPDX-License-Identifier: MIT */
/*
 * File regions whose contents are in memory for a while: who sees what, and what the file holds
 * when.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/region/region.h"
#include "fabric/base/util.h"

#define SIZE (1536 * WEFT_KIB + 777)

static char dir[] = "/tmp/weft-stage.XXXXXX";
static char path[64];
static struct weft_error err;

static int new_file(void **state)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	for (uint64_t off = 0; off < SIZE; off += 4096) {
		uint8_t page[4096];

		memset(page, (int)(off / 4096 % 251 + 1), sizeof(page));
		if (pwrite(fd, page, weft_min(sizeof(page), SIZE - off), (off_t)off) < 0)
			return -1;
	}
	return close(fd);
}

static struct weft_region *must_open(bool read_only)
{
	struct weft_region *region = NULL;

	if (weft_region_open_file(AT_FDCWD, path, "f", false, read_only, &region, &err) < 0)
		fail_msg("%s", err.message);
	return region;
}

static void stage(struct weft_region *region)
{
	if (weft_region_stage(region, !region->read_only, NULL, NULL, &err) < 0)
		fail_msg("%s", err.message);
}

static uint8_t file_byte(uint64_t off)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t byte = 0;

	assert_int_equal(pread(fd, &byte, 1, (off_t)off), 1);
	close(fd);
	return byte;
}

static uint8_t region_byte(struct weft_region *region, uint64_t off)
{
	uint8_t byte = 0;

	assert_int_equal(weft_region_read(region, &byte, off, 1), 0);
	return byte;
}

static void all_access_goes_to_the_memory(void **state)
{
	struct weft_region *region = must_open(false);

	stage(region);
	uint8_t *memory = weft_region_memory(region);
	assert_int_equal(memory[4096 * 7], 8);
	assert_int_equal(memory[SIZE - 1], file_byte(SIZE - 1));
	/* Others see what a device wrote, and a device what others write. */
	memory[5] = 0xaa;
	assert_int_equal(region_byte(region, 5), 0xaa);
	assert_int_equal(weft_region_write(region, "\xbb", 6, 1), 0);
	assert_int_equal(memory[6], 0xbb);
	assert_int_equal(file_byte(6), 1);
	assert_int_equal(weft_region_zero(region, 4096 * 9 + 1, 100000, true, false), 0);
	assert_int_equal(memory[4096 * 9 + 50000], 0);
	assert_int_equal(file_byte(4096 * 9 + 50000), (4096 * 9 + 50000) / 4096 + 1);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(file_byte(6), 0xbb);
	assert_int_equal(file_byte(4096 * 9 + 50000), 0);
	assert_int_equal(weft_region_unstage(region), 0);
	assert_null(weft_region_memory(region));
	assert_int_equal(region_byte(region, 6), 0xbb);
	weft_region_put(region);
}

static void what_a_device_changed_is_flushed_once_it_is_said(void **state)
{
	struct weft_region *region = must_open(false);

	stage(region);
	uint8_t *memory = weft_region_memory(region);
	memory[4096 * 3] = 0xc1;
	memory[4096 * 100 + 9] = 0xc2;
	memory[SIZE - 1] = 0xc3;
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(file_byte(4096 * 3), 4);
	weft_region_changed(region, 4096 * 3 + 4095, 1);
	weft_region_changed(region, SIZE - 1, 1);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(file_byte(4096 * 3), 0xc1);
	assert_int_equal(file_byte(4096 * 100 + 9), 101);
	assert_int_equal(file_byte(SIZE - 1), 0xc3);
	weft_region_changed_somewhere(region);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(file_byte(4096 * 100 + 9), 0xc2);
	/* A range over several words of the bitmap. */
	memset(memory + 100, 0xdd, WEFT_MIB);
	weft_region_changed(region, 100, WEFT_MIB);
	assert_int_equal(weft_region_flush(region), 0);
	for (uint64_t off = 100; off < 100 + WEFT_MIB; off += 4001)
		assert_int_equal(file_byte(off), 0xdd);
	assert_int_equal(weft_region_unstage(region), 0);
	weft_region_put(region);
}

static void the_last_one_writes_back_and_the_epoch_is_kept(void **state)
{
	struct weft_region *region = must_open(false);
	uint64_t epoch = region->epoch;

	stage(region);
	stage(region);
	weft_region_memory(region)[12345] = 0xee;
	weft_region_changed_somewhere(region);
	assert_int_equal(weft_region_unstage(region), 0);
	assert_non_null(weft_region_memory(region));
	assert_int_equal(weft_region_unstage(region), 0);
	assert_int_equal(file_byte(12345), 0xee);
	weft_region_put(region);
	region = must_open(false);
	assert_int_equal(region->epoch, epoch);
	weft_region_put(region);
}

/* The clean mark must be gone before a device writes. */
static void a_staged_region_is_marked_open(void **state)
{
	struct weft_region *region = must_open(false);
	uint64_t epoch = region->epoch;

	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	weft_region_put(region);
	region = must_open(false);
	assert_int_equal(region->epoch, epoch);
	stage(region);
	close(region->fd); /* as a crash would: no mark */
	region->fd = -1;
	weft_region_put(region);
	region = must_open(false);
	assert_int_not_equal(region->epoch, epoch);
	weft_region_put(region);
}

static void a_read_only_region_is_read(void **state)
{
	struct weft_region *region = must_open(true);

	stage(region);
	assert_int_equal(weft_region_memory(region)[4096 * 7], 8);
	assert_int_equal(region_byte(region, 4096 * 7), 8);
	assert_int_equal(weft_region_write(region, "x", 0, 1), -EPERM);
	assert_int_equal(weft_region_unstage(region), 0);
	weft_region_put(region);
}

static void what_does_not_fit_is_refused(void **state)
{
	assert_int_equal(truncate(path, INT64_C(1) << 42), 0);
	struct weft_region *region = must_open(false);

	assert_int_equal(weft_region_stage(region, true, NULL, NULL, &err), -ENOMEM);
	assert_non_null(strstr(err.message, "can be had"));
	assert_int_equal(region_byte(region, 4096 * 7), 8);
	weft_region_put(region);
}

static void a_failed_write_back_stays_in_memory(void **state)
{
	struct weft_region *region = must_open(false);

	stage(region);
	weft_region_memory(region)[4096 * 7] = 0xf1;
	weft_region_changed(region, 4096 * 7, 1);
	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(weft_region_flush(region), -EIO);
	assert_int_equal(weft_region_unstage(region), -EIO);
	assert_int_equal(region_byte(region, 4096 * 7), 0xf1);
	/* What was not written is not forgotten. */
	assert_int_equal(truncate(path, SIZE), 0);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(file_byte(4096 * 7), 0xf1);
	stage(region);
	assert_int_equal(weft_region_unstage(region), 0);
	weft_region_put(region);
}

static int stop_waiting(void *ctx, uint64_t done, uint64_t total)
{
	return -ECANCELED;
}

static void loading_can_be_given_up(void **state)
{
	assert_int_equal(truncate(path, 256 * WEFT_MIB), 0);
	struct weft_region *region = must_open(false);

	assert_int_equal(weft_region_stage(region, true, stop_waiting, NULL, &err), -ECANCELED);
	assert_null(weft_region_memory(region));
	assert_int_equal(region_byte(region, 4096 * 7), 8);
	stage(region);
	assert_int_equal(weft_region_unstage(region), 0);
	weft_region_put(region);
}

struct writer {
	struct weft_region *region;
	_Atomic bool stop;
	uint32_t last[64]; /* of each of 64 places */
};

static uint64_t place_off(unsigned place)
{
	return place * UINT64_C(24571) + 4094; /* some lie across pages */
}

static void *writer_main(void *ctx)
{
	struct writer *w = ctx;
	unsigned place = 0;

	for (uint32_t n = 1; !atomic_load(&w->stop); n++, place = (place + 1) % 64) {
		if (weft_region_write(w->region, &n, place_off(place), sizeof(n)) < 0)
			return w;
		w->last[place] = n;
	}
	return NULL;
}

/* Contents move to and fro under a writer, and none of its writes is lost. */
static void writes_while_the_contents_move_are_kept(void **state)
{
	struct weft_region *region = must_open(false);
	struct writer w = {.region = region};
	pthread_t thread;
	void *failed;

	assert_int_equal(pthread_create(&thread, NULL, writer_main, &w), 0);
	for (unsigned i = 0; i < 30; i++) {
		stage(region);
		assert_int_equal(weft_region_unstage(region), 0);
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, &failed);
	assert_null(failed);
	for (unsigned place = 0; place < 64; place++) {
		uint32_t word;

		assert_int_equal(weft_region_read(region, &word, place_off(place), sizeof(word)),
			0);
		if (w.last[place])
			assert_int_equal(word, w.last[place]);
	}
	weft_region_put(region);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(all_access_goes_to_the_memory, new_file),
		cmocka_unit_test_setup(what_a_device_changed_is_flushed_once_it_is_said, new_file),
		cmocka_unit_test_setup(the_last_one_writes_back_and_the_epoch_is_kept, new_file),
		cmocka_unit_test_setup(a_staged_region_is_marked_open, new_file),
		cmocka_unit_test_setup(a_read_only_region_is_read, new_file),
		cmocka_unit_test_setup(what_does_not_fit_is_refused, new_file),
		cmocka_unit_test_setup(a_failed_write_back_stays_in_memory, new_file),
		cmocka_unit_test_setup(loading_can_be_given_up, new_file),
		cmocka_unit_test_setup(writes_while_the_contents_move_are_kept, new_file),
	};

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/f", dir);
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	rmdir(dir);
	return r;
}
