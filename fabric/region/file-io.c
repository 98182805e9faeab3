/* SPDX-License-Identifier: MIT */
/*
 * A file region's file: whether it is still the one that was opened, reads and writes.
 * Threads: as region.h says; they share nothing but atomics.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/region/region-private.h"

int region_file_size(int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, ret) < 0 ? -errno : 0;
	*ret = (uint64_t)st.st_size;
	return 0;
}

int region_file_check(struct weft_region *region)
{
	struct stat st;

	if (atomic_load_explicit(&region->lost, memory_order_relaxed) < 0 ||
		fstat(region->fd, &st) < 0)
		return -EIO;
	if (region->has_name && st.st_nlink == 0)
		return -EIO;
	if (region->block_bytes) /* access beyond a device's end fails by itself */
		return 0;
	/* A write beyond the end of a file that shrank would put zeros where data was. */
	return (uint64_t)st.st_size < region->size_bytes ? -EIO : 0;
}

/* Finds the path that the file was opened by, and whether another file is there now. */
static bool find_path(int fd, char *path, size_t size)
{
	static const char deleted[] = " (deleted)";
	char link[64];
	struct stat there;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, size - 1);
	path[n < 0 ? 0 : n] = '\0';
	char *end = strstr(path, deleted);
	if (end && end[sizeof(deleted) - 1] == '\0')
		*end = '\0';
	return lstat(path, &there) == 0;
}

int weft_region_check(const struct weft_region *region, struct weft_error *err)
{
	int lost = atomic_load_explicit(&region->lost, memory_order_relaxed);
	char path[PATH_MAX], left[32], all[32];
	struct statx st;

	if (region->backing == WEFT_BACKING_MEMORY)
		return 0;
	if (lost == -EUCLEAN)
		return weft_error_set(err, EIO,
			"region '%s': a copy was put back in its file's place while it was lent",
			region->name);
	if (lost < 0)
		return weft_error_set(err, EIO,
			"region '%s': its file could not be made durable (%s), and what it holds "
			"is not known",
			region->name, strerror(-lost));
	/* A question about all regions must not wait for a file that is on a network. */
	if (statx(region->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_NLINK | STATX_SIZE,
		    &st) < 0)
		return weft_error_set(err, EIO, "region '%s': its file cannot be looked at: %s",
			region->name, strerror(errno));
	if (region->has_name && st.stx_nlink == 0) {
		bool replaced = find_path(region->fd, path, sizeof(path));

		return weft_error_set(err, EIO, "region '%s': its file %s was %s", region->name,
			path, replaced ? "replaced by another one" : "removed");
	}
	uint64_t size = st.stx_size;
	if (region->block_bytes && region_file_size(region->fd, &size) < 0)
		size = 0;
	if (size < region->size_bytes) {
		find_path(region->fd, path, sizeof(path));
		return weft_error_set(err, EIO,
			"region '%s': its file %s became shorter: %s of %s are left", region->name,
			path, weft_format_size(size, left, sizeof(left)),
			weft_format_size(region->size_bytes, all, sizeof(all)));
	}
	return 0;
}

/*
 * After any failure nobody knows what the store has of what was written since the last flush: the
 * next one compares, and sends again what was sent (stage.c).
 */
static int note_store(struct weft_region *region, int r)
{
	if (r < 0) {
		atomic_store(&region->store_error, r);
		atomic_store(&region->stage->changed_somewhere, true);
		atomic_store(&region->dirty, true);
	}
	return r;
}

int region_make_durable(struct weft_region *region)
{
	int r = 0;

	if (!atomic_exchange(&region->dirty, false))
		return 0;
	if (region->store_ops) {
		r = note_store(region, region->store_ops->flush(region->store));
		if (r == 0)
			atomic_store(&region->store_error, 0);
	} else if (fdatasync(region->fd) < 0) {
		/*
		 * The kernel reports this error once, and may drop the pages: we remember it for
		 * good.
		 */
		r = -errno;
		atomic_store(&region->lost, r);
	}
	return r;
}

int weft_region_trouble(const struct weft_region *region, struct weft_error *err)
{
	int store_error = atomic_load_explicit(&region->store_error, memory_order_relaxed);

	if (store_error == 0)
		return weft_region_check(region, err);
	return weft_error_set(err, EIO,
		"region '%s': its backend failed (%s); what was written since it was flushed last "
		"is in this donor's memory alone, and flushing tries again",
		region->name, strerror(-store_error));
}

int region_file_pread(struct weft_region *region, void *buf, uint64_t off, uint64_t len)
{
	if (region->store_ops)
		return note_store(region, region->store_ops->read(region->store, buf, off, len));
	for (uint8_t *p = buf; len > 0;) {
		ssize_t n = pread(region->fd, p, len, (off_t)off);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			return -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int region_file_pwrite(struct weft_region *region, const void *buf, uint64_t off, uint64_t len)
{
	int r = 0;

	if (region->store_ops) {
		r = note_store(region, region->store_ops->write(region->store, buf, off, len));
		atomic_store(&region->dirty, true);
		return r;
	}
	for (const uint8_t *p = buf; len > 0 && r == 0;) {
		ssize_t n = pwrite(region->fd, p, len, (off_t)off);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			r = errno == EDQUOT || errno == EFBIG ? -ENOSPC : -errno;
		} else if (n == 0) {
			r = -EIO;
		} else {
			p += n;
			off += (uint64_t)n;
			len -= (uint64_t)n;
		}
	}
	/* Also after a failure: some bytes may have been written. */
	atomic_store(&region->dirty, true);
	return r;
}
