/* SPDX-License-Identifier: MIT */
/*
 * weft doctor --topology: packages, NUMA nodes, the network devices on them, and where lanes would
 * go.  Main thread.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fabric/machine/locality.h"
#include "fabric/main/doctor.h"
#include "fabric/base/util.h"

enum { LANES = 4 }; /* as many as weft attach has at most unless told */

static bool is_network(hwloc_obj_t osdev)
{
	return osdev->name && (osdev->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK ||
				      osdev->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS);
}

static const char *kind_of(hwloc_obj_t osdev)
{
	return osdev->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS ? "RDMA device"
								      : "network interface";
}

/* "0-7,16-23" */
static void cpus_text(hwloc_obj_t obj, char *text, size_t len)
{
	hwloc_bitmap_list_snprintf(text, len, obj->cpuset);
}

static void print_devices(hwloc_topology_t topology, hwloc_obj_t home, int depth)
{
	hwloc_obj_t osdev = NULL;

	while ((osdev = hwloc_get_next_osdev(topology, osdev)))
		if (is_network(osdev) && hwloc_get_non_io_ancestor_obj(topology, osdev) == home)
			printf("%*s%s %s\n", depth, "", kind_of(osdev), osdev->name);
}

/*
 * Prints the objects that say something about distance; others are not printed, but their children
 * are.
 */
static void print_tree(hwloc_topology_t topology, hwloc_obj_t obj, int depth)
{
	char cpus[512], size[32];
	int inner = depth;

	cpus_text(obj, cpus, sizeof(cpus));
	if (obj->type == HWLOC_OBJ_MACHINE) {
		printf("machine: processors %s\n", cpus);
		inner = depth + 2;
	} else if (obj->type == HWLOC_OBJ_PACKAGE) {
		printf("%*spackage %u: processors %s\n", depth, "", obj->os_index, cpus);
		inner = depth + 2;
	}
	for (hwloc_obj_t node = obj->memory_first_child; node; node = node->next_sibling) {
		if (node->type != HWLOC_OBJ_NUMANODE)
			continue;
		printf("%*sNUMA node %u: %s, processors %s\n", inner, "", node->os_index,
			weft_format_size(node->attr->numanode.local_memory, size, sizeof(size)),
			cpus);
	}
	print_devices(topology, obj, obj->memory_first_child ? inner + 2 : inner);
	for (hwloc_obj_t child = obj->first_child; child; child = child->next_sibling)
		print_tree(topology, child, inner);
}

/* Lanes, placed as weft attach would place them from this shell. */
struct lanes {
	int r;
	char nodes[256], cpus[512], why[256];
};

static void find_lanes(hwloc_topology_t topology, const char *device, struct lanes *ret)
{
	hwloc_bitmap_t allowed = hwloc_bitmap_alloc_full(), cpus = hwloc_bitmap_alloc(),
		       nodes = hwloc_bitmap_alloc();

	if (hwloc_topology_is_thissystem(topology))
		hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_THREAD);
	ret->r = weft_near(topology, device, LANES, allowed, cpus, nodes);
	hwloc_bitmap_list_snprintf(ret->nodes, sizeof(ret->nodes), nodes);
	hwloc_bitmap_list_snprintf(ret->cpus, sizeof(ret->cpus), cpus);
	weft_near_why(ret->r, device, ret->why, sizeof(ret->why));
	hwloc_bitmap_free(allowed);
	hwloc_bitmap_free(cpus);
	hwloc_bitmap_free(nodes);
}

static void print_lanes(hwloc_topology_t topology, const char *device)
{
	struct lanes lanes;

	find_lanes(topology, device, &lanes);
	if (lanes.r < 0)
		printf("lanes for %s belong nowhere in particular: %s\n", device, lanes.why);
	else
		printf("lanes for %s belong on node%s %s, processor%s %s\n", device,
			strpbrk(lanes.nodes, ",-") ? "s" : "", lanes.nodes,
			strpbrk(lanes.cpus, ",-") ? "s" : "", lanes.cpus);
}

static json_t *device_json(hwloc_topology_t topology, hwloc_obj_t osdev)
{
	struct lanes lanes;

	find_lanes(topology, osdev->name, &lanes);
	json_t *json = json_pack("{s:s, s:s}", "name", osdev->name, "kind", kind_of(osdev));
	if (lanes.r < 0)
		json_object_set_new(json, "lanes", json_pack("{s:s}", "why", lanes.why));
	else
		json_object_set_new(json, "lanes",
			json_pack("{s:s, s:s}", "nodes", lanes.nodes, "processors", lanes.cpus));
	return json;
}

int doctor_topology(bool as_json)
{
	hwloc_topology_t topology;
	hwloc_obj_t osdev = NULL;
	int r = weft_topology_load(true, &topology);

	if (r < 0) {
		fprintf(stderr, "weft-doctor: hwloc cannot tell the machine's topology: %s\n",
			strerror(-r));
		return 1;
	}
	if (as_json) {
		json_t *devices = json_array();

		while ((osdev = hwloc_get_next_osdev(topology, osdev)))
			if (is_network(osdev))
				json_array_append_new(devices, device_json(topology, osdev));
		json_t *json = json_pack("{s:i, s:i, s:i, s:i, s:o}", "packages",
			hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE), "nodes",
			hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE), "cores",
			hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE), "processors",
			hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU), "devices", devices);
		json_dumpf(json, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(json);
	} else {
		print_tree(topology, hwloc_get_root_obj(topology), 0);
		while ((osdev = hwloc_get_next_osdev(topology, osdev)))
			if (is_network(osdev))
				print_lanes(topology, osdev->name);
	}
	hwloc_topology_destroy(topology);
	return 0;
}
