/* SPDX-License-Identifier: MIT */
/* The preflight's first half, before anything is made: see swap-check.h. */
#include "nbd-bridge/main/swap-check.h"

#include <ifaddrs.h>
#include <limits.h>
#include <linux/capability.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "fabric/base/address.h"
#include "fabric/base/util.h"
#include "fabric/machine/finding.h"
#include "fabric/uri.h"
#include "nbd-bridge/device/device-kind.h"
#include "nbd-bridge/main/swap-kernel.h"
#include "nbd-bridge/main/swap-setting.h"

static void add(struct swap_findings *findings, bool refuses, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

static void add(struct swap_findings *findings, bool refuses, const char *fmt, va_list ap)
{
	findings->nr_refusals += refuses;
	if (findings->nr == SWAP_FINDINGS_MAX)
		return;
	struct swap_finding *one = &findings->at[findings->nr++];
	one->refuses = refuses;
	vsnprintf(one->text, sizeof(one->text), fmt, ap);
}

void swap_refuse(struct swap_findings *findings, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(findings, true, fmt, ap);
	va_end(ap);
}

void swap_remark(struct swap_findings *findings, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(findings, false, fmt, ap);
	va_end(ap);
}

/* ---- what the user asked for ---- */

static void check_recursion(const struct swap_options *o, struct swap_findings *ret)
{
	enum bridge_device_kind kind;

	if (o->cache_file) {
		ret->unlocked = true;
		swap_refuse(ret,
			"--cache-file %s: writing to a file takes memory, which is what swapping "
			"out has to free; keep the cache in locked memory (--cache alone), or "
			"leave it out",
			o->cache_file);
	}
	if (o->device_path && bridge_device_kind_of(o->device_path, &kind) < 0)
		swap_refuse(ret,
			"%s is no device of weft's: a loop device or a FUSE file takes memory for "
			"each page that is swapped out; leave the device to weft (--device without "
			"a path)",
			o->device_path);
}

static void check_dead_timeout(const struct swap_options *o, struct swap_findings *ret)
{
	char *end;

	if (!o->dead_timeout || strtod(o->dead_timeout, &end) != 0 || *end != '\0')
		return;
	ret->unlocked = true;
	swap_refuse(ret,
		"--dead-timeout 0: with a donor that is gone, whatever needs a swapped "
		"page would hang for ever, and the machine with it; give it seconds after "
		"which such a process is killed instead");
}

/* ---- this machine ---- */

static void check_memory_lock(struct swap_findings *ret)
{
	char line[128];
	struct rlimit limit;

	/* CAP_IPC_LOCK lets a process lock whatever it has (mlock(2)). */
	if (facts_line("/proc/self/status", "CapEff:", line, sizeof(line)) &&
		strtoull(line + strlen("CapEff:"), NULL, 16) & (UINT64_C(1) << CAP_IPC_LOCK))
		return;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY)
		return;
	ret->unlocked = true;
	swap_refuse(ret,
		"the bridge cannot be locked in memory: it would itself be swapped out, and "
		"nothing could bring it back; it needs CAP_IPC_LOCK, or `ulimit -l unlimited`");
}

static void check_hibernation(struct swap_findings *ret)
{
	char line[4096], *word, *rest = line;

	if (swap_read_line("/proc/cmdline", line, sizeof(line)))
		while ((word = strsep(&rest, " ")) != NULL)
			if (strncmp(word, "resume=", strlen("resume=")) == 0) {
				swap_refuse(ret,
					"hibernation is configured (%.100s on the kernel's command "
					"line): an image in a donor's memory cannot be read when "
					"this machine starts; take it out, and `systemctl mask "
					"hibernate.target`",
					word);
				return;
			}
	if (swap_read_line("/sys/power/resume", line, sizeof(line)) && strcmp(line, "0:0") != 0)
		swap_refuse(ret,
			"hibernation is configured (/sys/power/resume is %.32s): an image in a "
			"donor's memory cannot be read when this machine starts; echo 0:0 "
			">/sys/power/resume",
			line);
}

static void check_group(const char *group, struct swap_findings *ret)
{
	if (group[0] && swap_group_has_us(group))
		swap_refuse(ret,
			"this command runs in %s, and the bridge would with it: the bridge has to "
			"work when that group has no memory left; run it from elsewhere, as with "
			"systemd-run",
			group);
}

/* ---- where the donors are ---- */

static bool is_ours(const struct sockaddr *address, const struct ifaddrs *all)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

	if (weft_address_is_loopback(address))
		return true;
	for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
		if (!one->ifa_addr || one->ifa_addr->sa_family != address->sa_family)
			continue;
		if (address->sa_family == AF_INET &&
			((const struct sockaddr_in *)one->ifa_addr)->sin_addr.s_addr ==
				v4->sin_addr.s_addr)
			return true;
		if (address->sa_family == AF_INET6 &&
			memcmp(&((const struct sockaddr_in6 *)one->ifa_addr)->sin6_addr,
				&v6->sin6_addr, sizeof(v6->sin6_addr)) == 0)
			return true;
	}
	return false;
}

static bool is_here(const struct weft_uri *uri)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	struct ifaddrs *all = NULL;
	bool here = uri->socket[0] != '\0';

	if (here || getaddrinfo(uri->host, uri->port, &hints, &found) != 0)
		return here;
	if (getifaddrs(&all) < 0)
		all = NULL;
	for (const struct addrinfo *one = found; one && !here; one = one->ai_next)
		here = is_ours(one->ai_addr, all);
	freeifaddrs(all);
	freeaddrinfo(found);
	return here;
}

static void check_donors(const struct swap_options *o, struct swap_findings *ret)
{
	struct weft_uri uri;

	for (unsigned i = 0; i < o->nr_arguments; i++) {
		if (weft_uri_parse(o->arguments[i], &uri, NULL) < 0)
			continue; /* weft attach says what is wrong with it */
		if (is_here(&uri))
			swap_refuse(ret,
				"the donor of %.200s is this machine: a page that is swapped out "
				"would take as much memory as it frees, and the donor needs more "
				"to take it; name a donor elsewhere",
				o->arguments[i]);
		weft_uri_fini(&uri);
	}
}

/* ---- what is only said ---- */

static void remark_zram(unsigned priority, struct swap_findings *ret)
{
	struct swap_spaces spaces;

	swap_spaces_read(&spaces);
	for (size_t i = 0; i < spaces.nr; i++) {
		if (!spaces.at[i].is_compressed_memory || spaces.at[i].priority < (int)priority)
			continue;
		swap_remark(ret,
			"%s comes first, with priority %d: once it is full of pages that nobody "
			"uses, those in use go to the donor; zswap (--zswap) has the right order: "
			"swapoff %s",
			spaces.at[i].path, spaces.at[i].priority, spaces.at[i].path);
	}
}

/* The value of "KEY=value" in Slurm's file, whose keys and values have no case; "": not there. */
static void slurm_value(const char *path, const char *key, char *ret, size_t len)
{
	char buf[PATH_MAX], line[512];
	FILE *in = fopen(facts_below_root(buf, path), "re");

	ret[0] = '\0';
	while (in && fgets(line, sizeof(line), in)) {
		char *at = line + strspn(line, " \t");
		size_t n = strlen(key);

		if (strncasecmp(at, key, n) != 0)
			continue;
		at += n;
		at += strspn(at, " \t");
		if (*at != '=')
			continue;
		at += 1 + strspn(at + 1, " \t");
		at[strcspn(at, " \t\r\n#")] = '\0';
		snprintf(ret, len, "%s", at);
	}
	if (in)
		fclose(in);
}

static void remark_slurm(struct swap_findings *ret)
{
	static const char *const files[] = {"/etc/slurm/cgroup.conf",
		"/etc/slurm-llnl/cgroup.conf"};
	char constrains[32], allowed[32];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(files); i++) {
		slurm_value(files[i], "ConstrainSwapSpace", constrains, sizeof(constrains));
		slurm_value(files[i], "AllowedSwapSpace", allowed, sizeof(allowed));
		if (strcasecmp(constrains, "yes") == 0 && strtod(allowed, NULL) == 0)
			swap_remark(ret,
				"Slurm lets no job swap: %s has ConstrainSwapSpace=yes, and "
				"AllowedSwapSpace is 0; set AllowedSwapSpace to the percentage of "
				"its memory that a job may have in swap",
				files[i]);
	}
}

void swap_check_plan(const struct swap_options *o, const char *group, struct swap_findings *ret)
{
	check_recursion(o, ret);
	check_dead_timeout(o, ret);
	check_memory_lock(ret);
	check_hibernation(ret);
	check_group(group, ret);
	check_donors(o, ret);
	remark_zram(o->priority, ret);
	remark_slurm(ret);
}
