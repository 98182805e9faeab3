/* SPDX-License-Identifier: MIT */
/*
 * Which part of a striped device a region is: the borrower says the part, and the donor keeps it
 * with the contents.
 *
 * As text, on the wire and in a file's mark: <index>/<count>:<unit in bytes>, such as "1/2:65536".
 * "1/1:0" is a region that is a whole device.  Pure functions; any thread.
 */
#ifndef WEFT_FABRIC_STRIPE_H
#define WEFT_FABRIC_STRIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WEFT_STRIPE_MAX = 65535, WEFT_STRIPE_TEXT_MAX = 40 };

struct weft_stripe {
	uint32_t index;      /* from 1 */
	/* at most WEFT_STRIPE_MAX; 1: the region is the whole device; 0: not known */
	uint32_t count;
	/* bytes that lie at one part before the next part has its turn; 0 with a count of 1 */
	uint64_t unit_bytes;
};

static const struct weft_stripe weft_stripe_whole = {.index = 1, .count = 1};

/* Whether the part is known, and its numbers make sense. */
bool weft_stripe_valid(const struct weft_stripe *stripe);
bool weft_stripe_equal(const struct weft_stripe *a, const struct weft_stripe *b);

/* Returns buf. */
const char *weft_stripe_format(const struct weft_stripe *stripe, char buf[WEFT_STRIPE_TEXT_MAX]);
/*
 * Parses text of len bytes, which is not trusted.  False, with *ret untouched: the text is not
 * exactly what weft_stripe_format() writes for a valid part.
 */
bool weft_stripe_parse(const char *text, size_t len, struct weft_stripe *ret);

#endif
