/* SPDX-License-Identifier: MIT */
/* Where lanes belong.  Functions without state. */
#include "fabric/machine/locality.h"

#include <errno.h>
#include <glob.h>
#include <hwloc/linux.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool weft_has_numa_nodes(void)
{
	char nodes[256] = "";
	FILE *f = fopen("/sys/devices/system/node/has_cpu", "re");

	if (!f)
		return false;
	if (!fgets(nodes, sizeof(nodes), f))
		nodes[0] = '\0';
	fclose(f);
	return strpbrk(nodes, ",-"); /* "0", "0-1", "0,2" */
}

int weft_topology_load(bool devices, hwloc_topology_t *ret)
{
	hwloc_topology_t topology;

	if (hwloc_topology_init(&topology) < 0)
		return -ENOMEM;
	hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
	if (devices) {
		hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
	} else {
		/* Without the component that asks each processor in turn, on that processor. */
		hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
			"x86");
		hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
		hwloc_topology_set_type_filter(topology, HWLOC_OBJ_PACKAGE,
			HWLOC_TYPE_FILTER_KEEP_ALL);
		hwloc_topology_set_type_filter(topology, HWLOC_OBJ_GROUP,
			HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
	}
	if (hwloc_topology_load(topology) < 0) {
		int r = errno ? -errno : -EIO;

		hwloc_topology_destroy(topology);
		return r;
	}
	*ret = topology;
	return 0;
}

/*
 * Adds the processors near a device, as its PCI device says, or the one that it is a function of.
 */
static void add_near_cpus(const char *device, hwloc_bitmap_t one, hwloc_bitmap_t cpus)
{
	char path[PATH_MAX + sizeof("/local_cpus")], *end;

	if (!realpath(device, path))
		return;
	for (; (end = strrchr(path, '/')); *end = '\0') {
		size_t len = strlen(path);

		strcpy(path + len, "/local_cpus");
		if (hwloc_linux_read_path_as_cpumask(path, one) == 0) {
			hwloc_bitmap_or(cpus, cpus, one);
			return;
		}
		path[len] = '\0';
	}
}

/* Reads the files that hwloc reads for this.  A VLAN or a bond is where the cards below it are. */
static hwloc_obj_t home_in_sysfs(hwloc_topology_t topology, const char *device)
{
	hwloc_bitmap_t cpus = hwloc_bitmap_alloc(), one = hwloc_bitmap_alloc();
	hwloc_obj_t home = NULL;
	char pattern[256];
	glob_t found;

	snprintf(pattern, sizeof(pattern),
		"/sys/class/{net/%s,net/%s/lower_*,infiniband/%s}/device", device, device, device);
	if (cpus && one && glob(pattern, GLOB_BRACE, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++)
			add_near_cpus(found.gl_pathv[i], one, cpus);
		globfree(&found);
		hwloc_bitmap_and(cpus, cpus, hwloc_topology_get_topology_cpuset(topology));
		if (!hwloc_bitmap_iszero(cpus))
			home = hwloc_get_obj_covering_cpuset(topology, cpus);
	}
	hwloc_bitmap_free(cpus);
	hwloc_bitmap_free(one);
	return home;
}

hwloc_obj_t weft_device_home(hwloc_topology_t topology, const char *device)
{
	hwloc_obj_t osdev = NULL;

	while ((osdev = hwloc_get_next_osdev(topology, osdev)))
		if (osdev->name && strcmp(osdev->name, device) == 0)
			return hwloc_get_non_io_ancestor_obj(topology, osdev);
	return hwloc_topology_is_thissystem(topology) ? home_in_sysfs(topology, device) : NULL;
}

int weft_near(hwloc_topology_t topology, const char *device, unsigned nr,
	hwloc_const_bitmap_t allowed, hwloc_bitmap_t ret_cpus, hwloc_bitmap_t ret_nodes)
{
	hwloc_obj_t root = hwloc_get_root_obj(topology), home = weft_device_home(topology, device);

	if (!home)
		return -ENODEV;
	if (hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) <= 1)
		home = root;
	else if (hwloc_bitmap_isequal(home->cpuset, root->cpuset))
		return -ENODATA;
	if (!hwloc_bitmap_intersects(home->cpuset, allowed))
		return -EACCES;
	hwloc_bitmap_copy(ret_nodes, home->nodeset);
	hwloc_bitmap_and(ret_cpus, home->cpuset, allowed);
	while (hwloc_bitmap_weight(ret_cpus) < (int)nr && home->type != HWLOC_OBJ_PACKAGE &&
		home->parent) {
		home = home->parent;
		hwloc_bitmap_and(ret_cpus, home->cpuset, allowed);
	}
	return 0;
}

void weft_near_why(int result, const char *device, char *buf, size_t len)
{
	if (result == -ENODEV)
		snprintf(buf, len, "nothing says what %s hangs on", device);
	else if (result == -ENODATA)
		snprintf(buf, len, "the machine does not say where %s is", device);
	else if (result == -EACCES)
		snprintf(buf, len, "this process may not run near %s", device);
	else
		snprintf(buf, len, "hwloc cannot tell the machine's topology: %s",
			strerror(-result));
}
