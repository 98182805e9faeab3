/* SPDX-License-Identifier: MIT */
/*
 * What any block device front-end needs, whichever driver makes the device: who uses it, its
 * queue's limits, what the kernel caches of it, and a process that may stand in the way of freeing
 * memory.  Names are the kernel's ("nbd0"); paths are /dev/NAME.  Any thread.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_DEVICE_H
#define WEFT_NBD_BRIDGE_DEVICE_DEVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "fabric/base/error.h"
#include "fabric/transport.h"

/*
 * Appends a line for each mount, swap space, device and process that uses it or one of its
 * partitions; returns how many there are.
 */
unsigned bridge_device_users(const char *name, json_t *texts);

/* -EBUSY with a message that names one of them; "by the kernel" if none is seen any more. */
int bridge_device_say_busy(const char *name, struct weft_error *err);

/* Bytes of its blocks; whether a region can be a block device at all: 0, or -EINVAL. */
unsigned bridge_device_block_bytes(const struct tp_info *info);
int bridge_device_check_region(const struct tp_info *info, struct weft_error *err);

/* N where path is the prefix ("/dev/nbd") and N; or -EINVAL. */
int bridge_device_index(const char *path, const char *prefix);

/* The first line of /sys/block/NAME/attribute; false without one. */
bool bridge_device_attribute(const char *name, const char *attribute, char *buf, size_t len);

/* The queue limits that measured best (see the commit); what cannot be set is let be. */
void bridge_device_tune(const char *name);

/*
 * Before it ends: opens it exclusively, so that mounts and swap cannot come any more, and writes
 * out what the kernel caches of it.  *ret_fd keeps them away until it is closed; -1 with force, if
 * that failed.  Without force -EBUSY: in use; -ETIMEDOUT: not within the time, and still under way;
 * another -errno of open(2) or fsync(2).
 */
int bridge_device_hold(const char *name, bool force, unsigned timeout_ms, int *ret_fd,
	struct weft_error *err);
/* Drops what the kernel caches of it, in the background. */
void bridge_device_forget(const char *name);

/*
 * Before the lanes start: this process is in the way of memory being freed.  It must not wait for
 * that itself, be swapped out, or be killed to free memory.  What is not permitted is said in the
 * log.
 */
void bridge_device_protect_process(void);

#endif
