/* SPDX-License-Identifier: MIT */
/*
 * What donors say of the copies of one device, or of one part of a striped one, taken together:
 * which copies are current, and whether a borrower may go on with them.  The rules are
 * tests/model/copies.pml's.  Nothing is chosen by time, or by who answers first.
 *
 * Copies count from 0 here; copy i is bit i of a set of copies, as on the wire.  Pure; any thread.
 */
#ifndef WEFT_NBD_BRIDGE_LINK_AGREE_H
#define WEFT_NBD_BRIDGE_LINK_AGREE_H

#include "fabric/copying.h"

/* A copy, and what its donor answered. */
struct agree_copy {
	bool answers; /* else the rest means nothing */
	uint64_t epoch;
	struct weft_copies_answer said;
};

/* What the bridge before has left in its state. */
struct agree_known {
	uint64_t set; /* 0: nothing, and the rest is 0 too */
	uint64_t term;
	uint32_t change;
	uint16_t members;
	uint64_t epochs[WEFT_COPIES_MAX]; /* of the members */
	uint32_t regions[WEFT_COPIES_MAX]; /* how often the copies got other regions */
};

enum agree_verdict {
	AGREE_GO_ON,     /* with the members, as a generation that is new */
	AGREE_MAKE,      /* nothing was ever written: all copies are the members of a new set */
	AGREE_WAIT,      /* copies that are silent may make the difference */
	AGREE_LOST,      /* all answer, and yet it is not known that enough copies are current */
	/* another borrower has the set now, or the state is an older one: what was known is over */
	AGREE_STALE,
	AGREE_USED,      /* there is no set yet, and `about` may have been written */
	AGREE_NOT_ALIKE, /* `about` is another copy, or of another set, than it is meant to be */
};

struct agree_answer {
	enum agree_verdict verdict;
	unsigned about; /* a copy, see above */
	/* WAIT, LOST: so many answers count, of so many that are needed; or of current copies */
	unsigned nr_count, nr_needed;
	bool of_current;
	uint16_t replaced; /* copies that answer, in whose place another region was to come since */
	/* GO_ON, MAKE */
	uint64_t set; /* 0: a new one is to be drawn */
	uint16_t members;
	/* copies that can be made from a member, to be one again */
	uint16_t targets;
	/*
	 * GO_ON: the members may differ in what was written last.  They are made the same as
	 * `source` before one of them is read.
	 */
	bool differ;
	unsigned source;
	/* GO_ON with what was known: the generation that is new */
	uint64_t term;
	uint32_t change;
	uint32_t regions[WEFT_COPIES_MAX]; /* GO_ON: as in agree_known */
};

/*
 * copies: count of them, from 2 to WEFT_COPIES_MAX, of which a generation has min at least.  known:
 * NULL, or the state.  Without it each copy that answers has to have taken the claim of a term
 * before it answered: that is the new generation's.
 */
void agree(const struct agree_copy *copies, unsigned count, unsigned min,
	const struct agree_known *known, struct agree_answer *ret);

/* A term that is higher than each that a donor knows. */
uint64_t agree_next_term(const struct agree_copy *copies, unsigned count);

/*
 * Whether the copy can be made anew from a member of the set, as nothing is lost by that: it is
 * this copy of this set, or of none, and nobody has written there who does not know of copies.
 */
bool agree_may_be_target(const struct weft_copies_answer *said, uint64_t set, unsigned index,
	unsigned count, unsigned min);

/* How often the copy had got another region when it noted that. */
static inline uint32_t agree_region(const struct weft_copies_answer *said, unsigned copy)
{
	return said->of.set ? weft_copies_region(said->of.count, said->regions, copy) : 0;
}

/* "2.1", or "none" for a copy that notes no generation, into ret of AGREE_GENERATION_MAX. */
enum { AGREE_GENERATION_MAX = 40 };
const char *agree_generation(const struct weft_copies_answer *said, char *ret);

#endif
