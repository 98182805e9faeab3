/*
 * The FUSE front-end: a region as one file.  The root of the file system is a regular file, so that the mount
 * point is one as well.
 *
 * One lane reads requests from /dev/fuse and answers them; the control thread mounts and unmounts.
 * A WRITE's payload is posted from the very buffer that it was received into; a READ's is answered from
 * the buffer that it landed in.
 *
 * Invariants: a slot is taken from the request's arrival to its reply; a WRITE's slot owns its receive buffer.
 * Nothing is received while a slot waits for a buffer, or when slots or receive buffers have run out.
 *
 * The kernel's writeback cache stays off.  With it the kernel keeps a file's size by itself, and begins with 0
 * for a root that is a file: nothing can be read or written (tried on Linux 6.18).  Mapped pages are
 * cached and written back without it as well, and so is what comes through a loop device.
 */
#define FUSE_USE_VERSION 35
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fabric/util.h"
#include "nbd-bridge/front.h"
#include "nbd-bridge/mounts.h"

enum {
	MAX_IO = 1 << 20,
	/* What libfuse reads at most: the longest message, header included. */
	RECEIVE_BYTES = MAX_IO + (4 << 10),
	NR_RECEIVE = 16,
	NR_SLOTS = 128,
	RECEIVE_BATCH = 16,
	BACKGROUND = 64, /* requests that the kernel sends ahead: read-ahead, write-back, asynchronous I/O */
	READ_AHEAD = 1 << 20,
};

struct slot {
	struct bridge_request rq;
	struct fuse_front *front;
	fuse_req_t req;
	void *receive; /* WRITE: the receive buffer that holds the payload */
	void *buf;     /* READ */
	size_t reply;  /* WRITE: bytes to report */
	struct slot *next;
};

struct fuse_front {
	struct bridge_front base;
	struct fuse_session *session;
	struct bridge_lane *lane;
	struct weft_watch watch;
	struct bridge_waiter waiter;
	struct stat attr;
	bool made_file, mounted;
	_Atomic bool gone; /* unmounted, by us or by others */
	_Atomic unsigned nr_slots;
	/* The lane's. */
	struct slot *waiting; /* for a buffer */
	bool paused;
	void *received; /* the buffer of the message being processed; NULL once a slot took it */
	struct slot *free_slots;
	void *free_receive[NR_RECEIVE];
	unsigned nr_free_receive;
	void *receive_area;
	struct tp_mem *receive_mem;
	struct slot slots[NR_SLOTS];
};

static struct fuse_front *front_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static const struct tp_info *info_of(const struct fuse_front *front)
{
	return bridge_info(front->base.bridge);
}

/* ---- slots ---- */

static struct slot *take_slot(struct fuse_front *front, fuse_req_t req)
{
	struct slot *slot = front->free_slots;

	assert(slot); /* looked at before receiving */
	front->free_slots = slot->next;
	atomic_fetch_add(&front->nr_slots, 1);
	slot->req = req;
	slot->receive = slot->buf = NULL;
	slot->rq.flags = 0;
	slot->rq.buf = NULL;
	slot->rq.mem = NULL;
	return slot;
}

static bool may_receive(const struct fuse_front *front)
{
	return front->free_slots && front->nr_free_receive > 0 && !front->waiting;
}

static void update_watch(struct fuse_front *front)
{
	bool paused = !may_receive(front);

	if (!front->watch.added || paused == front->paused)
		return;
	front->paused = paused;
	weft_loop_modify(bridge_lane_loop(front->lane), &front->watch, paused ? 0 : EPOLLIN);
}

static void put_slot(struct slot *slot)
{
	struct fuse_front *front = slot->front;

	if (slot->receive)
		front->free_receive[front->nr_free_receive++] = slot->receive;
	if (slot->buf)
		bridge_lane_buffer_put(front->lane, slot->buf);
	slot->next = front->free_slots;
	front->free_slots = slot;
	atomic_fetch_sub(&front->nr_slots, 1);
	update_watch(front);
}

static void done(struct bridge_request *rq, int error)
{
	struct slot *slot = weft_container_of(rq, struct slot, rq);

	if (error < 0)
		fuse_reply_err(slot->req, -error);
	else if (rq->kind == TP_READ)
		fuse_reply_buf(slot->req, rq->buf, rq->len);
	else if (rq->kind == TP_WRITE)
		fuse_reply_write(slot->req, slot->reply);
	else
		fuse_reply_err(slot->req, 0);
	put_slot(slot);
}

static void submit(struct slot *slot, uint8_t kind, uint8_t flags, uint64_t off, uint64_t len)
{
	struct bridge_request *rq = &slot->rq;

	rq->kind = kind;
	rq->flags = flags;
	rq->off = off;
	rq->len = len;
	rq->done = done;
	bridge_lane_submit(slot->front->lane, rq);
}

/* ---- operations on the file ---- */

static void op_init(void *user, struct fuse_conn_info *conn)
{
	/* The payload must come into our buffers, not through a pipe. */
	conn->want &= ~(unsigned)FUSE_CAP_SPLICE_READ;
	conn->max_write = MAX_IO;
	conn->max_read = MAX_IO;
	conn->max_readahead = (unsigned)weft_min(conn->max_readahead, READ_AHEAD);
	conn->max_background = BACKGROUND;
	conn->congestion_threshold = BACKGROUND * 3 / 4;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_attr(req, &front_of(req)->attr, 86400);
}

/* Times may be set, for what it is worth; the size and the rights are the region's. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
	struct fuse_file_info *fi)
{
	struct fuse_front *front = front_of(req);

	if (((to_set & FUSE_SET_ATTR_SIZE) && attr->st_size != front->attr.st_size) ||
		(to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		clock_gettime(CLOCK_REALTIME, &front->attr.st_mtim);
	else if (to_set & FUSE_SET_ATTR_MTIME)
		front->attr.st_mtim = attr->st_mtim;
	fuse_reply_attr(req, &front->attr, 86400);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct fuse_front *front = front_of(req);

	if ((fi->flags & O_ACCMODE) != O_RDONLY && info_of(front)->read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	/* Beside a writer elsewhere, what was cached may be old: begin anew with each open. */
	fi->keep_cache = bridge_config_of(front->base.bridge)->mode != WEFT_MODE_SHARED;
	fuse_reply_open(req, fi);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

/* A buffer for the READ in the slot; without one it waits, and nothing is received meanwhile. */
static void start_read(struct slot *slot)
{
	struct fuse_front *front = slot->front;
	struct tp_mem *mem;
	int r = bridge_lane_buffer_get(front->lane, slot->rq.len, &front->waiter, &slot->buf, &mem);

	if (r == -EAGAIN) {
		front->waiting = slot;
		return;
	}
	if (r < 0) {
		slot->buf = NULL;
		fuse_reply_err(slot->req, -r);
		put_slot(slot);
		return;
	}
	slot->rq.buf = slot->buf;
	slot->rq.mem = mem;
	submit(slot, TP_READ, 0, slot->rq.off, slot->rq.len);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct fuse_front *front = front_of(req);
	uint64_t size = info_of(front)->size_bytes;

	if (off < 0 || (uint64_t)off >= size || len == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	struct slot *slot = take_slot(front, req);
	slot->rq.off = (uint64_t)off;
	slot->rq.len = weft_min(weft_min(len, MAX_IO), size - (uint64_t)off);
	start_read(slot);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t len, off_t off,
	struct fuse_file_info *fi)
{
	struct fuse_front *front = front_of(req);
	uint64_t size = info_of(front)->size_bytes;

	if (off < 0 || (uint64_t)off >= size) {
		fuse_reply_err(req, len > 0 ? ENOSPC : 0);
		return;
	}
	len = weft_min(len, size - (uint64_t)off);
	if (len == 0) {
		fuse_reply_write(req, 0);
		return;
	}
	struct slot *slot = take_slot(front, req);
	slot->receive = front->received;
	front->received = NULL;
	slot->reply = len;
	slot->rq.buf = (void *)buf;
	slot->rq.mem = front->receive_mem;
	submit(slot, TP_WRITE, 0, (uint64_t)off, len);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	submit(take_slot(front_of(req), req), TP_FLUSH, 0, 0, 0);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
	struct fuse_file_info *fi)
{
	struct fuse_front *front = front_of(req);
	uint64_t size = info_of(front)->size_bytes;
	bool punch = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	bool zero = (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
	bool reserve = (mode & ~FALLOC_FL_KEEP_SIZE) == 0;

	if (!punch && !zero && !reserve) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (off < 0 || len <= 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	/* A region does not grow; with KEEP_SIZE there is nothing to do behind its end. */
	if ((uint64_t)off >= size || (uint64_t)len > size - (uint64_t)off) {
		if (!(mode & FALLOC_FL_KEEP_SIZE)) {
			fuse_reply_err(req, ENOSPC);
			return;
		}
		len = (uint64_t)off >= size ? 0 : (off_t)(size - (uint64_t)off);
	}
	if (reserve || len == 0) {
		fuse_reply_err(req, 0); /* all of it is there already */
		return;
	}
	/* A hole reads as zeros, which TRIM does not promise. */
	submit(take_slot(front, req), TP_ZERO, punch ? 0 : TP_NO_HOLE, (uint64_t)off, (uint64_t)len);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	uint64_t size = info_of(front_of(req))->size_bytes;

	if (off < 0 || (uint64_t)off >= size)
		fuse_reply_err(req, ENXIO);
	else if (whence == SEEK_DATA)
		fuse_reply_lseek(req, off);
	else if (whence == SEEK_HOLE)
		fuse_reply_lseek(req, (off_t)size);
	else
		fuse_reply_err(req, EINVAL);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs vfs = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = info_of(front_of(req))->size_bytes / 4096,
		.f_files = 1,
		.f_namemax = 255,
	};

	fuse_reply_statfs(req, &vfs);
}

static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.open = op_open,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.statfs = op_statfs,
};

/* ---- receiving, on the lane ---- */

static void on_buffer(struct bridge_waiter *waiter)
{
	struct fuse_front *front = weft_container_of(waiter, struct fuse_front, waiter);
	struct slot *slot = front->waiting;

	front->waiting = NULL;
	if (slot)
		start_read(slot);
	update_watch(front);
}

static void session_ended(struct fuse_front *front)
{
	weft_loop_remove(bridge_lane_loop(front->lane), &front->watch);
	atomic_store(&front->gone, true);
	if (bridge_config_of(front->base.bridge)->changed)
		bridge_config_of(front->base.bridge)->changed(bridge_config_of(front->base.bridge)->changed_ctx);
}

static void on_request(struct weft_watch *watch, uint32_t events)
{
	struct fuse_front *front = weft_container_of(watch, struct fuse_front, watch);

	for (unsigned i = 0; i < RECEIVE_BATCH && may_receive(front); i++) {
		void *mem = front->free_receive[--front->nr_free_receive];
		struct fuse_buf buf = {.mem = mem};
		int n = fuse_session_receive_buf(front->session, &buf);

		front->received = mem;
		if (n > 0)
			fuse_session_process_buf(front->session, &buf);
		if (front->received)
			front->free_receive[front->nr_free_receive++] = front->received;
		if (n > 0)
			continue;
		if (n == 0 || fuse_session_exited(front->session))
			session_ended(front);
		break;
	}
	update_watch(front);
}

static void begin(struct bridge_lane *lane, void *ctx)
{
	struct fuse_front *front = ctx;
	struct tp_mem *mem;

	if (tp_register(bridge_lane_transport(lane), front->receive_area, NR_RECEIVE * (size_t)RECEIVE_BYTES, &mem,
		    NULL) < 0)
		return;
	front->receive_mem = mem;
	front->watch.fd = fuse_session_fd(front->session);
	front->watch.fn = on_request;
	weft_loop_add(bridge_lane_loop(lane), &front->watch, EPOLLIN);
}

/* Nothing more is received; the kernel's connection ends, and with it the mount if there is one still. */
static void end(struct bridge_lane *lane, void *ctx)
{
	struct fuse_front *front = ctx;

	weft_loop_remove(bridge_lane_loop(lane), &front->watch);
	bridge_lane_waiter_cancel(lane, &front->waiter);
	if (front->waiting) {
		fuse_reply_err(front->waiting->req, EIO);
		put_slot(front->waiting);
		front->waiting = NULL;
	}
	if (front->mounted)
		fuse_session_unmount(front->session);
	front->mounted = false;
}

/* ---- the front-end, on the control thread ---- */

static unsigned users(struct bridge_front *base, json_t *texts)
{
	struct fuse_front *front = weft_container_of(base, struct fuse_front, base);

	return atomic_load(&front->gone) ? 0 : bridge_path_users(base->path, texts);
}

static bool gone(struct bridge_front *base)
{
	return atomic_load(&weft_container_of(base, struct fuse_front, base)->gone);
}

static int stop(struct bridge_front *base, bool force, uint32_t timeout_ms, struct weft_error *err)
{
	struct fuse_front *front = weft_container_of(base, struct fuse_front, base);
	uint64_t drain_ns = weft_now_ns() + timeout_ms * UINT64_C(1000000);

	if (!front->mounted)
		return 0;
	/* The kernel writes back what it has cached first; the lane serves that. */
	int r = atomic_load(&front->gone) ? 0 : bridge_unmount(base->path, false);
	if (r == -EBUSY && !force)
		return weft_error_set(err, EBUSY, "%s is in use; weft detach --force ends it all the same", base->path);
	if (r < 0 && !force)
		return weft_error_set(err, -r, "cannot unmount %s: %s", base->path, strerror(-r));
	while (atomic_load(&front->nr_slots) > 0 && weft_now_ns() < drain_ns)
		usleep(1000);
	bridge_lane_run(front->lane, end, front);
	return 0;
}

static void forget_memory(struct bridge_lane *lane, void *ctx)
{
	tp_deregister(((struct fuse_front *)ctx)->receive_mem);
}

static void free_front(struct bridge_front *base)
{
	struct fuse_front *front = weft_container_of(base, struct fuse_front, base);

	if (front->lane) {
		bridge_lane_run(front->lane, end, front);
		assert(atomic_load(&front->nr_slots) == 0);
		bridge_lane_run(front->lane, forget_memory, front);
	}
	if (front->session)
		fuse_session_destroy(front->session);
	if (front->receive_area)
		munmap(front->receive_area, NR_RECEIVE * (size_t)RECEIVE_BYTES);
	if (front->made_file)
		unlink(base->path);
	free(front);
}

static const struct bridge_front_ops front_ops = {
	.name = "mount",
	.users = users,
	.gone = gone,
	.stop = stop,
	.free = free_front,
};

/* The file to mount on. */
static int prepare_file(struct fuse_front *front, bool ours, struct weft_error *err)
{
	const char *path = front->base.path;
	struct stat st;
	int r = bridge_clear_stale_mount(path, err);

	if (r < 0)
		return r;
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		return weft_error_set(err, errno, "cannot use FUSE: /dev/fuse: %s; try: modprobe fuse, or use --socket",
			strerror(errno));
	if (lstat(path, &st) < 0) {
		if (errno != ENOENT)
			return weft_error_set(err, errno, "cannot mount on %s: %s", path, strerror(errno));
		int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			return weft_error_set(err, errno, "cannot make %s: %s", path, strerror(errno));
		close(fd);
		front->made_file = true;
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return weft_error_set(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			"cannot mount on %s: it is %s; --mount wants a regular file, or a name that is not taken", path,
			S_ISDIR(st.st_mode) ? "a directory" : S_ISLNK(st.st_mode) ? "a link" : "no regular file");
	front->made_file = ours && st.st_size == 0;
	return 0;
}

static int make_session(struct fuse_front *front, struct weft_error *err)
{
	const struct bridge_config *config = bridge_config_of(front->base.bridge);
	char options[256];
	char *argv[] = {"weft", "-o", options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	snprintf(options, sizeof(options), "fsname=weft:%s,subtype=" BRIDGE_FUSE_SUBTYPE
		",default_permissions,max_read=%d%s", config->name, MAX_IO, info_of(front)->read_only ? ",ro" : "");
	front->session = fuse_session_new(&args, &operations, sizeof(operations), front);
	fuse_opt_free_args(&args);
	if (!front->session)
		return weft_error_set(err, ENOMEM, "cannot make a FUSE session");
	if (fuse_session_mount(front->session, front->base.path) < 0)
		return weft_error_set(err, EPERM, "cannot mount on %s: refused; FUSE needs root, or fusermount3 (package fuse3)",
			front->base.path);
	front->mounted = true;
	int fd = fuse_session_fd(front->session);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return 0;
}

int bridge_front_fuse_new(struct bridge *bridge, const char *path, bool ours, struct bridge_front **ret,
	struct weft_error *err)
{
	const struct tp_info *info = bridge_info(bridge);
	struct fuse_front *front;
	int r;

	if (info->min_block_bytes > 1)
		return weft_error_set(err, EOPNOTSUPP,
			"cannot mount: the server takes blocks of %u bytes only, and a file has no such limit; use --socket",
			info->min_block_bytes);
	front = calloc(1, sizeof(*front));
	if (!front)
		return weft_error_set(err, ENOMEM, "cannot make a FUSE front-end: out of memory");
	front->base.ops = &front_ops;
	front->base.bridge = bridge;
	snprintf(front->base.path, sizeof(front->base.path), "%s", path);
	front->waiter.fn = on_buffer;
	for (unsigned i = NR_SLOTS; i-- > 0;) {
		front->slots[i].front = front;
		front->slots[i].next = front->free_slots;
		front->free_slots = &front->slots[i];
	}
	front->attr = (struct stat){
		.st_ino = FUSE_ROOT_ID,
		.st_mode = S_IFREG | (info->read_only ? 0400 : 0600),
		.st_nlink = 1,
		.st_uid = geteuid(),
		.st_gid = getegid(),
		.st_size = (off_t)info->size_bytes,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)(info->size_bytes / 512),
	};
	clock_gettime(CLOCK_REALTIME, &front->attr.st_mtim);
	front->attr.st_atim = front->attr.st_ctim = front->attr.st_mtim;
	front->receive_area = mmap(NULL, NR_RECEIVE * (size_t)RECEIVE_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (front->receive_area == MAP_FAILED) {
		front->receive_area = NULL;
		r = weft_error_set(err, ENOMEM, "cannot map buffers");
		goto fail;
	}
	for (unsigned i = NR_RECEIVE; i-- > 0;)
		front->free_receive[front->nr_free_receive++] = (char *)front->receive_area + i * (size_t)RECEIVE_BYTES;
	r = prepare_file(front, ours, err);
	if (r < 0)
		goto fail;
	r = make_session(front, err);
	if (r < 0)
		goto fail;
	front->lane = bridge_next_lane(bridge);
	bridge_lane_run(front->lane, begin, front);
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

bool bridge_front_fuse_made_file(const struct bridge_front *front)
{
	return weft_container_of(front, const struct fuse_front, base)->made_file;
}
