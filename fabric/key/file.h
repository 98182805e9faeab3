/* SPDX-License-Identifier: MIT */
/*
 * Whether others can read or change what decides who may do what.  Of open files, by what fstat(2)
 * says; path is for errors, which say what to type.  No state; any thread.
 */
#ifndef WEFT_FABRIC_KEY_FILE_H
#define WEFT_FABRIC_KEY_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fabric/base/error.h"

/* A regular file that nobody but its owner, the user or root, can use: 0; -EPERM; -EINVAL. */
int weft_file_is_secret(const char *path, const struct stat *st, struct weft_error *err);
/* A file or directory that nobody but its owner, the user or root, can write to: 0; -EPERM. */
int weft_file_is_firm(const char *path, const struct stat *st, struct weft_error *err);

/*
 * Reads len bytes, in hexadecimal on one line of a secret file; lines that begin with # and blank
 * ones do not count.  The caller wipes ret.  0; -EPERM, -EINVAL: the file is not secret, or has
 * something else; or -errno of open(2) or read(2).
 */
int weft_secret_file_read(const char *path, uint8_t *ret, size_t len, struct weft_error *err);

#endif
