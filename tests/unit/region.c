/* SPDX-License-Identifier: MIT */
/* Regions of memory: bytes, holes, generations, and what a next daemon finds. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fabric/machine/available.h"
#include "fabric/hello.h"
#include "fabric/region/region.h"
#include "fabric/base/util.h"
#include "tests/support/emulated.h"
#include "tests/support/extent.h"

static struct weft_region *make(const char *name, uint64_t size)
{
	struct weft_memory_spec spec = {.name = name, .size_bytes = size};
	struct weft_region *region = NULL;
	struct weft_error err;

	if (weft_region_new_memory(&spec, NULL, NULL, &region, &err) < 0)
		fail_msg("%s", err.message);
	return region;
}

static bool all(const uint8_t *p, uint64_t len, uint8_t byte)
{
	for (uint64_t i = 0; i < len; i++)
		if (p[i] != byte)
			return false;
	return true;
}

static void memory_is_there_and_clear(void **state)
{
	struct weft_region *region = make("scratch", 3 * WEFT_MIB + 1);
	char description[64], size[32];

	assert_int_equal(region->size_bytes, 3 * WEFT_MIB + (uint64_t)sysconf(_SC_PAGESIZE));
	assert_string_equal(region->name, "scratch");
	snprintf(description, sizeof(description), "memory, %s",
		weft_format_size(region->size_bytes, size, sizeof(size)));
	assert_string_equal(region->description, description);
	assert_true(region->epoch != 0);
	assert_true(all(region->map, region->size_bytes, 0));
	assert_int_equal(weft_region_flush(region), 0);
	weft_region_put(region);
}

static bool is_old_kernel;
int __real_madvise(void *addr, size_t len, int advice);
int __wrap_madvise(void *addr, size_t len, int advice);

int __wrap_madvise(void *addr, size_t len, int advice)
{
	if (!is_old_kernel || (advice != MADV_POPULATE_READ && advice != MADV_POPULATE_WRITE))
		return __real_madvise(addr, len, advice);
	errno = EINVAL;
	return -1;
}

/* One before Linux 5.14. */
static void memory_is_taken_on_an_old_kernel(void **state)
{
	struct stat st;

	is_old_kernel = true;
	struct weft_region *region = make("m", 40 * WEFT_MIB);
	is_old_kernel = false;
	assert_int_equal(fstat(region->fd, &st), 0);
	assert_in_range(st.st_blocks * 512, 40 * WEFT_MIB, 42 * WEFT_MIB);
	assert_true(all(region->map, region->size_bytes, 0));
	assert_false(weft_region_extent(region, 0, WEFT_MIB).hole);
	weft_region_put(region);
}

static void count_progress(void *ctx, uint64_t done, uint64_t total)
{
	uint64_t *last = ctx;

	assert_true(done >= *last && done <= total);
	*last = done;
}

static void progress_ends_at_the_total(void **state)
{
	struct weft_memory_spec spec = {.name = "m", .size_bytes = 100 * WEFT_MIB};
	struct weft_region *region;
	uint64_t last = 0;

	assert_int_equal(weft_region_new_memory(&spec, count_progress, &last, &region, NULL), 0);
	assert_int_equal(last, region->size_bytes);
	weft_region_put(region);
}

static void bad_specs_are_refused(void **state)
{
	static const struct weft_memory_spec bad[] = {
		{.name = "", .size_bytes = 4096},
		{.name = "a\nb", .size_bytes = 4096},
		{.name = "\xff", .size_bytes = 4096},
		{.name = "\xc0\xaf", .size_bytes = 4096},
		{.name = "a", .size_bytes = 0},
		{.name = "a", .size_bytes = INT64_MAX},
		{.name = "a", .size_bytes = 4096, .hugepage_bytes = 4 * WEFT_MIB},
		{.name = "a", .size_bytes = 4096, .numa = WEFT_NUMA_NODE, .numa_node = 4000},
	};
	struct weft_region *region = NULL;
	struct weft_error err;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++)
		assert_int_equal(weft_region_new_memory(&bad[i], NULL, NULL, &region, &err),
			-EINVAL);
	assert_null(region);
}

static void more_than_is_available_is_refused(void **state)
{
	struct weft_memory_spec spec = {.name = "big", .size_bytes = UINT64_C(1) << 50};
	struct weft_region *region;
	struct weft_error err;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, &err), -ENOMEM);
	assert_non_null(strstr(err.message, "--overcommit"));
}

static void any_numa_policy_works_on_this_machine(void **state)
{
	struct weft_memory_spec spec = {.name = "m",
		.size_bytes = WEFT_MIB,
		.numa = WEFT_NUMA_INTERLEAVE};
	struct weft_region *region;
	struct weft_error err;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, &err), 0);
	weft_region_put(region);
	spec.numa = WEFT_NUMA_NODE;
	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, &err), 0);
	weft_region_put(region);
}

static void zero_clears_the_range_and_no_more(void **state)
{
	static const bool punches[] = {false, true};
	struct weft_region *region = make("m", WEFT_MIB);

	for (size_t i = 0; i < WEFT_ARRAY_LEN(punches); i++) {
		memset(region->map, 0xaa, region->size_bytes);
		assert_int_equal(weft_region_zero(region, 4095, 600001, punches[i], true), 0);
		assert_true(all(region->map, 4095, 0xaa));
		assert_true(all(region->map + 4095, 600001, 0));
		assert_true(all(region->map + 604096, region->size_bytes - 604096, 0xaa));
	}
	weft_region_put(region);
}

static void punched_memory_is_a_hole_until_written(void **state)
{
	SKIP_IF_EMULATED(NULL,
		"takes MADV_POPULATE_WRITE for nothing, so that all of a region is a hole");
	struct weft_region *region = make("m", WEFT_MIB);

	expect_extent(region, 0, WEFT_MIB, false, WEFT_MIB);
	assert_int_equal(weft_region_trim(region, 65536, 131072), 0);
	expect_extent(region, 0, WEFT_MIB, false, 65536);
	expect_extent(region, 65536, WEFT_MIB - 65536, true, 131072);
	memset(region->map + 65536, 1, 4096);
	expect_extent(region, 65536, 8192, false, weft_min(8192, (uint64_t)sysconf(_SC_PAGESIZE)));
	weft_region_put(region);
}

static void pinned_memory_gets_no_holes(void **state)
{
	struct weft_region *region = make("m", WEFT_MIB);

	memset(region->map, 0xaa, region->size_bytes);
	weft_region_pin(region);
	weft_region_pin(region);
	weft_region_unpin(region);
	assert_int_equal(weft_region_trim(region, 0, WEFT_MIB), 0);
	assert_true(all(region->map, WEFT_MIB, 0xaa));
	assert_int_equal(weft_region_zero(region, 0, WEFT_MIB, true, true), 0);
	assert_true(all(region->map, WEFT_MIB, 0));
	assert_false(weft_region_extent(region, 0, WEFT_MIB).hole);
	weft_region_unpin(region);
	assert_int_equal(weft_region_trim(region, 0, WEFT_MIB), 0);
	assert_true(weft_region_extent(region, 0, WEFT_MIB).hole);
	weft_region_put(region);
}

static void read_only_memory_refuses_changes(void **state)
{
	struct weft_memory_spec spec = {.name = "m", .size_bytes = WEFT_MIB, .read_only = true};
	struct weft_region *region;

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, NULL), 0);
	assert_int_equal(weft_region_zero(region, 0, 4096, false, false), -EPERM);
	assert_int_equal(weft_region_trim(region, 0, 4096), -EPERM);
	weft_region_put(region);
}

/* What is absent stays so for the next daemon, and whoever touches it waits, or gets an error. */
static void what_is_absent_is_waited_for(void **state)
{
	const struct weft_memory_spec spec = {.name = "late",
		.size_bytes = 70 * UINT64_C(65536),
		.epoch = 7,
		.fills = true};
	struct weft_region *region, *again;
	struct weft_error err;
	uint64_t wanted[4];

	assert_int_equal(weft_region_new_memory(&spec, NULL, NULL, &region, &err), 0);
	assert_false(weft_region_is_filling(region));
	weft_region_begin_fill(region);
	assert_true(weft_region_is_filling(region));
	assert_int_equal(weft_region_fetch(region, 65535, 2, 1), -ETIMEDOUT);
	assert_int_equal(weft_region_take_wanted(region, wanted, 4), 2);
	assert_true(wanted[0] == 0 && wanted[1] == 1);
	assert_int_equal(weft_region_take_wanted(region, wanted, 4), 0);
	assert_int_equal(weft_region_fetch(region, 0, 0, 1), 0);
	assert_int_equal(weft_region_arrived(region, 0), 69);
	assert_int_equal(weft_region_arrived(region, 0), 69);
	assert_int_equal(weft_region_fetch(region, 0, 65536, 1), 0);
	assert_int_equal(weft_region_fetch(region, 0, 65537, 1), -ETIMEDOUT);
	assert_int_equal(weft_region_next_absent(region, 0), 1);

	const int fd = dup(region->fd), header_fd = dup(region->header_fd);
	weft_region_put(region);
	if (weft_region_adopt(fd, header_fd, false, &again, &err) < 0)
		fail_msg("%s", err.message);
	assert_true(weft_region_is_filling(again) && again->epoch == 7);
	for (uint64_t i = 1; i < 70; i++) {
		assert_int_equal(weft_region_next_absent(again, 0), i);
		assert_int_equal(weft_region_arrived(again, i), 69 - i);
	}
	assert_false(weft_region_is_filling(again));
	assert_int_equal(weft_region_next_absent(again, 0), 70);
	assert_int_equal(weft_region_fetch(again, 0, again->size_bytes, 1), 0);
	weft_region_begin_fill(again);
	weft_region_lose_absent(again);
	assert_int_equal(weft_region_fetch(again, 0, 1, 60000), -EIO);
	weft_region_put(again);
}

static void adopted_memory_has_bytes_epoch_and_generations(void **state)
{
	static const uint8_t id[16] = {1, 2, 3};
	static const struct weft_stripe part = {2, 3, 65536};
	struct weft_region *region = make("scratch", 2 * WEFT_MIB), *again;
	uint64_t epoch = region->epoch;
	struct weft_error err;

	memset(region->map, 0x5a, region->size_bytes);
	weft_region_generation(region, id, true)->generation = 77;
	assert_int_equal(region->stripe.count, 0);
	weft_region_note_stripe(region, &part);
	weft_region_note_tenure(region, 55);
	weft_region_note_owner(region, 66, 44);
	for (uint32_t i = 1; i <= 3; i++)
		weft_region_note_copies(region, &(struct weft_copies){.set = 9, .change = i});
	int fd = dup(region->fd), header_fd = dup(region->header_fd);
	weft_region_put(region);

	if (weft_region_adopt(fd, header_fd, false, &again, &err) < 0)
		fail_msg("%s", err.message);
	assert_string_equal(again->name, "scratch");
	assert_true(again->epoch == epoch);
	assert_int_equal(again->size_bytes, 2 * WEFT_MIB);
	assert_true(all(again->map, again->size_bytes, 0x5a));
	assert_int_equal(weft_region_generation(again, id, false)->generation, 77);
	assert_true(weft_stripe_equal(&again->stripe, &part));
	assert_int_equal(again->tenure, 55);
	assert_int_equal(again->tenure_owner, 66);
	assert_int_equal(again->owner_tenure, 44);
	assert_int_equal(again->copies.set, 9);
	assert_int_equal(again->copies.change, 3);
	/* A new one is nobody's: an older version has made it, which knows of no owner. */
	weft_region_note_tenure(again, 56);
	fd = dup(again->fd);
	header_fd = dup(again->header_fd);
	weft_region_put(again);
	assert_int_equal(weft_region_adopt(fd, header_fd, false, &again, &err), 0);
	assert_int_equal(again->tenure, 56);
	assert_int_equal(again->tenure_owner, 0);
	weft_region_put(again);
}

static void mixed_up_or_damaged_leftovers_are_refused(void **state)
{
	struct weft_region *a = make("a", WEFT_MIB), *b = make("b", WEFT_MIB), *ret = NULL;
	struct weft_error err;
	char byte;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	int bare_fd = memfd_create("bare", MFD_CLOEXEC);

	assert_int_equal(weft_region_adopt(a->fd, b->header_fd, false, &ret, &err), -ESTALE);
	assert_int_equal(weft_region_adopt(a->fd, a->fd, false, &ret, &err), -ESTALE);
	assert_int_equal(weft_region_adopt(a->header_fd, a->header_fd, false, &ret, &err), -ESTALE);
	assert_int_equal(weft_region_adopt(null_fd, a->header_fd, false, &ret, &err), -ESTALE);
	assert_int_equal(weft_region_adopt(a->fd, null_fd, false, &ret, &err), -ESTALE);
	assert_int_equal(weft_region_adopt(a->fd, bare_fd, false, &ret, &err), -ESTALE);
	/* Any byte of the constant part. */
	for (off_t at = 0; at < 300; at += 13) {
		assert_int_equal(pread(a->header_fd, &byte, 1, at), 1);
		byte ^= 1;
		assert_int_equal(pwrite(a->header_fd, &byte, 1, at), 1);
		assert_int_equal(weft_region_adopt(a->fd, a->header_fd, false, &ret, &err),
			-ESTALE);
		byte ^= 1;
		assert_int_equal(pwrite(a->header_fd, &byte, 1, at), 1);
	}
	assert_null(ret);
	close(null_fd);
	close(bare_fd);
	weft_region_put(a);
	weft_region_put(b);
}

static void memory_cannot_be_shrunk_under_us(void **state)
{
	struct weft_region *region = make("m", WEFT_MIB);

	assert_int_equal(ftruncate(region->fd, 0), -1);
	assert_int_equal(ftruncate(region->header_fd, 0), -1);
	weft_region_put(region);
}

static void the_table_forgets_the_oldest_that_holds_nothing(void **state)
{
	struct weft_region *region = make("m", WEFT_MIB);
	uint8_t id[16] = {0};

	for (id[0] = 0; id[0] < WEFT_NR_GENERATIONS; id[0]++)
		weft_region_generation(region, id, true)->generation = 5;
	id[0] = 0; /* the oldest holds, the second is used again: the third goes */
	weft_region_generation(region, id, false)->held = 1;
	id[0] = 1;
	assert_non_null(weft_region_generation(region, id, false));
	id[0] = 100;
	assert_int_equal(weft_region_generation(region, id, true)->generation, 1);
	id[0] = 2;
	assert_null(weft_region_generation(region, id, false));
	for (id[0] = 0; id[0] < 2; id[0]++)
		assert_int_equal(weft_region_generation(region, id, false)->generation, 5);
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		region->generations[i].held = 1 + WEFT_MODE_READ;
	id[0] = 101;
	assert_null(weft_region_generation(region, id, true));
	/* Shared readers need no entry. */
	region->generations[7].held = 1 + WEFT_MODE_SHARED;
	assert_ptr_equal(weft_region_generation(region, id, true), &region->generations[7]);
	weft_region_put(region);
}

static void id_hashes_repeat_and_differ(void **state)
{
	uint8_t a[16] = {1}, b[16] = {2}, ha[16], ha2[16], hb[16];

	struct weft_region *region = make("scratch", 4096);

	weft_region_id_hash(region, a, ha);
	weft_region_id_hash(region, a, ha2);
	weft_region_id_hash(region, b, hb);
	weft_region_put(region);
	assert_memory_equal(ha, ha2, sizeof(ha));
	assert_memory_not_equal(ha, hb, sizeof(ha));
	assert_memory_not_equal(ha, a, sizeof(ha));
}

static void write_file(const char *root, const char *path, const char *text)
{
	char full[512];

	snprintf(full, sizeof(full), "%s/%s", root, path);
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(full, 0700);
		*p = '/';
	}
	FILE *f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void available_memory_is_the_tightest_limit(void **state)
{
	char root[] = "/tmp/weft-available.XXXXXX", command[64];
	struct weft_available a;

	assert_non_null(mkdtemp(root));
	assert_int_equal(weft_available(root, 0, -1, &a), -ENOENT);
	write_file(root, "proc/meminfo",
		"MemTotal: 100 kB\nMemFree: 5 kB\nMemAvailable:    64 kB\n");
	assert_int_equal(weft_available(root, 0, -1, &a), 0);
	assert_int_equal(a.bytes, 64 * 1024);
	assert_string_equal(a.limit, "the machine's available memory");

	write_file(root, "proc/self/cgroup", "4:memory:/x\n0::/a.slice/b.service\n");
	write_file(root, "sys/fs/cgroup/a.slice/memory.max", "50000\n");
	write_file(root, "sys/fs/cgroup/a.slice/memory.current", "20000\n");
	write_file(root, "sys/fs/cgroup/a.slice/memory.stat", "anon 1\ninactive_file 5000\n");
	write_file(root, "sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
	assert_int_equal(weft_available(root, 0, -1, &a), 0);
	assert_int_equal(a.bytes, 35000);
	assert_string_equal(a.limit, "the memory limit of cgroup /a.slice");

	/* Version 1, beside it, where a container sees its own group as the mount's root. */
	write_file(root, "proc/self/mountinfo",
		"30 20 0:1 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
		"31 30 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
		"32 30 0:3 /pods/mine /cgroups/mem rw shared:4 - cgroup cgroup rw,memory\n"
		"33 30 0:4 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
	write_file(root, "proc/self/cgroup",
		"5:cpu:/\n4:hugetlb,memory:/pods/mine/x\n0::/a.slice/b.service\n");
	write_file(root, "cgroups/mem/memory.limit_in_bytes", "30000\n");
	write_file(root, "cgroups/mem/memory.usage_in_bytes", "12000\n");
	write_file(root, "cgroups/mem/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n");
	write_file(root, "cgroups/mem/memory.use_hierarchy", "1\n");
	write_file(root, "cgroups/mem/x/memory.limit_in_bytes", "9223372036854771712\n");
	write_file(root, "cgroups/mem/x/memory.usage_in_bytes", "100\n");
	assert_int_equal(weft_available(root, 0, -1, &a), 0);
	assert_int_equal(a.bytes, 20000);
	assert_string_equal(a.limit, "the memory limit of cgroup /pods/mine");
	/* A group that does not count those below. */
	write_file(root, "cgroups/mem/memory.use_hierarchy", "0\n");
	assert_int_equal(weft_available(root, 0, -1, &a), 0);
	assert_int_equal(a.bytes, 35000);
	write_file(root, "cgroups/mem/x/memory.limit_in_bytes", "1000\n");
	assert_int_equal(weft_available(root, 0, -1, &a), 0);
	assert_int_equal(a.bytes, 900);
	write_file(root, "proc/self/cgroup", "");

	write_file(root, "sys/devices/system/node/node1/meminfo",
		"Node 1 MemTotal: 99 kB\nNode 1 MemFree:   8 kB\nNode 1 Inactive(file): 2 kB\n");
	assert_int_equal(weft_available(root, 0, 1, &a), 0);
	assert_int_equal(a.bytes, 10 * 1024);

	assert_int_equal(weft_available(root, 2 * WEFT_MIB, -1, &a), -ENOTSUP);
	write_file(root, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "7\n");
	write_file(root, "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "3\n");
	assert_int_equal(weft_available(root, 2 * WEFT_MIB, -1, &a), 0);
	assert_int_equal(a.bytes, 4 * 2 * WEFT_MIB);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_there_and_clear),
		cmocka_unit_test(memory_is_taken_on_an_old_kernel),
		cmocka_unit_test(progress_ends_at_the_total),
		cmocka_unit_test(bad_specs_are_refused),
		cmocka_unit_test(more_than_is_available_is_refused),
		cmocka_unit_test(any_numa_policy_works_on_this_machine),
		cmocka_unit_test(zero_clears_the_range_and_no_more),
		cmocka_unit_test(punched_memory_is_a_hole_until_written),
		cmocka_unit_test(pinned_memory_gets_no_holes),
		cmocka_unit_test(read_only_memory_refuses_changes),
		cmocka_unit_test(adopted_memory_has_bytes_epoch_and_generations),
		cmocka_unit_test(mixed_up_or_damaged_leftovers_are_refused),
		cmocka_unit_test(memory_cannot_be_shrunk_under_us),
		cmocka_unit_test(what_is_absent_is_waited_for),
		cmocka_unit_test(the_table_forgets_the_oldest_that_holds_nothing),
		cmocka_unit_test(id_hashes_repeat_and_differ),
		cmocka_unit_test(available_memory_is_the_tightest_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
