/* SPDX-License-Identifier: MIT */
/*
 * What every block device front-end needs, whichever driver makes the device: who uses the device,
 * the limits of its queue, the kernel's cache of it, and a process that memory may wait for.  Names
 * are the kernel's ("nbd0"); paths are /dev/NAME.  Any thread.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_DEVICE_H
#define WEFT_NBD_BRIDGE_DEVICE_DEVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "fabric/base/error.h"
#include "fabric/transport.h"

/*
 * Appends a line for each mount, swap space, device and process that uses the device or one of its
 * partitions; returns how many there are.
 */
unsigned bridge_device_users(const char *name, json_t *texts);

/*
 * -EBUSY with a message that names one of the users, or "by the kernel" if there are none any more.
 */
int bridge_device_say_busy(const char *name, struct weft_error *err);

/*
 * block_bytes: the size of the device's blocks.  check: whether the region can be a block device at
 * all: 0, or -EINVAL.
 */
unsigned bridge_device_block_bytes(const struct tp_info *info);
int bridge_device_check_region(const struct tp_info *info, struct weft_error *err);

/*
 * Whether an earlier device, which has users, may be taken over: -EEXIST if path (NULL: any) is
 * another's; -EROFS if the device can be written to, and is not to be any more.
 */
int bridge_device_check_earlier(const char *earlier, const char *path, bool read_only,
	struct weft_error *err);

/* The N of a path that is the prefix ("/dev/nbd") and N; or -EINVAL. */
int bridge_device_index(const char *path, const char *prefix);

/* The first line of /sys/block/NAME/attribute; false without one. */
bool bridge_device_attribute(const char *name, const char *attribute, char *buf, size_t len);

/* Sets the queue limits that measured best (see the commit), as far as they can be set. */
void bridge_device_tune(const char *name);
/* Sets one of them, as far as that can be: /sys/block/NAME/queue/attribute. */
void bridge_device_set(const char *name, const char *attribute, const char *value);

/*
 * Before the device ends: opens it exclusively, so that no mount and no swap can be added, and
 * writes out the kernel's cache of it.  *ret_fd keeps them away until it is closed; it is -1 if
 * that failed and force is set.  Without force -EBUSY: in use; -ETIMEDOUT: writing out is not done
 * in time, and goes on; or another -errno of open(2) or fsync(2).
 */
int bridge_device_hold(const char *name, bool force, unsigned timeout_ms, int *ret_fd,
	struct weft_error *err);
/*
 * A device that was given to a user is root's again: a node of nbd's outlives the bridge, and what
 * it leads to next is no matter of that user's.
 */
void bridge_device_take_back(const char *name);
/* Drops the kernel's cache of the device, in the background. */
void bridge_device_forget(const char *name);

/*
 * Before the lanes start: the kernel may need this process to free memory.  So the process must not
 * itself wait for memory, be swapped out, or be killed to free memory.  The log says what is not
 * permitted.
 */
void bridge_device_protect_process(void);

#endif
