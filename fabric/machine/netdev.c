/* SPDX-License-Identifier: MIT */
/* Which network device a connection goes through.  Functions without state. */
#include "fabric/machine/netdev.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>

static bool same_address(const struct sockaddr *address, const char *text)
{
	char have[INET6_ADDRSTRLEN];

	if (address->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, have,
			sizeof(have));
	else if (address->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, have,
			sizeof(have));
	else
		return false;
	return strcmp(have, text) == 0;
}

/*
 * Cuts "10.0.0.1:52044" or "[fe80::1]:52044" down to the address, and finds the interface that has
 * the address; "": none.
 */
static void netdev_of_address(const struct ifaddrs *all, char *address, char netdev[64])
{
	char *end = strrchr(address, ':');

	if (end)
		*end = '\0';
	if (address[0] == '[') {
		address[strcspn(address, "%]")] = '\0';
		address++;
	}
	netdev[0] = '\0';
	for (const struct ifaddrs *one = all; one; one = one->ifa_next)
		if (one->ifa_addr && same_address(one->ifa_addr, address)) {
			snprintf(netdev, 64, "%s", one->ifa_name);
			break;
		}
}

bool weft_netdev_of_path(const char *path, char netdev[64], char rdma_device[64])
{
	char device[64] = "", here[128] = "", there[128] = "", peer[64];
	struct ifaddrs *all;
	unsigned gid;

	netdev[0] = rdma_device[0] = '\0';
	if (sscanf(path, "%*s %63s gid %u %127s -> %127s", device, &gid, here, there) == 4)
		strcpy(rdma_device, device);
	else if (sscanf(path, "%*s %127s -> %127s", here, there) != 2)
		return false;
	if (getifaddrs(&all) < 0)
		return false;
	netdev_of_address(all, here, netdev);
	netdev_of_address(all, there, peer);
	freeifaddrs(all);
	return peer[0] != '\0';
}
