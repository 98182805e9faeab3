/* SPDX-License-Identifier: MIT */
/*
 * What a donor notes beside a region that is one of several copies of a device: which copies are
 * current, as the borrower that writes to them has it.  The rules are tests/model/copies.pml's.
 *
 * A set of copies has a generation: a term, which one borrower has claimed, and the number of that
 * borrower's change.  With each goes the set's members: the copies that are current.
 *
 * A question about the notes travels as one for the hashes of three blocks (hashing.h), and its
 * answer as these hashes.  The answer is what the donor has noted in the end; a donor that does not
 * take what it is asked to note answers as well, with what it had.  Pure functions; any thread.
 */
#ifndef WEFT_FABRIC_COPYING_H
#define WEFT_FABRIC_COPYING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/hashing.h"

enum {
	WEFT_COPIES_MAX = 16,      /* of a set */
	WEFT_COPIES_BYTES = WEFT_COPIES_BLOCKS * WEFT_HASH_BYTES, /* of an answer */
	WEFT_CLAIMER_BYTES = 8,    /* the beginning of an id's hash */
	WEFT_COPIES_MAKING = 1,    /* the change of term 0: a set that was never written */
};

enum weft_copies_action {
	WEFT_COPIES_ASK = 0,
	WEFT_COPIES_CLAIM = 1, /* the term */
	WEFT_COPIES_MAKE = 2,  /* the set is being made, under the term, of which all are members */
	WEFT_COPIES_NOTE = 3,  /* the generation and its members */
	WEFT_COPIES_END = 4,   /* of that generation: its borrower has said goodbye */
};

/* Which copy of which set a region is. */
struct weft_copy_of {
	uint64_t set; /* random; 0: of none, and the rest is 0 too */
	uint8_t index; /* from 1 */
	uint8_t count; /* from 2 to WEFT_COPIES_MAX */
	uint8_t min;   /* members that a generation has at least: from 1 to count */
};

struct weft_copies_asked {
	uint8_t action; /* enum weft_copies_action; not checked */
	struct weft_copy_of of; /* MAKE, NOTE, END */
	uint64_t term;
	uint32_t change;  /* NOTE, END */
	uint16_t members; /* NOTE; copy i is bit i - 1 */
	uint64_t regions; /* NOTE: as in weft_copies_answer */
};

/* As a region's header has it: its layout outlives the daemon. */
struct weft_copies {
	uint64_t set;
	uint64_t claimed; /* the highest term; 0: none was */
	uint64_t term;    /* of the generation that was noted last; with change 0: none was */
	uint8_t claimer[WEFT_CLAIMER_BYTES]; /* whose the claimed term is */
	uint32_t change;
	uint16_t members;
	uint8_t index, count, min; /* as in weft_copy_of */
	uint8_t ended;             /* 1: the borrower of that generation has said goodbye */
	uint8_t foreign;           /* 1: as in weft_copies_answer; also without a set */
	uint8_t unused[5];
	uint64_t regions; /* as in weft_copies_answer; the header has it apart */
};

enum { WEFT_COPIES_KEPT = 48 };
_Static_assert(offsetof(struct weft_copies, regions) == WEFT_COPIES_KEPT, "headers have it");

struct weft_copies_answer {
	struct weft_copy_of of;
	uint64_t claimed, term;
	uint32_t change;
	uint16_t members;
	/*
	 * How often each copy got another region than it had: of b = 64 / count bits each, copy
	 * i's are those from b * (i - 1) on.  A region that has noted another number of the copy
	 * that it is than the newest generation has is one that was replaced.
	 */
	uint64_t regions;
	bool ended;
	bool mine; /* the claimed term is the asker's */
	bool used; /* another attachment, or a stock client, has had these contents to write */
	bool foreign; /* … that does not know of copies */
};

/* Whether the numbers make sense; the set is not 0. */
bool weft_copy_of_valid(const struct weft_copy_of *of);
/* Whether they can be the members of a generation, of which a copy that notes it may be none. */
bool weft_copies_members_valid(const struct weft_copy_of *of, uint16_t members);
/* The numbers of regions, of which none is above the max, as they travel; and copy's, from 0. */
uint32_t weft_copies_regions_max(uint8_t count);
uint64_t weft_copies_regions_pack(uint8_t count, const uint32_t regions[WEFT_COPIES_MAX]);
uint32_t weft_copies_region(uint8_t count, uint64_t regions, unsigned copy);
/* Whether they can be those of a set of so many copies. */
bool weft_copies_regions_valid(uint8_t count, uint64_t regions);
/* All copies of a set of so many. */
static inline uint16_t weft_copies_all(uint8_t count)
{
	return (uint16_t)((1U << count) - 1);
}

/* The question, which is about any 8193 to 12288 bytes of the region, and the inverse. */
void weft_copies_ask_pack(const struct weft_copies_asked *asked, struct weft_hashing *ret);
void weft_copies_ask_unpack(const struct weft_hashing *hashing, struct weft_copies_asked *ret);
/* The answer, and the inverse, which trusts nothing: false: it makes no sense. */
void weft_copies_answer_pack(const struct weft_copies_answer *answer,
	uint8_t ret[WEFT_COPIES_BYTES]);
bool weft_copies_answer_unpack(const uint8_t bytes[WEFT_COPIES_BYTES],
	struct weft_copies_answer *ret);

#endif
