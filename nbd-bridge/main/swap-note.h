/* SPDX-License-Identifier: MIT */
/*
 * What `weft swap on` made and changed: <run dir>/swap-NAME.json, mode 0600.  It is written before
 * each step, so that whoever comes after a crash can undo the step.  It ends with the machine's
 * life, as swap spaces and settings of the kernel do.  One thread; who writes holds the lock.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_NOTE_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_NOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/base/error.h"
#include "fabric/base/util.h"
#include "fabric/hello.h"
#include "nbd-bridge/bridge/bridge.h"

enum { SWAP_PATH_MAX = 512, SWAP_VALUE_MAX = 32, SWAP_SETTINGS_MAX = 128 };

/* One attachment, and the swap space on its device. */
struct swap_member {
	char attachment[WEFT_NAME_MAX + 1];
	char device[32]; /* "": not made yet */
	char backend[96]; /* what tells the device from others: bridge_device's; "": not known */
	char uri[1024];  /* of all its donors, with spaces between */
};

/* A file of the kernel's that was changed. */
struct swap_setting {
	char path[SWAP_PATH_MAX];
	char was[SWAP_VALUE_MAX], now[SWAP_VALUE_MAX];
	/* now is what was asked for: the kernel may have made another value of it, or none yet */
	bool not_read_back;
};

struct swap_note {
	char name[WEFT_NAME_MAX + 1];
	char boot[WEFT_BOOT_ID_BYTES]; /* the machine's life in which it was written */
	struct swap_member members[BRIDGE_MAX_DONORS];
	size_t nr_members;
	int priority;
	char group[SWAP_PATH_MAX]; /* the job's group, as in settings; "": none */
	bool exclusive;
	struct swap_setting settings[SWAP_SETTINGS_MAX];
	size_t nr_settings;
};

/*
 * Takes the lock under which swap spaces are made and ended: a descriptor, to be closed; or -EBUSY
 * with who has it.
 */
int swap_lock(struct weft_error *err);

/*
 * A note of an earlier life of the machine has no devices and no settings: they ended with it.
 * 0; -ENOENT: there is none of this name; -EUCLEAN: it cannot be believed.
 */
int swap_note_read(const char *name, struct swap_note *ret, struct weft_error *err);
int swap_note_write(struct swap_note *note, struct weft_error *err);
void swap_note_remove(const struct swap_note *note);
/* Calls fn with the name of each, sorted, until fn returns other than 0; returns that, or 0. */
int swap_note_each(int (*fn)(void *ctx, const char *name), void *ctx);

#endif
