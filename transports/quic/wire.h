/* SPDX-License-Identifier: MIT */
/*
 * A connection and its socket: what came goes in, what is to leave goes out, as far as it goes
 * without waiting.  Owned by the connection's thread.
 */
#ifndef WEFT_TRANSPORTS_QUIC_WIRE_H
#define WEFT_TRANSPORTS_QUIC_WIRE_H

#include "transports/quic/socket.h"

struct quic_wire {
	struct quic_conn *conn;
	struct quic_socket socket; /* connected to the peer */
	struct quic_socket *aside; /* for other addresses of the peer; NULL: there is none */
	bool blocked; /* the socket has no room: POLLOUT tells */
	uint64_t refused_ns; /* since when the peer's machine says that nobody is there; 0 */
	uint64_t heard_ns;   /* when something came last */
	uint64_t renewed_ns; /* when another address of ours was looked for last */
	struct quic_batch batch;
};

/*
 * What is there.  0; -ECONNREFUSED: nobody is there any more; or as quic_receive().
 */
int quic_wire_receive(struct quic_wire *wire, struct quic_inbox *inbox, uint64_t now_ns);
/* What is due, then all that may leave now.  0, or as quic_receive(). */
int quic_wire_send(struct quic_wire *wire, uint64_t now_ns);
/* Ends the connection, and tells the peer: as quic_close(). */
void quic_wire_close(struct quic_wire *wire, unsigned code, const char *reason);
/* Frees the connection and closes the socket. */
void quic_wire_fini(struct quic_wire *wire);

#endif
