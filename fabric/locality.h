/*
 * Where lanes belong: near the network device that they use.  A function of a topology and a device's name, so that machines
 * nobody has here can be tried.  No state, any thread.
 */
#ifndef WEFT_FABRIC_LOCALITY_H
#define WEFT_FABRIC_LOCALITY_H

#include <hwloc.h>
#include <stdbool.h>

enum weft_nearness {
	WEFT_NEAR_NODE,    /* the device's own NUMA node, or nodes */
	WEFT_NEAR_PACKAGE, /* another node of its package (sub-NUMA clusters) */
	WEFT_FAR,          /* another package */
};

struct weft_place {
	unsigned cpu; /* the processor, by the number that the kernel gave it */
	int node;     /* its NUMA node, likewise, for the lane's buffers; -1: the machine has none */
	enum weft_nearness nearness;
	bool shares_core; /* an earlier place of these has the core */
};

/* Loads this machine's topology with its network devices.  0, or -errno. */
int weft_topology_load(hwloc_topology_t *ret);

/*
 * Places for nr lanes, best first, the same each time.  A core each as long as there are any near; then the second threads of
 * near cores, which share a core but not the way between the packages; then other packages; then from the beginning again.
 * device: an interface or RDMA device ("eth0", "mlx5_0"); NULL: none in particular, all is near.
 * 0; -ENODEV: the topology has no such device; -ENODATA: it does not say where that is, which is so in most virtual
 * machines (*ret is filled as if device were NULL, in both cases).
 */
int weft_places(hwloc_topology_t topology, const char *device, unsigned nr, struct weft_place *ret);

/* The normal object that the device hangs on; NULL: no such device. */
hwloc_obj_t weft_device_home(hwloc_topology_t topology, const char *device);

#endif
