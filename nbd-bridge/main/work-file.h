/* SPDX-License-Identifier: MIT */
/*
 * A file of which others only ever see whole states: the next one is made under another name,
 * NAME.weft-pull, and the two files then change their names.  What had been there is what the next
 * state is made of, unless somebody still reads it: then a copy is.  One thread.
 */
#ifndef WEFT_NBD_BRIDGE_MAIN_WORK_FILE_H
#define WEFT_NBD_BRIDGE_MAIN_WORK_FILE_H

#include <stdint.h>

#include "fabric/base/error.h"

struct work_file {
	const char *name; /* the caller's */
	char *work;       /* the other name */
	int fd;           /* of that file, while it is open; else -1 */
};

/* 0; -EINVAL: there is something else than a file. */
int work_file_init(struct work_file *file, const char *name, struct weft_error *err);
/*
 * Opens the file to be changed, in which nobody else looks: what a call before, or another process,
 * left there, or a copy of the file, at most max_bytes of it.  0; -EBUSY: another process does the
 * same; or -errno.
 */
int work_file_open(struct work_file *file, uint64_t max_bytes, struct weft_error *err);
/* Makes it durable, with this length, and gives it its name.  Closes it.  0, or -errno. */
int work_file_show(struct work_file *file, uint64_t len, struct weft_error *err);
void work_file_fini(struct work_file *file);

/* Makes durable that a file has this name.  0, or -errno. */
int work_file_sync_name(const char *name, struct weft_error *err);

#endif
