/* SPDX-License-Identifier: MIT */
/* Processes that have pages in swap space.  Reads files only, and allocates nothing; any thread. */
#ifndef WEFT_FABRIC_MACHINE_SWAPPED_H
#define WEFT_FABRIC_MACHINE_SWAPPED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct weft_swapped {
	pid_t pid;
	char name[17];
	uint64_t bytes; /* in all swap spaces: the kernel does not say in which */
};

struct weft_swapped_all {
	unsigned nr;    /* processes that have any */
	uint64_t bytes; /* of them together */
	bool cut;       /* time was up before all were looked at */
};

/*
 * Lists the processes with most, that with most first: ret->nr of them, and at most `max`.
 * root: "" for this machine, or a directory with a test's tree.  What is behind shared memory is
 * nobody's, and not counted.  It takes about 10 us a process, and ends at end_ns (weft_now_ns();
 * UINT64_MAX: once all were looked at).
 */
void weft_swapped(const char *root, uint64_t end_ns, struct weft_swapped *list, unsigned max,
	struct weft_swapped_all *ret);

#endif
