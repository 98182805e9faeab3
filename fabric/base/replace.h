/* SPDX-License-Identifier: MIT */
/* Small files that a crash leaves as they were, or as they are to be.  Any thread. */
#ifndef WEFT_FABRIC_BASE_REPLACE_H
#define WEFT_FABRIC_BASE_REPLACE_H

#include <stddef.h>

/*
 * The file has these len bytes, durably, in place of what it had; a file "PATH.new" beside it is
 * used up.  Mode 0600.  Waits for the disk.  0, or -errno: then the file has either.
 */
int weft_replace_file(const char *path, const void *bytes, size_t len);

#endif
