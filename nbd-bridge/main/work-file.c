/* SPDX-License-Identifier: MIT */
/*
 * Whole states of a file; see work-file.h.  That nobody has the other file open is what a lease of
 * the kernel's says (fcntl(2), F_SETLEASE): it is not given while there is another descriptor, and
 * keeps others from opening the file.
 */
#include "nbd-bridge/main/work-file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"

static int failed(const char *what, const char *name, struct weft_error *err)
{
	const int code = errno;

	return weft_error_set(err, code, "cannot %s %s: %s", what, name, strerror(code));
}

int work_file_init(struct work_file *file, const char *name, struct weft_error *err)
{
	struct stat st;

	*file = (struct work_file){.name = name, .fd = -1};
	if (stat(name, &st) == 0 && !S_ISREG(st.st_mode))
		return weft_error_set(err, EINVAL, "%s is no file, which could be replaced", name);
	if (asprintf(&file->work, "%s.weft-pull", name) < 0) {
		file->work = NULL;
		return weft_error_set(err, ENOMEM, "out of memory");
	}
	/* Somebody waits to open the file: they wait until it has its name. */
	signal(SIGIO, SIG_IGN);
	return 0;
}

/* 1: nobody else has it open; 0; or -errno: nobody can tell. */
static int take_lease(int fd)
{
	if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0)
		return 1;
	return errno == EAGAIN || errno == EBUSY ? 0 : -errno;
}

static int copy(int from, int to, uint64_t len)
{
	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	while (len > 0) {
		ssize_t n = copy_file_range(from, NULL, to, NULL, weft_min(len, 1 << 30), 0);

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len -= (uint64_t)n;
	}
	return 0;
}

/* What is there is the best guess of what comes; the mode stays. */
static int fill(struct work_file *file, uint64_t max_bytes, struct weft_error *err)
{
	struct stat st;
	int r = 0;
	int from = open(file->name, O_RDONLY | O_CLOEXEC);

	if (from < 0)
		return errno == ENOENT ? 0 : failed("open", file->name, err);
	if (fstat(from, &st) < 0 || fchmod(file->fd, st.st_mode & 07777) < 0)
		r = failed("look at", file->name, err);
	/* A copy that fails costs a longer pull. */
	if (r == 0 && copy(from, file->fd, (uint64_t)st.st_size) < 0 &&
		ftruncate(file->fd, 0) < 0)
		r = failed("empty", file->work, err);
	if (r == 0 && (uint64_t)st.st_size > max_bytes && ftruncate(file->fd, (off_t)max_bytes) < 0)
		r = failed("shorten", file->work, err);
	close(from);
	return r;
}

/* 0; -EAGAIN: somebody reads it. */
static int open_work(struct work_file *file, struct weft_error *err)
{
	file->fd = open(file->work, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
	if (file->fd < 0 && errno == EWOULDBLOCK)
		return weft_error_set(err, EBUSY, "another weft pull makes %s", file->work);
	if (file->fd < 0)
		return failed("open", file->work, err);
	int r = take_lease(file->fd);
	if (r < 0)
		return weft_error_set(err, -r,
			"nobody can tell whether others read %s: its file system has no leases, "
			"or it is not this user's: %s",
			file->work, strerror(-r));
	return r == 1 ? 0 : -EAGAIN;
}

static void close_work(struct work_file *file)
{
	weft_close_fd(file->fd);
	file->fd = -1;
}

int work_file_open(struct work_file *file, uint64_t max_bytes, struct weft_error *err)
{
	struct stat st;
	int r = open_work(file, err);

	if (r == -EAGAIN) {
		close_work(file);
		if (unlink(file->work) < 0)
			return failed("remove", file->work, err);
		r = open_work(file, err);
	}
	if (r == -EAGAIN)
		r = weft_error_set(err, EBUSY, "somebody else opens %s", file->work);
	if (r == 0 && fstat(file->fd, &st) < 0)
		r = failed("look at", file->work, err);
	if (r == 0 && st.st_size == 0)
		r = fill(file, max_bytes, err);
	else if (r == 0 && (uint64_t)st.st_size > max_bytes)
		r = ftruncate(file->fd, (off_t)max_bytes) < 0 ? failed("shorten", file->work, err)
							       : 0;
	if (r < 0)
		close_work(file);
	return r;
}

int work_file_sync_name(const char *name, struct weft_error *err)
{
	WEFT_CLEANUP_FREE char *path = strdup(name);
	int fd = path ? open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int r = fd < 0 || fsync(fd) < 0 ? failed("make durable the name of", name, err) : 0;

	weft_close_fd(fd);
	return r;
}

int work_file_show(struct work_file *file, uint64_t len, struct weft_error *err)
{
	if (ftruncate(file->fd, (off_t)len) < 0)
		return failed("set the length of", file->work, err);
	if (fsync(file->fd) < 0)
		return failed("make durable", file->work, err);
	/* Whoever opens it from now on sees a whole state. */
	close_work(file);
	if (renameat2(AT_FDCWD, file->work, AT_FDCWD, file->name, RENAME_EXCHANGE) < 0 &&
		rename(file->work, file->name) < 0)
		return failed("rename", file->work, err);
	return work_file_sync_name(file->name, err);
}

void work_file_fini(struct work_file *file)
{
	close_work(file);
	free(file->work);
}
