/* SPDX-License-Identifier: MIT */
/*
 * Settings of the kernel that a swap space changes, and gives back: those of groups (cgroup v2) and
 * zswap's switch.  Files are below facts_root.  One thread, which holds swap_lock().
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_SWAP_SETTING_H
#define WEFT_NBD_BRIDGE_MAIN_SWAP_SETTING_H

#include "nbd-bridge/main/swap-note.h"

/*
 * Notes what the file says now, and writes value to it.  Several swap spaces may want the same
 * value; what was there before comes back when the last of them ends.  -EBUSY: another swap space
 * has set another value.
 */
int swap_setting_change(struct swap_note *note, const char *path, const char *value,
	struct weft_error *err);

/*
 * Gives back what was there, last change first.  A value that somebody else changed since stays,
 * and so does one that another swap space needs; what cannot be given back is told on standard
 * error.  The note is as it was.
 */
void swap_settings_restore(const struct swap_note *note);
/* Sets again what swap_settings_restore() gave back. */
void swap_settings_apply(const struct swap_note *note);

/*
 * The directory of a group, "/sys/fs/cgroup/jobs", of a path that may begin there, or of the name
 * of a slice.  -ENOENT: there is no such group; -EOPNOTSUPP: it has no settings for swap.
 */
int swap_group_find(const char *path, const char *slice, char ret[SWAP_PATH_MAX],
	struct weft_error *err);
/* Whether this process, and so a bridge that it starts, is in the group or below it. */
bool swap_group_has_us(const char *group);
/* Sets memory.high (0: as it is) and memory.swap.max of the note's group. */
int swap_group_limit(struct swap_note *note, uint64_t high_bytes, uint64_t swap_bytes,
	struct weft_error *err);
/* Sets memory.swap.max=0 for each group at the top but the one that the note's group is in. */
int swap_group_keep_others_off(struct swap_note *note, struct weft_error *err);

#endif
