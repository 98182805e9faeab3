/* SPDX-License-Identifier: MIT */
/*
 * weft doctor: RDMA devices, and the needs of a connection over them: an active port, an IP address
 * that RoCE v2 (or IPoIB) carries, large packets, and device files that we may open.
 */
#include "transports/verbs/doctor.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"

enum {
	MAX_GIDS = 256,  /* entries of a port's table that are looked at: addresses come early */
	GOOD_MTU = 4200, /* an RDMA MTU of 4096 and its headers */
	INFINIBAND = 32, /* linux/if_arp.h */
};

#define KEEP_NETWORK "say so in the network's configuration, too: /etc/network/interfaces, or that of systemd-networkd or NetworkManager"
#define KEEP_ACCESS "echo 'KERNEL==\"%s\", MODE=\"0666\"' >> /etc/udev/rules.d/90-weft.rules"

struct port {
	char device[64], text[80]; /* "mlx5_0 port 1" */
	bool active, ethernet;
	char state[32];
	char netdev[32], address[INET6_ADDRSTRLEN]; /* "": none */
	unsigned gid;
	uint64_t mtu; /* of the interface; 0: not known */
};

/* The IP address that a GID of RoCE v2 is; false: hosts of other subnets could not reach it. */
static bool gid_address(const char *text, char *address)
{
	struct in6_addr gid;

	if (inet_pton(AF_INET6, text, &gid) != 1 || IN6_IS_ADDR_UNSPECIFIED(&gid) ||
		IN6_IS_ADDR_LINKLOCAL(&gid))
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&gid))
		return inet_ntop(AF_INET, &gid.s6_addr[12], address, INET6_ADDRSTRLEN) != NULL;
	return inet_ntop(AF_INET6, &gid, address, INET6_ADDRSTRLEN) != NULL;
}

static void find_gid(const char *dir, struct port *port)
{
	char path[PATH_MAX], line[128];

	for (unsigned i = 0; i < MAX_GIDS; i++) {
		snprintf(path, sizeof(path), "%s/gid_attrs/types/%u", dir, i);
		if (!facts_line(path, "v2", line, sizeof(line)))
			continue;
		snprintf(path, sizeof(path), "%s/gid_attrs/ndevs/%u", dir, i);
		if (!facts_line(path, "", port->netdev, sizeof(port->netdev)))
			continue;
		snprintf(path, sizeof(path), "%s/gids/%u", dir, i);
		if (facts_line(path, "", line, sizeof(line)) && gid_address(line, port->address)) {
			port->gid = i;
			return;
		}
	}
}

static void find_ipoib(struct port *port)
{
	char buf[PATH_MAX], path[300];
	uint64_t type;
	DIR *dir = opendir(facts_below_root(buf, "/sys/class/net"));
	const struct dirent *entry;

	while (dir && !port->netdev[0] && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/type", entry->d_name);
		if (entry->d_name[0] != '.' && facts_number(path, "", &type) && type == INFINIBAND)
			snprintf(port->netdev, sizeof(port->netdev), "%.31s", entry->d_name);
	}
	if (dir)
		closedir(dir);
}

/* dir: of a port, such as /sys/class/infiniband/mlx5_0/ports/1. */
static void look_at_port(const char *dir, struct port *port)
{
	char path[PATH_MAX], line[64];
	const char *number = strrchr(dir, '/') + 1;
	const char *device = dir + strlen("/sys/class/infiniband/");

	memset(port, 0, sizeof(*port));
	snprintf(port->device, sizeof(port->device), "%.*s", (int)strcspn(device, "/"), device);
	snprintf(port->text, sizeof(port->text), "%s port %s", port->device, number);
	snprintf(path, sizeof(path), "%s/state", dir);
	if (!facts_line(path, "", line, sizeof(line)))
		snprintf(line, sizeof(line), "in a state that is not known");
	snprintf(port->state, sizeof(port->state), "%s", line + strspn(line, "0123456789: "));
	port->active = strcmp(port->state, "ACTIVE") == 0;
	snprintf(path, sizeof(path), "%s/link_layer", dir);
	port->ethernet = !facts_line(path, "InfiniBand", line, sizeof(line));
	if (port->ethernet)
		find_gid(dir, port);
	else
		find_ipoib(port);
	snprintf(path, sizeof(path), "/sys/class/net/%s/mtu", port->netdev);
	if (!port->netdev[0] || !facts_number(path, "", &port->mtu))
		port->mtu = 0;
}

/* The ports of all devices, the active ones first; returns how many, free *ret. */
static size_t find_ports(struct port **ret)
{
	char buf[PATH_MAX];
	glob_t g;
	size_t n = 0;

	*ret = NULL;
	if (glob(facts_below_root(buf, "/sys/class/infiniband/*/ports/*"), 0, NULL, &g))
		return 0;
	/* at least one, so that it is not NULL */
	struct port *ports = calloc(g.gl_pathc + 1, sizeof(*ports));
	for (int active = 1; ports && active >= 0; active--)
		for (size_t i = 0; i < g.gl_pathc; i++) {
			look_at_port(g.gl_pathv[i] + strlen(facts_root), &ports[n]);
			n += ports[n].active == active;
		}
	globfree(&g);
	*ret = ports;
	return n;
}

/* Finds a network interface that is up, for the line that makes a soft-RoCE device; false: none. */
static bool interface_up(char *name, size_t len)
{
	char buf[PATH_MAX], path[300], state[32];
	DIR *dir = opendir(facts_below_root(buf, "/sys/class/net"));
	const struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/operstate", entry->d_name);
		found = entry->d_name[0] != '.' && facts_line(path, "up", state, sizeof(state));
		if (found)
			snprintf(name, len, "%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* The port is active, but no connection can be made. */
static void say_failed(struct finding *f, const struct port *port)
{
	char path[PATH_MAX], netdev[64];

	finding_say(f, FINDING_MISSING,
		"%s is ACTIVE, but makes no connections since its link was down: its queue pair "
		"for connection requests (GSI) is in the state ERR",
		port->text);
	/* Software drivers name their network interface. */
	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/parent", port->device);
	if (facts_line(path, "", netdev, sizeof(netdev)))
		finding_fix_as_root(f,
			"rdma link delete %s && rdma link add %s type rxe netdev %s  # end what "
			"uses it first: weft status",
			port->device, port->device, netdev);
	else
		finding_fix_as_root(f,
			"unload its driver and load it again: modprobe -r and modprobe, of what "
			"`readlink "
			"/sys/class/infiniband/%s/device/driver` names",
			port->device);
}

static void check_rdma(struct finding *f)
{
	char netdev[256], devices[128];
	WEFT_CLEANUP_FREE struct port *ports = NULL;
	size_t n = find_ports(&ports), used = 0;

	if (n == 0 && facts_names("/sys/class/infiniband/*", devices, sizeof(devices))) {
		finding_say(f, FINDING_WARN, "%s: no port", devices);
		return;
	}
	if (n == 0) {
		finding_say(f, FINDING_NONE, "no RDMA device: weft uses TCP");
		if (facts_exist("/sys/module/rdma_rxe") || facts_have_module("rdma_rxe")) {
			finding_say(f, FINDING_WARN,
				"no RDMA device: weft uses TCP; it can be had in software (soft-RoCE)");
			finding_fix_as_root(f, "rdma link add rxe0 type rxe netdev %s",
				interface_up(netdev, sizeof(netdev)) ? netdev : "IFACE  # an interface that is up");
			finding_keep(f,
				"run that line at each boot, once the interface is up: in a unit of systemd's, say");
		}
		return;
	}
	char text[240];
	for (size_t i = 0; i < n && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s: %s, %s",
			i ? "; " : "", ports[i].text, ports[i].state,
			ports[i].ethernet ? "RoCE" : "InfiniBand");
	for (size_t i = 0; i < n && !facts_root[0]; i++)
		if (ports[i].active && verbs_management_failed(ports[i].device)) {
			say_failed(f, &ports[i]);
			return;
		}
	if (ports[0].active) {
		finding_say(f, FINDING_OK, "%s", text);
		return;
	}
	finding_say(f, FINDING_WARN, "%s: weft uses TCP", text);
	if (ports[0].ethernet)
		finding_fix_as_root(f, "ip link set dev %s up",
			ports[0].netdev[0] ? ports[0].netdev : "IFACE  # that of `rdma link`");
	else
		finding_fix_as_root(f,
			"ibstat  # a port that stays in INIT has no subnet manager: systemctl start "
			"opensm on one machine");
}

/* rdma_cm connects by IP addresses, whatever the link. */
static void check_rdma_address(struct finding *f)
{
	WEFT_CLEANUP_FREE struct port *ports = NULL;
	size_t n = find_ports(&ports), used = 0;
	const struct port *bare = NULL;
	char text[240] = "";

	for (size_t i = 0; i < n; i++) {
		const struct port *port = &ports[i];

		if (!port->active || (port->ethernet && !port->address[0]) ||
			(!port->ethernet && !port->netdev[0])) {
			bare = !bare && port->active ? port : bare;
			continue;
		}
		if (used < sizeof(text) && port->ethernet)
			used += (size_t)snprintf(text + used, sizeof(text) - used,
				"%s%s: %s on %s (RoCE v2, gid %u)", used ? "; " : "", port->text,
				port->address, port->netdev, port->gid);
		else if (used < sizeof(text))
			used += (size_t)snprintf(text + used, sizeof(text) - used,
				"%s%s: %s (IPoIB)", used ? "; " : "", port->text, port->netdev);
	}
	if (used > 0) {
		finding_say(f, FINDING_OK, "%s", text);
	} else if (!bare) {
		finding_say(f, FINDING_NONE, "no active port to look at");
	} else if (bare->ethernet) {
		finding_say(f, FINDING_MISSING,
			"%s has no IP address that others reach: RDMA connections are made by "
			"address",
			bare->text);
		finding_fix_as_root(f, "ip addr add ADDRESS/24 dev %s",
			bare->netdev[0] ? bare->netdev : "IFACE  # that of `rdma link`");
		finding_keep(f, KEEP_NETWORK);
	} else {
		finding_say(f, FINDING_MISSING,
			"%s has no IP interface: RDMA connections are made by address", bare->text);
		finding_fix_as_root(
			f, "modprobe ib_ipoib; ip addr add ADDRESS/24 dev ib0; ip link set ib0 up");
		finding_keep(f, KEEP_NETWORK);
	}
}

static void check_rdma_mtu(struct finding *f)
{
	WEFT_CLEANUP_FREE struct port *ports = NULL;
	size_t n = find_ports(&ports);
	const struct port *small = NULL;
	bool seen = false;

	for (size_t i = 0; i < n; i++) {
		if (!ports[i].active || !ports[i].ethernet || ports[i].mtu == 0)
			continue;
		seen = true;
		if (!small && ports[i].mtu < GOOD_MTU)
			small = &ports[i];
	}
	if (!small) {
		finding_say(f, seen ? FINDING_OK : FINDING_NONE,
			seen ? "packets of RDMA hold 4096 bytes"
			     : "no active RoCE port to look at");
		return;
	}
	finding_say(f, FINDING_WARN,
		"%s has an MTU of %llu: packets of RDMA hold %u bytes, 4096 are faster",
		small->netdev, (unsigned long long)small->mtu,
		small->mtu >= 2200           ? 2048
			: small->mtu >= 1124 ? 1024
					     : 512);
	finding_fix_as_root(f, "ip link set dev %s mtu %u  # here, there, and on the switch",
		small->netdev, GOOD_MTU);
	finding_keep(f, KEEP_NETWORK);
}

/*
 * Checks for an installed library that drives each device, and for device files that we may open.
 */
static void check_rdma_access(struct finding *f)
{
	char devices[128], files[256], path[PATH_MAX];

	if (!facts_names("/sys/class/infiniband/*", devices, sizeof(devices))) {
		finding_say(f, FINDING_NONE, "no device to open");
		return;
	}
	if (!facts_names("/etc/libibverbs.d/*.driver", files, sizeof(files))) {
		finding_say(f, FINDING_MISSING,
			"no RDMA device has its library installed: weft sees no device");
		finding_fix_as_root(f, "apt-get install ibverbs-providers");
		return;
	}
	if (!facts_names("/sys/class/infiniband_verbs/uverbs*", files, sizeof(files))) {
		finding_say(f, FINDING_MISSING,
			"programs cannot reach %s: the module ib_uverbs is not loaded", devices);
		finding_fix_as_root(f, "modprobe ib_uverbs");
		finding_keep(f, "echo ib_uverbs > /etc/modules-load.d/weft-ib_uverbs.conf");
		return;
	}
	for (char *save, *file = strtok_r(files, ", ", &save); file;
		file = strtok_r(NULL, ", ", &save)) {
		snprintf(path, sizeof(path), "/dev/infiniband/%s", file);
		if (facts_usable(path))
			continue;
		finding_say(f, FINDING_MISSING, "%s may not be opened, or is not there", path);
		finding_fix_as_root(
			f, "chmod 666 %s  # or in a container: --device=/dev/infiniband", path);
		finding_keep(f, KEEP_ACCESS, "uverbs*");
		return;
	}
	finding_say(f, FINDING_OK, "programs may use %s", devices);
}

static void check_rdma_cm(struct finding *f)
{
	finding_module(
		f, "rdma_ucm", "/dev/infiniband/rdma_cm", "RDMA connections from programs", 4, 0);
	if (f->state == FINDING_OK && !facts_usable("/dev/infiniband/rdma_cm")) {
		finding_say(f, FINDING_MISSING, "/dev/infiniband/rdma_cm may not be opened");
		finding_fix_as_root(f, "chmod 666 /dev/infiniband/rdma_cm");
		finding_keep(f, KEEP_ACCESS, "rdma_cm");
	}
}

static void check_soft_roce(struct finding *f)
{
	finding_module(
		f, "rdma_rxe", "/sys/module/rdma_rxe", "RDMA over any Ethernet, in software", 4, 8);
}

const struct finding_check verbs_checks[] = {
	{"RDMA", false, check_rdma},
	{"RDMA address", false, check_rdma_address},
	{"RDMA MTU", false, check_rdma_mtu},
	{"RDMA access", false, check_rdma_access},
	{"RDMA CM", false, check_rdma_cm},
	{"soft-RoCE", false, check_soft_roce},
	{.name = NULL},
};
