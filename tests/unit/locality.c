/* SPDX-License-Identifier: MIT */
/*
 * Where lanes go on machines that nobody has here: synthetic topologies, into whose XML network
 * devices are put; two sockets, sub-NUMA clusters, devices on either, one that does not say where
 * it is.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/machine/locality.h"
#include "fabric/machine/netdev.h"
#include "fabric/base/util.h"

static const char device_xml[] =
	"<object type=\"Bridge\" gp_index=\"%u\" bridge_type=\"0-1\" depth=\"0\" "
	"bridge_pci=\"0000:[%02x-%02x]\">"
	"<object type=\"PCIDev\" gp_index=\"%u\" pci_busid=\"0000:%02x:00.0\" pci_type=\"0207 "
	"[15b3:1017] [15b3:0007] 00\" pci_link_speed=\"15.75\">"
	"<object type=\"OSDev\" gp_index=\"%u\" name=\"%s\" osdev_type=\"3\"/></object></object>";

/*
 * The topology with a device below the nth object of a type ("Package", "Group", …), as the kernel
 * would tell it.  NULL home: without one.
 */
static hwloc_topology_t make(const char *synthetic, const char *home, unsigned nth)
{
	static unsigned id = 100000;
	hwloc_topology_t plain, ret;
	char *xml, *full, head[64], device[1024];
	int len;

	assert_int_equal(hwloc_topology_init(&plain), 0);
	assert_int_equal(hwloc_topology_set_synthetic(plain, synthetic), 0);
	assert_int_equal(hwloc_topology_load(plain), 0);
	assert_int_equal(hwloc_topology_export_xmlbuffer(plain, &xml, &len, 0), 0);
	if (home) {
		snprintf(head, sizeof(head), "<object type=\"%s\"", home);
		char *at = xml;

		for (unsigned i = 0; i <= nth; i++, at++) {
			at = strstr(at, head);
			assert_non_null(at);
		}
		at = strstr(at, "<object"); /* its first child */
		snprintf(device, sizeof(device), device_xml, id, id % 200 + 1, id % 200 + 1, id + 1,
			id % 200 + 1, id + 2, "mlx5_0");
		id += 3;
		assert_true(asprintf(&full, "%.*s%s%s", (int)(at - xml), xml, device, at) > 0);
	} else {
		full = strdup(xml);
	}
	hwloc_free_xmlbuffer(plain, xml);
	hwloc_topology_destroy(plain);
	assert_int_equal(hwloc_topology_init(&ret), 0);
	assert_int_equal(hwloc_topology_set_io_types_filter(ret, HWLOC_TYPE_FILTER_KEEP_ALL), 0);
	assert_int_equal(hwloc_topology_set_xmlbuffer(ret, full, (int)strlen(full) + 1), 0);
	assert_int_equal(hwloc_topology_load(ret), 0);
	free(full);
	return ret;
}

/*
 * Where nr lanes go for the device of make()'s topology that may run on `allowed` ("" is all):
 * "nodes/processors", or the error's number.
 */
static const char *near(const char *synthetic, const char *home, unsigned nth, unsigned nr,
	const char *allowed)
{
	hwloc_bitmap_t may = hwloc_bitmap_alloc_full(), cpus = hwloc_bitmap_alloc(),
		       nodes = hwloc_bitmap_alloc();
	hwloc_topology_t topology = make(synthetic, home, nth);
	static char text[256];

	if (allowed[0])
		assert_int_equal(hwloc_bitmap_list_sscanf(may, allowed), 0);
	int r = weft_near(topology, "mlx5_0", nr, may, cpus, nodes);
	if (r < 0) {
		assert_true(hwloc_bitmap_iszero(cpus) && hwloc_bitmap_iszero(nodes));
		snprintf(text, sizeof(text), "%d", -r);
	} else {
		int len = hwloc_bitmap_list_snprintf(text, sizeof(text), nodes);

		text[len++] = '/';
		hwloc_bitmap_list_snprintf(text + len, sizeof(text) - (size_t)len, cpus);
	}
	hwloc_bitmap_free(may);
	hwloc_bitmap_free(cpus);
	hwloc_bitmap_free(nodes);
	hwloc_topology_destroy(topology);
	return text;
}

#define ASSERT_ERROR(text, error) assert_int_equal(atoi(text), error)

/* 2 packages of 4 cores with 2 threads; the processors of package 1 are 8 to 15. */
#define TWO_SOCKETS "pack:2 [numa] core:4 pu:2"

static void two_sockets_device_on_the_second(void **state)
{
	assert_string_equal(near(TWO_SOCKETS, "Package", 1, 4, ""), "1/8-15");
	assert_string_equal(near(TWO_SOCKETS, "Package", 1, 1, ""), "1/8-15");
}

static void two_sockets_device_on_the_first(void **state)
{
	assert_string_equal(near(TWO_SOCKETS, "Package", 0, 4, ""), "0/0-7");
}

static void more_lanes_than_processors_stay_in_their_package(void **state)
{
	assert_string_equal(near(TWO_SOCKETS, "Package", 1, 20, ""), "1/8-15");
}

/*
 * 2 packages of 4 clusters of 2 cores, a NUMA node each: package 1 has nodes 4 to 7; node 6 has
 * processors 12 and 13.
 */
#define SUB_NUMA "pack:2 group:4 [numa] core:2 pu:1"

static void sub_numa_clusters_device_on_one_of_them(void **state)
{
	assert_string_equal(near(SUB_NUMA, "Group", 6, 2, ""), "6/12-13");
}

static void lanes_that_a_cluster_has_no_room_for_use_its_package(void **state)
{
	assert_string_equal(near(SUB_NUMA, "Group", 6, 3, ""), "6/8-15");
	assert_string_equal(near(SUB_NUMA, "Group", 6, 9, ""), "6/8-15");
	assert_string_equal(near(SUB_NUMA, "Group", 6, 2, "0-10,12"), "6/8-10,12");
}

static void sub_numa_clusters_device_on_the_package(void **state)
{
	assert_string_equal(near(SUB_NUMA, "Package", 1, 4, ""), "4-7/8-15");
}

static void one_node_is_near_everything(void **state)
{
	assert_string_equal(near("pack:1 [numa] core:4 pu:1", "Package", 0, 4, ""), "0/0-3");
	assert_string_equal(near("pack:1 [numa] core:2 pu:1", "Machine", 0, 4, ""), "0/0-1");
}

static void a_device_that_does_not_say_where_it_is(void **state)
{
	ASSERT_ERROR(near(TWO_SOCKETS, "Machine", 0, 4, ""), ENODATA);
	/* One package that has both nodes is all of the machine, too. */
	ASSERT_ERROR(near("pack:1 group:2 [numa] core:2 pu:1", "Package", 0, 4, ""), ENODATA);
}

static void no_such_device(void **state)
{
	ASSERT_ERROR(near(TWO_SOCKETS, NULL, 0, 4, ""), ENODEV);
}

static void only_processors_that_may_be_used(void **state)
{
	assert_string_equal(near(TWO_SOCKETS, "Package", 1, 4, "2-3,12-13"), "1/12-13");
	assert_string_equal(near(TWO_SOCKETS, "Package", 1, 1, "0-9"), "1/8-9");
	ASSERT_ERROR(near(TWO_SOCKETS, "Package", 1, 4, "0-7"), EACCES);
}

/* The short way finds each device of this machine where the whole topology has it. */
static void devices_of_this_machine_are_where_hwloc_says(void **state)
{
	hwloc_topology_t whole, quick;
	hwloc_obj_t osdev = NULL;

	assert_int_equal(weft_topology_load(true, &whole), 0);
	assert_int_equal(weft_topology_load(false, &quick), 0);
	assert_true(hwloc_bitmap_isequal(hwloc_topology_get_topology_cpuset(whole),
		hwloc_topology_get_topology_cpuset(quick)));
	while ((osdev = hwloc_get_next_osdev(whole, osdev))) {
		if (osdev->attr->osdev.type != HWLOC_OBJ_OSDEV_NETWORK)
			continue;
		hwloc_obj_t home = weft_device_home(quick, osdev->name);

		assert_non_null(home);
		assert_true(hwloc_bitmap_isequal(home->cpuset,
			hwloc_get_non_io_ancestor_obj(whole, osdev)->cpuset));
	}
	assert_null(weft_device_home(quick, "lo"));
	assert_null(weft_device_home(quick, "no-such"));
	hwloc_topology_destroy(whole);
	hwloc_topology_destroy(quick);
}

static void the_device_of_a_connection(void **state)
{
	char netdev[64], rdma_device[64];

	assert_true(
		weft_netdev_of_path("tcp 127.0.0.1:50000 -> 127.0.0.1:10809", netdev, rdma_device));
	assert_string_equal(netdev, "lo");
	assert_string_equal(rdma_device, "");
	assert_false(weft_netdev_of_path("rdma mlx5_0 gid 3 127.0.0.1:50000 -> 192.0.2.1:10809",
		netdev, rdma_device));
	assert_string_equal(netdev, "lo");
	assert_string_equal(rdma_device, "mlx5_0");
	assert_false(weft_netdev_of_path("tcp [fe80::1%eth9]:50000 -> [fe80::2%eth9]:10809", netdev,
		rdma_device));
	assert_string_equal(netdev, "");
	assert_false(weft_netdev_of_path("unix /run/donor.sock", netdev, rdma_device));
	assert_string_equal(netdev, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_sockets_device_on_the_second),
		cmocka_unit_test(two_sockets_device_on_the_first),
		cmocka_unit_test(more_lanes_than_processors_stay_in_their_package),
		cmocka_unit_test(sub_numa_clusters_device_on_one_of_them),
		cmocka_unit_test(lanes_that_a_cluster_has_no_room_for_use_its_package),
		cmocka_unit_test(sub_numa_clusters_device_on_the_package),
		cmocka_unit_test(one_node_is_near_everything),
		cmocka_unit_test(a_device_that_does_not_say_where_it_is),
		cmocka_unit_test(no_such_device),
		cmocka_unit_test(only_processors_that_may_be_used),
		cmocka_unit_test(devices_of_this_machine_are_where_hwloc_says),
		cmocka_unit_test(the_device_of_a_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
