/* SPDX-License-Identifier: MIT */
/*
 * Front-ends: where applications enter a bridge.
 * Made and stopped by the control thread; what they do with requests happens on lanes.
 */
#ifndef WEFT_NBD_BRIDGE_FRONT_FRONT_H
#define WEFT_NBD_BRIDGE_FRONT_FRONT_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "fabric/base/error.h"
#include "nbd-bridge/bridge/bridge.h"

struct bridge_front;

struct bridge_front_ops {
	const char *name; /* "socket", "mount", "device" */
	/* Appends a line of text for each user: "pid 123 (fio)".  Returns how many there are. */
	unsigned (*users)(struct bridge_front *front, json_t *texts);
	/*
	 * Takes no new users and ends the connections of those there are, letting what is in flight
	 * finish, at most timeout_ms.  0; -EBUSY: it cannot be ended while it is used (only without
	 * force).
	 */
	int (*stop)(struct bridge_front *front, bool force, uint32_t timeout_ms,
		struct weft_error *err);
	/*
	 * Nobody can come in any more, as when the file was unmounted by hand.  NULL: that never
	 * happens.
	 */
	bool (*gone)(struct bridge_front *front);
	/*
	 * The region became stale: drops what is cached of its contents outside the bridge.  NULL:
	 * nothing is.
	 */
	void (*forget)(struct bridge_front *front);
	/* Stopped or not.  What it put in the file system is gone afterwards. */
	void (*free)(struct bridge_front *front);
};

struct bridge_front {
	const struct bridge_front_ops *ops;
	struct bridge *bridge;
	char path[4096];
	struct bridge_front *next;
};

/*
 * A socket has a tenure, as a donor's region has (fabric/donor/donor.h), for clients that come back
 * to it by NAME@TENURE.  Whoever may write and comes by the plain name begins another.  note (may
 * be NULL) keeps it before the client is let in; any lane's thread; 0, or -errno.
 */
struct bridge_tenure {
	_Atomic uint64_t now;
	int (*note)(void *ctx, uint64_t tenure);
	void *ctx;
};
/*
 * NBD on a Unix socket at path, for the owner only; accepts on the loop, deals connections to the
 * lanes in turn.  A socket file that nobody listens on is replaced.  -EADDRINUSE: somebody does.
 * tenure: borrowed; NULL: there is none.
 */
int bridge_front_nbd_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	struct bridge_tenure *tenure, struct bridge_front **ret, struct weft_error *err);

/* A file that was made to mount on; ino 0: none was. */
struct bridge_made_file {
	uint64_t dev, ino;
};

/* Whose a file is, and who may open it. */
struct bridge_file_rights {
	uid_t uid;
	gid_t gid;
	mode_t mode;      /* of a region that can only be read, without the rights to write */
	bool allow_other; /* others than who mounts it, as mode says; they need not be root */
};

/*
 * The region as one file at path through FUSE.  The file is made if it is missing, and removed in
 * the end if it was made (or an earlier bridge of this attachment made it: `earlier`), is empty
 * still, and was mounted on until then.  A mount that a dead weft left there is cleared away.
 * -EBUSY: something else is mounted there.
 */
int bridge_front_fuse_new(struct bridge *bridge, const char *path,
	const struct bridge_file_rights *rights, struct bridge_made_file earlier,
	struct bridge_front **ret, struct weft_error *err);
/* What was made, and is to be removed. */
struct bridge_made_file bridge_front_fuse_made_file(const struct bridge_front *front);
/*
 * Removes the file at path if it is the one that was made, and empty.  Only for who has unmounted
 * it just now: once it was there for anybody to write to, it is theirs.
 */
void bridge_remove_made_file(const char *path, struct bridge_made_file made);

/*
 * Clears a mount that nobody serves any more, if it was weft's: 1; 0 when nothing is mounted there.
 * -EBUSY: something that lives is mounted; -ENOTCONN: a dead mount of somebody else's.
 */
int bridge_clear_stale_mount(const char *path, struct weft_error *err);

/* A kernel block device that a bridge made, as far as a next bridge must know of it. */
struct bridge_device {
	char path[32];    /* "/dev/nbd0"; "": not known yet */
	/* what the kernel knows it by, so that nobody else takes it over; "": there is none */
	char backend[96];
	unsigned nr_connections;
};

/*
 * The region as a block device of the kernel's nbd driver.  path: /dev/nbdN, or NULL: one that is
 * free.  *device: what an earlier bridge of this attachment had (it is taken over, with its users),
 * with a backend in any case; told anew through save() before the device is made and after.
 * -EBUSY: the device is somebody else's; -ENOENT: no driver; -EPERM: not permitted.
 */
int bridge_front_nbd_device_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err);
/* N of /dev/nbdN, or -EINVAL. */
int bridge_nbd_device_index(const char *path);
/* Whether the kernel has the device still; its path. */
bool bridge_nbd_device_find(const struct bridge_device *device, char *path, size_t len);
/*
 * Ends what a dead bridge left, if it is there: 1; 0: it is not.  -EBUSY: in use (without force).
 */
int bridge_nbd_device_clear(const struct bridge_device *device, bool force, struct weft_error *err);

/* Whether this kernel makes ublk devices, and for us: 0, or why not. */
int bridge_ublk_check(struct weft_error *err);
/* The same as for nbd, with the kernel's ublk driver: /dev/ublkbN.  The lanes serve its queues. */
int bridge_front_ublk_new(struct bridge *bridge, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err);
int bridge_ublk_device_index(const char *path);
bool bridge_ublk_device_find(const struct bridge_device *device, char *path, size_t len);
int bridge_ublk_device_clear(const struct bridge_device *device, bool force,
	struct weft_error *err);

/* All of them; NULL is an empty list. */
void bridge_front_free(struct bridge_front *fronts);

/* "123 (fio)" for people; pid 0: "a process that has gone". */
void bridge_process_name(pid_t pid, char *buf, size_t len);
/* Whether the process has path open. */
bool bridge_process_has_open(pid_t pid, const char *path);
/*
 * Appends a line for each process (or loop device) that has path open or mapped; returns how many
 * were found.
 */
unsigned bridge_path_users(const char *path, json_t *texts);

#endif
