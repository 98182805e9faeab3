/* SPDX-License-Identifier: MIT */
/* The regions that a donor has: by name, and of a directory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "tests/support/donor-sessions.h"

static void the_empty_name_means_the_only_region(void **state)
{
	struct weft_region *found, *other = new_region("n", false);

	assert_int_equal(weft_donor_find(donor, NULL, "", &found, NULL, &err), 0);
	assert_ptr_equal(found, region);
	weft_region_put(found);
	assert_int_equal(weft_donor_add(donor, region, &err), -EEXIST);
	assert_int_equal(weft_donor_add(donor, other, &err), 0);
	assert_int_equal(weft_donor_find(donor, NULL, "", &found, NULL, &err), -ENOENT);
	assert_int_equal(weft_donor_find(donor, NULL, "n", &found, NULL, &err), 0);
	assert_ptr_equal(found, other);
	weft_region_put(found);
	assert_int_equal(weft_donor_find(donor, NULL, "none", &found, NULL, &err), -ENOENT);
	weft_region_put(other);
}

static int collect(void *ctx, const char *name, const char *description, uint64_t size_bytes)
{
	char *text = ctx;
	size_t n = strlen(text);

	snprintf(text + n, 512 - n, "%s=%u ", name, (unsigned)size_bytes);
	return 0;
}

static void a_directory_is_served_and_not_left(void **state)
{
	static const char *const outside[] = {"../secret", "/etc/passwd", "link",
		"sub/../../secret", "sub", "sub/../a", "./a", "sub//b", "a/", "fifo", "linkdir/b",
		"empty", "", "x", "..", "."};
	char root[] = "/tmp/weft-donor.XXXXXX", command[1024], text[512] = "";
	struct weft_region *found;

	if (syscall(SYS_openat2, -1, NULL, NULL, 0) < 0 && errno == ENOSYS) {
		print_message("SKIP: openat2(2) is not there, as under valgrind\n");
		skip();
	}
	assert_non_null(mkdtemp(root));
	snprintf(command, sizeof(command),
		"cd %s && echo secret >secret && mkdir -p dir/sub && cd dir && head -c 100 "
		"/dev/zero >a && "
		"head -c 200 /dev/zero >sub/b && head -c 300 /dev/zero >m && ln -s ../secret link "
		"&& "
		"ln -s sub linkdir && mkfifo fifo && touch empty",
		root);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s/none", root);
	assert_int_equal(weft_donor_add_directory(donor, command, false, &err), -ENOENT);
	snprintf(command, sizeof(command), "%s/dir", root);
	assert_int_equal(weft_donor_add_directory(donor, command, false, &err), 0);

	assert_int_equal(weft_donor_list(donor, NULL, collect, text, &err), 0);
	assert_string_equal(text, "a=100 m=65536 sub/b=200 ");
	for (size_t i = 0; i < WEFT_ARRAY_LEN(outside); i++) {
		int r = weft_donor_find(donor, NULL, outside[i], &found, NULL, &err);

		if (r != -ENOENT && !(r == -ENODATA && strcmp(outside[i], "empty") == 0))
			fail_msg("'%s': %d %s", outside[i], r, err.message);
	}
	assert_int_equal(weft_donor_find(donor, NULL, "sub/b", &found, NULL, &err), 0);
	assert_int_equal(found->size_bytes, 200);
	assert_int_equal(found->backing, WEFT_BACKING_FILE);
	struct weft_region *again;
	assert_int_equal(weft_donor_find(donor, NULL, "sub/b", &again, NULL, &err), 0);
	assert_ptr_equal(found, again);
	weft_region_put(found);
	weft_region_put(again);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	assert_int_equal(system(command), 0);
}

static void a_file_that_was_replaced_is_opened_anew(void **state)
{
	char root[] = "/tmp/weft-donor.XXXXXX", command[512];
	struct weft_region *before, *found;

	if (syscall(SYS_openat2, -1, NULL, NULL, 0) < 0 && errno == ENOSYS) {
		print_message("SKIP: openat2(2) is not there, as under valgrind\n");
		skip();
	}
	assert_non_null(mkdtemp(root));
	snprintf(command, sizeof(command), "cd %s && head -c 100 /dev/zero >a", root);
	assert_int_equal(system(command), 0);
	assert_int_equal(weft_donor_add_directory(donor, root, false, &err), 0);
	assert_int_equal(weft_donor_find(donor, NULL, "a", &before, NULL, &err), 0);
	snprintf(command, sizeof(command), "cd %s && head -c 200 /dev/zero >b && mv b a", root);
	assert_int_equal(system(command), 0);
	/* Who has it keeps it, and whoever joins gets the same. */
	assert_int_equal(weft_donor_find(donor, NULL, "a", &found, NULL, &err), 0);
	assert_ptr_equal(found, before);
	weft_region_put(found);
	weft_region_put(before);
	assert_int_equal(weft_donor_find(donor, NULL, "a", &found, NULL, &err), 0);
	assert_int_equal(found->size_bytes, 200);
	uint64_t epoch = found->epoch;
	weft_region_put(found);
	assert_int_equal(weft_donor_find(donor, NULL, "a", &found, NULL, &err), 0);
	assert_true(found->epoch == epoch);
	weft_region_put(found);
	snprintf(command, sizeof(command), "rm -r %s", root);
	assert_int_equal(system(command), 0);
	assert_int_equal(weft_donor_find(donor, NULL, "a", &found, NULL, &err), -ENOENT);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_empty_name_means_the_only_region),
		TEST(a_directory_is_served_and_not_left),
		TEST(a_file_that_was_replaced_is_opened_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
