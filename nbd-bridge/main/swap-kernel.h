/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says of swapping: its swap spaces, how much memory there is, what a device has
 * moved.  All is read below facts_root (fabric/machine/finding.h).  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_KERNEL_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { SWAP_SPACES_MAX = 64 }; /* Linux has 32 at most */

struct swap_space {
	char path[256]; /* as in /proc/swaps, without the mark of a device that is gone */
	bool is_gone;   /* the device was removed under it: nothing ends it any more */
	uint64_t size_bytes, used_bytes;
	int priority;
	bool is_compressed_memory; /* zram */
};

struct swap_spaces {
	struct swap_space at[SWAP_SPACES_MAX];
	size_t nr;
};

/* The swap spaces in use.  0; or -errno, with none: /proc/swaps cannot be read. */
int swap_spaces_read(struct swap_spaces *ret);
/* NULL: path is no swap space. */
const struct swap_space *swap_spaces_find(const struct swap_spaces *spaces, const char *path);

/* What the kernel has read from a block device ("/dev/nbd0"), and written to it.  False: no such.
 */
struct swap_traffic {
	uint64_t read_bytes, written_bytes;
};
bool swap_traffic_read(const char *device, struct swap_traffic *ret);

/* MemAvailable; 0: not known. */
uint64_t swap_memory_available(void);

enum swap_compression { SWAP_ZSWAP_NONE, SWAP_ZSWAP_OFF, SWAP_ZSWAP_ON };
#define SWAP_ZSWAP_SWITCH "/sys/module/zswap/parameters/enabled"
enum swap_compression swap_zswap(void);

/* The first line of a file below the root, without its newline, in buf; false: cannot be read. */
bool swap_read_line(const char *path, char *buf, size_t len);

#endif
