/* SPDX-License-Identifier: MIT */
/*
 * UDP sockets for QUIC: many datagrams a system call (GSO, or else sendmmsg; GRO, recvmmsg), large
 * buffers, none cut into fragments.  Nothing waits.  Owned by one thread, but for sending to an
 * address, which any may do.
 */
#ifndef WEFT_TRANSPORTS_QUIC_SOCKET_H
#define WEFT_TRANSPORTS_QUIC_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "fabric/base/error.h"
#include "transports/quic/quic.h"

enum {
	QUIC_SOCKET_BYTES = 8 << 20, /* that the kernel may keep, each way */
	QUIC_INBOX = 8,              /* messages that one call receives */
	QUIC_MESSAGE_BYTES = 65536,  /* of a message, which GRO may make of many datagrams */
};

struct quic_socket {
	int fd;
	bool gso; /* one call may send many datagrams */
	bool connected;
	struct quic_path path; /* ours; remote: if it is connected */
	size_t route_bytes;    /* connected: the largest datagram that leaves this machine */
};

/*
 * remote NULL: for datagrams from everywhere, which tell to which of our addresses they came; else
 * connected.  local NULL: any address.  shared: others of this user may have the same port.  0, or
 * -errno of socket(2), bind(2), connect(2), with err.
 */
int quic_socket_open(const struct sockaddr *local, const struct sockaddr *remote, bool shared,
	struct quic_socket *ret, struct weft_error *err);
/* From now on others of this user may have the port as well. */
void quic_socket_share(const struct quic_socket *socket);
/* Connected: goes over to another peer's address.  0, or -errno. */
int quic_socket_connect(struct quic_socket *socket, const struct sockaddr *remote);
/*
 * Connected, and bound to no address of ours by its owner: goes on from an address that leads to
 * the peer now.  True: it is another one, and socket->path is the new path.
 */
bool quic_socket_renew(struct quic_socket *socket);
void quic_socket_close(struct quic_socket *socket);
/* How many bytes the kernel lets the socket keep of what came. */
size_t quic_socket_room(int fd);

/* Messages that came; one for each thread that receives. */
struct quic_inbox;
struct quic_inbox *quic_inbox_new(void); /* NULL: no memory */
void quic_inbox_free(struct quic_inbox *inbox);

struct quic_message {
	struct quic_path path;
	const uint8_t *bytes; /* until the next call */
	size_t len, segment;  /* datagrams of segment bytes each, but for the last */
};

/*
 * Receives what is there, into up to QUIC_INBOX messages.  How many; 0: nothing; or -errno of
 * recvmmsg(2): what ICMP said of earlier datagrams, too.
 */
int quic_socket_receive(const struct quic_socket *socket, struct quic_inbox *inbox,
	struct quic_message ret[QUIC_INBOX]);
/*
 * Sends what of the batch was not sent.  to_path: to its path's remote, from its local address;
 * else to the peer that the socket is connected to.  0; -EAGAIN: there is no room; or what
 * sendmsg(2) said, and the rest counts as lost.
 */
int quic_socket_send(struct quic_socket *socket, struct quic_batch *batch, bool to_path);
/* One datagram to an address.  Best effort. */
void quic_socket_send_to(int fd, const struct quic_path *path, const void *bytes, size_t len);

#endif
