/* SPDX-License-Identifier: MIT */
/*
 * Files that hold secrets, or that decide who may do what: read only where nobody else could have
 * written them or, of secrets, read them; written as a whole or not at all.  No state; any thread.
 */
#ifndef WEFT_FABRIC_KEY_KEY_PRIVATE_H
#define WEFT_FABRIC_KEY_KEY_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include "fabric/base/error.h"
#include "fabric/key/key.h"

enum { WEFT_KEY_FILE_MAX = 1 << 20 }; /* bytes: ten thousand keys */

/* A file's text, in memory for secrets. */
struct weft_key_text {
	const char *path; /* the caller's; for errors */
	char *text;       /* not NUL-terminated */
	size_t len;
	size_t at;     /* where weft_key_text_line() goes on */
	unsigned line; /* the number of the line that it found last, from 1 */
};

/*
 * Reads a regular file that nobody but its owner can use, who is the user or root.  path outlives
 * *ret.  0; -EPERM: others can use it, or it is theirs (err has mode and owner, and what to type);
 * -EFBIG; or -errno of open(2) or read(2).
 */
int weft_key_text_read(const char *path, struct weft_key_text *ret, struct weft_error *err);
/* The same of a file `name` in an open directory; path: for errors. */
int weft_key_text_read_at(int dir_fd, const char *name, const char *path,
	struct weft_key_text *ret, struct weft_error *err);
/* Wipes it. */
void weft_key_text_free(struct weft_key_text *text);
/* The next line that is neither blank nor a comment, without its end.  False: there is none. */
bool weft_key_text_line(struct weft_key_text *text, const char **ret_line, size_t *ret_len);
/* Parses that line.  0, or -EINVAL with file and line before what is wrong. */
int weft_key_text_parse(const struct weft_key_text *text, const char *line, size_t len,
	struct weft_key *ret, struct weft_error *err);

/*
 * Puts the text into a file `name` of the directory, mode 0600, on disk when it returns; whoever
 * reads it meanwhile reads the old one or the new one.  One caller at a time.  0, or -errno.
 */
int weft_key_file_replace(int dir_fd, const char *dir, const char *name, const void *text,
	size_t len, struct weft_error *err);

#endif
