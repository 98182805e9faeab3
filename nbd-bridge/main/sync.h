/* SPDX-License-Identifier: MIT */
/*
 * What weft push and weft pull share: a file and a region are compared by hashes, and only the
 * blocks that differ travel.
 *
 * The file is read once, chunk by chunk.  Of each chunk the donor is asked for the hashes of 64 KiB
 * leaves; of leaves that differ for those of 4 KiB blocks; blocks that differ are written, or read.
 * Many chunks are on their way at a time, each at a stage of its own.
 *
 * One thread, but for the ends of commands, which only count (sync.c).
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SYNC_H
#define WEFT_NBD_BRIDGE_MAIN_SYNC_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "fabric/base/error.h"

struct weft;

enum sync_direction { SYNC_PUSH, SYNC_PULL };

struct sync_config {
	struct weft *w;
	enum sync_direction direction;
	/* The file, which can be read; PULL: and written. */
	int fd;
	const char *name; /* of the file, for people; stays the caller's */
	/* how much there is to compare, from offset 0; not looked at of a stream */
	uint64_t len;
	/*
	 * PUSH, not of a stream: later passes take the region for what the pass before left there,
	 * which is right as long as the handle is open, and hash the file alone
	 */
	bool again;
	bool stream; /* PUSH: the file is read from where it is up to its end */
	/* becomes true when nothing new is to be begun; from a signal's handler */
	const volatile sig_atomic_t *stop;
	/* called now and then, with the bytes that are done; may be NULL */
	void (*progress)(void *ctx, uint64_t done);
	void *ctx;
};

/* In bytes, of all passes. */
struct sync_totals {
	uint64_t compared;
	uint64_t different; /* moved, therefore: in blocks of 4 KiB */
	uint64_t hashes;    /* that the donor sent */
	/* PULL: bytes that changed at the donor between their hash and their coming */
	uint64_t unsettled;
};

struct sync;

/* 0; -EOPNOTSUPP: a donor does not hash; -ENOMEM. */
int sync_new(const struct sync_config *config, struct sync **ret, struct weft_error *err);
/* The handle is still open.  Takes NULL. */
void sync_free(struct sync *sync);

/*
 * Compares everything once and moves what differs.  0; -EINTR: it was asked to stop: what was begun
 * has ended, and the rest is as it was; or -errno, and nothing is in flight any more.
 */
int sync_pass(struct sync *sync, struct weft_error *err);
/*
 * PUSH, after a pass and a flush: asks for the hashes of all that this pass wrote.  0; -EIO: the
 * donor has something else; or as sync_pass().
 */
int sync_verify(struct sync *sync, struct weft_error *err);

const struct sync_totals *sync_totals(const struct sync *sync);

#endif
