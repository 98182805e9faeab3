/* SPDX-License-Identifier: MIT */
/* Which driver makes a block device, and functions for either: see device-kind.h. */
#include "nbd-bridge/device/device-kind.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nbd-bridge/device/nbd-netlink.h"

int bridge_device_kind_parse(const char *text, enum bridge_device_kind *ret)
{
	static const char *const names[] = {[BRIDGE_DEVICE_AUTO] = "auto",
		[BRIDGE_DEVICE_NBD] = "nbd",
		[BRIDGE_DEVICE_UBLK] = "ublk"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) != 0)
			continue;
		*ret = i;
		return 0;
	}
	return -EINVAL;
}

int bridge_device_kind_of(const char *path, enum bridge_device_kind *ret)
{
	if (bridge_nbd_device_index(path) >= 0)
		*ret = BRIDGE_DEVICE_NBD;
	else if (bridge_ublk_device_index(path) >= 0)
		*ret = BRIDGE_DEVICE_UBLK;
	else
		return -EINVAL;
	return 0;
}

/*
 * The kind of the existing device, of the wanted path, or the wanted kind; otherwise the best that
 * the kernel has.
 */
static int choose(const struct bridge_device_wish *wish, const struct bridge_device *earlier,
	enum bridge_device_kind *ret, char why[320], struct weft_error *err)
{
	enum bridge_device_kind there;
	struct weft_error no;
	char path[32];

	if (bridge_device_find(earlier, path, sizeof(path)) &&
		bridge_device_kind_of(path, &there) == 0) {
		if (wish->kind != BRIDGE_DEVICE_AUTO && wish->kind != there)
			return weft_error_set(err, EEXIST,
				"this attachment is %s already; take that over, or clear it "
				"with weft detach",
				path);
		*ret = there;
		snprintf(why, 320, "%s, as before", there == BRIDGE_DEVICE_UBLK ? "ublk" : "nbd");
		return 0;
	}
	*ret = wish->kind;
	if (wish->path)
		bridge_device_kind_of(wish->path, ret);
	if (*ret != BRIDGE_DEVICE_AUTO) {
		snprintf(why, 320, "%s, as told", *ret == BRIDGE_DEVICE_UBLK ? "ublk" : "nbd");
		return 0;
	}
	if (bridge_ublk_check(&no) == 0) {
		*ret = BRIDGE_DEVICE_UBLK;
		snprintf(why, 320, "ublk, auto: the kernel has it");
		return 0;
	}
	*ret = BRIDGE_DEVICE_NBD;
	snprintf(why, 320, "nbd, auto: %.300s", no.message);
	return 0;
}

int bridge_device_check(const struct bridge_device_wish *wish, const struct bridge_device *earlier,
	struct weft_error *err)
{
	struct weft_error ublk, nbd;
	enum bridge_device_kind kind;
	char why[320];
	int r = choose(wish, earlier, &kind, why, err);

	if (r < 0)
		return r;
	r = kind == BRIDGE_DEVICE_UBLK ? bridge_ublk_check(&ublk) : nbd_netlink_check(&nbd);
	if (r == 0)
		return 0;
	if (geteuid() != 0)
		return weft_error_set(err, EPERM,
			"a block device (%s) is for root; --mount and --socket are for everybody",
			kind == BRIDGE_DEVICE_UBLK ? "ublk" : "nbd");
	if (wish->kind == BRIDGE_DEVICE_AUTO && !wish->path && bridge_ublk_check(&ublk) == -ENOENT)
		return weft_error_set(err, ENOENT,
			"the kernel has no driver for a block device loaded; as root: modprobe "
			"ublk_drv "
			"(Linux 6.5 or later), or: modprobe nbd (4.12 or later)");
	*err = kind == BRIDGE_DEVICE_UBLK ? ublk : nbd;
	return r;
}

int bridge_front_device_new(struct bridge *bridge, struct weft_loop *loop,
	const struct bridge_device_wish *wish, const struct bridge_device *earlier,
	int (*save)(void *ctx, const struct bridge_device *device, struct weft_error *err),
	void *ctx, char why[320], struct bridge_front **ret, struct weft_error *err)
{
	enum bridge_device_kind kind;
	int r = choose(wish, earlier, &kind, why, err);

	if (r < 0)
		return r;
	if (kind == BRIDGE_DEVICE_UBLK)
		return bridge_front_ublk_new(bridge, wish->path, earlier, save, ctx, ret, err);
	if (wish->kernel_socket)
		return bridge_front_nbd_kernel_new(
			bridge, loop, wish->path, earlier, save, ctx, ret, err);
	return bridge_front_nbd_device_new(bridge, loop, wish->path, earlier, save, ctx, ret, err);
}

bool bridge_device_find(const struct bridge_device *device, char *path, size_t len)
{
	return bridge_nbd_device_find(device, path, len) ||
		bridge_ublk_device_find(device, path, len);
}

int bridge_device_is(const char *path, const char *backend)
{
	enum bridge_device_kind kind;

	if (bridge_device_kind_of(path, &kind) < 0)
		return 0;
	return kind == BRIDGE_DEVICE_UBLK ? bridge_ublk_device_is(path, backend)
					  : bridge_nbd_device_is(path, backend);
}

int bridge_device_clear(const struct bridge_device *device, bool force, struct weft_error *err)
{
	int r = bridge_nbd_device_clear(device, force, err);

	return r != 0 ? r : bridge_ublk_device_clear(device, force, err);
}
