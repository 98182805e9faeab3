/* SPDX-License-Identifier: MIT */
/* A region's part of a striped device, as text.  Pure functions; any thread. */
#include "fabric/stripe.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool weft_stripe_valid(const struct weft_stripe *stripe)
{
	if (stripe->count == 0 || stripe->count > WEFT_STRIPE_MAX || stripe->index < 1 ||
		stripe->index > stripe->count)
		return false;
	return (stripe->unit_bytes == 0) == (stripe->count == 1);
}

bool weft_stripe_equal(const struct weft_stripe *a, const struct weft_stripe *b)
{
	return a->index == b->index && a->count == b->count && a->unit_bytes == b->unit_bytes;
}

const char *weft_stripe_format(const struct weft_stripe *stripe, char buf[WEFT_STRIPE_TEXT_MAX])
{
	snprintf(buf, WEFT_STRIPE_TEXT_MAX, "%" PRIu32 "/%" PRIu32 ":%" PRIu64, stripe->index,
		stripe->count, stripe->unit_bytes);
	return buf;
}

bool weft_stripe_parse(const char *text, size_t len, struct weft_stripe *ret)
{
	char copy[WEFT_STRIPE_TEXT_MAX], again[WEFT_STRIPE_TEXT_MAX];
	struct weft_stripe stripe;

	if (len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (sscanf(copy, "%5" SCNu32 "/%5" SCNu32 ":%20" SCNu64, &stripe.index, &stripe.count,
		    &stripe.unit_bytes) != 3 ||
		!weft_stripe_valid(&stripe))
		return false;
	/* There is one text for each: no signs, spaces or leading zeros, and nothing behind. */
	weft_stripe_format(&stripe, again);
	if (strlen(again) != len || memcmp(again, text, len) != 0)
		return false;
	*ret = stripe;
	return true;
}
