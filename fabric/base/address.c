/* SPDX-License-Identifier: MIT */
/* What an address is; see address.h. */
#include "fabric/base/address.h"

#include <string.h>

enum {
	IPV6_PREFIX_BYTES = 8,
	MAPPED_BYTES = 12, /* before an IPv4 address */
	LOCAL_MARK = 0xff,
};

void weft_address_unmap(struct sockaddr_storage *address)
{
	const struct sockaddr_in6 six = *(const struct sockaddr_in6 *)address;
	struct sockaddr_in *four = (struct sockaddr_in *)address;

	if (six.sin6_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
		return;
	memset(address, 0, sizeof(*address));
	four->sin_family = AF_INET;
	four->sin_port = six.sin6_port;
	memcpy(&four->sin_addr, six.sin6_addr.s6_addr + MAPPED_BYTES, sizeof(four->sin_addr));
}

bool weft_address_is_loopback(const struct sockaddr *address)
{
	const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;

	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 ==
		       IN_LOOPBACKNET;
	return address->sa_family == AF_INET6 &&
	       (IN6_IS_ADDR_LOOPBACK(six) ||
		       (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[MAPPED_BYTES] == IN_LOOPBACKNET));
}

void weft_address_key(const struct sockaddr *address, uint32_t uid, uint8_t *ret)
{
	static const uint8_t mapped[MAPPED_BYTES] = {[10] = 0xff, [11] = 0xff};

	memset(ret, 0, WEFT_ADDRESS_KEY_BYTES);
	if (address->sa_family == AF_INET) {
		memcpy(ret, mapped, MAPPED_BYTES);
		memcpy(ret + MAPPED_BYTES, &((const struct sockaddr_in *)address)->sin_addr, 4);
	} else if (address->sa_family == AF_INET6) {
		const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
		bool whole = IN6_IS_ADDR_V4MAPPED(in6) || IN6_IS_ADDR_LINKLOCAL(in6);

		memcpy(ret, in6, whole ? sizeof(*in6) : IPV6_PREFIX_BYTES);
	} else {
		/*
		 * Marks the key as a user's: it is a multicast address, and nobody connects from
		 * one.
		 */
		ret[0] = LOCAL_MARK;
		memcpy(ret + MAPPED_BYTES, &uid, sizeof(uid));
	}
}
