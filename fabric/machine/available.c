/* SPDX-License-Identifier: MIT */
/* How much memory a process may take; see available.h.  No state. */
#include "fabric/machine/available.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

__attribute__((format(printf, 2, 0))) static FILE *open_below(const char *root, const char *fmt,
	va_list ap)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s", root);

	if (n < 0 || (size_t)n >= sizeof(path))
		return NULL;
	int m = vsnprintf(path + n, sizeof(path) - (size_t)n, fmt, ap);
	if (m < 0 || (size_t)m >= sizeof(path) - (size_t)n) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	return fopen(path, "re");
}

/*
 * The number behind the first line that begins with key (after `skip` words); key "": the file's
 * first number.  0, or -errno; -ERANGE for "max".
 */
__attribute__((format(printf, 5, 6))) static int read_number(const char *root, unsigned skip,
	const char *key, uint64_t *ret, const char *fmt, ...)
{
	char line[512];
	int r = -ENODATA;
	va_list ap;

	va_start(ap, fmt);
	FILE *f = open_below(root, fmt, ap);
	va_end(ap);
	if (!f)
		return -errno;
	while (r == -ENODATA && fgets(line, sizeof(line), f)) {
		const char *p = line;

		for (unsigned i = 0; i < skip && *p; i++) {
			p += strcspn(p, " ");
			p += strspn(p, " ");
		}
		if (strncmp(p, key, strlen(key)) != 0)
			continue;
		p += strlen(key);
		p += strspn(p, ": \t");
		if (strncmp(p, "max", 3) == 0)
			r = -ERANGE;
		else if (sscanf(p, "%" SCNu64, ret) == 1)
			r = 0;
	}
	fclose(f);
	return r;
}

static void bound(struct weft_available *a, uint64_t bytes, const char *limit)
{
	if (bytes >= a->bytes)
		return;
	a->bytes = bytes;
	snprintf(a->limit, sizeof(a->limit), "%s", limit);
}

/* The names of files in a version of cgroups. */
struct cgroup_files {
	const char *fstype, *option; /* of the mount */
	const char *mount;           /* where it usually is */
	const char *max, *used, *cache;
};

static const struct cgroup_files versions[] = {
	{"cgroup2", NULL, "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
	{"cgroup", "memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
		"memory.usage_in_bytes", "total_inactive_file"},
};

/* Whether a list with commas has this word. */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ',') && (p[n] == '\0' || p[n] == ','))
			return true;
	return false;
}

/*
 * Finds where the groups are mounted, and which group is the mount's root (in a container it may be
 * the container's own).
 */
static void find_mount(const char *root, const struct cgroup_files *files, char mount[PATH_MAX],
	char top[PATH_MAX])
{
	char line[4 * PATH_MAX], path[PATH_MAX], fstype[64], options[PATH_MAX];

	strcpy(mount, files->mount);
	top[0] = '\0';
	if (snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root) >= (int)sizeof(path))
		return;
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *rest = strstr(line, " - ");

		/* proc(5): ... root mount-point options ... - type source super-options */
		if (!rest || sscanf(rest, " - %63s %*s %4095s", fstype, options) != 2 ||
			strcmp(fstype, files->fstype) != 0 ||
			(files->option && !has_word(options, files->option)) ||
			sscanf(line, "%*s %*s %*s %4095s %4095s", top, mount) != 2)
			continue;
		if (strcmp(top, "/") == 0)
			top[0] = '\0';
		break;
	}
	if (f)
		fclose(f);
}

/* Our group in this hierarchy: "/" and more, or "". */
static void find_group(const char *root, const struct cgroup_files *files, char path[PATH_MAX])
{
	char line[PATH_MAX + 256];

	path[0] = '\0';
	if (snprintf(line, sizeof(line), "%s/proc/self/cgroup", root) >= (int)sizeof(line))
		return;
	FILE *f = fopen(line, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *controllers = strchr(line, ':'),
		     *group = controllers ? strchr(++controllers, ':') : NULL;

		if (!group)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		if (*group == '/' &&
			(files->option ? has_word(controllers, files->option)
				       : *controllers == '\0'))
			snprintf(path, PATH_MAX, "%.*s", PATH_MAX - 1, group);
	}
	if (f)
		fclose(f);
}

/* This process's cgroup and all above it, each with its limit. */
static void bound_by_cgroups(const char *root, const struct cgroup_files *files,
	struct weft_available *a)
{
	char mount[PATH_MAX], top[PATH_MAX], path[PATH_MAX];

	find_group(root, files, path);
	if (!*path)
		return;
	find_mount(root, files, mount, top);
	size_t n = strlen(top);
	char *group = strncmp(path, top, n) == 0 && (path[n] == '/' || !path[n]) ? path + n : path;
	if (strcmp(group, "/") == 0)
		*group = '\0';
	for (;;) {
		uint64_t max, used = 0, cache = 0, inherits = 1;

		if (read_number(root, 0, "", &max, "%s%s/%s", mount, group, files->max) == 0) {
			char limit[sizeof(a->limit)];

			read_number(root, 0, "", &used, "%s%s/%s", mount, group, files->used);
			read_number(root, 0, files->cache, &cache, "%s%s/memory.stat", mount,
				group);
			used -= weft_min(used, cache);
			snprintf(limit, sizeof(limit), "the memory limit of cgroup %.100s",
				*path ? path : "/");
			bound(a, max > used ? max - used : 0, limit);
		}
		char *slash = strrchr(group, '/');
		if (!slash)
			break;
		*slash = '\0';
		/* Version 1: a group counts the groups below it only if an option says so. */
		if (files->option)
			read_number(root, 0, "", &inherits, "%s%s/memory.use_hierarchy", mount,
				group);
		if (!inherits)
			break;
	}
}

static int available_huge(const char *root, uint64_t page, int node, struct weft_available *ret)
{
	char dir[160];
	uint64_t free_pages, reserved = 0, over = 0, surplus = 0;

	if (node >= 0)
		snprintf(dir, sizeof(dir),
			"/sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64 "kB", node,
			page / WEFT_KIB);
	else
		snprintf(dir, sizeof(dir), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB",
			page / WEFT_KIB);
	if (read_number(root, 0, "", &free_pages, "%s/free_hugepages", dir) < 0)
		return -ENOTSUP;
	read_number(root, 0, "", &reserved, "%s/resv_hugepages", dir);
	read_number(root, 0, "", &over, "%s/nr_overcommit_hugepages", dir);
	read_number(root, 0, "", &surplus, "%s/surplus_hugepages", dir);
	free_pages -= weft_min(free_pages, reserved);
	free_pages += over > surplus ? over - surplus : 0;
	ret->bytes = free_pages * page;
	snprintf(ret->limit, sizeof(ret->limit), "the machine's free huge pages of this size");
	return 0;
}

int weft_available(const char *root, uint64_t hugepage_bytes, int node, struct weft_available *ret)
{
	struct weft_available a = {UINT64_MAX, ""};
	uint64_t kib, cache = 0;
	int r;

	if (hugepage_bytes) {
		r = available_huge(root, hugepage_bytes, node, &a);
		if (r == 0)
			*ret = a;
		return r;
	}
	r = read_number(root, 0, "MemAvailable", &kib, "/proc/meminfo");
	if (r < 0)
		return r;
	bound(&a, kib * WEFT_KIB, "the machine's available memory");
	if (node >= 0 &&
		read_number(root, 2, "MemFree", &kib, "/sys/devices/system/node/node%d/meminfo",
			node) == 0) {
		char limit[sizeof(a.limit)];

		read_number(root, 2, "Inactive(file)", &cache,
			"/sys/devices/system/node/node%d/meminfo", node);
		snprintf(limit, sizeof(limit), "the available memory of NUMA node %d", node);
		bound(&a, (kib + cache) * WEFT_KIB, limit);
	}
	for (size_t i = 0; i < WEFT_ARRAY_LEN(versions); i++)
		bound_by_cgroups(root, &versions[i], &a);
	*ret = a;
	return 0;
}
