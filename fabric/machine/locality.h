/* SPDX-License-Identifier: MIT */
/*
 * Where lanes belong: near the network device that they use.  Functions of a topology and a
 * device's name, so that tests can try machines that nobody has here.  No state, any thread.
 */
#ifndef WEFT_FABRIC_MACHINE_LOCALITY_H
#define WEFT_FABRIC_MACHINE_LOCALITY_H

#include <hwloc.h>
#include <stdbool.h>

/*
 * Whether processors of this machine are on more than one NUMA node; reads one file.  If not, there
 * is nothing to choose, and no topology to load.
 */
bool weft_has_numa_nodes(void);

/*
 * Loads this machine's topology: all of it, with processors that this process may not use.
 * devices: with the network devices, which takes much longer; weft_near() does not need them.  0,
 * or -errno.
 */
int weft_topology_load(bool devices, hwloc_topology_t *ret);

/*
 * Where nr lanes belong that use a device ("eth0", "mlx5_0").  ret_cpus: all processors of the
 * device's NUMA node (or nodes), and more of its package while those are fewer than the lanes; only
 * processors in allowed.  ret_nodes: the device's nodes, for buffers.  On a machine with one node
 * both have everything.  The caller makes both before, and frees them.  0; -ENODEV: nobody says
 * what the device hangs on; -ENODATA: the machine does not say where that is, as in most virtual
 * machines; -EACCES: none of the processors is allowed.
 */
int weft_near(hwloc_topology_t topology, const char *device, unsigned nr,
	hwloc_const_bitmap_t allowed, hwloc_bitmap_t ret_cpus, hwloc_bitmap_t ret_nodes);
/* The error for people, as in "lanes are not placed: …"; there is no text for 0. */
void weft_near_why(int result, const char *device, char *buf, size_t len);

/* The normal object that the device hangs on; NULL: it is not known. */
hwloc_obj_t weft_device_home(hwloc_topology_t topology, const char *device);

#endif
