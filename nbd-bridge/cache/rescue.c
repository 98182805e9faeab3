/* SPDX-License-Identifier: MIT */
/* Saving what a cache holds: see rescue.h. */
#include "nbd-bridge/cache/rescue.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fabric/base/util.h"

struct part {
	char *path, *temporary; /* temporary: NULL once it has its name */
	int fd;
};

struct rescue {
	struct part data, map;
	FILE *out; /* the map's; owns its descriptor */
	_Atomic uint64_t bytes[CACHE_CONTENT_TORN + 1];
	/* The run that is not in the map yet. */
	uint64_t off, len;
	enum cache_content content;
};

static const char *const names[] = {
	[CACHE_CONTENT_CLEAN] = "clean",
	[CACHE_CONTENT_DIRTY] = "dirty",
	[CACHE_CONTENT_TORN] = "torn",
};

static int part_open(struct part *part, const char *path, const char *suffix,
	struct weft_error *err)
{
	struct stat st;

	part->fd = -1;
	if (asprintf(&part->path, "%s%s", path, suffix) < 0)
		part->path = NULL;
	if (!part->path)
		return weft_error_set(err, ENOMEM, "cannot write %s: out of memory", path);
	if (lstat(part->path, &st) == 0)
		return weft_error_set(err, EEXIST,
			"%s exists already, and is left as it is; name another file", part->path);
	if (asprintf(&part->temporary, "%s.XXXXXX", part->path) < 0)
		part->temporary = NULL;
	part->fd = part->temporary ? mkostemp(part->temporary, O_CLOEXEC) : -1;
	if (part->fd >= 0)
		return 0;
	int r = weft_error_set(err, errno, "cannot write %s: %s", part->path, strerror(errno));
	free(part->temporary);
	part->temporary = NULL;
	return r;
}

static void part_close(struct part *part)
{
	if (part->temporary)
		unlink(part->temporary);
	weft_close_fd(part->fd);
	free(part->temporary);
	free(part->path);
}

static int part_name(struct part *part, struct weft_error *err)
{
	if (fsync(part->fd) < 0 ||
		renameat2(AT_FDCWD, part->temporary, AT_FDCWD, part->path, RENAME_NOREPLACE) < 0)
		return weft_error_set(err, errno, "cannot write %s: %s", part->path,
			strerror(errno));
	free(part->temporary);
	part->temporary = NULL;
	return 0;
}

int rescue_new(const char *path, const char *uri, uint64_t size_bytes, struct rescue **ret,
	struct weft_error *err)
{
	struct rescue *rescue = calloc(1, sizeof(*rescue));

	if (!rescue)
		return weft_error_set(err, ENOMEM, "cannot write %s: out of memory", path);
	rescue->map.fd = -1;
	int r = part_open(&rescue->data, path, "", err);
	if (r == 0)
		r = part_open(&rescue->map, path, ".map", err);
	if (r == 0 && ftruncate(rescue->data.fd, (off_t)size_bytes) < 0)
		r = weft_error_set(err, errno, "cannot make %s as large as the region: %s", path,
			strerror(errno));
	if (r == 0 && !(rescue->out = fdopen(rescue->map.fd, "w")))
		r = weft_error_set(err, ENOMEM, "cannot write %s: out of memory", path);
	if (r < 0) {
		rescue_free(rescue);
		return r;
	}
	fprintf(rescue->out,
		"# %s, %" PRIu64 " bytes; offset, length and state of what was in the cache\n", uri,
		size_bytes);
	*ret = rescue;
	return 0;
}

static void end_run(struct rescue *rescue)
{
	if (rescue->len > 0)
		fprintf(rescue->out, "%" PRIu64 " %" PRIu64 " %s\n", rescue->off, rescue->len,
			names[rescue->content]);
	rescue->len = 0;
}

static int write_at(int fd, const uint8_t *data, uint64_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, data, len, (off_t)off);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n < 0)
			continue;
		data += n;
		len -= (uint64_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int rescue_put(void *ctx, uint64_t off, uint64_t len, enum cache_content content, const void *data)
{
	struct rescue *rescue = ctx;

	if (off != rescue->off + rescue->len || content != rescue->content)
		end_run(rescue);
	if (rescue->len == 0) {
		rescue->off = off;
		rescue->content = content;
	}
	rescue->len += len;
	atomic_fetch_add(&rescue->bytes[content], len);
	return content == CACHE_CONTENT_TORN ? 0 : write_at(rescue->data.fd, data, len, off);
}

uint64_t rescue_bytes(const struct rescue *rescue, enum cache_content content)
{
	return atomic_load(&rescue->bytes[content]);
}

int rescue_end(struct rescue *rescue, int r, struct weft_error *err)
{
	end_run(rescue);
	if (r == 0 && (fflush(rescue->out) != 0 || ferror(rescue->out)))
		r = -errno;
	if (r < 0)
		return weft_error_set(err, -r, "cannot write %s: %s", rescue->data.path,
			strerror(-r));
	/* The map comes last: if it is there, both are. */
	r = part_name(&rescue->data, err);
	return r < 0 ? r : part_name(&rescue->map, err);
}

void rescue_free(struct rescue *rescue)
{
	if (!rescue)
		return;
	if (rescue->out) {
		fclose(rescue->out);
		rescue->map.fd = -1;
	}
	part_close(&rescue->data);
	part_close(&rescue->map);
	free(rescue);
}
