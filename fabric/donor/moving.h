/* SPDX-License-Identifier: MIT */
/*
 * A region that moves from this donor to another, or has moved: who is let in meanwhile.  What two
 * donors say to each other, and what they note, is in fabric/move/; the rules are in tests/model/
 * (moves.pml).
 *
 *   tracked   the region is lent as ever, but not to those who cannot follow, nor to writers that
 *             this donor does not see.  Chunks that are written are noted.
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
	char to[WEFT_PLACE_MAX];
};

/*
 * Who holds the region and cannot follow: stock clients, hosts, kernels, older borrowers.  Their
 * names, with commas between, into text of size bytes, and their number; *ret_follow: how many can.
 */
unsigned weft_donor_who_cannot_follow(struct weft_donor *donor, const struct weft_region *region,
	char *text, size_t size, unsigned *ret_follow);

/*
 * Begins: the region is tracked, and all its sessions are ended once, so that their borrowers learn
 * of the move and their writes are seen.  disconnect: those who cannot follow lose it for good,
 * else they are a reason to refuse.  0; -EBUSY: it moves already, cannot be left by somebody, or a
 * session did not end in time; -EOPNOTSUPP: no memory region; -ENOMEM.
 */
int weft_donor_track(struct weft_donor *donor, struct weft_region *region,
	const struct weft_moving *moving, bool disconnect, struct weft_error *err);
/* 0; -ESTALE: that move is over, as the taker was silent, or there is no such; -EBUSY. */
int weft_donor_freeze(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err);
/*
 * Around the durable note that the region was given away: begin_giving() before the note is begun.
 * Then given(): it is noted; or not_given(): it is certain that no note says so.  Until one of the
 * two nobody is let in.  begin_giving: 0, also again; -ESTALE; -EBUSY: it is not frozen.
 */
int weft_donor_begin_giving(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err);
void weft_donor_given(struct weft_donor *donor, struct weft_region *region);
void weft_donor_not_given(struct weft_donor *donor, struct weft_region *region);
/* Goes on as before.  number 0: any.  0; -ESTALE; -EBUSY: it was given, or that is being noted. */
int weft_donor_unfreeze(struct weft_donor *donor, struct weft_region *region, uint64_t number,
	struct weft_error *err);
/* After a restart: the region, which was just added, was given away. */
int weft_donor_was_given(struct weft_donor *donor, struct weft_region *region,
	const struct weft_moving *moving);
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

#endif
