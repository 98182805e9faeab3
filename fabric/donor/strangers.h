/* SPDX-License-Identifier: MIT */
/*
 * The budget for strangers: peers that have connected and have no grant of a region yet.
 *
 * There is room for a fixed number of strangers.  While there is room, an address may take all of
 * it.  Once there is none, a newcomer gets the place of a stranger from the address that has the
 * most: of the oldest one that has said nothing yet, or else of the oldest.  A stranger that made
 * room in the last minute still counts for its address.  This tells a crowd that comes again and
 * again from many addresses from a peer that comes for the first time, or whose address has been
 * granted something since.  So a peer from an address with few others stays, however many come from
 * elsewhere.  A peer from a crowded address keeps its place until the crowd has gone round once,
 * and longer if it has said something by then and others of that address have not.  A peer that the
 * donor knows (by the attachment's id in its hello) leaves the budget as soon as the hello is read.
 *
 * An address is an IPv4 address, the first 64 bits of an IPv6 address (one machine has all of
 * those; a link-local address counts whole), or the user behind a Unix socket.
 *
 * Threads: any; one lock, under which make_room() is called.
 */
#ifndef WEFT_FABRIC_DONOR_STRANGERS_H
#define WEFT_FABRIC_DONOR_STRANGERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "fabric/base/address.h"

struct weft_strangers;

/* Embedded in what the owner keeps for a connection; zeroed before it enters. */
struct weft_stranger {
	/*
	 * The connection has to end to make room.  Called at most once, under the lock, from any
	 * thread that calls weft_strangers_enter() or weft_strangers_make_room(): must not block,
	 * nor call anything of this file.
	 */
	void (*make_room)(struct weft_stranger *stranger);
	/* Private. */
	struct weft_strangers *strangers; /* NULL: it never entered */
	struct weft_stranger *next, **prev; /* prev NULL: it left, or made room */
	unsigned address;
	bool spoke, made_room;
};

struct weft_strangers {
	/* Private. */
	pthread_mutex_t lock;
	struct weft_stranger *oldest, **end;
	struct weft_stranger_address {
		uint8_t key[WEFT_ADDRESS_KEY_BYTES];
		unsigned nr;        /* now */
		unsigned made_room; /* lately; if this and nr are 0, the place is free */
	} *addresses;
	unsigned nr_addresses; /* places; more than max */
	unsigned max, nr;
	uint64_t nr_entered, nr_made_room;
	/*
	 * When a place of sources would have begun all its handshakes, had it kept to the rate; the
	 * seed says which place is whose.
	 */
	uint64_t *due_ns, seed;
	uint64_t faded_ns; /* when the counts of made_room were halved last */
};

/* 0, or -ENOMEM. */
int weft_strangers_init(struct weft_strangers *strangers, unsigned max);
/* Everybody left before (asserted). */
void weft_strangers_fini(struct weft_strangers *strangers);

/*
 * Whether a peer from there may begin a handshake now: false after a thousand at once, or five
 * hundred a second for a while.  Over loopback and Unix sockets always: all of the machine has one
 * address there.
 */
bool weft_strangers_may_come(struct weft_strangers *strangers, const struct sockaddr *peer);

/*
 * Lets a peer in; makes room first if need be.  uid: the peer's, used if its address is a Unix
 * socket's.
 */
void weft_strangers_enter(struct weft_strangers *strangers, struct weft_stranger *stranger,
	const struct sockaddr *peer, uint32_t uid);
/* The stranger said something: strangers that did not make room before it. */
void weft_stranger_spoke(struct weft_stranger *stranger);
/*
 * The connection ends.  From then on make_room() is neither called nor running.  False: it had made
 * room.  May be called again, and for a stranger that never entered.
 */
bool weft_stranger_leave(struct weft_stranger *stranger);
/*
 * The same for a stranger that was granted access, or that the donor knows.  Its address is no
 * longer held responsible for strangers that made room.
 */
bool weft_stranger_belongs(struct weft_stranger *stranger);
/* Another resource is scarce: the stranger whose turn it is makes room.  False: there is none. */
bool weft_strangers_make_room(struct weft_strangers *strangers);

struct weft_strangers_status {
	unsigned now, max, addresses;
	uint64_t entered, made_room; /* since the start */
};
void weft_strangers_status(struct weft_strangers *strangers, struct weft_strangers_status *ret);

#endif
