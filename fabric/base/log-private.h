/* SPDX-License-Identifier: MIT */
/* How log.c writes a line, for log-thread.c. */
#ifndef WEFT_FABRIC_BASE_LOG_PRIVATE_H
#define WEFT_FABRIC_BASE_LOG_PRIVATE_H

#include <stddef.h>

#include "fabric/base/log.h"

enum { WEFT_LOG_LINE = 1024 };

/* Any thread; the line is the caller's.  Changed while there is one thread that logs. */
extern void (*log_write)(const char *line, size_t len);
void log_write_now(const char *line, size_t len);

#endif
