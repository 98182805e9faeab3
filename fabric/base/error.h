/* SPDX-License-Identifier: MIT */
/*
 * Errors with a message.  Control-path functions take a nullable `struct weft_error *` as their
 * last argument and return -errno; the message names the action, the object, the cause, and the way
 * out where there is one.  Data-path functions return the code alone.
 */
#ifndef WEFT_FABRIC_BASE_ERROR_H
#define WEFT_FABRIC_BASE_ERROR_H

#include <stdarg.h>

struct weft_error {
	int code;          /* positive errno; 0: no error */
	char message[480]; /* NUL-terminated, no newline */
};

/* Fills err (which may be NULL) and returns -code.  code: positive errno. */
int weft_error_set(struct weft_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "what: " before the message in err (which may be NULL).  Returns -err->code, or -EIO. */
int weft_error_prefix(struct weft_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
