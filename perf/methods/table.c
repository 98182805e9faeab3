/* SPDX-License-Identifier: MIT */
/* The methods there are.  Functions without state. */
#include <string.h>

#include "fabric/base/util.h"
#include "perf/methods/methods.h"

static const char nothing[] = "none", fuse[] = "/dev/fuse",
		  nbd[] = "root; the kernel's nbd driver (5.14)",
		  ublk[] = "root; the kernel's ublk driver (6.5)";
static const char calls[] = "opens, reads, writes and flushes by 5 calls of libweft",
		  loads[] = "opens and maps by 3 calls, then only loads and stores; 1 call to sync",
		  client[] = "any NBD client; 1 command to attach",
		  file[] = "any program that reads files; 1 command to attach",
		  device[] = "any program or file system; 1 command to attach",
		  device_set_up[] = "any program or file system; a target and a login to set up";

#define LIBRARY .room = "nbd-bridge/library/{aio,command,weft}.c", .lines = 1300
#define MAP .room = "nbd-bridge/library/map*.[ch]", .lines = 3700
#define SOCKET .room = "nbd-bridge/front/front-nbd.c", .lines = 400
#define FILES .room = "nbd-bridge/front/{front-fuse,fuse-file,mounts}.c", .lines = 800
#define NBD .room = "nbd-bridge/device/{front-nbd-*,nbd-*}.c", .lines = 1300
#define UBLK .room = "nbd-bridge/device/{front-ublk,ublk-*,ring}.c", .lines = 1600
#define PUSH .room = "nbd-bridge/main/{push,sync*}.c", .lines = 1400
#define MOVE .room = "fabric/move/*.c", .lines = 3200

const struct methods_method methods_table[] = {
	{.name = "bulk", .mode = "direct", .run = methods_run_bulk, .any_transport = true,
		.needs = nothing, .effort = "64 requests of 1 MiB in flight, by libweft",
		LIBRARY},
	{.name = "library", .mode = "direct", .open = methods_open_library, .any_transport = true,
		.needs = nothing, .effort = calls, LIBRARY},
	{.name = "library", .mode = "managed", .open = methods_open_library, .any_transport = true,
		.needs = nothing, .effort = calls, LIBRARY},
	{.name = "map", .mode = "paged", .open = methods_open_map,
		.needs = "userfaultfd, Linux 6.8; /dev/userfaultfd for system calls on it",
		.effort = loads, MAP},
	{.name = "map", .mode = "compat", .open = methods_open_map,
		.needs = "userfaultfd, Linux 5.19; /dev/userfaultfd for system calls on it",
		.effort = loads, MAP},
	{.name = "map", .mode = "resident", .open = methods_open_map, .holds_all = true,
		.needs = "userfaultfd, Linux 5.19; memory for all of the region",
		.effort = loads, MAP},
	{.name = "socket", .mode = "direct", .open = methods_open_bridge, .needs = nothing,
		.effort = client, SOCKET},
	{.name = "socket", .mode = "managed", .open = methods_open_bridge, .needs = nothing,
		.effort = client, SOCKET},
	{.name = "file", .mode = "direct", .open = methods_open_bridge, .needs = fuse,
		.effort = file, FILES},
	{.name = "file", .mode = "managed", .open = methods_open_bridge, .needs = fuse,
		.effort = file, FILES},
	{.name = "nbd", .mode = "direct", .open = methods_open_bridge, .needs = nbd,
		.effort = device, NBD},
	{.name = "nbd", .mode = "managed", .open = methods_open_bridge, .needs = nbd,
		.effort = device, NBD},
	{.name = "ublk", .mode = "direct", .open = methods_open_bridge, .needs = ublk,
		.effort = device, UBLK},
	{.name = "ublk", .mode = "managed", .open = methods_open_bridge, .needs = ublk,
		.effort = device, UBLK},
	{.name = "push", .mode = "hashing", .run = methods_run_push, .needs = nothing,
		.effort = "1 command a copy; the program has a file", PUSH},
	{.name = "nbdkit", .mode = "direct", .open = methods_open_peer, .peer = true,
		.needs = nothing, .effort = client},
	{.name = "nbdkit", .mode = "cache", .open = methods_open_peer, .peer = true,
		.needs = nothing, .effort = client},
	{.name = "qemu", .mode = "direct", .open = methods_open_peer, .peer = true,
		.needs = nothing, .effort = client},
	{.name = "rsync", .mode = "delta", .run = methods_run_rsync, .peer = true,
		.needs = nothing, .effort = "1 command a copy; files at both ends"},
	{.name = "nbd-client", .mode = "kernel", .run = methods_run_device,
		.open = methods_open_device, .peer = true, .device = true,
		.needs = "root; the kernel's nbd driver", .effort = device_set_up},
	{.name = "nvme-tcp", .mode = "kernel", .run = methods_run_device,
		.open = methods_open_device, .peer = true, .device = true,
		.needs = "root at both ends; nvmet-tcp, nvme-tcp", .effort = device_set_up},
	{.name = "nvme-rdma", .mode = "kernel", .run = methods_run_device,
		.open = methods_open_device, .peer = true, .device = true,
		.needs = "root at both ends; RDMA; nvmet-rdma, nvme-rdma", .effort = device_set_up},
	{.name = "srp", .mode = "kernel", .run = methods_run_device, .open = methods_open_device,
		.peer = true, .device = true, .needs = "root at both ends; RDMA; ib_srpt, ib_srp",
		.effort = device_set_up},
	{.name = "move", .mode = "pre-copy", .run = methods_run_move, .parts_with_region = true,
		.needs = nothing, .effort = "1 command; whoever uses the region goes on",
		MOVE},
};
const unsigned methods_nr = WEFT_ARRAY_LEN(methods_table);

static const struct methods_method *find(const char *name, size_t len)
{
	for (unsigned i = 0; i < methods_nr; i++)
		if (strlen(methods_table[i].name) == len &&
			strncmp(methods_table[i].name, name, len) == 0)
			return &methods_table[i];
	return NULL;
}

bool methods_are_called(const char *name, size_t len)
{
	return (len == 5 && strncmp(name, "peers", len) == 0) || find(name, len);
}

bool methods_are_devices(const char *name, size_t len)
{
	const struct methods_method *method = find(name, len);

	return method && method->device;
}

/* Is the word one of the list's?  No list has them all. */
static bool is_listed(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
		if (strcspn(at, ",") == len && strncmp(at, word, len) == 0)
			return true;
	return !list;
}

bool methods_wanted(const struct bench_options *o, const struct methods_method *method,
	const struct methods_transport *transport)
{
	bool named = is_listed(o->methods_list, method->name) ||
		(method->peer && is_listed(o->methods_list, "peers"));
	bool base = transport == &methods_transports[0],
	     rdma = strcmp(transport->name, "rdma") == 0;
	bool suits = base || method->any_transport || (rdma && !method->run && !method->peer);

	if (method->device && !methods_device(o, method->name))
		return false;
	return named && suits && (!transport->here || o->at) &&
		is_listed(o->transports, transport->name);
}
