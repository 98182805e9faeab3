/* SPDX-License-Identifier: MIT */
/*
 * What weft serve's options say for all transports over RDMA.  Set before anything is started, then
 * constant.
 */
#ifndef WEFT_TRANSPORTS_RDMA_SETTINGS_H
#define WEFT_TRANSPORTS_RDMA_SETTINGS_H

#include <stdbool.h>

extern struct weft_rdma_listen_settings {
	bool plaintext; /* those who may have regions may have them in plaintext */
} weft_rdma_listen_settings;

#endif
