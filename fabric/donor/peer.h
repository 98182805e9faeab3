/* SPDX-License-Identifier: MIT */
/*
 * A peer that came to a donor, as its transport knows it before it asks for anything.  The donor
 * decides by this struct (donor.h), so that every transport has the same rules.
 *
 * Threads: a peer is its session's; the functions are pure, or ask the kernel, from any thread.
 */
#ifndef WEFT_FABRIC_DONOR_PEER_H
#define WEFT_FABRIC_DONOR_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "fabric/key/key.h"

/* All zeros: somebody on the network of whom nothing is known. */
struct weft_peer {
	char text[64];         /* from where, for people: "10.0.0.2:40112" */
	const char *transport; /* for people, static: "tcp", "rdma" */
	/* the identity whose key it proved to have, NAME or NAME~2; "": it proved nothing */
	char identity[WEFT_IDENTITY_MAX + 1];
	/* … which a certificate says, rather than a key */
	bool certified;
	/* and which of the secrets that there were under it (rights.h); 0: the present one */
	uint64_t life;
	/* of its certificate; seconds of CLOCK_REALTIME, 0: never, or there is none */
	int64_t expires;
	bool encrypted;        /* nobody on the way can read or change the data */
	bool may_be_plaintext; /* plaintext is allowed, whatever its key says */
	/*
	 * By what a host calls itself where its protocol has names and no proofs; "": it says
	 * nothing.  Hosts of different names are different attachments.
	 */
	char host[WEFT_KEY_NAME_MAX];
	bool listed;    /* the donor's owner has listed that host, as one that needs no key … */
	bool read_only; /* … and may read */
	bool local;            /* over a Unix socket, or in this process */
	bool one_sided;        /* the donor does not see what the peer writes … */
	bool reports;          /* … but is told, while the region is tracked (weft_report) */
	/* over loopback or a Unix socket: the user who has the other end, as the kernel says */
	bool has_uid;
	uint32_t uid;
	struct sockaddr_storage address; /* AF_UNSPEC: in this process */
};

/*
 * A connected socket's (TCP or Unix): text, local, the user and the address; the rest is zeroed.
 * Does not wait.
 */
void weft_peer_of_socket(int fd, struct weft_peer *ret);

/* The user who runs this program, or root, who may do all that it may. */
bool weft_peer_is_our_user(const struct weft_peer *peer);

#endif
