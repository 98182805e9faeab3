/* SPDX-License-Identifier: MIT */
/* File regions: bytes, durability, the epoch's mark, locks, and files that change under us. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "fabric/region/region-private.h"
#include "fabric/base/util.h"
#include "tests/support/extent.h"

#define SIZE (256 * WEFT_KIB)

static char dir[] = "/tmp/weft-region.XXXXXX";
static char path[64];
static struct weft_error err;

/* The linker puts these in the place of the real ones (--wrap). */
static int fdatasync_error, fsync_error, get_error, set_error;
static unsigned nr_fdatasync, nr_fsync;
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
ssize_t __real_fgetxattr(int fd, const char *name, void *value, size_t size);
ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t size);
int __real_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);

int __wrap_fdatasync(int fd)
{
	nr_fdatasync++;
	if (fdatasync_error) {
		errno = fdatasync_error;
		fdatasync_error = 0; /* as the kernel: reported once */
		return -1;
	}
	return __real_fdatasync(fd);
}

int __wrap_fsync(int fd)
{
	/* Of weft_region_settle() the one behind the mark. */
	if (fsync_error && nr_fsync++ == 1) {
		errno = fsync_error;
		return -1;
	}
	return __real_fsync(fd);
}

ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t size)
{
	errno = get_error;
	return get_error ? -1 : __real_fgetxattr(fd, name, value, size);
}

int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	errno = set_error;
	return set_error ? -1 : __real_fsetxattr(fd, name, value, size, flags);
}

static int try_open(bool read_only, struct weft_region **ret)
{
	return weft_region_open_file(AT_FDCWD, path, "f", false, read_only, ret, &err);
}

static struct weft_region *must_open(bool read_only)
{
	struct weft_region *region = NULL;

	if (try_open(read_only, &region) < 0)
		fail_msg("%s", err.message);
	return region;
}

static uint64_t epoch_of_an_opening(void)
{
	struct weft_region *region = must_open(false);
	uint64_t epoch = region->epoch;

	weft_region_put(region);
	return epoch;
}

static int setup(void **state)
{
	uint8_t *bytes = malloc(SIZE);
	FILE *f = fopen(path, "w");

	fdatasync_error = get_error = set_error = 0;
	memset(bytes, 0x77, SIZE);
	assert_int_equal(fwrite(bytes, SIZE, 1, f), 1);
	free(bytes);
	return fclose(f);
}

static int teardown(void **state)
{
	return unlink(path);
}

static void reads_and_writes_are_the_files(void **state)
{
	struct weft_region *region = must_open(false);
	char buf[6] = "";

	assert_int_equal(region->size_bytes, SIZE);
	assert_string_equal(region->description, "file, 256 KiB");
	assert_int_equal(weft_region_write(region, "hello", SIZE - 5, 5), 0);
	assert_int_equal(weft_region_read(region, buf, SIZE - 5, 5), 0);
	assert_string_equal(buf, "hello");
	assert_int_equal(weft_region_read(region, buf, 0, 1), 0);
	assert_int_equal(buf[0], 0x77);
	weft_region_put(region);
}

static void flush_syncs_only_what_was_written(void **state)
{
	struct weft_region *region = must_open(false);

	nr_fdatasync = 0;
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(nr_fdatasync, 0);
	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(nr_fdatasync, 1);
	assert_int_equal(weft_region_zero(region, 0, 4096, false, false), 0);
	assert_int_equal(weft_region_flush(region), 0);
	assert_int_equal(nr_fdatasync, 2);
	weft_region_put(region);
}

static void a_write_back_error_stays(void **state)
{
	struct weft_region *region = must_open(false);
	uint64_t epoch = region->epoch;
	char byte;

	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	fdatasync_error = ENOSPC;
	assert_int_equal(weft_region_flush(region), -ENOSPC);
	assert_int_equal(weft_region_flush(region), -ENOSPC);
	assert_int_equal(weft_region_write(region, "x", 0, 1), -EIO);
	assert_int_equal(weft_region_read(region, &byte, 0, 1), -EIO);
	assert_int_equal(weft_region_zero(region, 0, 1, true, false), -EIO);
	weft_region_put(region);
	/* And the file is not what it was. */
	assert_true(epoch_of_an_opening() != epoch);
}

/* Opens in a process that dies without closing. */
static void crash(uint64_t epoch, void (*change)(struct weft_region *region))
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct weft_region *region;

		if (try_open(false, &region) < 0 || region->epoch != epoch)
			_exit(1);
		change(region);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void a_clean_end_keeps_the_epoch(void **state)
{
	struct weft_region *region = must_open(false);
	uint64_t epoch = region->epoch;

	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	weft_region_put(region);
	assert_true(epoch_of_an_opening() == epoch);
	assert_true(epoch_of_an_opening() == epoch);
	assert_true(epoch_of_an_opening() == epoch);
}

static void a_read_only_epoch_is_of_the_mark(void **state)
{
	struct weft_region *region = must_open(true);
	uint64_t epoch = region->epoch;

	/* Without a mark nothing says that the next opening has the same. */
	weft_region_put(region);
	region = must_open(true);
	assert_true(region->epoch != epoch);
	weft_region_put(region);
	uint64_t written = epoch_of_an_opening();
	region = must_open(true);
	epoch = region->epoch;
	weft_region_put(region);
	region = must_open(true);
	assert_true(region->epoch == epoch);
	weft_region_put(region);
	/* Readers left the mark alone; a writer does not, and keeps its own epoch. */
	region = must_open(false);
	assert_true(region->epoch == written);
	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	weft_region_put(region);
	region = must_open(true);
	assert_true(region->epoch != epoch);
	weft_region_put(region);
}

/* Entry i, as the donor notes it. */
static void enter(struct weft_region *region, unsigned i, uint64_t generation, unsigned held,
	unsigned lapsed, const char *name)
{
	static const uint8_t id[16] = {7};
	struct weft_generation *gen = &region->generations[i];

	weft_region_id_hash(region, id, gen->id_hash);
	gen->id_hash[1] = (uint8_t)i;
	gen->generation = generation;
	gen->last_used = i + 1;
	gen->held = (uint16_t)held;
	gen->lapsed = lapsed;
	gen->flags = WEFT_ENTRY_HERE;
	snprintf(gen->name, sizeof(gen->name), "%s", name);
	region->table_seq++;
}

static int note(struct weft_region *region, uint32_t lease_ms)
{
	return weft_region_note_table(region, region->generations, &region->stripe,
		region->table_seq, lease_ms);
}

static void the_mark_has_the_table(void **state)
{
	struct weft_region *region = must_open(false);
	uint8_t id[16] = {9}, before[16], after[16];

	weft_region_id_hash(region, id, before);
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		enter(region, i, UINT64_MAX - i, i % 4, i / 4 % 4,
			i % 2 ? "a-name.of_63-letters-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			      : "b");
	assert_int_equal(note(region, 12345), 0);
	weft_region_put(region);
	region = must_open(false);
	weft_region_id_hash(region, id, after);
	assert_memory_equal(before, after, sizeof(before));
	assert_int_equal(region->promised_lease_ms, 12345);
	assert_false(region->crashed);
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		const struct weft_generation *gen = &region->generations[i];

		assert_true(gen->generation == UINT64_MAX - i);
		assert_int_equal(gen->id_hash[1], i);
		assert_int_equal(gen->held, i % 4);
		assert_int_equal(gen->lapsed, i / 4 % 4);
		assert_int_equal(gen->flags, 0); /* it was closed: all that they wrote is there */
	}
	weft_region_put(region);
}

static void note_part(struct weft_region *region)
{
	const struct weft_stripe part = {2, 3, 65536};

	weft_region_note_stripe(region, &part);
	region->table_seq++;
	if (weft_region_note_table(region, region->generations, &region->stripe, region->table_seq,
		    0) < 0)
		_exit(1);
}

static void write_and_note_part(struct weft_region *region)
{
	if (weft_region_write(region, "x", 0, 1) < 0)
		_exit(1);
	note_part(region);
}

static void change_outside(struct weft_region *region)
{
	note_part(region);
	weft_region_put(region);
	if (truncate(path, SIZE + 4096) < 0)
		_exit(1);
}

/*
 * Whatever becomes of the donor, and of the file: nobody has said that the bytes are another
 * part's.
 */
static void the_mark_has_the_part_of_a_striped_device(void **state)
{
	void (*const ends[])(
		struct weft_region *) = {note_part, write_and_note_part, change_outside};
	char mark[4096];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(ends); i++) {
		for (unsigned clean = 0; clean < 3; clean++) {
			struct weft_region *region = must_open(false);
			uint64_t epoch = region->epoch;

			if (i == 0 && clean == 0)
				assert_int_equal(region->stripe.count, 0);
			if (clean == 1)
				note_part(region);
			weft_region_put(region);
			if (clean == 0)
				crash(epoch, ends[i]);
			region = must_open(clean == 2);
			assert_true(region->stripe.index == 2 && region->stripe.count == 3 &&
				region->stripe.unit_bytes == 65536);
			weft_region_put(region);
		}
		assert_int_equal(removexattr(path, "user.weft.epoch"), 0);
	}
	/* Without a part the mark is as it always was, and one that makes no sense is no mark. */
	epoch_of_an_opening();
	ssize_t n = getxattr(path, "user.weft.epoch", mark, sizeof(mark) - 32);
	assert_true(n > 0);
	mark[n] = '\0';
	assert_null(strstr(mark, "stripe"));
	struct region_mark parsed;
	assert_int_equal(region_mark_parse(mark, (size_t)n, &parsed), 0);
	assert_int_equal(parsed.stripe.count, 0);
	n += sprintf(mark + n, " stripe=2/3:65536");
	assert_int_equal(region_mark_parse(mark, (size_t)n, &parsed), 0);
	assert_int_equal(parsed.stripe.count, 3);
	assert_int_equal(region_mark_parse(mark, (size_t)n - 6, &parsed), -EINVAL);
}

static void note_one(struct weft_region *region)
{
	enter(region, 0, 5, 3, WEFT_NOT_LAPSED, "box");
	if (weft_region_note_table(region, region->generations, &region->stripe, region->table_seq,
		    300) < 0)
		_exit(1);
}

static void a_copy_that_is_put_back_in_place_is_found(void **state)
{
	char copy[REGION_MARK_MAX], now[REGION_MARK_MAX], byte;
	struct weft_region *region = must_open(false);

	note_one(region);
	ssize_t n = getxattr(path, "user.weft.epoch", copy, sizeof(copy));
	assert_true(n > 0);
	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	assert_int_equal(setxattr(path, "user.weft.epoch", copy, (size_t)n, 0), 0);
	enter(region, 0, 6, 3, WEFT_NOT_LAPSED, "box");
	assert_int_equal(note(region, 300), -EUCLEAN);
	assert_int_equal(weft_region_read(region, &byte, 0, 1), -EIO);
	assert_int_equal(weft_region_check(region, &err), -EIO);
	assert_non_null(strstr(err.message, "put back"));
	/* The copy's mark stays, for the next to judge by. */
	weft_region_put(region);
	assert_int_equal(getxattr(path, "user.weft.epoch", now, sizeof(now)), n);
	assert_memory_equal(now, copy, (size_t)n);
	/* Before the first write, too. */
	region = must_open(false);
	assert_int_equal(setxattr(path, "user.weft.epoch", "v1", 2, 0), 0);
	assert_int_equal(weft_region_write(region, "y", 0, 1), -EIO);
	weft_region_put(region);
}

/* The kernel tells a mark's fsync(2) of it, and a flush no more. */
static void a_write_back_error_that_a_mark_meets_stays(void **state)
{
	struct weft_region *region = must_open(false);
	char byte;

	enter(region, 0, 5, 3, WEFT_NOT_LAPSED, "box");
	assert_int_equal(note(region, 300), 0);
	assert_int_equal(weft_region_write(region, "x", 0, 1), 0);
	enter(region, 0, 6, 3, WEFT_NOT_LAPSED, "box");
	nr_fsync = 1;
	fsync_error = EIO;
	assert_int_equal(note(region, 600), -EIO);
	fsync_error = 0;
	assert_int_equal(weft_region_flush(region), -EIO);
	assert_int_equal(weft_region_read(region, &byte, 0, 1), -EIO);
	weft_region_put(region);
}

static void note_one_and_write(struct weft_region *region)
{
	note_one(region);
	if (weft_region_write(region, "x", 0, 1) < 0)
		_exit(1);
}

static void a_mark_of_a_grant_is_no_mark_of_an_end(void **state)
{
	uint64_t epoch = epoch_of_an_opening();

	crash(epoch, note_one);
	struct weft_region *region = must_open(false);
	assert_true(region->epoch == epoch);
	assert_int_equal(region->generations[0].generation, 5);
	assert_int_equal(region->generations[0].held, 3);
	assert_int_equal(region->generations[0].flags, WEFT_ENTRY_OPEN);
	assert_string_equal(region->generations[0].name, "box");
	weft_region_put(region);
	/* It was not granted again: nothing has changed. */
	region = must_open(false);
	assert_int_equal(region->generations[0].flags, WEFT_ENTRY_OPEN);
	weft_region_put(region);
	crash(epoch, note_one_and_write);
	region = must_open(false);
	assert_true(region->epoch != epoch && region->crashed);
	assert_int_equal(region->promised_lease_ms, 300);
	assert_int_equal(region->generations[0].held, 3);
	weft_region_put(region);
}

/* The donor has no time to say that it ends. */
static struct weft_region *open_after_a_crash(struct weft_region *region)
{
	close(region->fd);
	region->fd = -1;
	weft_region_put(region);
	return must_open(false);
}

static void a_grant_that_the_mark_cannot_tell_of_is_none(void **state)
{
	uint64_t epoch = epoch_of_an_opening();
	struct weft_region *region = must_open(false);

	enter(region, 0, 5, 3, WEFT_NOT_LAPSED, "box");
	set_error = ENOSPC;
	/* Nor at the second try. */
	assert_int_equal(note(region, 300), -ENOSPC);
	assert_int_equal(note(region, 300), -ENOSPC);
	set_error = 0;
	assert_int_equal(note(region, 300), 0);
	region = open_after_a_crash(region);
	assert_true(region->epoch == epoch);
	assert_int_equal(region->generations[0].generation, 5);
	weft_region_put(region);
}

static void write_a_byte(struct weft_region *region)
{
	weft_region_write(region, "x", 0, 1);
}

static void a_part_that_the_mark_cannot_tell_of_is_noted_at_the_next_try(void **state)
{
	const struct weft_stripe part = {2, 3, 65536};
	struct weft_region *region = must_open(false);

	write_a_byte(region);
	weft_region_note_stripe(region, &part);
	region->table_seq++;
	set_error = ENOSPC;
	assert_int_equal(note(region, 0), -ENOSPC);
	set_error = 0;
	assert_int_equal(note(region, 0), 0);
	region = open_after_a_crash(region);
	assert_true(weft_stripe_equal(&region->stripe, &part));
	weft_region_put(region);
}

static void where_the_mark_says_nothing_anybody_may_have_held_it(void **state)
{
	static const char later[] = "v9 state=open";
	struct weft_region *region = must_open(false);

	assert_false(region->forgets);
	weft_region_put(region);
	assert_int_equal(setxattr(path, "user.weft.epoch", later, strlen(later), 0), 0);
	region = must_open(false);
	assert_true(region->forgets);
	weft_region_put(region);
	get_error = ENOTSUP;
	region = must_open(false);
	assert_true(region->forgets && region->unmarked);
	weft_region_put(region);
	get_error = 0;
}

static void punch(struct weft_region *region)
{
	weft_region_trim(region, 0, SIZE);
}

static void nothing(struct weft_region *region)
{
}

static void a_crash_after_a_change_starts_a_new_epoch(void **state)
{
	uint64_t epoch = epoch_of_an_opening();

	crash(epoch, nothing);
	assert_true(epoch_of_an_opening() == epoch);
	crash(epoch, write_a_byte);
	uint64_t second = epoch_of_an_opening();
	assert_true(second != epoch);
	crash(second, punch);
	assert_true(epoch_of_an_opening() != second);
}

static void a_file_changed_meanwhile_has_a_new_epoch(void **state)
{
	uint64_t epoch = epoch_of_an_opening();
	FILE *f = fopen(path, "r+");

	fputc('!', f);
	fclose(f);
	uint64_t second = epoch_of_an_opening();
	assert_true(second != epoch);
	assert_int_equal(truncate(path, SIZE - 1), 0);
	assert_true(epoch_of_an_opening() != second);
}

static void without_attributes_each_opening_is_an_epoch(void **state)
{
	get_error = set_error = ENOTSUP;
	uint64_t epoch = epoch_of_an_opening();
	assert_true(epoch_of_an_opening() != epoch);
}

static void a_mark_that_cannot_be_replaced_is_an_error(void **state)
{
	uint64_t epoch = epoch_of_an_opening();
	struct weft_region *region = must_open(false);

	/* Going on would leave "clean" on a file that changes. */
	set_error = ENOSPC;
	assert_int_equal(weft_region_write(region, "x", 0, 1), -EIO);
	assert_int_equal(weft_region_zero(region, 0, 1, false, false), -EIO);
	set_error = 0;
	assert_int_equal(weft_region_write(region, "w", 0, 1), 0);
	weft_region_put(region);
	assert_true(epoch_of_an_opening() == epoch);
}

static void a_damaged_mark_is_no_mark(void **state)
{
	static const char *const marks[] = {"", "v1", "v1 epoch=zz",
		"v1 epoch=0000000000000001 state=clean",
		"v2 epoch=0000000000000001 state=clean size=262144 mtime=0.000000000"};
	uint64_t epoch = epoch_of_an_opening();

	for (size_t i = 0; i < WEFT_ARRAY_LEN(marks); i++) {
		assert_int_equal(setxattr(path, "user.weft.epoch", marks[i], strlen(marks[i]), 0),
			0);
		uint64_t next = epoch_of_an_opening();
		assert_true(next != epoch && next != 1);
		epoch = next;
	}
}

static void a_lease_that_no_donor_promises_is_damage(void **state)
{
	static const char *const damaged[] = {"604800001", "4294967295", "4294967297",
		"18446744073709551617", "-1"};
	static const char text[] =
		"v2 state=open epoch=0000000000000001 size=1 mtime=0.000000000 lease=%s key=%032d";
	struct region_mark mark;
	char bytes[256];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(damaged); i++) {
		int n = snprintf(bytes, sizeof(bytes), text, damaged[i], 1);

		assert_int_equal(region_mark_parse(bytes, (size_t)n, &mark), -EINVAL);
	}
	int n = snprintf(bytes, sizeof(bytes), text, "604800000", 1);
	assert_int_equal(region_mark_parse(bytes, (size_t)n, &mark), 0);
	assert_int_equal(mark.lease_ms, 604800000);
}

static void a_shorter_file_is_an_error_never_zeros(void **state)
{
	struct weft_region *region = must_open(false);
	uint64_t epoch = region->epoch;
	char buf[16];
	struct stat st;

	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(weft_region_read(region, buf, SIZE - 16, 16), -EIO);
	assert_int_equal(weft_region_read(region, buf, 4090, 16), -EIO);
	assert_int_equal(weft_region_read(region, buf, 0, 16), 0);
	/* A write beyond the end would fill the gap with zeros. */
	assert_int_equal(weft_region_write(region, buf, SIZE - 16, 16), -EIO);
	assert_int_equal(weft_region_zero(region, SIZE - 16, 16, false, false), -EIO);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 4096);
	assert_false(weft_region_extent(region, 0, SIZE).hole);
	weft_region_put(region);
	assert_true(epoch_of_an_opening() != epoch);
}

static void one_writer_or_many_readers_of_a_file(void **state)
{
	struct weft_region *writer = must_open(false), *reader = NULL, *second;

	assert_int_equal(try_open(false, &reader), -EBUSY);
	assert_int_equal(try_open(true, &reader), -EBUSY);
	weft_region_put(writer);
	reader = must_open(true);
	second = must_open(true);
	assert_int_equal(try_open(false, &writer), -EBUSY);
	weft_region_put(reader);
	weft_region_put(second);
}

static void readers_change_nothing(void **state)
{
	struct weft_region *region = must_open(true);

	assert_int_equal(weft_region_write(region, "x", 0, 1), -EPERM);
	assert_int_equal(weft_region_zero(region, 0, 1, true, false), -EPERM);
	assert_int_equal(weft_region_trim(region, 0, SIZE), -EPERM);
	weft_region_put(region);
}

static void zeros_and_holes(void **state)
{
	struct weft_region *region = must_open(false);
	uint8_t *buf = malloc(SIZE);

	assert_int_equal(weft_region_zero(region, 65536, 65536, true, false), 0);
	assert_int_equal(weft_region_zero(region, 3, 10, false, false), 0);
	assert_int_equal(weft_region_read(region, buf, 0, SIZE), 0);
	for (uint64_t i = 0; i < SIZE; i++)
		assert_int_equal(buf[i],
			(i >= 3 && i < 13) || (i >= 65536 && i < 131072) ? 0 : 0x77);
	expect_extent(region, 0, SIZE, false, 65536);
	expect_extent(region, 65536, SIZE - 65536, true, 65536);
	expect_extent(region, 131072, 100, false, 100);
	assert_int_equal(weft_region_trim(region, 0, SIZE), 0);
	free(buf);
	weft_region_put(region);
}

static void only_regular_files_with_content(void **state)
{
	struct weft_region *region = NULL;

	assert_int_equal(weft_region_open_file(AT_FDCWD, dir, "d", false, false, &region, &err),
		-EISDIR);
	assert_int_equal(weft_region_open_file(AT_FDCWD, "/dev/zero", "z", false, false, &region,
				 &err),
		-ENOTSUP);
	assert_int_equal(weft_region_open_file(AT_FDCWD, "/nonexistent", "n", false, false, &region,
				 &err),
		-ENOENT);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(try_open(false, &region), -ENODATA);
	assert_null(region);
}

/* The bytes and the mark of a file that leaves are for who knows the move alone. */
static void a_settled_file_goes_on_only_for_who_knows_the_move(void **state)
{
	const struct weft_transfer transfer = {WEFT_LEAVES, 0x1111, 0x2222};
	struct weft_region *region = must_open(false);
	const uint64_t epoch = region->epoch;

	assert_int_equal(weft_region_write(region, "hello", 0, 5), 0);
	assert_int_equal(weft_region_settle(region, &transfer, region->generations, 30000), 0);
	assert_int_equal(weft_region_write(region, "late", 0, 4), -EIO);
	weft_region_put(region);

	/* Who has notes of it. */
	for (int i = 0; i < 2; i++) {
		region = must_open(false);
		assert_true(region->epoch != epoch && region->marked_epoch == epoch);
		assert_true(region->marked_transfer.way == WEFT_LEAVES &&
			region->marked_transfer.donor == 0x1111 &&
			region->marked_transfer.move == 0x2222);
		weft_region_go_on(region);
		assert_true(region->epoch == epoch && region->promised_lease_ms == 30000);
		assert_false(region->crashed);
		weft_region_put(region);
	}
	/* It stays: as any file from then on. */
	region = must_open(false);
	weft_region_go_on(region);
	weft_region_release(region);
	assert_int_equal(weft_region_write(region, "again", 0, 5), 0);
	weft_region_put(region);
	region = must_open(false);
	assert_true(region->epoch == epoch && !region->marked_transfer.way);
	assert_int_equal(weft_region_settle(region, &transfer, region->generations, 30000), 0);
	weft_region_put(region);
	/* Anybody else, who may go on with an epoch of his own. */
	region = must_open(false);
	const uint64_t another = region->epoch;
	assert_true(another != epoch);
	weft_region_put(region);
	region = must_open(false);
	assert_true(region->epoch == another && !region->marked_transfer.way);
	weft_region_put(region);
}

/* The disk may have the mark of the move: whoever writes then takes it away first. */
static void a_file_that_cannot_be_settled_is_open_when_it_is_written(void **state)
{
	const struct weft_transfer transfer = {WEFT_LEAVES, 0x1111, 0x2222};
	struct weft_region *region = must_open(false);
	struct stat st;

	assert_int_equal(weft_region_write(region, "hello", 0, 5), 0);
	nr_fsync = 0;
	fsync_error = EIO;
	assert_int_equal(weft_region_settle(region, &transfer, region->generations, 0), -EIO);
	fsync_error = 0;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(weft_region_write(region, "again", 0, 5), 0);
	/* A crash of the machine may lose the time of that write, and keep its bytes. */
	const struct timespec times[2] = {{0, UTIME_OMIT}, st.st_mtim};
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	region = open_after_a_crash(region);
	assert_true(region->marked_transfer.way == WEFT_TRANSFER_NONE && !region->was_clean);
	weft_region_put(region);
}

static void a_settled_file_that_another_program_changed_is_nobodys(void **state)
{
	const struct weft_transfer transfer = {WEFT_LEAVES, 0x1111, 0x2222};
	const struct timespec times[2] = {{0, UTIME_OMIT}, {1000, 0}};
	struct weft_region *region = must_open(false);

	assert_int_equal(weft_region_settle(region, &transfer, region->generations, 0), 0);
	weft_region_put(region);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	region = must_open(false);
	assert_true(region->marked_transfer.way == WEFT_TRANSFER_NONE);
	weft_region_forgo(region);
	weft_region_put(region);
}

static void a_file_that_comes_has_its_mark_before_its_name(void **state)
{
	struct weft_file_spec spec = {.directory = dir,
		.name = "new",
		.size_bytes = 100000,
		.epoch = 0x4711,
		.transfer = {WEFT_COMES, 1, 2}};
	struct weft_region *region = NULL;
	char there[80];

	assert_int_equal(weft_region_new_file(&spec, &region, &err), 0);
	assert_true(region->epoch == 0x4711 && region->size_bytes == 100000);
	assert_string_equal(region->name, "new");
	assert_int_equal(weft_region_write(region, "x", 99999, 1), 0);
	/* What is not all there does not become clean. */
	weft_region_put(region);
	snprintf(there, sizeof(there), "%s/new", dir);
	assert_int_equal(weft_region_open_file(AT_FDCWD, there, "new", false, false, &region, &err),
		0);
	assert_true(region->epoch != 0x4711 && region->marked_epoch == 0x4711);
	assert_false(region->was_clean);
	weft_region_put(region);
	/* There is one already. */
	assert_int_equal(weft_region_new_file(&spec, &region, &err), -EEXIST);
	assert_int_equal(unlink(there), 0);
	for (unsigned i = 0; i < 4; i++) {
		static const char *const bad[] = {".x", "a/b", "..", ""};

		spec.name = bad[i];
		assert_int_equal(weft_region_new_file(&spec, &region, &err), -EINVAL);
	}
	spec.name = "new";
	set_error = EOPNOTSUPP;
	assert_int_equal(weft_region_new_file(&spec, &region, &err), -EOPNOTSUPP);
	set_error = 0;
	assert_int_equal(access(there, F_OK), -1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(reads_and_writes_are_the_files),
		TEST(flush_syncs_only_what_was_written),
		TEST(a_write_back_error_stays),
		TEST(a_write_back_error_that_a_mark_meets_stays),
		TEST(a_clean_end_keeps_the_epoch),
		TEST(a_read_only_epoch_is_of_the_mark),
		TEST(the_mark_has_the_table),
		TEST(the_mark_has_the_part_of_a_striped_device),
		TEST(a_mark_of_a_grant_is_no_mark_of_an_end),
		TEST(a_copy_that_is_put_back_in_place_is_found),
		TEST(a_grant_that_the_mark_cannot_tell_of_is_none),
		TEST(a_part_that_the_mark_cannot_tell_of_is_noted_at_the_next_try),
		TEST(where_the_mark_says_nothing_anybody_may_have_held_it),
		TEST(a_crash_after_a_change_starts_a_new_epoch),
		TEST(a_file_changed_meanwhile_has_a_new_epoch),
		TEST(without_attributes_each_opening_is_an_epoch),
		TEST(a_mark_that_cannot_be_replaced_is_an_error),
		TEST(a_damaged_mark_is_no_mark),
		TEST(a_lease_that_no_donor_promises_is_damage),
		TEST(a_shorter_file_is_an_error_never_zeros),
		TEST(one_writer_or_many_readers_of_a_file),
		TEST(readers_change_nothing),
		TEST(a_settled_file_goes_on_only_for_who_knows_the_move),
		TEST(a_file_that_cannot_be_settled_is_open_when_it_is_written),
		TEST(a_settled_file_that_another_program_changed_is_nobodys),
		TEST(a_file_that_comes_has_its_mark_before_its_name),
		TEST(zeros_and_holes),
		TEST(only_regular_files_with_content),
	};

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/f", dir);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	return rmdir(dir) != 0 || failed;
}
