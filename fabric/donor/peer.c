/* SPDX-License-Identifier: MIT */
/* Who came to a donor; see peer.h.  No state. */
#include "fabric/donor/peer.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "fabric/base/address.h"
#include "fabric/machine/owner.h"

/* Of a connection over loopback. */
static void find_user(int fd, struct weft_peer *peer)
{
	const struct sockaddr *theirs = (const struct sockaddr *)&peer->address;
	struct sockaddr_storage ours;
	socklen_t len = sizeof(ours);

	if (peer->local)
		return;
	peer->has_uid = weft_address_is_loopback(theirs) &&
		getsockname(fd, (struct sockaddr *)&ours, &len) == 0 &&
		weft_socket_owner(theirs, (const struct sockaddr *)&ours, &peer->uid) == 0;
}

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
	if (peer.local && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == 0) {
		snprintf(peer.text, sizeof(peer.text), "local process %d (uid %u)", (int)cred.pid,
			cred.uid);
		peer.has_uid = true;
		peer.uid = cred.uid;
	} else if (getnameinfo(addr, addr_len, host, sizeof(host), port, sizeof(port),
			 NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
		snprintf(peer.text, sizeof(peer.text),
			addr->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	}
	find_user(fd, &peer);
	*ret = peer;
}

bool weft_peer_is_our_user(const struct weft_peer *peer)
{
	/* In a user namespace this number is anybody's who has none there. */
	const uid_t overflow = 65534;

	return peer->has_uid &&
	       (peer->uid == 0 || (peer->uid == geteuid() && peer->uid != overflow));
}
