/* SPDX-License-Identifier: MIT */
/* Settings of all transports over RDMA. */
#include "transports/rdma/settings.h"

struct weft_rdma_listen_settings weft_rdma_listen_settings;
