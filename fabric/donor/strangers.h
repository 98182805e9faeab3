/* SPDX-License-Identifier: MIT */
/*
 * The budget for peers without a grant: whoever has connected and not yet been let at a region.
 *
 * There is room for a fixed number of them.  Each source address has a share: while there is room
 * it may take all of it; once there is none, the address that has the most makes room for whoever
 * comes, by its oldest handshake, and of those by one that has said nothing yet.  What made room in
 * the last minute counts as if it were there: a crowd that comes again and again from many
 * addresses is told from a peer that comes for the first time, or whose address has been granted
 * something since.  So a peer that comes from an address with few others stays, however many come
 * from elsewhere; and one that comes from a crowded address is a newcomer for as long as the crowd
 * takes to go round, and only until it has said something.  A peer that the donor knows (an
 * attachment's id in its hello) leaves the budget as soon as that is read.
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

enum { WEFT_STRANGER_KEY_BYTES = 16 };

struct weft_strangers;

/* Embedded in what the owner keeps for a connection; zeroed before it enters. */
struct weft_stranger {
	/*
	 * The connection has to end to make room.  Called at most once, from any thread that calls
	 * weft_strangers_enter() or weft_strangers_make_room(), under the lock: it must not block,
	 * nor call anything of this file.
	 */
	void (*make_room)(struct weft_stranger *stranger);
	/* Private. */
	struct weft_strangers *strangers; /* NULL: never entered */
	struct weft_stranger *next, **prev; /* prev NULL: it left, or made room */
	unsigned address;
	bool spoke, made_room;
};

struct weft_strangers {
	/* Private. */
	pthread_mutex_t lock;
	struct weft_stranger *oldest, **end;
	struct weft_stranger_address {
		uint8_t key[WEFT_STRANGER_KEY_BYTES];
		unsigned nr;        /* now */
		unsigned made_room; /* lately; with nr, 0: the place is free */
	} *addresses;
	unsigned nr_addresses; /* places; more than max */
	unsigned max, nr;
	uint64_t nr_entered, nr_made_room;
	uint64_t faded_ns; /* when what happened lately was halved */
};

/* 0, or -ENOMEM. */
int weft_strangers_init(struct weft_strangers *strangers, unsigned max);
/* Everybody left before (asserted). */
void weft_strangers_fini(struct weft_strangers *strangers);

/*
 * Lets a peer in; makes room first if need be.  uid: of the peer where its address is a Unix
 * socket's.
 */
void weft_strangers_enter(struct weft_strangers *strangers, struct weft_stranger *stranger,
	const struct sockaddr *peer, uint32_t uid);
/* It said something: those that did not make room before it. */
void weft_stranger_spoke(struct weft_stranger *stranger);
/*
 * It ends.  From then on make_room() is not called, nor running.  False: it had made room.  May be
 * called again, and for a stranger that never entered.
 */
bool weft_stranger_leave(struct weft_stranger *stranger);
/*
 * The same for one that was granted access, or is known; nothing is held against its address any
 * more.
 */
bool weft_stranger_belongs(struct weft_stranger *stranger);
/* Something else is scarce: the next that would make room does.  False: there is nobody. */
bool weft_strangers_make_room(struct weft_strangers *strangers);

struct weft_strangers_status {
	unsigned now, max, addresses;
	uint64_t entered, made_room; /* since the start */
};
void weft_strangers_status(struct weft_strangers *strangers, struct weft_strangers_status *ret);

#endif
