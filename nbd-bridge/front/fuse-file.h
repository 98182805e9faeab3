/* SPDX-License-Identifier: MIT */
/*
 * Private to the FUSE front-end: front-fuse.c (mounting, on the control thread) and fuse-file.c
 * (requests, on a lane).
 *
 * Invariants: a slot is taken from the request's arrival to its reply; a WRITE's slot owns its
 * receive buffer.  Nothing is received while a slot waits for a buffer, or when slots or receive
 * buffers have run out.
 */
#ifndef WEFT_NBD_BRIDGE_FRONT_FUSE_FILE_H
#define WEFT_NBD_BRIDGE_FRONT_FUSE_FILE_H

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "nbd-bridge/front/front.h"

enum {
	FUSE_MAX_IO = 1 << 20,
	/* The longest message that libfuse reads, with its header. */
	FUSE_RECEIVE_BYTES = FUSE_MAX_IO + (4 << 10),
	FUSE_NR_RECEIVE = 16,
	FUSE_NR_SLOTS = 128,
	FUSE_RECEIVE_BATCH = 16,
	/* requests that the kernel sends ahead: read-ahead, write-back, asynchronous I/O */
	FUSE_BACKGROUND = 64,
	FUSE_READ_AHEAD = 1 << 20,
};

struct fuse_slot {
	struct bridge_request rq;
	struct fuse_front *front;
	fuse_req_t req;
	void *receive; /* WRITE: the receive buffer that holds the payload */
	void *buf;     /* READ */
	size_t reply;  /* WRITE: bytes to report */
	struct fuse_slot *next;
};

struct fuse_front {
	struct bridge_front base;
	struct fuse_session *session;
	struct bridge_lane *lane;
	struct weft_watch watch;
	struct bridge_waiter waiter;
	struct stat attr;
	bool mounted;
	struct bridge_made_file made;
	_Atomic bool gone; /* unmounted, by us or by others */
	_Atomic unsigned nr_slots;
	/* The lane's. */
	struct fuse_slot *waiting; /* for a buffer */
	bool paused;
	void *received; /* the buffer of the message being processed; NULL once a slot took it */
	struct fuse_slot *free_slots;
	void *free_receive[FUSE_NR_RECEIVE];
	unsigned nr_free_receive;
	void *receive_area;
	struct tp_mem *receive_mem;
	struct fuse_slot slots[FUSE_NR_SLOTS];
};

extern const struct fuse_lowlevel_ops fuse_file_operations;

/*
 * On the lane: starts serving (front->watch.added tells whether it could); and ends serving, and
 * the kernel's connection.
 */
void fuse_file_begin(struct bridge_lane *lane, void *front);
void fuse_file_end(struct bridge_lane *lane, void *front);

static inline const struct tp_info *fuse_front_info(const struct fuse_front *front)
{
	return bridge_info(front->base.bridge);
}

#endif
