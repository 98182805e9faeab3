/* SPDX-License-Identifier: MIT */
/*
 * A region that moves from this donor to another, or has moved: who is let in meanwhile.  What two
 * donors say to each other, and what they note, is in fabric/move/; the rules are in tests/model/
 * (moves.pml).
 *
 *   tracked   the region is lent as ever, but not to those who cannot follow, nor to writers that
 *             this donor does not see and that do not say what they write.  Chunks that are written
 *             are noted.
 *             Welcomes say where the region goes.
 *   frozen    nobody but the taker's reader has a session, and nobody is granted one: MOVING.
 *   given     for good: everybody is told MOVED.
 *
 * Threads: any.  Those that end sessions wait for them, up to the fence timeout.
 */
#ifndef WEFT_FABRIC_DONOR_MOVING_H
#define WEFT_FABRIC_DONOR_MOVING_H

#include "fabric/donor/donor.h"

struct weft_moving {
	uint64_t number; /* of the move, random, never 0 */
	uint8_t reader[WEFT_ID_BYTES]; /* the taker's sessions have this id, and only read */
	bool fills; /* the taker serves before it has all: it reads after the region was given */
	char to[WEFT_PLACE_MAX];
};

/*
 * Who holds the region and cannot follow: stock clients, hosts, kernels, older borrowers.  Their
 * names, with commas between, into text of size bytes, and their number; *ret_follow: how many can.
 */
unsigned weft_donor_who_cannot_follow(struct weft_donor *donor, const struct weft_region *region,
	char *text, size_t size, unsigned *ret_follow);

/* Whether a region of its kind can move: 0, or -EOPNOTSUPP. */
int weft_donor_may_leave(struct weft_donor *donor, const struct weft_region *region,
	struct weft_error *err);
/*
 * Begins: the region is tracked, and all its sessions are ended once, so that their borrowers learn
 * of the move and their writes are seen.  disconnect: those who cannot follow lose it for good,
 * else they are a reason to refuse.  0; -EBUSY: it moves already, cannot be left by somebody, or a
 * session did not end in time; -EOPNOTSUPP: as above; -ENOMEM.
 */
int weft_donor_track(struct weft_donor *donor, struct weft_region *region,
	const struct weft_moving *moving, bool disconnect, struct weft_error *err);
/*
 * Writers wait so long for each MiB that they write; 0: not at all.  Those that write past this
 * process cannot be made to wait: their sessions end, and until the move is over they are refused
 * as those are that do not report.  0; -ESTALE.
 */
int weft_donor_hold_back(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	uint64_t pace_ns_per_mib, struct weft_error *err);
/* 0; -ESTALE: that move is over, as the taker was silent, or there is no such; -EBUSY. */
int weft_donor_freeze(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err);
/*
 * Around the durable note that the region was given away: begin_giving() before the note is begun.
 * Then given(): it is noted; or not_given(): no note says so, or, where that is not certain, one
 * may.  Nobody is let in before given(), or not_given() with certainty.  begin_giving: 0, also
 * again; -ESTALE; -EBUSY: it is not frozen.
 *
 * The move is the caller's in between, who alone decides about it, and may wait for a disk: others
 * who would do so wait for the end of that, and find what it has left.
 */
int weft_donor_begin_giving(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err);
void weft_donor_given(struct weft_donor *donor, struct weft_region *region, bool fills);
void weft_donor_not_given(struct weft_donor *donor, struct weft_region *region, bool certain);
/*
 * The same of a move by which the region was given away: it is the caller's until one of those
 * below that need it, or until unclaim(), where it stays as it is.  0; -ESTALE: it was not given by
 * that move.
 */
int weft_donor_claim_given(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err);
void weft_donor_unclaim(struct weft_donor *donor, struct weft_region *region);
/* Goes on as before.  number 0: any.  0; -ESTALE; -EBUSY: it was given, or that is being noted. */
int weft_donor_unfreeze(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err);
/* After a restart: the region, which was just added, was given away. */
int weft_donor_was_given(struct weft_donor *donor, struct weft_region *region,
	const struct weft_moving *moving);
/*
 * claim_given() first, and nothing is noted of the move any more: the taker never serves by it, and
 * the region is lent here again.
 */
void weft_donor_take_back(struct weft_donor *donor, struct weft_region *region);
/*
 * claim_given() first: the taker reads no more, as soon as this is over.  0; -EBUSY: its session
 * did not end in time, and it may read still.
 */
int weft_donor_keep_reader_out(struct weft_donor *donor, struct weft_region *region,
	struct weft_error *err);
/* … and then nothing came of it: it is given as before, with this epoch. */
void weft_donor_stays_given(struct weft_donor *donor, struct weft_region *region, uint64_t epoch,
	bool fills);
/*
 * claim_given() first, and the region has a new epoch by now: the taker is gone for good, and the
 * region is lent here again, as one whose contents were lost.
 */
void weft_donor_begin_anew(struct weft_donor *donor, struct weft_region *region);
/* The id of the move's reader, into ret of WEFT_ID_BYTES; false: there is no such move. */
bool weft_donor_get_reader(struct weft_donor *donor, const struct weft_region *region,
	uint64_t number, uint8_t *ret);
/* What goes on with a region, and by which move; no sign of life of anybody. */
enum weft_moving_state {
	WEFT_STAYS,
	WEFT_MOVES,        /* tracked, or frozen */
	WEFT_IS_GIVEN_NOW, /* begin_giving(), and neither of the two behind it yet */
	WEFT_WAS_GIVEN,
};
enum weft_moving_state weft_donor_moving_state(struct weft_donor *donor,
	const struct weft_region *region, uint64_t *ret_number);
/* Whether a region of this name was given away, and is kept here still. */
bool weft_donor_gave(struct weft_donor *donor, const char *name);
/*
 * Chunks that have changed since the last time, as weft_region_take_changes().  nr 0: only looks
 * whether they could be had.  The taker numbers its connections (turn), from 0: once it has asked
 * over one, a question of an earlier one is too late.  Nobody hears its answer, and the changes in
 * that would be lost.  0; -ESTALE: it is too late, or that move is over.  A sign of life of the
 * taker.
 */
int weft_donor_take_changes(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	uint64_t turn, uint64_t first, uint64_t nr, uint64_t *ret, struct weft_error *err);
/* Whether that move is under way, or was given; a sign of life of its taker. */
bool weft_donor_is_moving(struct weft_donor *donor, const struct weft_region *region,
	uint64_t number);

/* What the region's facts are that go with its contents; of the table only what holds or lapsed. */
struct weft_region_facts {
	uint8_t id_key[WEFT_ID_KEY_BYTES];
	uint32_t lease_ms; /* the longest that was promised */
	struct weft_stripe stripe;
	struct weft_generation table[WEFT_NR_GENERATIONS];
};
void weft_donor_facts(struct weft_donor *donor, const struct weft_region *region,
	struct weft_region_facts *ret);

/*
 * Names that are not lent here: with an epoch, contents that have moved to the place; with epoch 0
 * a region that is about to come, of which this place is told.  0; -ENOMEM.
 */
int weft_donor_elsewhere(struct weft_donor *donor, const char *name, uint64_t epoch,
	const char *place);
void weft_donor_not_elsewhere(struct weft_donor *donor, const char *name, uint64_t epoch);

/*
 * Everybody who uses the region loses it, and nobody is granted it any more; weft_donor_remove()
 * may follow.  0; -EBUSY: it moves, or a session did not end in time; then it is lent to nobody all
 * the same.
 */
int weft_donor_evict(struct weft_donor *donor, struct weft_region *region, struct weft_error *err);
/* It was not removed after all, and is granted again. */
void weft_donor_end_eviction(struct weft_donor *donor, struct weft_region *region);

#endif
