/*
 * Where lanes go on machines that nobody has here: synthetic topologies, into whose XML network devices are put; two sockets, sub-NUMA
 * clusters, devices on either, one that does not say where it is.
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

#include "fabric/locality.h"
#include "fabric/util.h"

enum { MAX_LANES = 80 };

static struct weft_place places[MAX_LANES];

static const char device_xml[] =
	"<object type=\"Bridge\" gp_index=\"%u\" bridge_type=\"0-1\" depth=\"0\" bridge_pci=\"0000:[%02x-%02x]\">"
	"<object type=\"PCIDev\" gp_index=\"%u\" pci_busid=\"0000:%02x:00.0\" pci_type=\"0207 [15b3:1017] [15b3:0007] 00\" pci_link_speed=\"15.75\">"
	"<object type=\"OSDev\" gp_index=\"%u\" name=\"%s\" osdev_type=\"3\"/></object></object>";

/*
 * The topology with a device below the nth object of a type ("Package", "Group", …), as the kernel would tell it.
 * NULL home: without one.
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
		snprintf(device, sizeof(device), device_xml, id, id % 200 + 1, id % 200 + 1, id + 1, id % 200 + 1, id + 2, "mlx5_0");
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

static void assert_cpus(unsigned nr, const unsigned *want)
{
	for (unsigned i = 0; i < nr; i++)
		if (places[i].cpu != want[i])
			fail_msg("lane %u is on processor %u, not %u", i, places[i].cpu, want[i]);
}
#define ASSERT_CPUS(...) \
	assert_cpus(sizeof((const unsigned[]){__VA_ARGS__}) / sizeof(unsigned), (const unsigned[]){__VA_ARGS__})

/* 2 packages of 4 cores with 2 threads; the processors of package 1 are 8 to 15. */
#define TWO_SOCKETS "pack:2 [numa] core:4 pu:2"

static void two_sockets_device_on_the_second(void **state)
{
	hwloc_topology_t t = make(TWO_SOCKETS, "Package", 1);

	assert_int_equal(weft_places(t, "mlx5_0", 16, places), 0);
	/* Its cores, their second threads, then the other package. */
	ASSERT_CPUS(8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1, 3, 5, 7);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(places[i].node, i < 8 ? 1 : 0);
		assert_int_equal(places[i].nearness, i < 8 ? WEFT_NEAR_NODE : WEFT_FAR);
		assert_int_equal(places[i].shares_core, (i >= 4 && i < 8) || i >= 12);
	}
	hwloc_topology_destroy(t);
}

static void two_sockets_device_on_the_first(void **state)
{
	hwloc_topology_t t = make(TWO_SOCKETS, "Package", 0);

	assert_int_equal(weft_places(t, "mlx5_0", 6, places), 0);
	ASSERT_CPUS(0, 2, 4, 6, 1, 3);
	hwloc_topology_destroy(t);
}

static void more_lanes_than_processors_begin_again(void **state)
{
	hwloc_topology_t t = make(TWO_SOCKETS, "Package", 1);

	assert_int_equal(weft_places(t, "mlx5_0", 20, places), 0);
	assert_int_equal(places[16].cpu, 8);
	assert_true(places[16].shares_core);
	hwloc_topology_destroy(t);
}

/* 2 packages of 4 clusters of 2 cores, a NUMA node each: package 1 has nodes 4 to 7; node 6 has processors 12 and 13. */
#define SUB_NUMA "pack:2 group:4 [numa] core:2 pu:1"

static void sub_numa_clusters_device_on_one_of_them(void **state)
{
	hwloc_topology_t t = make(SUB_NUMA, "Group", 6);

	assert_int_equal(weft_places(t, "mlx5_0", 10, places), 0);
	/* Its cluster, the rest of its package, then the other one. */
	ASSERT_CPUS(12, 13, 8, 9, 10, 11, 14, 15, 0, 1);
	assert_int_equal(places[0].node, 6);
	assert_int_equal(places[2].node, 4);
	assert_int_equal(places[1].nearness, WEFT_NEAR_NODE);
	assert_int_equal(places[2].nearness, WEFT_NEAR_PACKAGE);
	assert_int_equal(places[7].nearness, WEFT_NEAR_PACKAGE);
	assert_int_equal(places[8].nearness, WEFT_FAR);
	hwloc_topology_destroy(t);
}

static void sub_numa_clusters_device_on_the_package(void **state)
{
	hwloc_topology_t t = make(SUB_NUMA, "Package", 1);

	assert_int_equal(weft_places(t, "mlx5_0", 9, places), 0);
	ASSERT_CPUS(8, 9, 10, 11, 12, 13, 14, 15, 0);
	/* Each lane's buffers are on its own cluster's node. */
	assert_int_equal(places[0].node, 4);
	assert_int_equal(places[2].node, 5);
	assert_int_equal(places[7].node, 7);
	assert_int_equal(places[7].nearness, WEFT_NEAR_NODE);
	hwloc_topology_destroy(t);
}

static void a_second_thread_of_a_near_core_goes_before_another_package(void **state)
{
	hwloc_topology_t t = make("pack:2 group:2 [numa] core:2 pu:2", "Group", 0);

	assert_int_equal(weft_places(t, "mlx5_0", 10, places), 0);
	/* Near cores, cores of the package, their second threads; then far. */
	ASSERT_CPUS(0, 2, 4, 6, 1, 3, 5, 7, 8, 10);
	hwloc_topology_destroy(t);
}

static void one_socket_needs_no_choice(void **state)
{
	hwloc_topology_t t = make("pack:1 [numa] core:4 pu:1", "Package", 0);

	assert_int_equal(weft_places(t, "mlx5_0", 6, places), 0);
	ASSERT_CPUS(0, 1, 2, 3, 0, 1);
	assert_int_equal(places[0].node, 0);
	hwloc_topology_destroy(t);
}

static void a_device_that_does_not_say_where_it_is(void **state)
{
	hwloc_topology_t t = make(TWO_SOCKETS, "Machine", 0);

	assert_int_equal(weft_places(t, "mlx5_0", 3, places), -ENODATA);
	ASSERT_CPUS(0, 2, 4);
	assert_int_equal(places[2].nearness, WEFT_NEAR_NODE);
	hwloc_topology_destroy(t);
	/* With one node there is nothing to know. */
	t = make("pack:1 [numa] core:2 pu:1", "Machine", 0);
	assert_int_equal(weft_places(t, "mlx5_0", 2, places), 0);
	ASSERT_CPUS(0, 1);
	hwloc_topology_destroy(t);
}

static void no_such_device(void **state)
{
	hwloc_topology_t t = make(TWO_SOCKETS, NULL, 0);

	assert_null(weft_device_home(t, "mlx5_0"));
	assert_int_equal(weft_places(t, "mlx5_0", 4, places), -ENODEV);
	ASSERT_CPUS(0, 2, 4, 6);
	assert_int_equal(weft_places(t, NULL, 4, places), 0);
	ASSERT_CPUS(0, 2, 4, 6);
	hwloc_topology_destroy(t);
}

static void only_processors_that_may_be_used(void **state)
{
	hwloc_topology_t t = make(TWO_SOCKETS, "Package", 1);
	hwloc_bitmap_t allowed = hwloc_bitmap_alloc();

	/* A cgroup that leaves one core of each package. */
	hwloc_bitmap_set_range(allowed, 2, 3);
	hwloc_bitmap_set_range(allowed, 12, 13);
	assert_int_equal(hwloc_topology_restrict(t, allowed, 0), 0);
	assert_int_equal(weft_places(t, "mlx5_0", 4, places), 0);
	ASSERT_CPUS(12, 13, 2, 3);
	hwloc_bitmap_free(allowed);
	hwloc_topology_destroy(t);
}

static void this_machine_has_places(void **state)
{
	hwloc_topology_t t;

	assert_int_equal(weft_topology_load(&t), 0);
	assert_int_equal(weft_places(t, NULL, 4, places), 0);
	assert_non_null(hwloc_get_pu_obj_by_os_index(t, places[3].cpu));
	hwloc_topology_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_sockets_device_on_the_second),
		cmocka_unit_test(two_sockets_device_on_the_first),
		cmocka_unit_test(more_lanes_than_processors_begin_again),
		cmocka_unit_test(sub_numa_clusters_device_on_one_of_them),
		cmocka_unit_test(sub_numa_clusters_device_on_the_package),
		cmocka_unit_test(a_second_thread_of_a_near_core_goes_before_another_package),
		cmocka_unit_test(one_socket_needs_no_choice),
		cmocka_unit_test(a_device_that_does_not_say_where_it_is),
		cmocka_unit_test(no_such_device),
		cmocka_unit_test(only_processors_that_may_be_used),
		cmocka_unit_test(this_machine_has_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
