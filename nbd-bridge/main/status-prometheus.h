/* SPDX-License-Identifier: MIT */
/* weft status --prometheus. */
#ifndef WEFT_NBD_BRIDGE_MAIN_STATUS_PROMETHEUS_H
#define WEFT_NBD_BRIDGE_MAIN_STATUS_PROMETHEUS_H

#include <jansson.h>

/*
 * Prints metrics to standard output, from arrays of the answers of attachments and donors, and of
 * memory that is held, as in weft-status(1).
 */
void status_print_prometheus(const json_t *attachments, const json_t *donors, const json_t *held);

#endif
