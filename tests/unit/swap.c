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
#include "fabric/machine/finding.h"
#include "nbd-bridge/main/swap-down.h"
#include "nbd-bridge/main/swap-drain.h"
#include "nbd-bridge/main/swap-kernel.h"
#include "nbd-bridge/main/swap-setting.h"
#include "nbd-bridge/main/swap.h"
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

/* ---- settings ---- */

#define JOBS "/sys/fs/cgroup/jobs.slice"

static void put_group(const char *group)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/memory.swap.max", group);
	fake_root_put(path, "max\n");
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/memory.high", group);
	fake_root_put(path, "max\n");
}

static struct swap_note note_of(const char *name)
{
	struct swap_note note = {.priority = 10, .group = JOBS};

	snprintf(note.name, sizeof(note.name), "%s", name);
	return note;
}

static void groups_are_found_by_path_and_by_slice(void **state)
{
	char group[SWAP_PATH_MAX];
	struct weft_error err;

	put_group("jobs.slice/jobs-big.slice");
	fake_root_put("/sys/fs/cgroup/bare/cgroup.procs", "");
	assert_int_equal(swap_group_find("/jobs.slice/jobs-big.slice/", NULL, group, &err), 0);
	assert_string_equal(group, JOBS "/jobs-big.slice");
	assert_int_equal(swap_group_find(JOBS "/jobs-big.slice", NULL, group, &err), 0);
	assert_int_equal(swap_group_find(NULL, "jobs-big.slice", group, &err), 0);
	assert_string_equal(group, JOBS "/jobs-big.slice");
	assert_int_equal(swap_group_find(NULL, "jobs-big", group, &err), 0);
	assert_int_equal(swap_group_find("/", NULL, group, &err), -EINVAL);
	assert_int_equal(swap_group_find("../etc", NULL, group, &err), -EINVAL);
	assert_int_equal(swap_group_find("/none", NULL, group, &err), -ENOENT);
	assert_int_equal(swap_group_find("/bare", NULL, group, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.message, "cgroup v2"));
}

static void settings_come_back(void **state)
{
	struct swap_note note = note_of("a"), read;
	struct weft_error err;

	put_group("jobs.slice");
	put_group("user.slice");
	put_group("system.slice");
	fake_root_put("/sys/fs/cgroup/system.slice/memory.swap.max", "4096\n");
	assert_int_equal(swap_group_limit(&note, 64 << 20, 1 << 30, &err), 0);
	assert_int_equal(swap_group_keep_others_off(&note, &err), 0);
	assert_string_equal(fake_root_get(JOBS "/memory.high"), "67108864");
	assert_string_equal(fake_root_get(JOBS "/memory.swap.max"), "1073741824");
	assert_string_equal(fake_root_get("/sys/fs/cgroup/user.slice/memory.swap.max"), "0");
	/* As whoever comes after a crash. */
	assert_int_equal(swap_note_read("a", &read, &err), 0);
	assert_int_equal(read.nr_settings, 4);
	swap_settings_restore(&read);
	assert_string_equal(fake_root_get(JOBS "/memory.high"), "max");
	assert_string_equal(fake_root_get(JOBS "/memory.swap.max"), "max");
	assert_string_equal(fake_root_get("/sys/fs/cgroup/user.slice/memory.swap.max"), "max");
	assert_string_equal(fake_root_get("/sys/fs/cgroup/system.slice/memory.swap.max"), "4096");
}

static void what_somebody_else_changed_stays(void **state)
{
	struct swap_note note = note_of("a");
	struct weft_error err;

	put_group("jobs.slice");
	assert_int_equal(swap_group_limit(&note, 64 << 20, 1 << 30, &err), 0);
	fake_root_put(JOBS "/memory.high", "123\n");
	fake_root_put(JOBS "/memory.swap.max", "1073741824\n");
	swap_settings_restore(&note);
	assert_string_equal(fake_root_get(JOBS "/memory.high"), "123");
	assert_string_equal(fake_root_get(JOBS "/memory.swap.max"), "max");
	/* Whoever was about to end the swap space was interrupted. */
	swap_settings_apply(&note);
	assert_string_equal(fake_root_get(JOBS "/memory.high"), "123");
	assert_string_equal(fake_root_get(JOBS "/memory.swap.max"), "1073741824");
}

/*
 * The kernel has rounded the value, and whoever wrote it did not come to see that.  /dev/full cuts
 * the change short: it can be read, and not written.
 */
static void a_change_that_was_cut_short_is_given_back(void **state)
{
	struct swap_note note = note_of("a"), read;
	struct weft_error err;
	char high[PATH_MAX];

	put_group("jobs.slice");
	facts_below_root(high, JOBS "/memory.high");
	assert_int_equal(unlink(high), 0);
	assert_int_equal(symlink("/dev/full", high), 0);
	assert_int_equal(swap_group_limit(&note, (64 << 20) + 1, 1 << 30, &err), -ENOSPC);
	assert_int_equal(swap_note_read("a", &read, &err), 0);
	assert_int_equal(read.nr_settings, 2);
	assert_int_equal(unlink(high), 0);
	fake_root_put(JOBS "/memory.high", "67108864\n");
	swap_settings_restore(&read);
	assert_string_equal(fake_root_get(JOBS "/memory.high"), read.settings[1].was);
	assert_string_equal(fake_root_get(JOBS "/memory.swap.max"), "max");
}

static void two_may_want_the_same_and_the_last_gives_it_back(void **state)
{
	struct swap_note a = note_of("a"), b = note_of("b"), c = note_of("c");
	struct weft_error err;

	fake_root_put(SWAP_ZSWAP_SWITCH, "N\n");
	assert_int_equal(swap_setting_change(&a, SWAP_ZSWAP_SWITCH, "Y", &err), 0);
	assert_int_equal(swap_setting_change(&b, SWAP_ZSWAP_SWITCH, "Y", &err), 0);
	assert_string_equal(b.settings[0].was, "N");
	assert_int_equal(swap_setting_change(&c, SWAP_ZSWAP_SWITCH, "N", &err), -EBUSY);
	assert_non_null(strstr(err.message, "belongs to the swap 'a'"));
	swap_settings_restore(&a);
	assert_string_equal(fake_root_get(SWAP_ZSWAP_SWITCH), "Y");
	swap_note_remove(&a);
	swap_note_remove(&c);
	swap_settings_restore(&b);
	assert_string_equal(fake_root_get(SWAP_ZSWAP_SWITCH), "N");
}

/* ---- notes ---- */

static int count(void *ctx, const char *name)
{
	++*(unsigned *)ctx;
	return 0;
}

static void replace_in_note(const char *name, const char *from, const char *to)
{
	char command[PATH_MAX];

	snprintf(command, sizeof(command), "sed -i 's/%s/%s/' '%s/swap-%s.json'", from, to,
		fake_root_run_dir(), name);
	assert_int_equal(system(command), 0);
}

static void notes_are_read_as_they_were_written(void **state)
{
	struct swap_note note = note_of("my.swap"), read;
	struct weft_error err;
	unsigned nr = 0;

	note.nr_members = 2;
	note.exclusive = true;
	strcpy(note.members[0].attachment, "my.swap-1");
	strcpy(note.members[0].device, "/dev/ublkb0");
	strcpy(note.members[0].backend, "weft:my.swap-1:0123456789abcdef");
	strcpy(note.members[1].attachment, "my.swap-2");
	strcpy(note.members[1].uri, "weft://d/r");
	assert_int_equal(swap_note_write(&note, &err), 0);
	assert_int_equal(swap_note_read("my.swap", &read, &err), 0);
	assert_memory_equal(&note, &read, sizeof(note));
	swap_note_each(count, &nr);
	assert_int_equal(nr, 1);
	assert_int_equal(swap_note_read("other", &read, &err), -ENOENT);
	/* After a restart of the machine another may have what is called so. */
	note.nr_settings = 1;
	assert_int_equal(swap_note_write(&note, &err), 0);
	replace_in_note("my.swap", note.boot, "00000000-0000-0000-0000-000000000000");
	assert_int_equal(swap_note_read("my.swap", &read, &err), 0);
	assert_true(read.nr_members == 2 && !read.members[0].device[0] && read.nr_settings == 0);
	fake_root_put("/run/swap-my.swap.json", "{\"schema\": 2}");
	assert_int_equal(swap_note_read("my.swap", &read, &err), -EUCLEAN);
	swap_note_remove(&note);
	assert_int_equal(swap_note_read("my.swap", &read, &err), -ENOENT);
}

static void one_works_at_a_time(void **state)
{
	struct weft_error err;
	int fd = swap_lock(&err);

	assert_true(fd >= 0);
	assert_int_equal(swap_lock(&err), -EBUSY);
	assert_non_null(strstr(err.message, "another weft swap is at work, pid "));
	close(fd);
	fd = swap_lock(&err);
	assert_true(fd >= 0);
	close(fd);
}

/* ---- whether memory suffices ---- */

static void put_swaps(unsigned used_kib, unsigned disk_free_kib)
{
	char text[512];

	snprintf(text, sizeof(text),
		"Filename Type Size Used Priority\n/dev/nbd0 partition 900000 %u 10\n"
		"/dev/sda2 partition %u 0 -2\n/dev/zram0 partition 900000 0 1\n",
		used_kib, disk_free_kib);
	fake_root_put("/proc/swaps", text);
}

static void memory_has_to_suffice_for_what_comes_back(void **state)
{
	struct swap_note note = note_of("a");
	struct weft_error err;

	note.group[0] = '\0';
	note.nr_members = 1;
	strcpy(note.members[0].device, "/dev/nbd0");
	put_swaps(61440, 0); /* of 64 MiB a sixteenth is spared */
	assert_int_equal(swap_drain_check(&note, &err), 0);
	put_swaps(61441, 0);
	assert_int_equal(swap_drain_check(&note, &err), -ENOMEM);
	assert_non_null(strstr(err.message, "memory does not suffice"));
	put_swaps(61441, 4);
	assert_int_equal(swap_drain_check(&note, &err), 0);
	/* What is in memory, compressed, is no place for it. */
	fake_root_put("/proc/meminfo", "MemAvailable: 0 kB\n");
	put_swaps(4, 0);
	assert_int_equal(swap_drain_check(&note, &err), -ENOMEM);
	put_swaps(0, 0);
	assert_int_equal(swap_drain_check(&note, &err), 0);
	/* Nothing can go to a space whose device is gone. */
	fake_root_put("/proc/swaps",
		"Filename Type Size Used Priority\n/dev/nbd0 partition 4096 4 1\n"
		"/dev/nbd1\\040(deleted) partition 4096 0 1\n");
	assert_int_equal(swap_drain_check(&note, &err), -ENOMEM);
}

/*
 * Here is no such device, so that nobody can say whose it is; and the space cannot be ended.  Then
 * nothing below it may be ended either.
 */
static void a_space_that_may_be_ours_is_never_passed_over(void **state)
{
	struct swap_note note = note_of("a"), read;
	struct weft_error err;

	note.nr_members = 1;
	strcpy(note.members[0].attachment, "a");
	strcpy(note.members[0].device, "/dev/nbd77");
	strcpy(note.members[0].backend, "weft:a:0123456789abcdef");
	assert_int_equal(swap_note_write(&note, &err), 0);
	fake_root_put("/proc/swaps",
		"Filename Type Size Used Priority\n/dev/nbd77 partition 4096 4 1\n");
	assert_true(swap_take_down(&note, &err) < 0);
	assert_non_null(strstr(err.message, "/dev/nbd77"));
	assert_int_equal(swap_note_read("a", &read, &err), 0);
	assert_int_equal(read.nr_members, 1);
	/* One that somebody has ended is no reason to stop. */
	fake_root_put("/proc/swaps", "Filename Type Size Used Priority\n");
	assert_int_equal(swap_take_down(&note, &err), 0);
	assert_int_equal(swap_note_read("a", &read, &err), -ENOENT);
}

static void a_jobs_limit_counts_too(void **state)
{
	struct swap_note note = note_of("a");
	struct weft_error err;

	note.nr_members = 1;
	strcpy(note.members[0].device, "/dev/nbd0");
	put_swaps(4096, 0);
	fake_root_put(JOBS "/memory.max", "8388608\n");
	fake_root_put(JOBS "/memory.current", "6291456\n");
	fake_root_put(JOBS "/memory.swap.current", "4194304\n");
	assert_int_equal(swap_drain_check(&note, &err), -ENOMEM);
	assert_non_null(strstr(err.message, "memory.max leaves room for 2 MiB"));
	fake_root_put(JOBS "/memory.max", "max\n");
	assert_int_equal(swap_drain_check(&note, &err), 0);
}

/* Of a device that is not ours any more: nothing is drained, and the note goes. */
static void force_comes_after_waiting(void **state)
{
	static char *const names[] = {(char *)"a"};
	struct swap_options o = {.arguments = names, .nr_arguments = 1, .wait_ms = 300};
	struct swap_note note = note_of("a");
	struct weft_error err;

	note.group[0] = '\0';
	note.nr_members = 1;
	strcpy(note.members[0].attachment, "a");
	strcpy(note.members[0].backend, "weft:a:0123456789abcdef");
	strcpy(note.members[0].device, "/dev/vda"); /* which no bridge makes: not ours to end */
	assert_int_equal(swap_note_write(&note, &err), 0);
	fake_root_put("/proc/swaps",
		"Filename Type Size Used Priority\n/dev/vda partition 2097152 1048576 1\n");
	uint64_t begin_ns = weft_now_ns();
	assert_int_equal(swap_off(&o), 1);
	assert_true(weft_now_ns() - begin_ns >= 300000000);
	assert_int_equal(swap_note_read("a", &note, &err), 0);
	o.force = true;
	begin_ns = weft_now_ns();
	assert_int_equal(swap_off(&o), 0);
	assert_true(weft_now_ns() - begin_ns >= 300000000);
	assert_int_equal(swap_note_read("a", &note, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, set_up)
		TEST(swap_spaces_are_read_with_blanks_in_names),
		TEST(a_device_tells_what_went_over_it),
		TEST(groups_are_found_by_path_and_by_slice),
		TEST(settings_come_back),
		TEST(what_somebody_else_changed_stays),
		TEST(a_change_that_was_cut_short_is_given_back),
		TEST(two_may_want_the_same_and_the_last_gives_it_back),
		TEST(notes_are_read_as_they_were_written),
		TEST(one_works_at_a_time),
		TEST(memory_has_to_suffice_for_what_comes_back),
		TEST(a_jobs_limit_counts_too),
		TEST(a_space_that_may_be_ours_is_never_passed_over),
		TEST(force_comes_after_waiting),
	};

	if (fake_root_make() < 0)
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	return fake_root_remove() < 0 ? 1 : r;
}
