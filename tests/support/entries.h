/* SPDX-License-Identifier: MIT */
/* How many descriptors or threads this process has: for tests of what is left over. */
#ifndef WEFT_TESTS_SUPPORT_ENTRIES_H
#define WEFT_TESTS_SUPPORT_ENTRIES_H

#include <dirent.h>

/* Of a directory, such as /proc/self/fd, with "." and ".."; fails the test when it is not there. */
static inline int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	int nr = 0;

	assert_non_null(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

#endif
