/* SPDX-License-Identifier: MIT */
/*
 * Addresses of hosts, in the order in which to try them.  A process that is resident (resident.h)
 * asks for each name once: what was found is kept for good, since asking takes files, memory and
 * the network.  Any thread.
 */
#ifndef WEFT_FABRIC_BASE_LOOKUP_H
#define WEFT_FABRIC_BASE_LOOKUP_H

#include <sys/socket.h>

enum { WEFT_LOOKUP_MAX = 8 };

struct weft_lookup {
	unsigned nr;
	struct sockaddr_storage at[WEFT_LOOKUP_MAX];
	socklen_t len[WEFT_LOOKUP_MAX];
};

/*
 * For connecting to host and port, each a name or numeric, as getaddrinfo(3) with these flags says.
 * May wait for the resolver, unless AI_NUMERICHOST is set.  0, or an EAI_ code for
 * gai_strerror(3); EAI_NONAME of AI_NUMERICHOST is that of a name that is not kept.
 */
int weft_lookup(const char *host, const char *port, int flags, struct weft_lookup *ret);

#endif
