/* SPDX-License-Identifier: MIT */
/* See ranges.h. */
#include "nbd-bridge/lane/ranges.h"

#include <errno.h>
#include <stdlib.h>

#include "fabric/base/util.h"

int ranges_init(struct ranges *ranges, uint64_t bytes, unsigned shift)
{
	const uint64_t nr = ((bytes - 1) >> shift) + 1;
	_Atomic uint64_t *bits = calloc(nr / 64 + 1, sizeof(*bits));

	if (!bits)
		return -ENOMEM;
	ranges->shift = shift;
	ranges->nr = nr;
	ranges->bits = bits;
	atomic_store(&ranges->nr_set, 0);
	return 0;
}

void ranges_fini(struct ranges *ranges)
{
	free((void *)ranges->bits);
	ranges->bits = NULL;
}

/* The bits of one word between two bits, which may lie outside of it. */
static uint64_t mask_of(uint64_t word, uint64_t first, uint64_t last)
{
	const uint64_t low = first > word * 64 ? first - word * 64 : 0,
		       high = last < word * 64 + 63 ? last - word * 64 : 63;

	return (UINT64_MAX >> (63 - high)) & (UINT64_MAX << low);
}

void ranges_set(struct ranges *ranges, uint64_t off, uint64_t len)
{
	const uint64_t first = off >> ranges->shift, last = (off + len - 1) >> ranges->shift;

	for (uint64_t w = first / 64; w <= last / 64; w++) {
		uint64_t mask = mask_of(w, first, last);
		uint64_t was = atomic_load(&ranges->bits[w]) & mask;

		/* Who writes the same bytes again and again finds them set. */
		if (was == mask)
			continue;
		/* At first: a set that has a bit is never said to be empty. */
		atomic_fetch_add(&ranges->nr_set, (unsigned)__builtin_popcountll(mask));
		was = atomic_fetch_or(&ranges->bits[w], mask);
		atomic_fetch_sub(&ranges->nr_set, (unsigned)__builtin_popcountll(mask & was));
	}
}

void ranges_clear(struct ranges *ranges, uint64_t off, uint64_t len)
{
	const uint64_t first = off >> ranges->shift, last = (off + len - 1) >> ranges->shift;

	for (uint64_t w = first / 64; w <= last / 64; w++) {
		uint64_t mask = mask_of(w, first, last);
		uint64_t was = atomic_fetch_and(&ranges->bits[w], ~mask);

		atomic_fetch_sub(&ranges->nr_set, (unsigned)__builtin_popcountll(mask & was));
	}
}

bool ranges_has_any(const struct ranges *ranges, uint64_t off, uint64_t len)
{
	const uint64_t first = off >> ranges->shift, last = (off + len - 1) >> ranges->shift;

	for (uint64_t w = first / 64; w <= last / 64; w++)
		if (atomic_load(&ranges->bits[w]) & mask_of(w, first, last))
			return true;
	return false;
}

bool ranges_take(struct ranges *ranges, uint64_t off, uint64_t len)
{
	const uint64_t first = off >> ranges->shift, last = (off + len - 1) >> ranges->shift;

	for (uint64_t w = first / 64; w <= last / 64; w++) {
		const uint64_t mask = mask_of(w, first, last);
		uint64_t was = atomic_load(&ranges->bits[w]);

		while (!(was & mask) &&
			!atomic_compare_exchange_weak(&ranges->bits[w], &was, was | mask))
			;
		if (!(was & mask))
			continue;
		if (w > first / 64)
			ranges_give(ranges, off, (w << (ranges->shift + 6)) - off);
		return false;
	}
	return true;
}

void ranges_give(struct ranges *ranges, uint64_t off, uint64_t len)
{
	const uint64_t first = off >> ranges->shift, last = (off + len - 1) >> ranges->shift;

	for (uint64_t w = first / 64; w <= last / 64; w++)
		atomic_fetch_and(&ranges->bits[w], ~mask_of(w, first, last));
}

static bool is_set(const struct ranges *ranges, uint64_t bit)
{
	return atomic_load(&ranges->bits[bit / 64]) >> bit % 64 & 1;
}

bool ranges_next(const struct ranges *ranges, uint64_t from, uint64_t max, uint64_t bytes,
	uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t bit = from >> ranges->shift;

	while (bit < ranges->nr && !is_set(ranges, bit))
		bit = bit % 64 == 0 && atomic_load(&ranges->bits[bit / 64]) == 0 ? bit + 64
										   : bit + 1;
	if (bit >= ranges->nr)
		return false;
	const uint64_t off = bit << ranges->shift;
	uint64_t end = bit + 1;
	while (end < ranges->nr && ((end + 1 - bit) << ranges->shift) <= max && is_set(ranges, end))
		end++;
	*ret_off = off;
	*ret_len = weft_min(end << ranges->shift, bytes) - off;
	return true;
}
