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
	 * Takes no new users and ends the connections of the present ones; requests in flight may
	 * finish within timeout_ms.  0; -EBUSY: the front-end cannot end while it is used (only
	 * without force).
	 */
	int (*stop)(struct bridge_front *front, bool force, uint32_t timeout_ms,
		struct weft_error *err);
	/*
	 * Whether nobody can come in any more, as when the file was unmounted by hand.  NULL: that
	 * never happens.
	 */
	bool (*gone)(struct bridge_front *front);
	/*
	 * The region became stale: drops copies of its contents that are cached outside the bridge.
	 * NULL: there are none.
	 */
	void (*forget)(struct bridge_front *front);
	/* What status says of it beside its users: a new reference.  NULL: nothing. */
	json_t *(*status)(struct bridge_front *front);
	/* Frees it, stopped or not, and removes what it put in the file system. */
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
 * to it by NAME@TENURE.  A client that may write and comes by the plain name begins a new tenure.
 * note (may be NULL) stores the new tenure before the client is let in; any lane's thread; 0, or
 * -errno.
 */
struct bridge_tenure {
	_Atomic uint64_t now;
	int (*note)(void *ctx, uint64_t tenure);
	void *ctx;
};
/*
 * NBD on a Unix socket at path, for the owner only.  Accepts on the loop, and deals connections to
 * the lanes in turn.  A socket file that nobody listens on is replaced.  -EADDRINUSE: somebody
 * listens on it.  tenure: borrowed; NULL: there is none.
 */
int bridge_front_nbd_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	struct bridge_tenure *tenure, struct bridge_front **ret, struct weft_error *err);

/* A file that was made to mount on; ino 0: none. */
struct bridge_made_file {
	uint64_t dev, ino;
};

/* Whose a file is, and who may open it. */
struct bridge_file_rights {
	uid_t uid;
	gid_t gid;
	mode_t mode;      /* a region that can only be read gets it without the rights to write */
	/* users other than the one who mounts it, as mode says; that one need not be root */
	bool allow_other;
};

/*
 * The region as one file at path through FUSE.  The file is made if it is missing.  In the end it
 * is removed if it was made here (or by an earlier bridge of this attachment: `earlier`), is still
 * empty, and was mounted on until then.  A mount that a dead bridge left there is cleared away.
 * -EBUSY: something else is mounted there.
 */
int bridge_front_fuse_new(struct bridge *bridge, const char *path,
	const struct bridge_file_rights *rights, struct bridge_made_file earlier,
	struct bridge_front **ret, struct weft_error *err);
/* The file that was made, and is to be removed. */
struct bridge_made_file bridge_front_fuse_made_file(const struct bridge_front *front);
/*
 * Removes the file at path if it is the one that was made, and empty.  Only for a caller that has
 * just unmounted it: a file that was visible for a while may belong to somebody.
 */
void bridge_remove_made_file(const char *path, struct bridge_made_file made);

/*
 * Clears a mount that nobody serves any more, if it was weft's: 1; 0: nothing is mounted there.
 * -EBUSY: a mount there is served; -ENOTCONN: a dead mount there is not weft's.
 */
int bridge_clear_stale_mount(const char *path, struct weft_error *err);

/* What the next bridge must know of a kernel block device that a bridge made. */
struct bridge_device {
	char path[32];    /* "/dev/nbd0"; "": not known yet */
	/*
	 * the identifier that the kernel has for it, so that nobody else takes it over; "": there
	 * is none
	 */
	char backend[96];
	unsigned nr_connections;
};

/*
 * The region as a block device of the kernel's nbd driver.  path: /dev/nbdN, or NULL: one that is
 * free.  *earlier: the device of an earlier bridge of this attachment, which is taken over with its
 * users; it has a backend even if there is no device.  save() stores the device before it is made,
 * and after. -EBUSY: the device is somebody else's; -ENOENT: no driver; -EPERM: not permitted.
 */
int bridge_front_nbd_device_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err);
/*
 * The same, but the driver holds the donor's socket itself: front-nbd-kernel.c.  The bridge's
 * sessions have an alias (bridge/alias.h).
 */
int bridge_front_nbd_kernel_new(struct bridge *bridge, struct weft_loop *loop, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err);
/* N of /dev/nbdN, or -EINVAL. */
int bridge_nbd_device_index(const char *path);
/* Whether the kernel still has the device; path gets where. */
bool bridge_nbd_device_find(const struct bridge_device *device, char *path, size_t len);
/* See bridge_device_is(). */
int bridge_nbd_device_is(const char *path, const char *backend);
/* Ends the device that a dead bridge left: 1; 0: there is none.  -EBUSY: in use (without force). */
int bridge_nbd_device_clear(const struct bridge_device *device, bool force, struct weft_error *err);

/* Whether this kernel makes ublk devices, and we may have them: 0, or why not. */
int bridge_ublk_check(struct weft_error *err);
/* The same as for nbd, with the kernel's ublk driver: /dev/ublkbN.  The lanes serve its queues. */
int bridge_front_ublk_new(struct bridge *bridge, const char *path,
	const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, struct bridge_front **ret, struct weft_error *err);
int bridge_ublk_device_index(const char *path);
bool bridge_ublk_device_find(const struct bridge_device *device, char *path, size_t len);
int bridge_ublk_device_is(const char *path, const char *backend);
int bridge_ublk_device_clear(const struct bridge_device *device, bool force,
	struct weft_error *err);

/* Frees all front-ends of the list; NULL is an empty list. */
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
