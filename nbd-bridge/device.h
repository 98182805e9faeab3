/*
 * What any block device front-end needs, whichever driver makes the device: who uses it, its queue's limits, what the
 * kernel caches of it, and a process that may stand in the way of freeing memory.
 * Names are the kernel's ("nbd0"); paths are /dev/NAME.  Any thread.
 */
#ifndef WEFT_NBD_BRIDGE_DEVICE_H
#define WEFT_NBD_BRIDGE_DEVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "fabric/error.h"

/*
 * Appends a line for each mount, swap space, device and process that uses it or one of its partitions; returns how
 * many there are.
 */
unsigned bridge_device_users(const char *name, json_t *texts);

/* The first line of /sys/block/NAME/attribute; false without one. */
bool bridge_device_attribute(const char *name, const char *attribute, char *buf, size_t len);

/* The queue limits that measured best (see the commit); what cannot be set is let be. */
void bridge_device_tune(const char *name);

/*
 * Opens it exclusively and writes out what the kernel caches of it.  A descriptor that keeps mounts and swap away until it
 * is closed; -EBUSY: in use; -ETIMEDOUT: not within the time, and still under way; another -errno of open(2) or fsync(2).
 */
int bridge_device_settle(const char *name, unsigned timeout_ms, struct weft_error *err);
/* Drops what the kernel caches of it, in the background. */
void bridge_device_forget(const char *name);

/*
 * Before the lanes start: this process is in the way of memory being freed.  It must not wait for that itself, be
 * swapped out, or be killed to free memory.  What is not permitted is said in the log.
 */
void bridge_device_protect_process(void);

#endif
