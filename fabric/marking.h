/* SPDX-License-Identifier: MIT */
/*
 * The mark of a region, as it is asked for: by which a follower knows that the contents are a state
 * that their writer meant, or that was in the file which they come from.
 *
 * A mark is a number that only goes up while the contents are the same.  Even: it is set, and
 * nothing was written since.  Odd: it is not.  What is read between two answers with the same even
 * number is the marked state.  Who may write raises it, to the next odd number, before a write, and
 * sets it afterwards, to the next even one; it says which odd number it was told, so that a mark is
 * not set after another has raised it (tests/model/marks.pml).
 *
 * A question about the mark travels as one for the hash of a block (hashing.h), and its answer as
 * that hash.  Pure functions; any thread.
 */
#ifndef WEFT_FABRIC_MARKING_H
#define WEFT_FABRIC_MARKING_H

#include <stdbool.h>
#include <stdint.h>

#include "fabric/hashing.h"

enum weft_mark_action {
	WEFT_MARK_ASK = 0,
	WEFT_MARK_RAISE = 1, /* to the next odd number */
	WEFT_MARK_SET = 2,   /* from the question's number to the next, which is even */
};

enum { WEFT_MARKS = 1 }; /* what is said above; another way would have another number */

struct weft_marking {
	uint8_t action;  /* enum weft_mark_action; not checked */
	uint64_t number; /* SET */
};

struct weft_marked {
	uint64_t number;
	uint64_t age_ms; /* since it was last set, or raised from an even number */
};

static inline bool weft_is_marked(uint64_t number)
{
	return number % 2 == 0;
}

/* The question, which is about a block of any bytes of the region, and the inverse. */
void weft_marking_pack(enum weft_mark_action action, uint64_t number, struct weft_hashing *ret);
void weft_marking_unpack(const struct weft_hashing *hashing, struct weft_marking *ret);
/* The answer, and the inverse. */
void weft_marked_pack(const struct weft_marked *marked, uint8_t ret[WEFT_HASH_BYTES]);
void weft_marked_unpack(const uint8_t answer[WEFT_HASH_BYTES], struct weft_marked *ret);

#endif
