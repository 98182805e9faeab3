/* SPDX-License-Identifier: MIT */
/*
 * A client of a bridge: an NBD connection on its lane, whose requests become the bridge's.  The
 * socket front-end and the front-end for the kernel's nbd driver use it.
 *
 * A client belongs to its lane's thread from bridge_client_adopt() on.  Invariant: a client lives
 * until its connection's close() (or until the connection is freed, if it was never opened); then
 * its owner's closed() is called.  A slot is taken from prepare() or submit() until release().
 */
#ifndef WEFT_NBD_BRIDGE_FRONT_CLIENT_H
#define WEFT_NBD_BRIDGE_FRONT_CLIENT_H

#include "fabric/nbd/server.h"
#include "nbd-bridge/bridge/bridge.h"

struct bridge_client;

struct bridge_client_slot {
	struct bridge_request rq;
	struct nbd_request *nbd;
	bool submitted;
	struct bridge_client_slot *next;
};

struct bridge_client {
	/* The owner's, filled before bridge_client_new(). */
	struct bridge *bridge;
	const struct nbd_service *service; /* with the functions below in it */
	/*
	 * The client's connection is about to go; its requests in flight may still be carried out.
	 * NULL: not wanted.
	 */
	void (*ended)(struct bridge_client *client);
	/* No request of the client is in flight: the memory is the owner's again. */
	void (*closed)(struct bridge_client *client);

	struct bridge_lane *lane;
	struct nbd_conn *conn; /* NULL: freed; the client waits for close() */
	bool opened;           /* set by the service's open() */

	struct weft_watch watch;
	struct weft_deferred deferred;
	struct bridge_waiter waiter;
	struct weft_timer stall;
	bool ending;
	bool moved; /* sent or took something since the stall timer was set */
	unsigned nr_buffers, nr_submitted;
	struct bridge_client_slot *free_slots;
	struct bridge_client_slot slots[NBD_CONN_REQUESTS];
};

/* Describes the bridge's export; the strings are the bridge's. */
void bridge_export_fill(const struct bridge *bridge, struct nbd_export *ret);

/*
 * Takes a connected socket (fd becomes the client's, also on failure).  export: NULL, or the export
 * of a client that sends requests at once, without a handshake.  0, or -ENOMEM: then closed() is
 * not called.
 */
int bridge_client_new(struct bridge_client *client, int fd, const struct nbd_export *export);
/* On the lane (for bridge_lane_run()): the lane serves the client from now on. */
void bridge_client_adopt(struct bridge_lane *lane, void *client);
/* On the client's lane: ends the connection.  Requests in flight end without an answer. */
void bridge_client_end(struct bridge_client *client);

/* For the service. */
int bridge_client_prepare(struct nbd_request *nbd);
void bridge_client_submit(struct nbd_request *nbd);
/* In place of bridge_client_submit(): answers the request with the error. */
void bridge_client_refuse(struct nbd_request *nbd, int error);
void bridge_client_release(struct nbd_request *nbd);
void bridge_client_close(struct nbd_conn *conn, bool clean);

#endif
