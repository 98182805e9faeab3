/* Where lanes belong.  Functions without state. */
#include "fabric/locality.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/util.h"

int weft_topology_load(hwloc_topology_t *ret)
{
	hwloc_topology_t topology;

	if (hwloc_topology_init(&topology) < 0)
		return -ENOMEM;
	hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
	if (hwloc_topology_load(topology) < 0) {
		int r = errno ? -errno : -EIO;

		hwloc_topology_destroy(topology);
		return r;
	}
	*ret = topology;
	return 0;
}

hwloc_obj_t weft_device_home(hwloc_topology_t topology, const char *device)
{
	hwloc_obj_t osdev = NULL;

	while ((osdev = hwloc_get_next_osdev(topology, osdev)))
		if (osdev->name && strcmp(osdev->name, device) == 0)
			return hwloc_get_non_io_ancestor_obj(topology, osdev);
	return NULL;
}

/* The smallest node around the processor; of equals the first: memory that is only fast, or only far, comes later. */
static int node_of(hwloc_topology_t topology, hwloc_obj_t pu)
{
	hwloc_obj_t node = NULL, best = NULL;

	while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)))
		if (hwloc_bitmap_isincluded(pu->cpuset, node->cpuset) &&
			(!best || hwloc_bitmap_weight(node->cpuset) < hwloc_bitmap_weight(best->cpuset)))
			best = node;
	return best ? (int)best->os_index : -1;
}

static enum weft_nearness nearness_of(hwloc_topology_t topology, hwloc_obj_t home, hwloc_obj_t pu)
{
	hwloc_obj_t package;

	if (!home || hwloc_bitmap_isincluded(pu->cpuset, home->cpuset))
		return WEFT_NEAR_NODE;
	package = home->type == HWLOC_OBJ_PACKAGE ? home : hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_PACKAGE, home);
	return package && hwloc_bitmap_isincluded(pu->cpuset, package->cpuset) ? WEFT_NEAR_PACKAGE : WEFT_FAR;
}

/* Of the threads of its core the first is 0. */
static unsigned thread_of(hwloc_topology_t topology, hwloc_obj_t pu)
{
	hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, pu), one = NULL;
	unsigned n = 0;

	if (!core)
		return 0;
	while ((one = hwloc_get_next_obj_inside_cpuset_by_type(topology, core->cpuset, HWLOC_OBJ_PU, one)) && one != pu)
		n++;
	return n;
}

struct candidate {
	struct weft_place place;
	unsigned rank, thread, order;
};

static int by_rank(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	if (x->thread != y->thread)
		return x->thread < y->thread ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

/* First threads near, second threads near, then the same far away. */
static unsigned rank_of(enum weft_nearness nearness, unsigned thread)
{
	static const unsigned ranks[][2] = {[WEFT_NEAR_NODE] = {0, 2}, [WEFT_NEAR_PACKAGE] = {1, 3}, [WEFT_FAR] = {4, 5}};

	return ranks[nearness][thread > 0];
}

int weft_places(hwloc_topology_t topology, const char *device, unsigned nr, struct weft_place *ret)
{
	hwloc_obj_t home = device ? weft_device_home(topology, device) : NULL, pu = NULL;
	unsigned nr_pus = (unsigned)hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU), n = 0;
	WEFT_CLEANUP_FREE struct candidate *all = calloc(nr_pus + 1, sizeof(*all));
	int r = device && !home ? -ENODEV : 0;

	if (!all)
		return -ENOMEM;
	/* The whole machine is no place. */
	if (home && home->type == HWLOC_OBJ_MACHINE) {
		home = NULL;
		r = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) > 1 ? -ENODATA : 0;
	}
	while (n < nr_pus && (pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu))) {
		struct candidate *c = &all[n];

		c->order = n++;
		c->thread = thread_of(topology, pu);
		c->place = (struct weft_place){.cpu = pu->os_index, .node = node_of(topology, pu),
			.nearness = nearness_of(topology, home, pu), .shares_core = c->thread > 0};
		c->rank = rank_of(c->place.nearness, c->thread);
	}
	qsort(all, n, sizeof(*all), by_rank);
	for (unsigned i = 0; i < nr; i++) {
		ret[i] = all[i % n].place;
		ret[i].shares_core |= i >= n;
	}
	return r;
}
