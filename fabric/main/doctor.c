/* SPDX-License-Identifier: MIT */
/*
 * weft doctor: what this machine can do for weft, and the exact fix for what it cannot.
 *
 * Each check looks at one thing and fills a finding.  Facts that only a system call can tell are
 * asked for the real root alone.  One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fabric/driver.h"
#include "fabric/machine/available.h"
#include "fabric/machine/finding.h"
#include "fabric/main/doctor.h"
#include "fabric/base/log.h"
#include "fabric/base/options.h"
#include "fabric/base/process.h"
#include "fabric/base/util.h"

enum { MAX_CHECKS = 64 };

static const char *const state_names[] = {"ok", "warn", "missing", "n/a"};

static bool have_ipc_lock(void)
{
	char line[256];
	const char *at;

	if (!facts_line("/proc/self/status", "CapEff:", line, sizeof(line)))
		return false;
	at = strchr(line, ':') + 1;
	return strtoull(at, NULL, 16) >> CAP_IPC_LOCK & 1;
}

/* The checks. */

static void check_kernel(struct finding *f)
{
	char release[128];
	unsigned major = 0, minor = 0;

	if (!facts_kernel_release(release, sizeof(release)) ||
		sscanf(release, "%u.%u", &major, &minor) != 2) {
		finding_say(f, FINDING_MISSING,
			"/proc/sys/kernel/osrelease cannot be read: is /proc mounted?");
		finding_fix_as_root(f, "mount -t proc proc /proc");
	} else if (major * 1000 + minor < 5014) {
		finding_say(f, FINDING_WARN,
			"kernel %.64s is older than 5.14: a donor takes its memory more slowly",
			release);
		finding_fix_kernel(f, 5, 14);
	} else {
		finding_say(f, FINDING_OK, "kernel %.64s", release);
	}
}

static void check_run_directory(struct finding *f)
{
	char dir[108];
	int r;

	if (facts_root[0]) {
		finding_say(f, FINDING_NONE, "not looked at below another root");
		return;
	}
	r = weft_run_dir(dir, sizeof(dir));
	if (!r && access(dir, W_OK) == 0) {
		finding_say(f, FINDING_OK, "%s holds sockets and state", dir);
		return;
	}
	finding_say(f, FINDING_MISSING, "no directory for sockets and state: %s",
		strerror(r ? -r : errno));
	finding_fix(f, "export WEFT_RUN_DIR=$HOME/.weft");
	finding_keep(f, "put that line into ~/.profile");
}

static void check_memory(struct finding *f)
{
	struct weft_available available;
	char text[32];

	if (weft_available(facts_root, 0, -1, &available) < 0) {
		finding_say(f, FINDING_MISSING,
			"/proc/meminfo does not say how much memory is available");
		finding_fix_as_root(f, "mount -t proc proc /proc");
		return;
	}
	weft_format_size(available.bytes, text, sizeof(text));
	if (available.bytes >= 256 * WEFT_MIB) {
		finding_say(f, FINDING_OK, "%s can be lent (%s)", text, available.limit);
		return;
	}
	finding_say(f, FINDING_WARN, "only %s can be lent (%s)", text, available.limit);
	finding_fix(f, "ps -eo rss,pid,comm --sort=-rss | head  # shows what holds the rest");
}

static void check_memory_files(struct finding *f)
{
	WEFT_CLEANUP_CLOSE int fd = -1;

	if (!facts_root[0]) {
		fd = memfd_create("weft-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (fd < 0) {
			finding_say(f, FINDING_MISSING,
				"memfd_create fails, so no memory can be lent: %s",
				strerror(errno));
			finding_fix_as_root(
				f, "allow memfd_create(2) in the container's seccomp profile");
			return;
		}
	}
	finding_say(f, FINDING_OK, "memory can be lent so that it outlives the daemon");
}

static void check_huge_pages(struct finding *f, uint64_t kib, const char *size)
{
	char path[128];
	uint64_t total, free_pages;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
		(unsigned long long)kib);
	if (!facts_number(path, "", &total)) {
		finding_say(f, FINDING_MISSING,
			"this machine has no %s pages: --hugepages %s cannot be used", size, size);
		return;
	}
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages",
		(unsigned long long)kib);
	if (facts_number(path, "", &free_pages) && free_pages > 0) {
		finding_say(f, FINDING_OK, "%llu of %llu pages of %s are free",
			(unsigned long long)free_pages, (unsigned long long)total, size);
		return;
	}
	finding_say(f, FINDING_WARN,
		"no free pages of %s: weft serve --hugepages %s needs them, nothing else does",
		size, size);
	total += WEFT_GIB / 1024 / kib;
	finding_fix_as_root(f,
		"echo %llu > /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages  # 1 GiB",
		(unsigned long long)total, (unsigned long long)kib);
	finding_keep(f,
		"add hugepagesz=%s hugepages=%llu to the kernel's command line: GRUB_CMDLINE_LINUX "
		"in /etc/default/grub, then update-grub",
		size, (unsigned long long)total);
}

static void check_huge_2m(struct finding *f)
{
	check_huge_pages(f, 2048, "2M");
}

static void check_huge_1g(struct finding *f)
{
	check_huge_pages(f, 1048576, "1G");
}

static void check_numa(struct finding *f)
{
	char nodes[128];
	size_t n = facts_names("/sys/devices/system/node/node[0-9]*", nodes, sizeof(nodes));

	if (n > 1)
		finding_say(f, FINDING_OK, "%zu nodes (%s): weft serve --numa chooses", n, nodes);
	else
		finding_say(f, FINDING_OK, "one node: --numa makes no difference");
}

static void check_memlock(struct finding *f)
{
	char line[256], text[32];
	uint64_t bytes;

	if (have_ipc_lock() ||
		(facts_line("/proc/self/limits", "Max locked memory", line, sizeof(line)) &&
			!strncmp(line + 17 + strspn(line + 17, " "), "unlimited", 9))) {
		finding_say(f, FINDING_OK, "memory can be locked without limit");
		return;
	}
	if (!facts_number("/proc/self/limits", "Max locked memory", &bytes))
		bytes = 0;
	weft_format_size(bytes, text, sizeof(text));
	finding_say(f, FINDING_WARN,
		"only %s can be locked in memory: RDMA, and swap on a region, need as much as is "
		"lent or mapped",
		text);
	finding_fix_as_root(f,
		"printf '* - memlock unlimited\\n' > /etc/security/limits.d/weft.conf  # then log "
		"in again");
}

static void check_fuse(struct finding *f)
{
	finding_module(f, "fuse", "/dev/fuse", "a region as a file (weft attach --mount)", 2, 6);
	if (f->state != FINDING_OK)
		return;
	if (!facts_usable("/dev/fuse")) {
		finding_say(f, FINDING_MISSING,
			"/dev/fuse may not be opened: weft attach --mount cannot be used");
		finding_fix_as_root(f, "chmod 666 /dev/fuse");
		finding_keep(f,
			"echo 'KERNEL==\"fuse\", MODE=\"0666\"' >> "
			"/etc/udev/rules.d/90-weft.rules");
	} else if (geteuid() && !facts_exist("/usr/bin/fusermount3") &&
		!facts_exist("/bin/fusermount3")) {
		finding_say(f, FINDING_MISSING,
			"fusermount3 is not installed: only root can use weft attach --mount");
		finding_fix_as_root(f, "apt-get install fuse3");
	}
}

static void check_nbd(struct finding *f)
{
	finding_module(f, "nbd", "/sys/module/nbd",
		"a region as a block device (weft attach --device)", 4, 12);
	if (f->state == FINDING_OK && geteuid() != 0)
		finding_say(f, FINDING_WARN,
			"nbd is there; only root can use it (weft attach --device)");
}

static void check_ublk(struct finding *f)
{
	char release[128];
	unsigned major = 0, minor = 0;

	finding_module(f, "ublk_drv", "/dev/ublk-control",
		"a faster block device (weft attach --device)", 6, 5);
	if (f->state == FINDING_MISSING || !facts_kernel_release(release, sizeof(release)) ||
		sscanf(release, "%u.%u", &major, &minor) != 2)
		return;
	if (major * 1000 + minor < 6005) {
		finding_say(f, FINDING_MISSING,
			"the ublk driver of kernel %.64s cannot be taken over from a bridge that "
			"died; Linux 6.5 can: "
			"weft attach --device uses nbd",
			release);
		finding_fix_kernel(f, 6, 5);
	} else if (f->state == FINDING_OK && geteuid() != 0) {
		finding_say(f, FINDING_WARN,
			"ublk is there; only root can use it (weft attach --device)");
	}
}

/* The device is there since Linux 6.1; before that there is one switch for all users. */
static void let_users_have_faults(struct finding *f)
{
	if (facts_exist("/dev/userfaultfd")) {
		finding_fix_as_root(f,
			"groupadd -f weft && chgrp weft /dev/userfaultfd && "
			"chmod 0660 /dev/userfaultfd; usermod -aG weft USER");
		finding_keep(f,
			"echo 'KERNEL==\"userfaultfd\", GROUP=\"weft\", MODE=\"0660\"' > "
			"/etc/udev/rules.d/90-weft-userfaultfd.rules");
		return;
	}
	finding_fix_as_root(f, "sysctl -w vm.unprivileged_userfaultfd=1");
	finding_keep(f, "echo vm.unprivileged_userfaultfd=1 > /etc/sysctl.d/90-weft.conf");
}

static void check_userfaultfd(struct finding *f)
{
	WEFT_CLEANUP_CLOSE int fd = -1;
	uint64_t allowed = 0;
	bool works;

	if (!facts_root[0]) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
		works = fd >= 0;
	} else {
		works = facts_exist("/proc/sys/vm/unprivileged_userfaultfd");
	}
	facts_number("/proc/sys/vm/unprivileged_userfaultfd", "", &allowed);
	if (works && (allowed || geteuid() == 0 || facts_usable("/dev/userfaultfd"))) {
		finding_say(f, FINDING_OK,
			"userfaultfd works, for a region as memory of a program (weft_map())");
	} else if (works) {
		finding_say(f, FINDING_WARN,
			"userfaultfd works for a program's own accesses; system calls get EFAULT "
			"for what is not here of a region as memory (weft_map())");
		let_users_have_faults(f);
	} else {
		finding_say(f, FINDING_MISSING,
			"userfaultfd does not work, for a region as memory of a program "
			"(weft_map())");
		finding_fix_as_root(f,
			"allow userfaultfd(2) in the container's seccomp profile, or use a kernel "
			"that has it");
	}
}

static const struct finding_check checks[] = {
	{"kernel", true, check_kernel},
	{"run directory", true, check_run_directory},
	{"memory", true, check_memory},
	{"memory files", true, check_memory_files},
	{"huge pages 2M", false, check_huge_2m},
	{"huge pages 1G", false, check_huge_1g},
	{"NUMA", false, check_numa},
	{"memlock", false, check_memlock},
	{"FUSE", false, check_fuse},
	{"nbd", false, check_nbd},
	{"ublk", false, check_ublk},
	{"userfaultfd", false, check_userfaultfd},
	{.name = NULL},
};

static struct looked_at {
	const struct finding_check *check;
	struct finding finding;
} all[MAX_CHECKS];
static unsigned nr_all;

/* checks: up to the one without a name; may be NULL. */
static void look_at(const struct finding_check *list)
{
	for (; list && list->name && nr_all < MAX_CHECKS; list++) {
		weft_debug("looking at %s", list->name);
		all[nr_all].check = list;
		list->look(&all[nr_all++].finding);
	}
}

/*
 * Runs the checks that any donor or borrower needs, then each transport's.  Returns whether weft
 * works at all.
 */
static bool look_at_all(void)
{
	bool works = true;

	look_at(checks);
	for (const struct tp_driver *const *driver = tp_drivers; *driver; driver++)
		look_at((*driver)->checks);
	for (unsigned i = 0; i < nr_all; i++)
		works &= !(all[i].check->needed && all[i].finding.state == FINDING_MISSING);
	return works;
}

static void print_table(void)
{
	for (unsigned i = 0; i < nr_all; i++) {
		const struct finding *f = &all[i].finding;

		printf("%-8s %-14s %s", state_names[f->state], all[i].check->name, f->meaning);
		if (f->fix[0])
			printf("\n%24sfix%s: %s", "", f->as_root ? " (as root)" : "", f->fix);
		if (f->keep[0])
			printf("\n%24sto keep that over a reboot: %s", "", f->keep);
		putchar('\n');
	}
}

static void print_json(bool works)
{
	json_t *list = json_array(), *json;

	for (unsigned i = 0; i < nr_all; i++) {
		const struct finding *f = &all[i].finding;

		json_array_append_new(list,
			json_pack("{s:s, s:s, s:b, s:s, s:s, s:b, s:s}", "check",
				all[i].check->name, "state", state_names[f->state], "needed",
				all[i].check->needed, "meaning", f->meaning, "fix", f->fix,
				"fix_as_root", f->as_root, "keep", f->keep));
	}
	json = json_pack("{s:b, s:o}", "works", works, "checks", list);
	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(json);
}

struct doctor_options {
	bool json, topology;
	const char *sysroot;
};

static const struct weft_option options[] = {
	{"json", NULL, "the findings as JSON", WEFT_OPTION_FLAG,
		.into = offsetof(struct doctor_options, json)},
	{"topology", NULL, "draw packages, NUMA nodes and network devices, and where lanes belong",
		WEFT_OPTION_FLAG, .into = offsetof(struct doctor_options, topology)},
	{"sysroot", "DIRECTORY", "look at the /proc, /sys, /dev and /lib below it",
		WEFT_OPTION_TEXT, .into = offsetof(struct doctor_options, sysroot),
		.completion = WEFT_COMPLETE_DIRECTORY},
	{0},
};

/* WEFT_GO_ON, or the exit status. */
static int parse(int argc, char **argv, struct doctor_options *o)
{
	struct weft_command_line line = {
		.command = "doctor",
		.synopsis = "[--json] [--topology | --sysroot DIRECTORY]",
		.about = "Shows what this machine can do for weft, "
			 "and the exact fix for what is missing.",
		.epilogue = "Exits 1 if weft cannot work here at all.",
		.tables = {{options, o}},
	};
	int r = weft_options_parse(&line, argc, argv);

	if (r != WEFT_GO_ON)
		return r;
	if (o->topology && o->sysroot[0])
		return weft_usage_error(
			"--topology is of the running machine, --sysroot of another");
	if (o->sysroot[0] && access(o->sysroot, X_OK) < 0) {
		fprintf(stderr, "weft-doctor: --sysroot %s: %s\n", o->sysroot, strerror(errno));
		return 1;
	}
	if (line.nr_arguments > 0)
		return weft_usage_error("'%s' is not an option", line.arguments[0]);
	return WEFT_GO_ON;
}

int main(int argc, char **argv)
{
	struct doctor_options o = {.sysroot = ""};

	weft_process_begin();
	int r = parse(argc, argv, &o);
	if (r != WEFT_GO_ON)
		return r;
	facts_root = o.sysroot;
	if (o.topology)
		return weft_end_output("weft-doctor", doctor_topology(o.json));
	bool works = look_at_all();
	if (o.json)
		print_json(works);
	else
		print_table();
	return weft_end_output("weft-doctor", works ? 0 : 1);
}
