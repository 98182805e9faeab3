/* SPDX-License-Identifier: MIT */
/*
 * Where lanes run.  On a machine with one NUMA node nothing is looked for or loaded.  Each lane
 * binds itself.
 */
#include "nbd-bridge/bridge/place.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabric/base/log.h"
#include "fabric/machine/locality.h"
#include "fabric/machine/netdev.h"

static const char no_card[] = "the connection goes through no network card";

struct placing {
	hwloc_topology_t topology;
	hwloc_bitmap_t allowed, cpus, nodes;
	bool memory; /* false: the user has set a memory policy, which stays */
	struct weft_error *err;
	int r;
};

static void take_place(struct bridge_lane *lane, void *ctx)
{
	struct placing *p = ctx;

	if (hwloc_set_cpubind(p->topology, p->cpus, HWLOC_CPUBIND_THREAD) < 0)
		p->r = -errno;
	/* Not strictly: when the node is full, another node's memory is used. */
	if (p->memory)
		hwloc_set_membind(p->topology, p->nodes, HWLOC_MEMBIND_BIND,
			HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
}

static void remake_arena(struct bridge_lane *lane, void *ctx)
{
	struct placing *p = ctx;

	if (p->r == 0)
		p->r = lane_remake_arena(lane, p->err);
}

static void on_each_lane(struct bridge_lanes *lanes,
	void (*fn)(struct bridge_lane *lane, void *ctx), struct placing *p)
{
	for (unsigned i = 0; i < lanes->nr; i++) {
		assert(lane_is_running(lanes->lane[i]));
		bridge_lane_run(lanes->lane[i], fn, p);
	}
}

static void copy_path(struct bridge_lane *lane, void *ctx)
{
	const struct bridge_link *link = lane_link(lane, 0);

	memcpy(ctx, link->path, sizeof(link->path));
}

/* Finds the cards that the connection goes through; true: they have changed. */
static bool look_at_connection(struct bridge_place *place, struct bridge_lanes *lanes)
{
	char path[sizeof(((struct bridge_link *)0)->path)], netdev[64], rdma_device[64];

	bridge_lane_run(lanes->lane[0], copy_path, path);
	/* RDMA goes through its card even to this machine itself. */
	if (weft_netdev_of_path(path, netdev, rdma_device) && !rdma_device[0])
		netdev[0] = '\0';
	if (strcmp(netdev, place->netdev) == 0 && strcmp(rdma_device, place->rdma_device) == 0)
		return false;
	strcpy(place->netdev, netdev);
	strcpy(place->rdma_device, rdma_device);
	return true;
}

/* For an RDMA device in software only the interface says where it is. */
static int find_place(struct bridge_place *place, unsigned nr_lanes, struct placing *p)
{
	const char *devices[] = {place->rdma_device, place->netdev};
	int r = -ENODEV;

	snprintf(place->why, sizeof(place->why), "%s", no_card);
	for (unsigned i = 0; i < WEFT_ARRAY_LEN(devices) && (r == -ENODEV || r == -ENODATA); i++) {
		if (!devices[i][0])
			continue;
		r = weft_near(p->topology, devices[i], nr_lanes, p->allowed, p->cpus, p->nodes);
		snprintf(place->device, sizeof(place->device), "%s", devices[i]);
		if (r < 0)
			weft_near_why(r, place->device, place->why, sizeof(place->why));
	}
	hwloc_bitmap_list_snprintf(place->nodes, sizeof(place->nodes), p->nodes);
	hwloc_bitmap_list_snprintf(place->cpus, sizeof(place->cpus), p->cpus);
	return r;
}

static bool has_default_policy(const struct placing *p)
{
	hwloc_membind_policy_t policy;

	return hwloc_get_membind(p->topology, p->nodes, &policy,
		       HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET) == 0 &&
		policy == HWLOC_MEMBIND_FIRSTTOUCH;
}

/* This thread may use the processors that the user allows to the process. */
static void place_lanes(struct bridge_place *place, struct bridge_lanes *lanes, struct placing *p)
{
	bool was_bound = place->bound;

	p->memory = has_default_policy(p);
	hwloc_bitmap_zero(p->nodes);
	hwloc_get_cpubind(p->topology, p->allowed, HWLOC_CPUBIND_THREAD);
	p->r = find_place(place, lanes->nr, p);
	place->bound = p->r == 0;
	if (place->bound) {
		on_each_lane(lanes, take_place, p);
		place->bound = p->r == 0;
		if (p->r < 0)
			snprintf(place->why, sizeof(place->why),
				"they cannot be bound to processors: %s", strerror(-p->r));
	} else if (was_bound) {
		/* The earlier card means nothing any more. */
		p->memory = false;
		hwloc_bitmap_copy(p->cpus, p->allowed);
		on_each_lane(lanes, take_place, p);
	}
}

static int move(struct bridge_place *place, struct bridge_lanes *lanes, bool buffers,
	struct weft_error *err)
{
	struct placing p = {.err = err};
	int r = weft_topology_load(false, &p.topology);

	if (r < 0) {
		weft_near_why(r, "", place->why, sizeof(place->why));
		return 0;
	}
	p.allowed = hwloc_bitmap_alloc_full();
	p.cpus = hwloc_bitmap_alloc();
	p.nodes = hwloc_bitmap_alloc();
	if (p.allowed && p.cpus && p.nodes)
		place_lanes(place, lanes, &p);
	if (place->bound && buffers)
		on_each_lane(lanes, remake_arena, &p);
	hwloc_bitmap_free(p.allowed);
	hwloc_bitmap_free(p.cpus);
	hwloc_bitmap_free(p.nodes);
	hwloc_topology_destroy(p.topology);
	weft_debug("lanes %s: %s", place->bound ? "are bound" : "run anywhere", place->why);
	return place->bound ? p.r : 0;
}

int place_first(struct bridge_place *place, struct bridge_lanes *lanes, struct weft_error *err)
{
	/* The calling threads decide where they run. */
	place->one_node = lanes->driven || !weft_has_numa_nodes();
	if (place->one_node) {
		snprintf(place->why, sizeof(place->why), "%s",
			lanes->driven ? "whoever calls runs them"
				      : "the machine has one NUMA node");
		return 0;
	}
	snprintf(place->why, sizeof(place->why), "%s", no_card);
	return look_at_connection(place, lanes) ? move(place, lanes, true, err) : 0;
}

void place_again(struct bridge_place *place, struct bridge_lanes *lanes)
{
	if (!place->one_node && look_at_connection(place, lanes))
		move(place, lanes, false, NULL);
}

json_t *place_json(const struct bridge_place *place)
{
	if (!place->bound)
		return json_pack("{s:s}", "why", place->why);
	return json_pack("{s:s, s:s, s:s}", "device", place->device, "nodes", place->nodes,
		"processors", place->cpus);
}
