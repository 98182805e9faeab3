/* SPDX-License-Identifier: MIT */
/*
 * Files that move between donors: made for what comes, and settled, so that nobody but the donors
 * whose notes know of the move goes on with them.  Threads: as region.h says.
 */
#include "fabric/region/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fabric/base/util.h"
#include "fabric/region/region-private.h"

bool weft_region_file_name_valid(const char *name)
{
	return weft_region_name_valid(name, NAME_MAX) && name[0] != '.' && !strchr(name, '/');
}

/* An empty file without a name of its own yet, which is of that size. */
static int make_file(int dirfd, const char *path, uint64_t size_bytes)
{
	WEFT_CLEANUP_CLOSE int fd =
		openat(dirfd, path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	return size_bytes > INT64_MAX ? -EFBIG : ftruncate(fd, (off_t)size_bytes) < 0 ? -errno : 0;
}

/* Room for all of it, so that the end of the room is found at the beginning. */
static int take_room(const struct weft_region *region)
{
	int r;

	do
		r = fallocate(region->fd, 0, 0, (off_t)region->size_bytes) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r == -EOPNOTSUPP || r == -ENOSYS ? 0 : r;
}

/* The file has its mark before it has its name: what is found by the name is known. */
static int mark_and_name(struct weft_region *region, const struct weft_file_spec *spec, int dirfd,
	const char *made)
{
	region->epoch = spec->epoch;
	region->transfer = spec->transfer;
	int r = region_mark_write(region, false, NULL);
	if (r < 0)
		return r;
	atomic_store(&region->marked, true);
	if (renameat2(dirfd, made, dirfd, spec->name, RENAME_NOREPLACE) < 0)
		return -errno;
	r = fsync(dirfd) < 0 ? -errno : take_room(region);
	if (r < 0)
		unlinkat(dirfd, spec->name, 0);
	return r;
}

int weft_region_new_file(const struct weft_file_spec *spec, struct weft_region **ret,
	struct weft_error *err)
{
	struct weft_region *region = NULL;
	char made[64];

	if (!weft_region_file_name_valid(spec->name))
		return weft_error_set(err, EINVAL, "'%.100s' cannot be the name of a file",
			spec->name);
	WEFT_CLEANUP_CLOSE int dirfd = open(spec->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return weft_error_set(err, errno, "cannot open directory %s: %s", spec->directory,
			strerror(errno));
	snprintf(made, sizeof(made), ".weft-%016" PRIx64, spec->transfer.move);
	int r = make_file(dirfd, made, spec->size_bytes);
	if (r == 0) {
		r = weft_region_open_file(dirfd, made, spec->name, true, false, &region, err);
		if (r == 0)
			r = mark_and_name(region, spec, dirfd, made);
		if (r < 0)
			unlinkat(dirfd, made, 0);
	}
	if (r < 0) {
		weft_region_put(region);
		return weft_error_set(err, -r, "cannot make file %s/%s: %s", spec->directory,
			spec->name,
			r == -ENOTSUP ? "its file system keeps no attributes" : strerror(-r));
	}
	*ret = region;
	return 0;
}

int weft_region_settle(struct weft_region *region, const struct weft_transfer *transfer,
	const struct weft_generation *table, uint32_t lease_ms)
{
	struct region_note *note = region->note;
	int r = weft_region_flush(region);

	if (r < 0)
		return r;
	pthread_mutex_lock(&region->flush_lock);
	r = atomic_load(&region->lost) < 0 ? -EIO : region_file_check(region);
	if (r == 0 && fsync(region->fd) < 0)
		r = -errno;
	if (r == 0)
		r = region_mark_check(region);
	if (r == 0) {
		memcpy(note->table, table, sizeof(note->table));
		note->lease_ms = lease_ms;
		note->stripe = region->stripe;
		/* All is in the file.  Whatever becomes of the mark, the next write replaces it. */
		atomic_store(&region->marked, false);
		r = region_mark_write(region, true, transfer);
	}
	if (r == 0) {
		region->transfer = *transfer;
		atomic_store(&region->settled, true);
	}
	pthread_mutex_unlock(&region->flush_lock);
	return r;
}

void weft_region_begin_flush(struct weft_region *region, uint64_t off, uint64_t len)
{
	if (region->backing == WEFT_BACKING_FILE)
		sync_file_range(region->fd, (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

void weft_region_release(struct weft_region *region)
{
	/* The donor's lock is held: that must not wait for the flush of a file that is written. */
	if (region->backing != WEFT_BACKING_FILE || !atomic_load(&region->settled))
		return;
	pthread_mutex_lock(&region->flush_lock);
	region->transfer.way = WEFT_TRANSFER_NONE;
	atomic_store(&region->settled, false);
	pthread_mutex_unlock(&region->flush_lock);
}

void weft_region_forgo(struct weft_region *region)
{
	region->transfer.way = WEFT_LEAVES;
}

void weft_region_go_on(struct weft_region *region)
{
	region->epoch = region->marked_epoch;
	region->transfer = region->marked_transfer;
	region->was_clean = true;
	region->crashed = false;
	atomic_store(&region->settled, true);
}
