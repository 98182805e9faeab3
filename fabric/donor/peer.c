/* SPDX-License-Identifier: MIT */
/* Who came to a donor; see peer.h.  No state. */
#include "fabric/donor/peer.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

void weft_peer_of_socket(int fd, struct weft_peer *ret)
{
	struct weft_peer peer = {.text = "unknown"};
	struct sockaddr *addr = (struct sockaddr *)&peer.address;
	socklen_t addr_len = sizeof(peer.address);
	char host[INET6_ADDRSTRLEN + 16], port[8]; /* with a zone */
	struct ucred cred;
	socklen_t cred_len = sizeof(cred);

	if (getpeername(fd, addr, &addr_len) < 0)
		addr->sa_family = AF_UNSPEC;
	peer.local = addr->sa_family == AF_UNIX;
	if (peer.local && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == 0)
		snprintf(peer.text, sizeof(peer.text), "local process %d (uid %u)", (int)cred.pid,
			cred.uid);
	else if (getnameinfo(addr, addr_len, host, sizeof(host), port, sizeof(port),
			 NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(peer.text, sizeof(peer.text),
			addr->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	*ret = peer;
}
