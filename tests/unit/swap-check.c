/* SPDX-License-Identifier: MIT */
/* What weft swap says is not safe, each alone, and what is only worth a word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "fabric/base/util.h"
#include "nbd-bridge/main/swap-check.h"
#include "tests/support/fake-root.h"

/* A machine without anything of note. */
static int set_up(void **state)
{
	fake_root_clear();
	fake_root_put("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	fake_root_put("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet noresume=1\n");
	fake_root_put("/proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n");
	fake_root_put("/proc/self/cgroup", "0::/user.slice/session-1.scope\n");
	fake_root_put("/proc/meminfo", "MemTotal: 163840 kB\nMemAvailable:   65536 kB\n");
	fake_root_put("/proc/sys/vm/min_free_kbytes", "67584\n");
	fake_root_put("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n");
	fake_root_put("/sys/power/resume", "0:0\n");
	return 0;
}

/* ---- the preflight ---- */

static bool said(const struct swap_findings *findings, bool refuses, const char *text)
{
	for (size_t i = 0; i < findings->nr; i++)
		if (findings->at[i].refuses == refuses && strstr(findings->at[i].text, text))
			return true;
	for (size_t i = 0; i < findings->nr; i++)
		print_message("%s\n", findings->at[i].text);
	return false;
}

/* Of a donor elsewhere (TEST-NET-1), unless o says otherwise. */
static struct swap_findings look(struct swap_options *o, const char *group)
{
	static char *const elsewhere[] = {(char *)"weft://192.0.2.1/swap"};
	static struct swap_findings findings;

	findings = (struct swap_findings){0};
	if (!o->arguments) {
		o->arguments = elsewhere;
		o->nr_arguments = 1;
	}
	o->priority = 10;
	swap_check_plan(o, group, &findings);
	return findings;
}

static void nothing_is_said_where_all_is_well(void **state)
{
	struct swap_options o = {0};
	struct swap_findings found = look(&o, "");

	for (size_t i = 0; i < found.nr; i++)
		print_message("%s\n", found.at[i].text);
	assert_int_equal(found.nr, 0);
}

/* One thing is wrong at a time, and no other is found. */
#define REFUSED(o, group, text)                                                                    \
	do {                                                                                       \
		struct swap_findings found = look(o, group);                                       \
		assert_int_equal(found.nr_refusals, 1);                                            \
		assert_true(said(&found, true, text));                                             \
	} while (0)

static void what_could_recurse_is_refused(void **state)
{
	struct swap_options file = {.cache_file = "/var/cache/x"};
	struct swap_options loop = {.device_path = "/dev/loop3"};
	struct swap_options ours = {.device_path = "/dev/nbd3"};

	REFUSED(&file, "", "--cache-file /var/cache/x: writing to a file takes memory");
	assert_true(look(&file, "").unlocked);
	REFUSED(&loop, "", "/dev/loop3 is no device of weft's");
	assert_int_equal(look(&ours, "").nr, 0);
}

static void no_bound_on_waiting_is_refused(void **state)
{
	struct swap_options o = {.dead_timeout = "0"}, bounded = {.dead_timeout = "0.5"};

	REFUSED(&o, "", "--dead-timeout 0");
	assert_int_equal(look(&bounded, "").nr, 0);
}

static void memory_that_cannot_be_locked_is_refused(void **state)
{
	const struct rlimit some = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
	struct swap_options o = {0};

	/* All but CAP_IPC_LOCK. */
	fake_root_put("/proc/self/status", "Name:\tx\nCapEff:\t000001ffffffbfff\n");
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &some), 0);
	REFUSED(&o, "", "cannot be locked in memory");
}

static void a_donor_on_this_machine_is_refused(void **state)
{
	static const char *const uris[] = {"weft://127.0.0.1/r", "weft://[::1]:7/r",
		"weft+unix:///r?socket=/run/s", "weft://localhost/r"};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(uris); i++) {
		char *const one[] = {(char *)uris[i]};
		struct swap_options o = {.arguments = one, .nr_arguments = 1};

		REFUSED(&o, "", "is this machine");
	}
}

static void hibernation_is_refused(void **state)
{
	struct swap_options o = {0};

	fake_root_put("/sys/power/resume", "8:3\n");
	REFUSED(&o, "", "/sys/power/resume is 8:3");
	fake_root_put("/sys/power/resume", "0:0\n");
	fake_root_put("/proc/cmdline", "root=/dev/sda1 resume=UUID=12-34 quiet\n");
	REFUSED(&o, "", "resume=UUID=12-34 on the kernel's command line");
}

static void a_bridge_in_the_jobs_group_is_refused(void **state)
{
	struct swap_options o = {0};

	REFUSED(&o, "/sys/fs/cgroup/user.slice", "this command runs in /sys/fs/cgroup/user.slice");
	assert_int_equal(look(&o, "/sys/fs/cgroup/user").nr, 0);
	assert_int_equal(look(&o, "/sys/fs/cgroup/jobs.slice").nr, 0);
}

static void zram_in_front_is_told(void **state)
{
	struct swap_options o = {0};

	fake_root_put("/proc/swaps",
		"Filename Type Size Used Priority\n/dev/zram0 partition 9 0 100\n");
	struct swap_findings found = look(&o, "");
	assert_true(found.nr == 1 && said(&found, false, "/dev/zram0 comes first"));
	fake_root_put("/proc/swaps",
		"Filename Type Size Used Priority\n/dev/zram0 partition 9 0 5\n");
	assert_int_equal(look(&o, "").nr, 0);
}

static void slurm_without_swap_is_told(void **state)
{
	struct swap_options o = {0};
	struct swap_findings found;

	fake_root_put("/etc/slurm/cgroup.conf",
		"# AllowedSwapSpace=50\n constrainswapspace = YES # x\n");
	found = look(&o, "");
	assert_true(found.nr == 1 && said(&found, false, "Slurm lets no job swap"));
	fake_root_put("/etc/slurm/cgroup.conf", "ConstrainSwapSpace=yes\nAllowedSwapSpace=50\n");
	assert_int_equal(look(&o, "").nr, 0);
	fake_root_put("/etc/slurm/cgroup.conf", "ConstrainSwapSpace=no\n");
	assert_int_equal(look(&o, "").nr, 0);
}

/* ---- the path ---- */

static const char well[] =
	"{\"name\": \"swap\", \"device\": \"/dev/nbd0\", \"swap\": {\"locked_bytes\": 1},"
	" \"lanes\": [{\"path\": \"tcp 10.0.0.1:5 -> 10.0.0.2:6\"}], \"donors\": [{\"uri\": "
	"\"weft://d/r\","
	" \"transport\": \"tcp\", \"epoch\": \"12\", \"restorable\": false}]}";

/* The status above, with one text in place of another. */
static struct swap_findings look_at_path(const char *from, const char *to)
{
	static struct swap_findings findings;
	char text[1024];
	const char *at = from ? strstr(well, from) : NULL;

	if (at)
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - well), well, to,
			at + strlen(from));
	else
		snprintf(text, sizeof(text), "%s", well);
	json_t *status = json_loads(text, 0, NULL);
	assert_non_null(status);
	findings = (struct swap_findings){0};
	swap_check_path(status, &findings);
	json_decref(status);
	return findings;
}

static void a_good_path_is_let_be(void **state)
{
	assert_int_equal(look_at_path(NULL, NULL).nr, 0);
	assert_int_equal(look_at_path("\"tcp\"", "\"tcp+ktls\"").nr, 0);
}

static void tls_in_user_space_behind_rdma_is_told(void **state)
{
	static const char over_rdma[] =
		"\"rdma\", \"key\": {\"identity\": \"a\"}, \"ways\": [{\"transport\": "
		"\"rdma\"}, {\"transport\": \"tcp\"}]";
	struct swap_findings found = look_at_path("\"tcp\"", over_rdma);

	assert_int_equal(found.nr_refusals, 0);
	assert_true(said(&found, false, "once rdma to weft://d/r is lost"));
	fake_root_put("/proc/sys/net/ipv4/tcp_available_ulp", "espintcp mptcp tls\n");
	assert_int_equal(look_at_path("\"tcp\"", over_rdma).nr, 0);
	/* Without a key it goes on in plaintext; or there is no other way. */
	fake_root_put("/proc/sys/net/ipv4/tcp_available_ulp", "espintcp mptcp\n");
	assert_int_equal(look_at_path("\"tcp\"",
				 "\"rdma\", \"ways\": [{\"transport\": \"tcp\"}]").nr, 0);
	assert_int_equal(look_at_path("\"tcp\"",
				 "\"rdma\", \"key\": {}, \"ways\": [{\"transport\": \"rdma\"}]").nr,
		0);
}

static void what_is_wrong_with_a_path_is_refused(void **state)
{
	static const struct {
		const char *from, *to, *text;
	} wrong[] = {
		{"\"tcp\"", "\"tcp+tls\"", "encrypted in user space"},
		{"\"restorable\": false", "\"restorable\": true", "is a file at the donor"},
		{"{\"locked_bytes\": 1}", "{\"locked_bytes\": 0}", "is not locked in memory"},
		{"{\"locked_bytes\": 1}", "null", "is of another version of weft"},
	};

	for (size_t i = 0; i < WEFT_ARRAY_LEN(wrong); i++) {
		struct swap_findings found = look_at_path(wrong[i].from, wrong[i].to);

		assert_int_equal(found.nr_refusals, 1);
		assert_true(said(&found, true, wrong[i].text));
	}
}

static void a_reserve_below_what_sockets_hold_is_refused(void **state)
{
	struct swap_findings found;

	fake_root_put("/proc/sys/vm/min_free_kbytes", "8191\n");
	found = look_at_path(NULL, NULL);
	assert_true(found.nr_refusals == 1 && said(&found, true, "sysctl vm.min_free_kbytes=8192"));
	/* The queue may be shorter than a socket's buffer. */
	fake_root_put("/sys/block/nbd0/queue/nr_requests", "64\n");
	fake_root_put("/sys/block/nbd0/queue/max_sectors_kb", "32\n");
	assert_int_equal(look_at_path(NULL, NULL).nr, 0);
	/* A card takes pages as they lie. */
	fake_root_put("/proc/sys/vm/min_free_kbytes", "100\n");
	assert_int_equal(look_at_path(NULL, NULL).nr_refusals, 1);
	assert_int_equal(look_at_path("\"tcp\"", "\"rdma\"").nr_refusals, 0);
	/* Until the card is lost. */
	assert_int_equal(look_at_path("\"tcp\"",
				 "\"rdma\", \"ways\": [{\"transport\": \"rdma\"}, "
				 "{\"transport\": \"tcp\"}]").nr_refusals,
		1);
}

static void what_is_only_worth_a_word_is_told(void **state)
{
	const char *from = "tcp 10.0.0.1:5 -> 10.0.0.2:6";
	const char *to = "rdma rxe0 gid 1 10.0.0.1 -> 10.0.0.2";
	struct swap_findings found = look_at_path("\"12\"", "null");

	assert_true(found.nr == 1 && said(&found, false, "cannot say whether its contents"));
	found = look_at_path("\"lanes\"",
		"\"transport\": \"tcp\", \"kernel_socket\": null, \"lanes\"");
	assert_true(found.nr == 1 && said(&found, false, "with --kernel-socket"));
	assert_int_equal(look_at_path("\"lanes\"",
		"\"transport\": \"tcp\", \"kernel_socket\": {}, \"lanes\"").nr, 0);
	fake_root_put("/sys/class/infiniband/rxe0/node_desc", "rxe\n");
	found = look_at_path(from, to);
	assert_true(found.nr == 1 && said(&found, false, "rxe0 is an RDMA device in software"));
	fake_root_put("/sys/class/infiniband/rxe0/device/vendor", "0x15b3\n");
	assert_int_equal(look_at_path(from, to).nr, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, set_up)
		TEST(nothing_is_said_where_all_is_well),
		TEST(what_could_recurse_is_refused),
		TEST(no_bound_on_waiting_is_refused),
		TEST(a_donor_on_this_machine_is_refused),
		TEST(hibernation_is_refused),
		TEST(a_bridge_in_the_jobs_group_is_refused),
		TEST(zram_in_front_is_told),
		TEST(slurm_without_swap_is_told),
		TEST(a_good_path_is_let_be),
		TEST(tls_in_user_space_behind_rdma_is_told),
		TEST(what_is_wrong_with_a_path_is_refused),
		TEST(a_reserve_below_what_sockets_hold_is_refused),
		TEST(what_is_only_worth_a_word_is_told),
		/* The last, as it lowers a limit of this process. */
		TEST(memory_that_cannot_be_locked_is_refused),
	};

	if (fake_root_make() < 0)
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	return fake_root_remove() < 0 ? 1 : r;
}
