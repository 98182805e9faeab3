/* SPDX-License-Identifier: MIT */
/*
 * Requests of a device of which several donors have a copy.
 *
 * A request that changes data goes to all current copies of its stripes, and to those that are
 * being made current; one buffer goes to all.  It is answered when all current ones have it.  A
 * FLUSH does the same.  Anything else goes to one copy, piece by piece, whichever is nearest, and
 * begins again at another if that one is lost.
 *
 * Which copies are current is for the keeper to say: a thread above the lanes.  A lane takes what
 * it is told (lane_copies_set()), and each request keeps to that from its first operation on.  What
 * a copy lacks of a request is among the bytes that it is behind by, before the request is
 * answered.
 *
 * A request that changes data has its bytes for itself, so that each copy gets overlapping writes
 * in the same order, and so that nobody writes what is being copied.
 *
 * An answer waits
 *	- while a copy that is current lacks the request: the keeper leaves the copy behind, or
 *	  fails the request;
 *	- while a generation of the set is not noted at its members (`due`);
 *	- while too few copies are ours for certain, by our own clock.
 * What ends with an error may be at some copies only: then nobody reads those bytes before the
 * keeper has made them the same (`torn`).
 *
 * Copies are counted as donors: bit i is donor i's.
 */
#ifndef WEFT_NBD_BRIDGE_LANE_COPIES_H
#define WEFT_NBD_BRIDGE_LANE_COPIES_H

#include "nbd-bridge/lane/lanes.h"
#include "nbd-bridge/lane/ranges.h"

enum {
	COPIES_CHUNK_SHIFT = 16, /* by so much a copy is behind, at least */
	COPIES_PAGE_SHIFT = 12,  /* so much a write has for itself, at least */
};

/* What the lanes share with the keeper.  Offsets are those of the donors' regions. */
struct lanes_copies {
	unsigned nr, nr_stripes;
	uint64_t part_bytes;
	struct ranges behind[BRIDGE_MAX_DONORS]; /* of each donor: what it may lack */
	struct ranges torn[BRIDGE_MAX_DONORS];   /* of each stripe: what may differ */
	_Atomic uint32_t forward[BRIDGE_MAX_DONORS]; /* donors that had the last that was torn */
	struct ranges taken[BRIDGE_MAX_DONORS];  /* of each stripe: what somebody has for himself */
	_Atomic uint64_t waiting; /* lanes, as bits, that wait for bytes that somebody has */
	/* of a stripe: what the keeper waits for, and nobody else takes; end 0: nothing */
	struct {
		_Atomic uint64_t off, end;
	} wanted[BRIDGE_MAX_DONORS];
	/* current copies that lack a request, or answered with an error, since the last look */
	_Atomic uint32_t failed;
	void (*kick)(void *ctx); /* wakes the keeper; any thread */
	void *ctx;
};

/* All lanes are there; part_bytes is known.  0, or -ENOMEM: then nothing is left. */
int lanes_copies_init(struct lanes_copies *shared, struct bridge_lanes *lanes, void (*kick)(void *),
	void *ctx);
void lanes_copies_fini(struct lanes_copies *shared);

/*
 * For the keeper: some bytes of a stripe for himself.  False: somebody has them.  want: from now on
 * nobody takes them before the keeper did, or wants none (len 0) any more.
 */
bool lanes_copies_take(struct lanes_copies *shared, unsigned stripe, uint64_t off, uint64_t len);
void lanes_copies_want(struct lanes_copies *shared, struct bridge_lanes *lanes, unsigned stripe,
	uint64_t off, uint64_t len);
void lanes_copies_give(struct lanes_copies *shared, struct bridge_lanes *lanes, unsigned stripe,
	uint64_t off, uint64_t len);

/* ---- the lane's thread ---- */

struct lane_copies_order {
	uint32_t live;    /* current */
	uint32_t joining; /* those of live that are not read yet */
	uint32_t targets; /* being made current: they get what changes data */
	uint32_t leave;   /* donors whose operations end: they are not current any more */
	uint32_t refuse;  /* stripes: what needs current copies that are gone fails at once */
	uint32_t fail;    /* donors: what waits for these to be left behind fails */
	bool due;         /* answers wait */
	/* from now on requests count as new ones: lane_copies_old_left() */
	bool turn;
};

/* A lane of an attachment with copies.  0, or -ENOMEM. */
int lane_copies_new(struct bridge_lane *lane);
void lane_copies_free(struct bridge_lane *lane);
/* From now on requests are carried out. */
void lane_copies_start(struct bridge_lane *lane, struct lanes_copies *shared);
void lane_copies_set(struct bridge_lane *lane, const struct lane_copies_order *order);
/* The search for a better way to a donor ends; a lost connection begins it anew. */
void lane_copies_end_scout(struct bridge_lane *lane, unsigned donor);
/* The link to a donor that has nothing of ours connects anew. */
void lane_copies_restart(struct bridge_lane *lane, unsigned donor);
/*
 * How many requests that change data are under way since before the last turn.  Any thread.  Before
 * the next turn there have to be none.
 */
uint32_t lane_copies_old_left(const struct bridge_lane *lane);
/* Whether the donor's answers are needed; without copies each one's are. */
bool lane_counts_donor(const struct bridge_lane *lane, unsigned donor);
/*
 * Sends a READ, WRITE or HASH to one donor, whatever it is to the lane; offsets are those of its
 * region.  It fails, and is not repeated, when the link is not ready, or is lost.
 */
void lane_submit_at(struct bridge_lane *lane, struct bridge_request *rq, unsigned donor);

#endif
