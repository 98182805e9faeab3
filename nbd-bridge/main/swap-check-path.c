/* SPDX-License-Identifier: MIT */
/* The preflight's second half, of a bridge that has attached: see swap-check.h. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "fabric/driver.h"
#include "fabric/machine/finding.h"
#include "nbd-bridge/main/swap-check.h"
#include "nbd-bridge/main/swap-kernel.h"

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

/* Of "tcp+ktls" the kernel encrypts; of "tcp+tls" GnuTLS does, which takes memory for a record. */
static void check_tls(const json_t *donor, struct swap_findings *ret)
{
	const char *plus = strchr(text_of(donor, "transport"), '+');

	if (plus && strcmp(plus, "+tls") == 0)
		swap_refuse(ret,
			"what goes to %.200s is encrypted in user space, which takes memory for "
			"each record; load the kernel's module (modprobe tls) on this machine and "
			"attach again, or go over RDMA",
			text_of(donor, "uri"));
}

static bool kernel_has_tls(void)
{
	char line[256];

	return swap_read_line("/proc/sys/net/ipv4/tcp_available_ulp", line, sizeof(line)) &&
		strstr(line, "tls");
}

/* Where there is a key, what comes in place of RDMA is TLS. */
static void remark_tls_in_reserve(const json_t *donor, struct swap_findings *ret)
{
	const struct tp_driver *now = tp_driver_of_word(text_of(donor, "transport"));
	const json_t *ways = json_object_get(donor, "ways"), *way;
	const struct tp_driver *base = tp_base_driver();
	size_t i;

	if (now == base || !json_is_object(json_object_get(donor, "key")) || kernel_has_tls())
		return;
	json_array_foreach(ways, i, way)
		if (tp_driver_of_word(text_of(way, "transport")) == base) {
			swap_remark(ret,
				"once %s to %.200s is lost, it goes on over TLS in user space, "
				"which takes memory for each record; load the kernel's module "
				"(modprobe tls) before that",
				text_of(donor, "transport"), text_of(donor, "uri"));
			return;
		}
}

static void check_contents(const json_t *donor, struct swap_findings *ret)
{
	if (json_is_true(json_object_get(donor, "restorable")))
		swap_refuse(ret,
			"%.200s is a file at the donor: its disk would be what this machine swaps "
			"to, and pages of processes would stay on it; lend memory for that (weft "
			"serve --memory)",
			text_of(donor, "uri"));
	if (json_is_null(json_object_get(donor, "epoch")))
		swap_remark(ret,
			"%.200s cannot say whether its contents are still the same: once its "
			"connection is lost, all that is swapped out there is lost",
			text_of(donor, "uri"));
}

/* Bytes that a lane's connection may have in the kernel's buffers at a time. */
static uint64_t socket_bytes(const char *device)
{
	const char *slash = strrchr(device, '/');
	char path[300], line[128];
	uint64_t requests = 128, request_kib = 1024, limit = 4 * WEFT_MIB;

	/* Least, usual, most. */
	if (swap_read_line("/proc/sys/net/ipv4/tcp_wmem", line, sizeof(line)))
		sscanf(line, "%*u %*u %" SCNu64, &limit);
	snprintf(path, sizeof(path), "/sys/block/%.100s/queue/nr_requests",
		slash ? slash + 1 : device);
	if (swap_read_line(path, line, sizeof(line)))
		requests = strtoull(line, NULL, 10);
	snprintf(path, sizeof(path), "/sys/block/%.100s/queue/max_sectors_kb",
		slash ? slash + 1 : device);
	if (swap_read_line(path, line, sizeof(line)))
		request_kib = strtoull(line, NULL, 10);
	return weft_min(limit, requests * request_kib * WEFT_KIB);
}

/* A network card takes the pages as they lie; a socket copies them first. */
static bool copies_pages(const char *transport)
{
	const struct tp_driver *driver = tp_driver_of_word(transport);

	return !driver || !driver->ops || driver->ops->any_memory;
}

/* Now, or once what it has now is lost. */
static bool may_copy_pages(const json_t *donor)
{
	const json_t *way;
	size_t i;

	json_array_foreach(json_object_get(donor, "ways"), i, way)
		if (copies_pages(text_of(way, "transport")))
			return true;
	return copies_pages(text_of(donor, "transport"));
}

static void check_reserve(const json_t *status, struct swap_findings *ret)
{
	const json_t *donors = json_object_get(status, "donors"), *donor;
	uint64_t reserve_kib, need = 0;
	size_t i;

	json_array_foreach(donors, i, donor)
		if (may_copy_pages(donor))
			need += socket_bytes(text_of(status, "device")) *
				json_array_size(json_object_get(status, "lanes"));
	/* A bridge may take half of it (attach-swap.c). */
	need = 2 * need / WEFT_KIB;
	if (facts_number("/proc/sys/vm/min_free_kbytes", "", &reserve_kib) && reserve_kib < need)
		swap_refuse(ret,
			"vm.min_free_kbytes is %" PRIu64 ", and up to %" PRIu64
			" KiB of what is swapped out can be in the buffers of sockets at a time, "
			"for which half of that is kept: sysctl vm.min_free_kbytes=%" PRIu64
			", or fewer --lanes",
			reserve_kib, need / 2, need);
}

/* The path of a connection names its device: "WORD DEVICE gid …". */
static void remark_software_device(const json_t *status, struct swap_findings *ret)
{
	const json_t *lane = json_array_get(json_object_get(status, "lanes"), 0);
	char device[64], path[128];

	if (sscanf(text_of(lane, "path"), "%*s %63s", device) != 1 || strchr(device, '/'))
		return;
	snprintf(path, sizeof(path), "/sys/class/infiniband/%s", device);
	if (!facts_exist(path))
		return;
	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/device", device);
	if (!facts_exist(path))
		swap_remark(ret,
			"%s is an RDMA device in software (soft-RoCE), which takes the kernel's "
			"memory for each packet that it sends: under pressure, swapping over it "
			"may stall; it is good for trying things out",
			device);
}

/* The kernel lets a socket use the memory that is kept for freeing memory if it is its own. */
static void remark_socket_of_the_bridge(const json_t *status, struct swap_findings *ret)
{
	const char *word = text_of(status, "transport");
	const struct tp_driver *driver = tp_driver_of_word(word);

	if (driver && driver->open_alias && strcmp(word, driver->word) == 0 &&
		json_is_null(json_object_get(status, "kernel_socket")))
		swap_remark(ret,
			"what is swapped out leaves by a socket of the bridge's, which may not use "
			"the memory that is kept for freeing memory: a storm of allocations may "
			"stall it; with --kernel-socket the kernel holds the socket, without "
			"failover, stripes and encryption");
}

static void check_lock(const json_t *status, struct swap_findings *ret)
{
	const json_t *swap = json_object_get(status, "swap");

	if (!json_is_object(swap))
		swap_refuse(ret,
			"the bridge of '%s' is of another version of weft, and not locked in "
			"memory; end it, and attach it anew",
			text_of(status, "name"));
	else if (json_integer_value(json_object_get(swap, "locked_bytes")) == 0)
		swap_refuse(ret,
			"the bridge of '%s' is not locked in memory: it would itself be swapped "
			"out, and nothing could bring it back; it needs CAP_IPC_LOCK, or `ulimit "
			"-l unlimited`",
			text_of(status, "name"));
}

void swap_check_path(const json_t *status, struct swap_findings *ret)
{
	const json_t *donors = json_object_get(status, "donors"), *donor;
	size_t i;

	json_array_foreach(donors, i, donor) {
		check_tls(donor, ret);
		remark_tls_in_reserve(donor, ret);
		check_contents(donor, ret);
	}
	check_reserve(status, ret);
	remark_software_device(status, ret);
	remark_socket_of_the_bridge(status, ret);
	check_lock(status, ret);
}
