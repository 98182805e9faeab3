/* SPDX-License-Identifier: MIT */
/* This machine's addresses that RDMA has. */
#include "transports/rdma/addresses.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <string.h>

bool weft_rdma_is_any(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
	return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
}

static bool is_global(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) != 127;
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;

	return address->sa_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(in6) &&
		!IN6_IS_ADDR_LINKLOCAL(in6);
}

static bool has_device(struct sockaddr *address)
{
	struct rdma_cm_id *id;

	if (rdma_create_id(NULL, &id, NULL, RDMA_PS_TCP) != 0)
		return false;
	bool has = rdma_bind_addr(id, address) == 0 && id->verbs;
	rdma_destroy_id(id);
	return has;
}

unsigned weft_rdma_addresses(struct sockaddr_storage *ret, unsigned max)
{
	struct ifaddrs *list;
	unsigned nr = 0;

	if (getifaddrs(&list) != 0)
		return 0;
	for (const struct ifaddrs *i = list; i && nr < max; i = i->ifa_next) {
		struct sockaddr_storage address = {0};

		if (!i->ifa_addr || !is_global(i->ifa_addr))
			continue;
		memcpy(&address, i->ifa_addr,
			i->ifa_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
							   : sizeof(struct sockaddr_in));
		if (has_device((struct sockaddr *)&address))
			ret[nr++] = address;
	}
	freeifaddrs(list);
	return nr;
}
