/* SPDX-License-Identifier: MIT */
#include "fabric/base/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

/* A name is durable once its directory is. */
static int sync_directory_of(const char *path)
{
	WEFT_CLEANUP_FREE char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	WEFT_CLEANUP_CLOSE int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int write_all(const char *path, const void *bytes, size_t len)
{
	WEFT_CLEANUP_CLOSE int fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	int r = weft_write_all(fd, bytes, len);
	return r < 0 ? r : fdatasync(fd) < 0 ? -errno : 0;
}

int weft_replace_file(const char *path, const void *bytes, size_t len)
{
	char next[4096];

	if (snprintf(next, sizeof(next), "%s.new", path) >= (int)sizeof(next))
		return -ENAMETOOLONG;
	int r = write_all(next, bytes, len);
	if (r < 0)
		return r;
	return rename(next, path) < 0 ? -errno : sync_directory_of(path);
}
