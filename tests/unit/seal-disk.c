/* SPDX-License-Identifier: MIT */
/*
 * The file of a seal by itself: what is said of it is true after a disk that failed, it stays small
 * however much is written, and it is one seal's at a time; what was made zeros stays so.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-disk.h"

enum { BLOCKS = 4096, RUN = 256 };

static char dir[] = "/tmp/weft-seal-disk.XXXXXX", path[64];
static const uint8_t key[SEAL_KEY_BYTES] = {1, 2, 3};
static _Atomic bool disk_fails;
static void (*before_lock)(void), (*before_sync)(void);

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_flock(int fd, int how);
int __wrap_flock(int fd, int how);

static void call_once(void (**hook)(void))
{
	void (*first)(void) = *hook;

	*hook = NULL;
	if (first)
		first();
}

int __wrap_fdatasync(int fd)
{
	call_once(&before_sync);
	if (!atomic_load(&disk_fails))
		return __real_fdatasync(fd);
	errno = EIO;
	return -1;
}

int __wrap_flock(int fd, int how)
{
	call_once(&before_lock);
	return __real_flock(fd, how);
}

static struct seal *open_it(bool anew)
{
	struct weft_error err = {0};
	struct seal *seal;

	if (seal_open(path, key, SEAL_ENCRYPT, anew, &seal, &err) < 0)
		fail_msg("%s", err.message);
	if (seal_start(seal, BLOCKS * SEAL_BLOCK, &err) < 0)
		fail_msg("%s", err.message);
	return seal;
}

static struct seal_identity identity(unsigned n)
{
	struct seal_identity id = {.nr_donors = 1, .uri = "weft://somewhere/r"};

	id.donors[0].generation = n;
	return id;
}

static struct seal *begin(void)
{
	const struct seal_identity id = identity(1);
	struct weft_error err = {0};
	struct seal *seal;

	unlink(path);
	assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, true, &seal, &err), 0);
	assert_int_equal(seal_note(seal, &id, &err), 0);
	assert_int_equal(seal_start(seal, BLOCKS * SEAL_BLOCK, &err), 0);
	return seal;
}

static int outcome(struct seal *seal, uint64_t ticket)
{
	int r;

	while ((r = seal_is_done(seal, ticket)) == 0)
		usleep(100);
	return r;
}

/* Whoever is told that a note is on disk may rely on it. */
static void a_note_that_failed_is_not_taken_for_written(void **state)
{
	const struct seal_identity id = identity(2);
	struct weft_error err = {0};
	struct seal *seal = begin();

	atomic_store(&disk_fails, true);
	const int first = seal_note(seal, &id, &err), second = seal_note(seal, &id, &err);
	atomic_store(&disk_fails, false);
	assert_int_equal(first, -EIO);
	assert_int_equal(second, -EIO);
	assert_int_equal(seal_note(seal, &id, &err), 0);
	seal_free(seal);
	seal = open_it(false);
	assert_int_equal(seal_identity(seal)->donors[0].generation, 2);
	seal_free(seal);
}

static void make_rows(struct seal *seal, struct seal_row *rows, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		memset(&rows[i], 0, sizeof(rows[i]));
		atomic_store(&rows[i].nonce, (uint64_t)seal->own_salt << SEAL_COUNTER_BITS |
			(atomic_fetch_add(&seal->counter, 1) + 1));
	}
}

/* A failure is known to whoever asks late, whatever became of others meanwhile. */
static void what_failed_has_failed_however_late_it_is_asked(void **state)
{
	struct weft_error err = {0};
	struct seal *seal = begin();
	struct seal_row row;

	assert_int_equal(seal_end_doubts(seal, &err), 0);
	make_rows(seal, &row, 1);
	atomic_store(&disk_fails, true);
	const uint64_t early = seal_log(seal, 0, 1, &row);
	/* Nobody asks yet. */
	while (seal_is_done(seal, seal_logged(seal)) == 0)
		usleep(100);
	for (unsigned i = 0; i < 3; i++) {
		atomic_store(&disk_fails, false);
		assert_int_equal(outcome(seal, seal_log(seal, 1, 1, &row)), 1);
		atomic_store(&disk_fails, true);
		assert_int_equal(outcome(seal, seal_log(seal, 2, 1, &row)), -EIO);
	}
	atomic_store(&disk_fails, false);
	assert_int_equal(outcome(seal, early), -EIO);
	assert_int_equal(outcome(seal, seal_log(seal, 3, 1, &row)), 1);
	seal_free(seal);
}

static off_t size_of(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* As many blocks under way as long WRITEs at a depth of 16 have, without a FLUSH for long. */
static void the_file_does_not_grow_with_what_is_written(void **state)
{
	enum { UNDER_WAY = 16 };
	static struct seal_row rows[UNDER_WAY][RUN];
	struct weft_error err = {0};
	struct seal *seal = begin();
	off_t early = 0;

	assert_int_equal(seal_end_doubts(seal, &err), 0);
	for (unsigned n = 0; n < 4000; n++) {
		const unsigned i = n % UNDER_WAY;

		if (n >= UNDER_WAY)
			seal_settle(seal, (uint64_t)i * RUN, RUN, rows[i]);
		make_rows(seal, rows[i], RUN);
		assert_int_equal(outcome(seal, seal_log(seal, (uint64_t)i * RUN, RUN, rows[i])), 1);
		if (n == 400)
			early = size_of();
	}
	printf("%jd bytes after 400 MiB, %jd after 4,000\n", (intmax_t)early, (intmax_t)size_of());
	assert_true(size_of() <= 2 * early);
	seal_free(seal);
}

/* As many rows as make a new log follow the one that there is. */
static void fill_a_log(struct seal *seal, uint64_t first)
{
	static struct seal_row rows[RUN];

	for (unsigned n = 0; n < 16; n++) {
		make_rows(seal, rows, RUN);
		assert_int_equal(outcome(seal, seal_log(seal, first, RUN, rows)), 1);
		seal_settle(seal, first, RUN, rows);
	}
}

/* Neither a failed WRITE that the donor has nevertheless, nor one that it plays back. */
static void what_was_made_zeros_stays_zeros_in_the_next_log(void **state)
{
	static uint8_t bytes[SEAL_BLOCK + SEAL_TAG_BYTES];
	struct weft_error err = {0};
	struct seal *seal = begin();
	struct sealer *sealer;
	struct seal_row row = {0};

	assert_int_equal(seal_end_doubts(seal, &err), 0);
	assert_int_equal(sealer_new(seal, &sealer, &err), 0);
	/* Zeros already, as they were never written; and as they were made so. */
	for (uint64_t block = 5; block < 40; block += 30) {
		if (block == 35)
			seal_make_zero(seal, 32, 16);
		memset(bytes, 0x11, sizeof(bytes));
		assert_int_equal(sealer_seal(sealer, block, bytes, bytes, SEAL_BLOCK, &row), 0);
		assert_int_equal(outcome(seal, seal_log(seal, block, 1, &row)), 1);
		seal_make_zero(seal, block - 5, 16);
		assert_int_equal(outcome(seal, seal_logged(seal)), 1);
		fill_a_log(seal, RUN);
		sealer_free(sealer);
		seal_free(seal);

		seal = open_it(false);
		assert_int_equal(sealer_new(seal, &sealer, &err), 0);
		uint64_t first = 0;
		assert_true(seal_doubts(seal, &first, 1) == 0 || first >= RUN);
		sealer_tell(sealer, block, bytes, SEAL_BLOCK);
		assert_true(seal_is_zero(seal, block));
		assert_int_equal(seal_end_doubts(seal, &err), 0);
	}
	sealer_free(sealer);
	seal_free(seal);
}

/* Nothing of their layout is believed, and nobody is told that they are damaged. */
static void a_file_of_another_version_is_told_from_a_damaged_one(void **state)
{
	enum { VERSION_AT = 8, HEAD_BYTES = 40960 };
	static const uint8_t old[4] = {1};
	struct weft_error err = {0};
	struct seal *seal = begin();

	seal_free(seal);
	WEFT_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pwrite(fd, old, sizeof(old), i * HEAD_BYTES + VERSION_AT), 4);
	assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, false, &seal, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.message, "version"));
	assert_null(strstr(err.message, "damaged"));
}

static struct seal *other;
static int other_said;

static void another_begins_too(void)
{
	const struct seal_identity id = identity(2);
	struct weft_error err = {0};

	assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, true, &other, &err), 0);
	assert_int_equal(seal_note(other, &id, &err), 0);
	other_said = seal_start(other, BLOCKS * SEAL_BLOCK, &err);
}

/* Whenever the other one begins, one of the two has the file, and the other one is told. */
static void of_two_that_begin_at_once_one_goes_on(void **state)
{
	void (**const moments[])(void) = {&before_lock, &before_sync};

	const struct seal_identity id = identity(1);

	for (size_t i = 0; i < 2; i++) {
		struct weft_error err = {0};
		struct seal *seal;

		unlink(path);
		assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, true, &seal, &err), 0);
		assert_int_equal(seal_note(seal, &id, &err), 0);
		*moments[i] = another_begins_too;
		const int said = seal_start(seal, BLOCKS * SEAL_BLOCK, &err);
		assert_null(*moments[i]);
		assert_int_equal(said + other_said, -EBUSY);
		seal_free(seal);
		seal_free(other);
		/* What is there is whole. */
		assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, false, &seal, &err), 0);
		seal_free(seal);
	}
}

/* Of another one that began and ended between the opening and the start. */
static void contents_that_began_meanwhile_are_not_replaced(void **state)
{
	struct weft_error err = {0};
	struct seal *seal;

	unlink(path);
	assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, true, &seal, &err), 0);
	another_begins_too();
	assert_int_equal(other_said, 0);
	seal_free(other);
	assert_int_equal(seal_start(seal, BLOCKS * SEAL_BLOCK, &err), -EBUSY);
	seal_free(seal);
}

static void another_begins_anew(void)
{
	struct weft_error err = {0};

	assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, true, &other, &err), 0);
	assert_int_equal(seal_start(other, BLOCKS * SEAL_BLOCK, &err), 0);
}

/* A file that is replaced between an open(2) and its lock is nobody's. */
static void a_file_that_was_replaced_is_not_gone_on_with(void **state)
{
	struct weft_error err = {0};
	struct seal *seal = begin();

	seal_free(seal);
	before_lock = another_begins_anew;
	assert_int_equal(seal_open(path, key, SEAL_ENCRYPT, false, &seal, &err), -EBUSY);
	seal_free(other);
}

static int set_up(void **state)
{
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/cache.seal", dir);
	return 0;
}

static int tear_down(void **state)
{
	unlink(path);
	rmdir(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_note_that_failed_is_not_taken_for_written),
		cmocka_unit_test(what_failed_has_failed_however_late_it_is_asked),
		cmocka_unit_test(the_file_does_not_grow_with_what_is_written),
		cmocka_unit_test(what_was_made_zeros_stays_zeros_in_the_next_log),
		cmocka_unit_test(a_file_of_another_version_is_told_from_a_damaged_one),
		cmocka_unit_test(of_two_that_begin_at_once_one_goes_on),
		cmocka_unit_test(contents_that_began_meanwhile_are_not_replaced),
		cmocka_unit_test(a_file_that_was_replaced_is_not_gone_on_with),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
