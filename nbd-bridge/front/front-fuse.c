/* SPDX-License-Identifier: MIT */
/*
 * The FUSE front-end: a region as one file.  The root of the file system is a regular file, so that
 * the mount point is one as well.  Everything here is the control thread's.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/map.h"
#include "fabric/base/util.h"
#include "nbd-bridge/front/fuse-file.h"
#include "nbd-bridge/front/mounts.h"

static unsigned users(struct bridge_front *base, json_t *texts)
{
	struct fuse_front *front = weft_container_of(base, struct fuse_front, base);

	return atomic_load(&front->gone) ? 0 : bridge_path_users(base->path, texts);
}

static bool gone(struct bridge_front *base)
{
	return atomic_load(&weft_container_of(base, struct fuse_front, base)->gone);
}

/*
 * The kernel asks the lane to write dirty pages back, which fails; so the lane itself must not call
 * this.
 */
static void forget(struct bridge_front *base)
{
	struct fuse_front *front = weft_container_of(base, struct fuse_front, base);

	if (front->mounted && !atomic_load(&front->gone))
		fuse_lowlevel_notify_inval_inode(front->session, FUSE_ROOT_ID, 0, 0);
}

static bool is_mounted(const struct fuse_front *front)
{
	char type[64];

	return bridge_mounted(front->base.path, type, sizeof(type)) &&
		strcmp(type, "fuse." BRIDGE_FUSE_SUBTYPE) == 0;
}

static int finish(struct fuse_front *front, uint64_t drain_ns)
{
	while (atomic_load(&front->nr_slots) > 0 && weft_now_ns() < drain_ns)
		usleep(1000);
	bridge_lane_run(front->lane, fuse_file_end, front);
	return 0;
}

static int stop(struct bridge_front *base, bool force, uint32_t timeout_ms, struct weft_error *err)
{
	struct fuse_front *front = weft_container_of(base, struct fuse_front, base);
	uint64_t drain_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);

	if (!front->mounted)
		return 0;
	/* If others unmounted it, the file below may belong to anybody since. */
	if (atomic_load(&front->gone) || !is_mounted(front)) {
		front->made = (struct bridge_made_file){0};
		return finish(front, drain_ns);
	}
	/* Nobody waits for the kernel to write back: the end of its connection fails the writes. */
	if (force && timeout_ms == 0)
		return finish(front, drain_ns);
	/* First the kernel writes back its cached pages, which the lane serves. */
	int r = bridge_unmount(base->path, false);
	if (r == -EBUSY && !force)
		return weft_error_set(err, EBUSY,
			"%s is in use; weft detach --force ends it all the same", base->path);
	if (r < 0 && !force)
		return weft_error_set(err, -r, "cannot unmount %s: %s", base->path, strerror(-r));
	return finish(front, drain_ns);
}

static void forget_memory(struct bridge_lane *lane, void *ctx)
{
	bridge_lane_deregister(lane, ((struct fuse_front *)ctx)->receive_mem);
}

static void free_front(struct bridge_front *base)
{
	struct fuse_front *front = weft_container_of(base, struct fuse_front, base);

	if (front->lane) {
		bridge_lane_run(front->lane, fuse_file_end, front);
		assert(atomic_load(&front->nr_slots) == 0);
		bridge_lane_run(front->lane, forget_memory, front);
	}
	if (front->session)
		fuse_session_destroy(front->session);
	weft_unmap_bytes(front->receive_area, FUSE_NR_RECEIVE * (size_t)FUSE_RECEIVE_BYTES);
	bridge_remove_made_file(base->path, front->made);
	free(front);
}

static const struct bridge_front_ops front_ops = {
	.name = "mount",
	.users = users,
	.gone = gone,
	.forget = forget,
	.stop = stop,
	.free = free_front,
};

/* Prepares the file to mount on. */
static int prepare_file(struct fuse_front *front, struct bridge_made_file earlier,
	struct weft_error *err)
{
	const char *path = front->base.path;
	struct stat st;
	int cleared = bridge_clear_stale_mount(path, err);

	if (cleared < 0)
		return cleared;
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		return weft_error_set(err, errno,
			"cannot use FUSE: /dev/fuse: %s; %s, or use --socket", strerror(errno),
			errno == ENOENT ? "as root: modprobe fuse"
					: "as root: chmod 0666 /dev/fuse");
	if (lstat(path, &st) < 0) {
		if (errno != ENOENT)
			return weft_error_set(err, errno, "cannot mount on %s: %s", path,
				strerror(errno));
		int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			return weft_error_set(err, errno, "cannot make %s: %s", path,
				strerror(errno));
		if (fstat(fd, &st) == 0)
			front->made = (struct bridge_made_file){.dev = st.st_dev, .ino = st.st_ino};
		close(fd);
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return weft_error_set(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			"cannot mount on %s: it is %s; --mount wants a regular file, or a name "
			"that is not taken",
			path,
			S_ISDIR(st.st_mode)           ? "a directory"
				: S_ISLNK(st.st_mode) ? "a link"
						      : "no regular file");
	if (cleared && earlier.dev == st.st_dev && earlier.ino == st.st_ino)
		front->made = earlier;
	return 0;
}

static int make_session(struct fuse_front *front, bool allow_other, struct weft_error *err)
{
	const struct bridge_config *config = bridge_config_of(front->base.bridge);
	char options[256];
	char *argv[] = {"weft", "-o", options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	snprintf(options, sizeof(options),
		"fsname=weft:%s,subtype=" BRIDGE_FUSE_SUBTYPE
		",default_permissions,max_read=%d%s%s",
		config->attach.name, FUSE_MAX_IO, fuse_front_info(front)->read_only ? ",ro" : "",
		allow_other ? ",allow_other" : "");
	front->session =
		fuse_session_new(&args, &fuse_file_operations, sizeof(fuse_file_operations), front);
	fuse_opt_free_args(&args);
	if (!front->session)
		return weft_error_set(err, ENOMEM, "cannot make a FUSE session");
	if (fuse_session_mount(front->session, front->base.path) < 0)
		return weft_error_set(err, EPERM,
			"cannot mount on %s: refused; FUSE needs root, or fusermount3 (package "
			"fuse3)%s",
			front->base.path,
			allow_other && geteuid() != 0
				? ", and --allow-other needs user_allow_other in /etc/fuse.conf"
				: "");
	front->mounted = true;
	int fd = fuse_session_fd(front->session);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return 0;
}

int bridge_front_fuse_new(struct bridge *bridge, const char *path,
	const struct bridge_file_rights *rights, struct bridge_made_file earlier,
	struct bridge_front **ret, struct weft_error *err)
{
	const struct tp_info *info = bridge_info(bridge);
	struct fuse_front *front;
	int r;

	if (info->min_block_bytes > 1)
		return weft_error_set(err, EOPNOTSUPP,
			"cannot mount: the server takes blocks of %u bytes only, and a file has no "
			"such limit; use --socket",
			info->min_block_bytes);
	front = calloc(1, sizeof(*front));
	if (!front)
		return weft_error_set(err, ENOMEM, "cannot make a FUSE front-end: out of memory");
	front->base.ops = &front_ops;
	front->base.bridge = bridge;
	snprintf(front->base.path, sizeof(front->base.path), "%s", path);
	for (unsigned i = FUSE_NR_SLOTS; i-- > 0;) {
		front->slots[i].front = front;
		front->slots[i].next = front->free_slots;
		front->free_slots = &front->slots[i];
	}
	front->attr = (struct stat){
		.st_ino = FUSE_ROOT_ID,
		.st_mode = S_IFREG | (rights->mode & (info->read_only ? 0555u : 0777u)),
		.st_nlink = 1,
		.st_uid = rights->uid,
		.st_gid = rights->gid,
		.st_size = (off_t)info->size_bytes,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)(info->size_bytes / 512),
	};
	clock_gettime(CLOCK_REALTIME, &front->attr.st_mtim);
	front->attr.st_atim = front->attr.st_ctim = front->attr.st_mtim;
	front->receive_area = weft_map_bytes(FUSE_NR_RECEIVE * (size_t)FUSE_RECEIVE_BYTES);
	if (!front->receive_area) {
		r = weft_error_set(err, ENOMEM, "cannot map buffers");
		goto fail;
	}
	for (unsigned i = FUSE_NR_RECEIVE; i-- > 0;)
		front->free_receive[front->nr_free_receive++] =
			(char *)front->receive_area + i * (size_t)FUSE_RECEIVE_BYTES;
	r = prepare_file(front, earlier, err);
	if (r < 0)
		goto fail;
	r = make_session(front, rights->allow_other, err);
	if (r < 0)
		goto fail;
	front->lane = bridge_next_lane(bridge);
	bridge_lane_run(front->lane, fuse_file_begin, front);
	if (!front->watch.added) {
		r = weft_error_set(err, ENOMEM, "cannot serve %s: no registered memory", path);
		goto fail;
	}
	*ret = &front->base;
	return 0;
fail:
	if (front->mounted && !front->lane) {
		fuse_session_unmount(front->session);
		front->mounted = false;
	}
	free_front(&front->base);
	return r;
}

struct bridge_made_file bridge_front_fuse_made_file(const struct bridge_front *front)
{
	return weft_container_of(front, const struct fuse_front, base)->made;
}
