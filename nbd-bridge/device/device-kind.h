/* SPDX-License-Identifier: MIT */
/* Which of the kernel's drivers makes a block device: ublk or nbd.  For the control thread. */
#ifndef WEFT_NBD_BRIDGE_DEVICE_DEVICE_KIND_H
#define WEFT_NBD_BRIDGE_DEVICE_DEVICE_KIND_H

#include "nbd-bridge/front/front.h"

enum bridge_device_kind {
	BRIDGE_DEVICE_AUTO, /* ublk where there is one, else nbd */
	BRIDGE_DEVICE_NBD,
	BRIDGE_DEVICE_UBLK,
};

/* "auto", "nbd", "ublk"; -EINVAL. */
int bridge_device_kind_parse(const char *text, enum bridge_device_kind *ret);
/* Of a device's path; -EINVAL: neither /dev/nbdN nor /dev/ublkbN. */
int bridge_device_kind_of(const char *path, enum bridge_device_kind *ret);

/* How a device is wanted. */
struct bridge_device_wish {
	enum bridge_device_kind kind;
	const char *path; /* NULL: one that is free */
	bool kernel_socket; /* nbd's, which holds the donor's socket itself */
};

/*
 * Whether the kernel can make the device, or has it from an earlier bridge: 0, or what is missing.
 */
int bridge_device_check(const struct bridge_device_wish *wish, const struct bridge_device *earlier,
	struct weft_error *err);
/*
 * Makes the device, or takes over an earlier bridge's (then the kind is that one's).  save(): see
 * bridge_front_nbd_device_new().  why: gets the kind, and the reason for it.
 */
int bridge_front_device_new(struct bridge *bridge, struct weft_loop *loop,
	const struct bridge_device_wish *wish, const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, char why[320], struct bridge_front **ret, struct weft_error *err);
/* Whether the kernel still has the device of an earlier bridge; path gets where. */
bool bridge_device_find(const struct bridge_device *device, char *path, size_t len);
/*
 * Whether a device's path is that of the device with this backend: 1; 0: it is another's; -errno:
 * the kernel does not say.
 */
int bridge_device_is(const char *path, const char *backend);
/* Ends the device that a dead bridge left: 1; 0: there is none.  -EBUSY: in use (without force). */
int bridge_device_clear(const struct bridge_device *device, bool force, struct weft_error *err);

#endif
