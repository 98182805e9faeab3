/* How much memory may be taken; see available.h.  No state. */
#include "fabric/available.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fabric/util.h"

__attribute__((format(printf, 2, 0))) static FILE *open_below(const char *root, const char *fmt, va_list ap)
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

/* This process's cgroup and all above it, each with its limit. */
static void bound_by_cgroups(const char *root, struct weft_available *a)
{
	char line[PATH_MAX], path[PATH_MAX] = "";

	if (snprintf(path, sizeof(path), "%s/proc/self/cgroup", root) >= (int)sizeof(path))
		return;
	FILE *f = fopen(path, "re");
	if (!f)
		return;
	path[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "0::/", 4) == 0)
			snprintf(path, sizeof(path), "%s", line + 3);
	}
	fclose(f);
	if (path[0] != '/')
		return;
	for (;;) {
		const char *group = strcmp(path, "/") == 0 ? "" : path;
		uint64_t max, used = 0, cache = 0;

		if (read_number(root, 0, "", &max, "/sys/fs/cgroup%s/memory.max", group) == 0) {
			char limit[sizeof(a->limit)];

			read_number(root, 0, "", &used, "/sys/fs/cgroup%s/memory.current", group);
			read_number(root, 0, "inactive_file", &cache, "/sys/fs/cgroup%s/memory.stat", group);
			used -= weft_min(used, cache);
			snprintf(limit, sizeof(limit), "the memory limit of cgroup %.100s", path);
			bound(a, max > used ? max - used : 0, limit);
		}
		if (*group == '\0')
			break;
		char *slash = strrchr(path, '/');
		slash[slash == path] = '\0';
	}
}

static int available_huge(const char *root, uint64_t page, int node, struct weft_available *ret)
{
	char dir[160];
	uint64_t free_pages, reserved = 0, over = 0, surplus = 0;

	if (node >= 0)
		snprintf(dir, sizeof(dir), "/sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64 "kB",
			node, page / WEFT_KIB);
	else
		snprintf(dir, sizeof(dir), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB", page / WEFT_KIB);
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
		read_number(root, 2, "MemFree", &kib, "/sys/devices/system/node/node%d/meminfo", node) == 0) {
		char limit[sizeof(a.limit)];

		read_number(root, 2, "Inactive(file)", &cache, "/sys/devices/system/node/node%d/meminfo", node);
		snprintf(limit, sizeof(limit), "the available memory of NUMA node %d", node);
		bound(&a, (kib + cache) * WEFT_KIB, limit);
	}
	bound_by_cgroups(root, &a);
	*ret = a;
	return 0;
}
