/* SPDX-License-Identifier: MIT */
/* Mount points of the FUSE front-end.  Any thread. */
#ifndef WEFT_NBD_BRIDGE_FRONT_MOUNTS_H
#define WEFT_NBD_BRIDGE_FRONT_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

#define BRIDGE_FUSE_SUBTYPE "weft"

/*
 * Whether something is mounted right on path (absolute, without links); type gets the type of the
 * topmost mount.
 */
bool bridge_mounted(const char *path, char *type, size_t len);
/* 0, -EBUSY: in use (not lazy), or what umount2(2) said. */
int bridge_unmount(const char *path, bool lazy);

#endif
