/* SPDX-License-Identifier: MIT */
/*
 * Regions that are files or block devices, through the page cache: opening and ending them.
 * Threads: the one that owns the donor, and the one that drops the last reference.
 */
#include "fabric/region/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fabric/region/region-private.h"
#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/hello.h"

/*
 * Opens the path without side effects, makes sure that it is a regular file, and opens that; only
 * for reading if the file cannot be written, or if *read_only asks for it.
 */
static int open_regular(int dirfd, const char *path, bool beneath, bool *read_only)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	char again[64];
	struct stat st;
	WEFT_CLEANUP_CLOSE int probe = beneath
		? (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how))
		: openat(dirfd, path, O_PATH | O_CLOEXEC);

	if (probe < 0)
		return -errno;
	if (fstat(probe, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode) && (beneath || !S_ISBLK(st.st_mode)))
		return -ENOTSUP;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", probe);
	/* On a device O_EXCL keeps mounts out, and fails if the device is mounted. */
	int excl = S_ISBLK(st.st_mode) ? O_EXCL : 0;
	int fd = open(again, (*read_only ? O_RDONLY : O_RDWR | excl) | O_CLOEXEC | O_NOCTTY),
	    ro = 0;
	if (fd >= 0 && !*read_only && excl && ioctl(fd, BLKROGET, &ro) == 0 && ro) {
		close(fd);
		fd = -1;
		errno = EROFS;
	}
	if (fd < 0 && !*read_only && (errno == EACCES || errno == EROFS || errno == EPERM)) {
		fd = open(again, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		*read_only = true;
	}
	return fd < 0 ? -errno : fd;
}

/* udev holds a device's lock while it looks at it. */
static int lock_file(int fd, bool read_only)
{
	const struct timespec nap = {.tv_nsec = 50000000};
	struct stat st;
	int tries = fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) ? 60 : 1;

	while (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return -errno;
		if (--tries == 0)
			return -EBUSY;
		nanosleep(&nap, NULL);
	}
	return 0;
}

static const char *why_not_opened(int code, bool beneath)
{
	switch (code) {
	case EBUSY:
		return "it is in use: mounted, or part of another device";
	case EISDIR:
		return "it is a directory";
	case ENOTSUP:
		return beneath ? "it is not a regular file"
			       : "it is neither a regular file nor a block device";
	case ELOOP:
	case EXDEV:
		if (beneath)
			return "it leads out of the directory, or through a link";
		/* fallthrough */
	default:
		return strerror(code);
	}
}

int weft_region_open_file(int dirfd, const char *path, const char *name, bool beneath,
	bool read_only, struct weft_region **ret, struct weft_error *err)
{
	char description[96], size[32];
	uint64_t size_bytes;
	struct stat st;
	int block = 0, r;

	if (!weft_region_name_valid(name, 4096))
		return weft_error_set(err, EINVAL,
			"'%.100s' cannot be a region's name: that is 1 to 4096 bytes of UTF-8 "
			"without control characters, and not " WEFT_EXPORT_SESSION,
			name);
	int fd = open_regular(dirfd, path, beneath, &read_only);
	if (fd < 0)
		return weft_error_set(err, -fd, "region '%s': cannot open file %s: %s", name, path,
			why_not_opened(-fd, beneath));
	r = lock_file(fd, read_only);
	if (r < 0) {
		weft_error_set(err, -r, "region '%s': file %s %s%s", name, path,
			r == -EBUSY ? "is in use: another region or daemon has it locked"
				    : "cannot be locked: ",
			r == -EBUSY ? "" : strerror(-r));
		close(fd);
		return r;
	}
	if (fstat(fd, &st) < 0 || (r = region_file_size(fd, &size_bytes)) < 0 ||
		(S_ISBLK(st.st_mode) && ioctl(fd, BLKSSZGET, &block) < 0)) {
		r = weft_error_set(err, errno, "region '%s': file %s: %s", name, path,
			strerror(errno));
		close(fd);
		return r;
	}
	if (size_bytes == 0) {
		r = weft_error_set(err, ENODATA, "region '%s': file %s is empty%s", name, path,
			block ? "" : "; give it a size first: truncate -s 1G FILE");
		close(fd);
		return r;
	}
	snprintf(description, sizeof(description), "%s, %s%s", block ? "block device" : "file",
		weft_format_size(size_bytes, size, sizeof(size)), read_only ? ", read-only" : "");
	struct weft_region *region = region_new(WEFT_BACKING_FILE, name, description);
	if (!region) {
		close(fd);
		return weft_error_set(err, ENOMEM, "region '%s': no memory", name);
	}
	region->fd = fd;
	region->size_bytes = size_bytes;
	region->block_bytes = (uint32_t)block;
	region->read_only = read_only;
	region->has_name = st.st_nlink > 0 && !block;
	region->generations = calloc(WEFT_NR_GENERATIONS, sizeof(*region->generations));
	if (!region->generations || region_stage_init(region) < 0 ||
		region_mark_take(region, &st) < 0) {
		region_stage_fini(region);
		region_free(region);
		return weft_error_set(err, ENOMEM, "region '%s': no memory", name);
	}
	region->unmarked |= block != 0;
	/*
	 * A directory's files have no files of promises: their file system has to have attributes.
	 */
	region->forgets |= region->unmarked && !read_only && !beneath;
	weft_debug("region '%s': %s, %s, epoch %016" PRIx64 "%s", name, path, description,
		region->epoch, region->unmarked ? ", without a mark" : "");
	*ret = region;
	return 0;
}

static bool is_held(const struct weft_generation table[WEFT_NR_GENERATIONS])
{
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		if (table[i].generation != 0 && table[i].held)
			return true;
	return false;
}

void region_file_finish(struct weft_region *region)
{
	struct region_note *note = region->note;
	bool changed = atomic_load(&region->marked) || !region->was_clean ||
		(note && region->table_seq != note->seq);
	struct stat st;

	if (region->read_only || region->fd < 0 || !note)
		return;
	/* Its mark is what the move made it; or not all is here yet. */
	if (region->transfer.way)
		return;
	if (region->block_bytes || (region->store_ops && region->unmarked)) {
		weft_region_flush(region);
		return;
	}
	memcpy(note->table, region->generations, sizeof(note->table));
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		/*
		 * All writes of that generation are in the file now, and no session joins it any
		 * more.
		 */
		changed |= note->table[i].flags & WEFT_ENTRY_HERE;
		if (note->table[i].flags & WEFT_ENTRY_HERE)
			note->table[i].flags = 0;
	}
	if (!changed)
		return;
	/* Another mark belongs to other contents; our mark would call them ours. */
	if (region_mark_check(region) < 0)
		return;
	if (!is_held(note->table))
		note->lease_ms = 0;
	/*
	 * Without this mark the next opening starts a new epoch, which is right after any failure,
	 * and where a late write may come still.
	 */
	if (weft_region_flush(region) < 0 || fsync(region->fd) < 0 || fstat(region->fd, &st) < 0 ||
		(uint64_t)st.st_size < region->size_bytes || region->stage->any_late)
		return;
	region_mark_write(region, true, NULL);
}
