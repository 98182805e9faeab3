/* SPDX-License-Identifier: MIT */
/* Who has pages in swap space; see swapped.h.  No state. */
#include "fabric/machine/swapped.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"

/* opendir(3) would allocate; and fopen(3). */
static bool read_status(int proc, const char *pid, char *buf, size_t len)
{
	char path[300];

	snprintf(path, sizeof(path), "%.255s/status", pid);
	WEFT_CLEANUP_CLOSE int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, len - 1);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	return true;
}

/* A kernel's thread, and a process that is ending, have no such line. */
static bool look_at(int proc, const char *pid, struct weft_swapped *ret)
{
	char status[8192], *name;

	if (!read_status(proc, pid, status, sizeof(status)))
		return false;
	const char *swap = strstr(status, "\nVmSwap:");
	name = strstr(status, "Name:\t");
	if (!swap || !name)
		return false;
	*ret = (struct weft_swapped){.pid = (pid_t)atoi(pid),
		.bytes = strtoull(swap + strlen("\nVmSwap:"), NULL, 10) * WEFT_KIB};
	name += strlen("Name:\t");
	snprintf(ret->name, sizeof(ret->name), "%.*s", (int)strcspn(name, "\n"), name);
	return ret->bytes > 0;
}

/* Keeps the list in order, and those with least out of it. */
static void insert(struct weft_swapped *list, unsigned *nr, unsigned max,
	const struct weft_swapped *one)
{
	unsigned i = 0;

	while (i < *nr && list[i].bytes >= one->bytes)
		i++;
	if (i == max)
		return;
	if (*nr < max)
		(*nr)++;
	memmove(&list[i + 1], &list[i], (*nr - i - 1) * sizeof(*list));
	list[i] = *one;
}

/* False: time is up. */
static bool look_at_all(int proc, const char *entries, ssize_t len, uint64_t end_ns,
	struct weft_swapped *list, unsigned *nr_listed, unsigned max, struct weft_swapped_all *all)
{
	struct weft_swapped one;

	for (ssize_t at = 0; at < len;) {
		const struct dirent64 *entry = (const void *)(entries + at);

		at += entry->d_reclen;
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		if (weft_now_ns() >= end_ns)
			return false;
		if (!look_at(proc, entry->d_name, &one))
			continue;
		all->bytes += one.bytes;
		all->nr++;
		insert(list, nr_listed, max, &one);
	}
	return true;
}

void weft_swapped(const char *root, uint64_t end_ns, struct weft_swapped *list, unsigned max,
	struct weft_swapped_all *ret)
{
	char path[PATH_MAX], entries[4096] __attribute__((aligned(16)));
	unsigned nr_listed = 0;
	ssize_t n;

	*ret = (struct weft_swapped_all){0};
	snprintf(path, sizeof(path), "%s/proc", root);
	WEFT_CLEANUP_CLOSE int proc = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (proc >= 0 && !ret->cut && (n = getdents64(proc, entries, sizeof(entries))) > 0)
		ret->cut = !look_at_all(proc, entries, n, end_ns, list, &nr_listed, max, ret);
}
