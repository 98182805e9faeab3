/* SPDX-License-Identifier: MIT */
/*
 * Regions whose contents a store keeps: what the store has when, that its failures are errors and
 * lose nothing, and which openings go on under the same epoch.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/region/region.h"

enum { SIZE = 2 << 20, BLOCK = 64 << 10 };

/*
 * A server with a write cache of its own, which it loses when it dies.  What it could not flush it
 * keeps for reading, and does not try again, as Linux does with a file's pages.
 */
static struct {
	uint8_t kept[SIZE], cached[SIZE];
	bool unkept[SIZE / 4096];
	int read_error, write_error, flush_error;
	uint64_t block;
	unsigned nr_writes, nr_open;
	bool cut; /* a write that is no whole block came */
} server;

static char mark_path[] = "/tmp/weft-store.XXXXXX";
static struct weft_error err;

static int server_read(void *store, void *buf, uint64_t off, uint64_t len)
{
	memcpy(buf, server.cached + off, len);
	return server.read_error;
}

static int server_write(void *store, const void *buf, uint64_t off, uint64_t len)
{
	if (server.write_error)
		return server.write_error;
	memcpy(server.cached + off, buf, len);
	for (uint64_t i = off / 4096; i * 4096 < off + len; i++)
		server.unkept[i] = true;
	server.nr_writes++;
	server.cut |= off % server.block || len % server.block;
	return 0;
}

static int server_flush(void *store)
{
	for (size_t i = 0; i < SIZE / 4096; i++)
		if (server.unkept[i] && !server.flush_error)
			memcpy(server.kept + i * 4096, server.cached + i * 4096, 4096);
	memset(server.unkept, 0, sizeof(server.unkept));
	return server.flush_error;
}

static void server_close(void *store)
{
	server.nr_open--;
}

static void server_dies(void)
{
	memcpy(server.cached, server.kept, SIZE);
}

static int new_server(void **state)
{
	memset(&server, 0, sizeof(server));
	for (size_t i = 0; i < SIZE; i++)
		server.kept[i] = (uint8_t)(i / 4096 % 251 + 1);
	server_dies();
	server.block = 4096;
	return 0;
}

static int try_open(bool stable, struct weft_region **ret)
{
	static const struct weft_store_ops ops = {server_read, server_write, server_flush,
		server_close};
	const struct weft_store_spec spec = {.name = "s",
		.place = "a test",
		.size_bytes = SIZE,
		.block_bytes = server.block > 4096 ? server.block : 0,
		.mark_path = stable ? mark_path : NULL,
		.ops = &ops};

	server.nr_open++;
	return weft_region_open_store(&spec, NULL, NULL, ret, &err);
}

static struct weft_region *must_open(bool stable)
{
	struct weft_region *region = NULL;

	if (try_open(stable, &region) < 0)
		fail_msg("%s", err.message);
	return region;
}

static uint8_t region_byte(struct weft_region *region, uint64_t off)
{
	uint8_t byte = 0;

	assert_int_equal(weft_region_read(region, &byte, off, 1), 0);
	return byte;
}

static void put(struct weft_region *region, uint64_t off, uint8_t byte)
{
	assert_int_equal(weft_region_write(region, &byte, off, 1), 0);
}

static void a_flush_brings_it_there_and_not_before(void **state)
{
	struct weft_region *region = must_open(false);

	assert_int_equal(region_byte(region, 5 * 4096), 6);
	put(region, 5 * 4096, 200);
	assert_int_equal(region_byte(region, 5 * 4096), 200);
	assert_int_equal(server.cached[5 * 4096], 6);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.kept[5 * 4096], 200);
	assert_int_equal(server.nr_writes, 1);
	/* Nothing is left to do. */
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.nr_writes, 1);
	put(region, 0, 201);
	weft_region_put(region);
	assert_int_equal(server.kept[0], 201);
	assert_int_equal(server.nr_open, 0);
}

static void a_write_that_fails_is_told_and_tried_again(void **state)
{
	struct weft_region *region = must_open(false);

	put(region, 4096, 200);
	server.write_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	assert_int_equal(weft_region_trouble(region, &err), -EIO);
	assert_int_equal(weft_region_check(region, &err), 0);
	assert_int_equal(region_byte(region, 4096), 200);
	server.write_error = 0;
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.kept[4096], 200);
	assert_int_equal(weft_region_trouble(region, &err), 0);
	weft_region_put(region);
}

/* The first write was taken, and is lost with the server before it was flushed. */
static void what_a_server_lost_is_written_again(void **state)
{
	struct weft_region *region = must_open(false);

	put(region, 0, 200);
	server.flush_error = -ENOTCONN;
	assert_int_equal(weft_region_flush(region), -ENOTCONN);
	assert_int_equal(server.cached[0], 200);
	server_dies();
	server.flush_error = 0;
	put(region, 8192, 201);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.kept[0], 200);
	assert_int_equal(server.kept[8192], 201);
	/* Also if it was the next write that found out. */
	put(region, 0, 202);
	server.flush_error = -ENOTCONN;
	assert_int_equal(weft_region_flush(region), -ENOTCONN);
	server_dies();
	server.flush_error = 0;
	server.write_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	server.write_error = 0;
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.kept[0], 202);
	weft_region_put(region);
}

/* A server that reads well after a flush that failed has not kept what it reads. */
static void what_a_failed_flush_dropped_is_written_again(void **state)
{
	struct weft_region *region = must_open(false);

	put(region, 0, 200);
	put(region, SIZE - 1, 201);
	server.flush_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	assert_int_equal(server.cached[0], 200);
	/* Whatever fails next. */
	assert_int_equal(weft_region_flush(region), -EIO);
	server.flush_error = 0;
	server.read_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	server.read_error = 0;
	server.write_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	server.write_error = 0;
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.kept[0], 200);
	assert_int_equal(server.kept[SIZE - 1], 201);
	/* And not for ever. */
	unsigned nr_writes = server.nr_writes;
	put(region, 0, 202);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.nr_writes, nr_writes + 1);
	weft_region_put(region);
}

static void a_server_that_cannot_be_read_cannot_be_opened(void **state)
{
	struct weft_region *region = NULL;

	server.read_error = -EIO;
	assert_int_equal(try_open(false, &region), -EIO);
	assert_null(region);
	assert_int_equal(server.nr_open, 0);
	/* Nor compared: then the flush fails still. */
	server.read_error = 0;
	region = must_open(false);
	put(region, 0, 200);
	server.flush_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	server.flush_error = 0;
	server.read_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	server.read_error = 0;
	assert_int_equal(weft_region_flush(region), 0);
	weft_region_put(region);
}

static void large_blocks_are_written_whole(void **state)
{
	server.block = BLOCK;
	struct weft_region *region = must_open(false);

	put(region, 3 * BLOCK + 5000, 200);
	put(region, SIZE - 1, 201);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(server.nr_writes, 2);
	assert_false(server.cut);
	assert_int_equal(server.kept[3 * BLOCK + 5000], 200);
	assert_int_equal(server.kept[SIZE - 1], 201);
	/* Those that a comparison finds, too. */
	put(region, 7 * BLOCK + 1, 202);
	server.flush_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	server_dies();
	server.flush_error = 0;
	assert_int_equal(weft_region_flush(region), 0);
	assert_false(server.cut);
	assert_int_equal(server.kept[7 * BLOCK + 1], 202);
	weft_region_put(region);
}

static uint64_t opened_and_ended(bool stable)
{
	struct weft_region *region = must_open(stable);
	uint64_t epoch = region->epoch;

	put(region, 0, 1);
	weft_region_put(region);
	return epoch;
}

static void each_opening_is_an_epoch(void **state)
{
	assert_int_not_equal(opened_and_ended(false), opened_and_ended(false));
}

static void a_mark_keeps_the_epoch_over_a_clean_end_alone(void **state)
{
	if (setxattr(mark_path, "user.weft.test", "x", 1, 0) < 0)
		skip();
	uint64_t epoch = opened_and_ended(true);

	assert_int_equal(opened_and_ended(true), epoch);
	/* An end at which not everything could be written back. */
	server.write_error = -EIO;
	assert_int_equal(opened_and_ended(true), epoch);
	server.write_error = 0;
	uint64_t next = opened_and_ended(true);
	assert_int_not_equal(next, epoch);
	/* A crash, although nobody wrote: this region is never ended. */
	struct weft_region *crashed = must_open(true), *second = NULL;
	assert_int_equal(crashed->epoch, next);
	assert_int_equal(try_open(true, &second), -EBUSY);
	close(crashed->fd);
	crashed->fd = -1;
	assert_int_not_equal(opened_and_ended(true), next);
	crashed->read_only = true; /* so that its end changes nothing */
	weft_region_put(crashed);
}

static void a_write_that_may_come_late_ends_the_epoch(void **state)
{
	if (setxattr(mark_path, "user.weft.test", "x", 1, 0) < 0)
		skip();
	static const int gave_up[] = {-ETIMEDOUT, -ENOTCONN};

	for (unsigned i = 0; i < 2; i++) {
		opened_and_ended(true);
		struct weft_region *region = must_open(true);
		uint64_t epoch = region->epoch;

		assert_true(region->was_clean);
		put(region, 0, 200);
		server.write_error = gave_up[i];
		assert_int_equal(weft_region_flush(region), gave_up[i]);
		server.write_error = 0;
		put(region, 0, 201);
		assert_int_equal(weft_region_flush(region), 0);
		assert_int_equal(server.kept[0], 201);
		/* It comes: the next flush undoes it, and so does the end. */
		server.cached[0] = server.kept[0] = 200;
		assert_int_equal(weft_region_flush(region), 0);
		assert_int_equal(server.kept[0], 201);
		server.cached[0] = server.kept[0] = 200;
		weft_region_put(region);
		assert_int_equal(server.kept[0], 201);
		assert_int_not_equal(opened_and_ended(true), epoch);
	}
	/* An answer, whatever it says, is one. */
	struct weft_region *region = must_open(true);
	uint64_t epoch = region->epoch;
	put(region, 0, 200);
	server.write_error = -EIO;
	assert_int_equal(weft_region_flush(region), -EIO);
	server.write_error = 0;
	weft_region_put(region);
	assert_int_equal(opened_and_ended(true), epoch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_flush_brings_it_there_and_not_before, new_server),
		cmocka_unit_test_setup(a_write_that_fails_is_told_and_tried_again, new_server),
		cmocka_unit_test_setup(what_a_server_lost_is_written_again, new_server),
		cmocka_unit_test_setup(
			what_a_failed_flush_dropped_is_written_again, new_server),
		cmocka_unit_test_setup(a_server_that_cannot_be_read_cannot_be_opened, new_server),
		cmocka_unit_test_setup(large_blocks_are_written_whole, new_server),
		cmocka_unit_test_setup(each_opening_is_an_epoch, new_server),
		cmocka_unit_test_setup(
			a_mark_keeps_the_epoch_over_a_clean_end_alone, new_server),
		cmocka_unit_test_setup(a_write_that_may_come_late_ends_the_epoch, new_server),
	};
	int fd = mkstemp(mark_path);

	if (fd < 0)
		return 1;
	close(fd);
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(mark_path);
	return r;
}
