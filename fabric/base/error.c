/* SPDX-License-Identifier: MIT */
/* Errors with a message; no state, any thread. */
#include "fabric/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/util.h"

int weft_error_set(struct weft_error *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;

		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->message, sizeof(err->message), fmt, ap);
		va_end(ap);
		/* The message may quote a peer, or a name, and goes to terminals and logs. */
		weft_printable(err->message);
	}
	return -code;
}

int weft_error_prefix(struct weft_error *err, const char *fmt, ...)
{
	char what[sizeof(err->message)];
	char message[sizeof(err->message)];
	va_list ap;

	if (!err)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	weft_printable(what);
	memcpy(message, err->message, sizeof(message));
	/* A message that outgrows its buffer loses its tail, not its head. */
	int n = snprintf(err->message, sizeof(err->message), "%s: ", what);
	if (n >= 0 && (size_t)n < sizeof(err->message)) {
		size_t room = sizeof(err->message) - (size_t)n;
		size_t len = strnlen(message, room - 1);

		memcpy(err->message + n, message, len);
		err->message[(size_t)n + len] = '\0';
	}
	return err->code ? -err->code : -EIO;
}
