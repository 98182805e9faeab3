/* SPDX-License-Identifier: MIT */
/*
 * How much memory a process may take without hurting the machine: what the kernel calls available,
 * within the limits of this process's cgroups (versions 1 and 2); for one NUMA node, or in free
 * huge pages, if asked.  Reads files only; any thread.
 */
#ifndef WEFT_FABRIC_MACHINE_AVAILABLE_H
#define WEFT_FABRIC_MACHINE_AVAILABLE_H

#include <stdint.h>

struct weft_available {
	uint64_t bytes;
	char limit[160]; /* what sets the bound, for people: "the machine's available memory" */
};

/*
 * root: "" for this machine, or a directory with a tree of a test's.  hugepage_bytes: 0 for
 * ordinary pages.  node: a NUMA node, or -1.  0, or -errno when /proc/meminfo cannot be read,
 * -ENOTSUP when the kernel has no huge pages of that size.
 */
int weft_available(const char *root, uint64_t hugepage_bytes, int node, struct weft_available *ret);

#endif
