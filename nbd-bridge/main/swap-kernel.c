/* SPDX-License-Identifier: MIT */
/* What the kernel says of swapping: see swap-kernel.h.  No state. */
#include "nbd-bridge/main/swap-kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/machine/finding.h"

enum { SECTOR_BYTES = 512 };

bool swap_read_line(const char *path, char *buf, size_t len)
{
	return facts_line(path, "", buf, (int)len);
}

/* /proc/swaps writes blanks of a path as \040, in octal. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; to++) {
		unsigned byte;

		if (from[0] == '\\' && sscanf(from + 1, "%3o", &byte) == 1) {
			*to = (char)byte;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Of a device that was removed the kernel writes the path and this. */
static bool cut_mark(char *path)
{
	static const char mark[] = " (deleted)";
	const size_t len = strlen(path), mark_len = strlen(mark);

	if (len <= mark_len || strcmp(path + len - mark_len, mark) != 0)
		return false;
	path[len - mark_len] = '\0';
	return true;
}

int swap_spaces_read(struct swap_spaces *ret)
{
	char buf[PATH_MAX], line[512];
	FILE *in = fopen(facts_below_root(buf, "/proc/swaps"), "re");

	ret->nr = 0;
	if (!in) /* ENOENT: a kernel that cannot swap */
		return errno == ENOENT ? 0 : -errno;
	while (ret->nr < SWAP_SPACES_MAX && fgets(line, sizeof(line), in)) {
		struct swap_space *space = &ret->at[ret->nr];
		uint64_t size, used;

		if (sscanf(line, "%255s %*s %" SCNu64 " %" SCNu64 " %d", space->path, &size, &used,
			    &space->priority) != 4)
			continue; /* the head */
		unescape(space->path);
		space->is_gone = cut_mark(space->path);
		space->size_bytes = size * WEFT_KIB;
		space->used_bytes = used * WEFT_KIB;
		space->is_compressed_memory =
			strncmp(space->path, "/dev/zram", strlen("/dev/zram")) == 0;
		ret->nr++;
	}
	int r = ferror(in) ? -EIO : 0;
	fclose(in);
	return r;
}

const struct swap_space *swap_spaces_find(const struct swap_spaces *spaces, const char *path)
{
	for (size_t i = 0; i < spaces->nr; i++)
		if (strcmp(spaces->at[i].path, path) == 0)
			return &spaces->at[i];
	return NULL;
}

/* ---- numbers ---- */

bool swap_traffic_read(const char *device, struct swap_traffic *ret)
{
	const char *slash = strrchr(device, '/');
	char path[300], line[512];
	uint64_t read, written;

	snprintf(path, sizeof(path), "/sys/block/%.200s/stat", slash ? slash + 1 : device);
	/* The kernel's Documentation/block/stat.rst: the third field and the seventh. */
	if (!swap_read_line(path, line, sizeof(line)) ||
		sscanf(line, "%*u %*u %" SCNu64 " %*u %*u %*u %" SCNu64, &read, &written) != 2)
		return false;
	ret->read_bytes = read * SECTOR_BYTES;
	ret->written_bytes = written * SECTOR_BYTES;
	return true;
}

uint64_t swap_memory_available(void)
{
	uint64_t kib;

	return facts_number("/proc/meminfo", "MemAvailable:", &kib) ? kib * WEFT_KIB : 0;
}

enum swap_compression swap_zswap(void)
{
	char line[8];

	if (!swap_read_line(SWAP_ZSWAP_SWITCH, line, sizeof(line)))
		return SWAP_ZSWAP_NONE;
	return line[0] == 'Y' || line[0] == '1' ? SWAP_ZSWAP_ON : SWAP_ZSWAP_OFF;
}
