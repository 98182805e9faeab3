/* SPDX-License-Identifier: MIT */
/*
 * Donors' offers, as text.  Not in driver.c, since transports use this file and driver.c uses them.
 * No state, any thread.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "fabric/driver.h"

/* An address of one host, as numbers: a donor names no other kind. */
static bool is_host_address(const char *text)
{
	struct in6_addr in6;
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) == 1) {
		uint8_t first = (uint8_t)(ntohl(in.s_addr) >> 24);

		return first != 0 && first != 127 && first < 224;
	}
	return inet_pton(AF_INET6, text, &in6) == 1 && !IN6_IS_ADDR_UNSPECIFIED(&in6) &&
		!IN6_IS_ADDR_LOOPBACK(&in6) && !IN6_IS_ADDR_MULTICAST(&in6) &&
		!IN6_IS_ADDR_LINKLOCAL(&in6) && !IN6_IS_ADDR_V4MAPPED(&in6);
}

bool tp_parse_offer(const char *word, const char *offer, struct tp_offer *ret)
{
	struct tp_offer one = {0};
	size_t len = strlen(word);
	int n = 0;

	if (strncmp(offer, word, len) != 0 || sscanf(offer + len, ":%7[0-9]%n", one.port, &n) != 1)
		return false;
	const char *rest = offer + len + n;
	if (*rest != '\0') {
		if (*rest != ':' || strlen(rest + 1) >= sizeof(one.address))
			return false;
		strcpy(one.address, rest + 1);
		if (!is_host_address(one.address))
			return false;
	}
	*ret = one;
	return true;
}
