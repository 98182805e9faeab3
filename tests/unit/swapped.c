/* SPDX-License-Identifier: MIT */
/* Who has pages in swap space, in a tree as /proc is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "fabric/machine/swapped.h"

static char root[] = "/tmp/weft-swapped.XXXXXX";

static void put(unsigned pid, const char *name, const char *swap)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/proc/%u", root, pid);
	assert_int_equal(mkdir(path, 0700), 0);
	strcat(path, "/status");
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "Name:\t%s\nUmask:\t0022\nVmRSS:\t     12 kB\n%sThreads:\t1\n", name, swap);
	fclose(file);
}

static int make_tree(void **state)
{
	char path[128];

	assert_non_null(mkdtemp(root));
	snprintf(path, sizeof(path), "%s/proc", root);
	assert_int_equal(mkdir(path, 0700), 0);
	strcat(path, "/sys");
	assert_int_equal(mkdir(path, 0700), 0);
	put(1, "init", "VmSwap:\t       0 kB\n");
	put(2, "kthreadd", "");
	put(30, "redis-server", "VmSwap:\t    2048 kB\n");
	put(31, "a name) of two", "VmSwap:\t   10240 kB\n");
	put(32, "python3", "VmSwap:\t     512 kB\n");
	return 0;
}

static int remove_tree(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}

static void who_has_most_comes_first(void **state)
{
	struct weft_swapped list[4];
	struct weft_swapped_all all;

	weft_swapped(root, UINT64_MAX, list, 4, &all);
	assert_int_equal(all.nr, 3);
	assert_int_equal(all.bytes, 12800 << 10);
	assert_false(all.cut);
	assert_int_equal(list[0].pid, 31);
	assert_string_equal(list[0].name, "a name) of two");
	assert_int_equal(list[0].bytes, 10 << 20);
	assert_int_equal(list[1].pid, 30);
	assert_int_equal(list[2].pid, 32);
	assert_string_equal(list[2].name, "python3");
}

static void a_short_list_has_those_with_most(void **state)
{
	struct weft_swapped list[2];
	struct weft_swapped_all all;

	weft_swapped(root, UINT64_MAX, list, 2, &all);
	assert_int_equal(all.nr, 3);
	assert_int_equal(list[0].pid, 31);
	assert_int_equal(list[1].pid, 30);
}

static void it_ends_when_time_is_up(void **state)
{
	struct weft_swapped list[2];
	struct weft_swapped_all all;

	weft_swapped(root, weft_now_ns(), list, 2, &all);
	assert_int_equal(all.nr, 0);
	assert_true(all.cut);
}

static void without_proc_there_is_nobody(void **state)
{
	struct weft_swapped list[2];
	struct weft_swapped_all all = {.bytes = 1};

	weft_swapped("/nonexistent", UINT64_MAX, list, 2, &all);
	assert_int_equal(all.nr, 0);
	assert_int_equal(all.bytes, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_has_most_comes_first),
		cmocka_unit_test(a_short_list_has_those_with_most),
		cmocka_unit_test(it_ends_when_time_is_up),
		cmocka_unit_test(without_proc_there_is_nobody),
	};

	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
