/* SPDX-License-Identifier: MIT */
/*
 * What weft swap reads of the kernel, changes, gives back and notes, where no kernel here can be
 * asked: below a root of the test's.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/main/swap-kernel.h"
#include "tests/support/fake-root.h"

static int set_up(void **state)
{
	fake_root_clear();
	fake_root_put("/proc/meminfo", "MemTotal: 163840 kB\nMemAvailable:   65536 kB\n");
	return 0;
}

/* ---- what the kernel says ---- */

static void swap_spaces_are_read_with_blanks_in_names(void **state)
{
	struct swap_spaces spaces;

	fake_root_put("/proc/swaps",
		"Filename Type Size Used Priority\n"
		"/dev/zram0                              partition\t1000000\t\t12\t\t100\n"
		"/var/a\\040b                             file\t\t2048\t\t0\t\t-2\n");
	swap_spaces_read(&spaces);
	assert_int_equal(spaces.nr, 2);
	assert_true(spaces.at[0].is_compressed_memory && spaces.at[0].priority == 100);
	assert_int_equal(spaces.at[0].used_bytes, 12 * 1024);
	const struct swap_space *file = swap_spaces_find(&spaces, "/var/a b");
	assert_non_null(file);
	assert_true(file->priority == -2 && file->size_bytes == 2048 * 1024);
	assert_null(swap_spaces_find(&spaces, "/dev/zram"));
	assert_false(file->is_gone);
	fake_root_put("/proc/swaps",
		"Filename Type Size Used Priority\n/dev/nbd0\\040(deleted) file 9 9 1\n");
	swap_spaces_read(&spaces);
	assert_true(swap_spaces_find(&spaces, "/dev/nbd0")->is_gone);
}

static void a_device_tells_what_went_over_it(void **state)
{
	struct swap_traffic traffic;

	fake_root_put("/sys/block/ublkb0/stat", "  10 0  160 5 20 3 4096 7 0 0 0\n");
	assert_true(swap_traffic_read("/dev/ublkb0", &traffic));
	assert_int_equal(traffic.read_bytes, 160 * 512);
	assert_int_equal(traffic.written_bytes, 4096 * 512);
	assert_false(swap_traffic_read("/dev/ublkb1", &traffic));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, set_up)
		TEST(swap_spaces_are_read_with_blanks_in_names),
		TEST(a_device_tells_what_went_over_it),
	};

	if (fake_root_make() < 0)
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	return fake_root_remove() < 0 ? 1 : r;
}
