/* SPDX-License-Identifier: MIT */
/* Which network device a connection goes through.  Functions without state, any thread. */
#ifndef WEFT_FABRIC_MACHINE_NETDEV_H
#define WEFT_FABRIC_MACHINE_NETDEV_H

#include <stdbool.h>

/*
 * netdev: the interface that has the first address of a tp_info.path such as "tcp 10.0.0.1:52044 ->
 * 10.0.0.2:10809".  rdma_device: the RDMA device that the path names.  "": none.  True if the
 * second address is this machine's as well, so that TCP goes through no interface.
 */
bool weft_netdev_of_path(const char *path, char netdev[64], char rdma_device[64]);

#endif
