/* SPDX-License-Identifier: MIT */
/* What weft status says of the copies of an attachment.  Pure, but for the time zone. */
#ifndef WEFT_NBD_BRIDGE_MAIN_STATUS_COPIES_H
#define WEFT_NBD_BRIDGE_MAIN_STATUS_COPIES_H

#include <jansson.h>
#include <stddef.h>

/* Exit statuses of weft status, above those of its own failures. */
enum { STATUS_DEGRADED = 3, STATUS_TOO_FEW = 4 };

/*
 * copies: of an attachment's status.  "2 copies, all current; survives: 1 donor", or in place of
 * "all current" how many are, since when, why, and how much they lack.  Returns buf.
 */
const char *status_copies_line(const json_t *copies, char *buf, size_t len);
/* 0, STATUS_DEGRADED or STATUS_TOO_FEW; copies as above, or anything else: 0. */
int status_copies_code(const json_t *copies);

#endif
