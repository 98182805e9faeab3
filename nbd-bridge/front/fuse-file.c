/* SPDX-License-Identifier: MIT */
/*
 * A region as a FUSE file: requests from /dev/fuse, answered by a lane and on its thread.
 *
 * A WRITE's payload is posted from the very buffer that it was received into; a READ's is answered
 * from the buffer that it landed in.
 *
 * The kernel's writeback cache stays off.  With it the kernel keeps a file's size by itself, and
 * begins with 0 for a root that is a file: nothing can be read or written (tried on Linux 6.18).
 * Mapped pages, and data through a loop device, are cached and written back without it as well.
 */
#include "nbd-bridge/front/fuse-file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "fabric/base/log.h"
#include "fabric/base/probe.h"
#include "fabric/base/util.h"

static struct fuse_front *front_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- slots ---- */

static struct fuse_slot *take_slot(struct fuse_front *front, fuse_req_t req)
{
	struct fuse_slot *slot = front->free_slots;

	assert(slot); /* checked before receiving */
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

static void put_slot(struct fuse_slot *slot)
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
	struct fuse_slot *slot = weft_container_of(rq, struct fuse_slot, rq);

	if (error < 0)
		fuse_reply_err(slot->req, -error);
	else if (rq->kind == TP_READ)
		fuse_reply_buf(slot->req, rq->lent ? rq->lent : rq->buf, rq->len);
	else if (rq->kind == TP_WRITE)
		fuse_reply_write(slot->req, slot->reply);
	else
		fuse_reply_err(slot->req, 0);
	WEFT_PROBE(sent, rq);
	bridge_lane_give_back(slot->front->lane, rq);
	put_slot(slot);
}

static void submit(struct fuse_slot *slot, uint8_t kind, uint8_t flags, uint64_t off, uint64_t len)
{
	struct bridge_request *rq = &slot->rq;

	rq->kind = kind;
	rq->flags = flags;
	rq->off = off;
	rq->len = len;
	/*
	 * If the kernel cannot take a reply's data, as may happen with a file's, libfuse forgets
	 * the request, which would hang.
	 */
	rq->may_lend = !bridge_cache_is_on_disk(slot->front->base.bridge);
	rq->done = done;
	bridge_lane_submit(slot->front->lane, rq);
}

/* ---- operations on the file ---- */

static void op_init(void *user, struct fuse_conn_info *conn)
{
	/* The payload must come into our buffers, not through a pipe. */
	conn->want &= ~(unsigned)FUSE_CAP_SPLICE_READ;
	conn->max_write = FUSE_MAX_IO;
	conn->max_read = FUSE_MAX_IO;
	conn->max_readahead = (unsigned)weft_min(conn->max_readahead, FUSE_READ_AHEAD);
	conn->max_background = FUSE_BACKGROUND;
	conn->congestion_threshold = FUSE_BACKGROUND * 3 / 4;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_attr(req, &front_of(req)->attr, 86400);
}

/* Setting times succeeds, without an effect; the size and the rights are the region's. */
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

	if ((fi->flags & O_ACCMODE) != O_RDONLY && fuse_front_info(front)->read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	/* With a writer elsewhere, cached pages may be old: each open begins anew. */
	fi->keep_cache = bridge_config_of(front->base.bridge)->attach.mode != WEFT_MODE_SHARED;
	fuse_reply_open(req, fi);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

/* A buffer for the READ in the slot; without one it waits, and nothing is received meanwhile. */
static void start_read(struct fuse_slot *slot)
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

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off,
	struct fuse_file_info *fi)
{
	struct fuse_front *front = front_of(req);
	uint64_t size = fuse_front_info(front)->size_bytes;

	if (off < 0 || (uint64_t)off >= size || len == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	struct fuse_slot *slot = take_slot(front, req);
	slot->rq.off = (uint64_t)off;
	slot->rq.len = weft_min(weft_min(len, FUSE_MAX_IO), size - (uint64_t)off);
	start_read(slot);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t len, off_t off,
	struct fuse_file_info *fi)
{
	struct fuse_front *front = front_of(req);
	uint64_t size = fuse_front_info(front)->size_bytes;

	if (off < 0 || (uint64_t)off >= size) {
		fuse_reply_err(req, len > 0 ? ENOSPC : 0);
		return;
	}
	len = weft_min(len, size - (uint64_t)off);
	if (len == 0) {
		fuse_reply_write(req, 0);
		return;
	}
	struct fuse_slot *slot = take_slot(front, req);
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
	uint64_t size = fuse_front_info(front)->size_bytes;
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
	/* A region does not grow; with KEEP_SIZE, bytes behind its end need nothing. */
	if ((uint64_t)off >= size || (uint64_t)len > size - (uint64_t)off) {
		if (!(mode & FALLOC_FL_KEEP_SIZE)) {
			fuse_reply_err(req, ENOSPC);
			return;
		}
		len = (uint64_t)off >= size ? 0 : (off_t)(size - (uint64_t)off);
	}
	if (reserve || len == 0) {
		fuse_reply_err(req, 0); /* a region has all its bytes already */
		return;
	}
	/* A hole reads as zeros, which TRIM does not promise. */
	submit(take_slot(front, req), TP_ZERO, punch ? 0 : TP_NO_HOLE, (uint64_t)off,
		(uint64_t)len);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
	struct fuse_file_info *fi)
{
	uint64_t size = fuse_front_info(front_of(req))->size_bytes;

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
		.f_blocks = fuse_front_info(front_of(req))->size_bytes / 4096,
		.f_files = 1,
		.f_namemax = 255,
	};

	fuse_reply_statfs(req, &vfs);
}

const struct fuse_lowlevel_ops fuse_file_operations = {
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
	struct fuse_slot *slot = front->waiting;

	front->waiting = NULL;
	if (slot)
		start_read(slot);
	update_watch(front);
}

static void session_ended(struct fuse_front *front)
{
	weft_loop_remove(bridge_lane_loop(front->lane), &front->watch);
	atomic_store(&front->gone, true);
	weft_debug("%s: the kernel has ended the session", front->base.path);
	if (bridge_config_of(front->base.bridge)->attach.changed)
		bridge_config_of(front->base.bridge)
			->attach.changed(bridge_config_of(front->base.bridge)->attach.changed_ctx);
}

static void on_request(struct weft_watch *watch, uint32_t events)
{
	struct fuse_front *front = weft_container_of(watch, struct fuse_front, watch);

	for (unsigned i = 0; i < FUSE_RECEIVE_BATCH && may_receive(front); i++) {
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

void fuse_file_begin(struct bridge_lane *lane, void *ctx)
{
	struct fuse_front *front = ctx;
	struct tp_mem *mem;

	if (bridge_lane_register(lane, front->receive_area,
		    FUSE_NR_RECEIVE * (size_t)FUSE_RECEIVE_BYTES, &mem, NULL) < 0)
		return;
	front->receive_mem = mem;
	front->waiter.fn = on_buffer;
	front->watch.fd = fuse_session_fd(front->session);
	front->watch.fn = on_request;
	weft_loop_add(bridge_lane_loop(lane), &front->watch, EPOLLIN);
}

/*
 * Nothing more is received; the kernel's connection ends, and with it the mount if there is one
 * still.
 */
void fuse_file_end(struct bridge_lane *lane, void *ctx)
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
