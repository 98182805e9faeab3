/* SPDX-License-Identifier: MIT */
/*
 * Regions whose contents a store keeps: a file region that is in memory from its opening to its
 * end, where nothing but the write-back (stage.c) knows that there is no file.  It is marked as a
 * file is, by an empty file of the donor's; or not at all, as a device is not.
 * Threads: the one that owns the donor.
 */
#include "fabric/region/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/util.h"
#include "fabric/hello.h"
#include "fabric/region/region-private.h"

/* Where the mark is: as long as the region, so that a store of another size is another one. */
static int open_mark(const char *path, uint64_t size_bytes)
{
	WEFT_CLEANUP_CLOSE int fd =
		open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	if ((uint64_t)st.st_size != size_bytes && ftruncate(fd, (off_t)size_bytes) < 0)
		return -errno;
	int ret = fd;
	fd = -1;
	return ret;
}

static int prepare(struct weft_region *region, const struct weft_store_spec *spec,
	struct weft_error *err)
{
	bool marked = spec->mark_path && !spec->read_only;
	struct stat st;

	region->size_bytes = spec->size_bytes;
	region->store_block_bytes = spec->block_bytes;
	region->read_only = spec->read_only;
	region->fd = marked ? open_mark(spec->mark_path, spec->size_bytes)
			    : region_memfd("weft-store", spec->size_bytes, 0);
	if (region->fd < 0) {
		int code = -region->fd;

		region->fd = -1;
		return weft_error_set(err, code, "region '%s': %s%s%s", region->name,
			marked ? spec->mark_path : "a file",
			code == EBUSY ? " is in use: another donor lends this backend"
				      : " cannot be made: ",
			code == EBUSY ? "" : strerror(code));
	}
	region->generations = calloc(WEFT_NR_GENERATIONS, sizeof(*region->generations));
	if (!region->generations || fstat(region->fd, &st) < 0 || region_stage_init(region) < 0 ||
		region_mark_take(region, &st) < 0)
		return weft_error_set(err, ENOMEM, "region '%s': no memory", region->name);
	if (marked && region->unmarked)
		return weft_error_set(err, ENOTSUP,
			"region '%s': %s cannot have a mark: its file system keeps no attributes",
			region->name, spec->mark_path);
	region->unmarked = !marked;
	region->forgets |= region->unmarked && !region->read_only;
	return 0;
}

int weft_region_open_store(const struct weft_store_spec *spec, weft_stage_fn *wait, void *ctx,
	struct weft_region **ret, struct weft_error *err)
{
	char description[96], size[32];
	int r;

	snprintf(description, sizeof(description), "backend, %s%s",
		weft_format_size(spec->size_bytes, size, sizeof(size)),
		spec->read_only ? ", read-only" : "");
	if (!weft_region_name_valid(spec->name, WEFT_MEMORY_NAME_MAX)) {
		spec->ops->close(spec->store);
		return weft_error_set(err, EINVAL,
			"'%.100s' cannot be a region's name: that is 1 to %d bytes of UTF-8 "
			"without control characters, and not " WEFT_EXPORT_SESSION,
			spec->name, WEFT_MEMORY_NAME_MAX);
	}
	struct weft_region *region = region_new(WEFT_BACKING_FILE, spec->name, description);
	if (!region) {
		spec->ops->close(spec->store);
		return weft_error_set(err, ENOMEM, "region '%s': no memory", spec->name);
	}
	region->store_ops = spec->ops;
	region->store = spec->store;
	r = prepare(region, spec, err);
	if (r == 0)
		r = weft_region_stage(region, false, wait, ctx, err);
	/* A crash from now on is a new epoch, whether anybody wrote or not. */
	if (r == 0 && !region->read_only && (r = region_file_check_write(region)) < 0)
		weft_error_set(err, -r, "region '%s': %s cannot be marked: %s", region->name,
			region->unmarked ? "its backend" : spec->mark_path, strerror(-r));
	if (r < 0) {
		/* Nothing was changed, and so there is nothing to finish. */
		region_stage_fini(region);
		region_free(region);
		return r;
	}
	weft_debug("region '%s': %s, %s, epoch %016" PRIx64 "%s", region->name, spec->place,
		description, region->epoch, region->unmarked ? ", without a mark" : "");
	*ret = region;
	return 0;
}
