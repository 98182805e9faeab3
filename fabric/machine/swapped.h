/* SPDX-License-Identifier: MIT */
/* Processes that have pages in swap space.  Reads files only, and allocates nothing; any thread. */
#ifndef WEFT_FABRIC_MACHINE_SWAPPED_H
#define WEFT_FABRIC_MACHINE_SWAPPED_H

#include <stdint.h>
#include <sys/types.h>

struct weft_swapped {
	pid_t pid;
	char name[17];
	uint64_t bytes; /* in all swap spaces: the kernel does not say in which */
};

/*
 * Fills in the processes with most, that with most first, and how much all have together; returns
 * how many have any.  At most `max` of them are in ret.  root: "" for this machine, or a directory
 * with a test's tree.  What is behind shared memory is nobody's, and not counted.
 */
unsigned weft_swapped(const char *root, struct weft_swapped *ret, unsigned max,
	uint64_t *ret_bytes);

#endif
