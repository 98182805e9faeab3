/* SPDX-License-Identifier: MIT */
/* Questions about copies, and their answers, as bytes; see copying.h. */
#include "fabric/copying.h"

#include <string.h>

#include "fabric/base/bytes.h"
#include "fabric/base/util.h"

enum { /* in the place of a key; the rest is zeros */
	ACTION_AT = 0, /* four bits, then the index, less one; */
	COUNT_AT = 1,  /* the count, less one, then min, less one */
	MEMBERS_AT = 2,
	CHANGE_AT = 4,
	SET_AT = 8,
	TERM_AT = 16,
	REGIONS_AT = 24,
};

enum { /* in an answer; the rest is zeros */
	ANSWER_SET_AT = 0,
	ANSWER_CLAIMED_AT = 8,
	ANSWER_TERM_AT = 16,
	ANSWER_CHANGE_AT = 24,
	ANSWER_MEMBERS_AT = 28,
	ANSWER_INDEX_AT = 30,
	ANSWER_COUNT_AT = 31,
	ANSWER_MIN_AT = 32,
	ANSWER_FLAGS_AT = 33,
	ANSWER_REGIONS_AT = 40,
};

enum { ENDED = 1, MINE = 2, USED = 4, FOREIGN = 8 };

bool weft_copy_of_valid(const struct weft_copy_of *of)
{
	return of->set && of->count >= 2 && of->count <= WEFT_COPIES_MAX && of->index >= 1 &&
		of->index <= of->count && of->min >= 1 && of->min <= of->count;
}

bool weft_copies_members_valid(const struct weft_copy_of *of, uint16_t members)
{
	return (members & ~weft_copies_all(of->count)) == 0 &&
		__builtin_popcount(members) >= of->min;
}

static unsigned region_bits(uint8_t count)
{
	return 64U / count;
}

uint32_t weft_copies_regions_max(uint8_t count)
{
	return (uint32_t)((UINT64_C(1) << region_bits(count)) - 1);
}

uint64_t weft_copies_regions_pack(uint8_t count, const uint32_t regions[WEFT_COPIES_MAX])
{
	uint64_t packed = 0;

	for (unsigned i = 0; i < count; i++)
		packed |= (uint64_t)regions[i] << region_bits(count) * i;
	return packed;
}

uint32_t weft_copies_region(uint8_t count, uint64_t regions, unsigned copy)
{
	return copy < count ? (uint32_t)(regions >> region_bits(count) * copy) &
				weft_copies_regions_max(count)
			    : 0;
}

bool weft_copies_regions_valid(uint8_t count, uint64_t regions)
{
	const unsigned bits = region_bits(count) * count;

	return bits == 64 || regions >> bits == 0;
}

void weft_copies_ask_pack(const struct weft_copies_asked *asked, struct weft_hashing *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->scheme = WEFT_COPIES_SCHEME;
	ret->block_bytes = WEFT_HASH_BLOCK_MIN;
	ret->key[ACTION_AT] = asked->action & 15;
	if (asked->of.set) {
		ret->key[ACTION_AT] |= (uint8_t)((asked->of.index - 1u) << 4);
		ret->key[COUNT_AT] =
			(uint8_t)((asked->of.count - 1u) | (asked->of.min - 1u) << 4);
	}
	weft_put16(ret->key + MEMBERS_AT, asked->members);
	weft_put64(ret->key + SET_AT, asked->of.set);
	weft_put64(ret->key + TERM_AT, asked->term);
	weft_put32(ret->key + CHANGE_AT, asked->change);
	weft_put64(ret->key + REGIONS_AT, asked->regions);
}

void weft_copies_ask_unpack(const struct weft_hashing *hashing, struct weft_copies_asked *ret)
{
	const uint8_t *key = hashing->key;
	const uint64_t set = weft_get64(key + SET_AT);

	*ret = (struct weft_copies_asked){
		.action = key[ACTION_AT] & 15,
		.term = weft_get64(key + TERM_AT),
		.change = weft_get32(key + CHANGE_AT),
		.members = weft_get16(key + MEMBERS_AT),
		.regions = weft_get64(key + REGIONS_AT),
	};
	if (set)
		ret->of = (struct weft_copy_of){.set = set,
			.index = (uint8_t)((key[ACTION_AT] >> 4) + 1),
			.count = (uint8_t)((key[COUNT_AT] & 15) + 1),
			.min = (uint8_t)((key[COUNT_AT] >> 4) + 1)};
}

void weft_copies_answer_pack(const struct weft_copies_answer *answer,
	uint8_t ret[WEFT_COPIES_BYTES])
{
	memset(ret, 0, WEFT_COPIES_BYTES);
	weft_put64(ret + ANSWER_SET_AT, answer->of.set);
	weft_put64(ret + ANSWER_CLAIMED_AT, answer->claimed);
	weft_put64(ret + ANSWER_TERM_AT, answer->term);
	weft_put32(ret + ANSWER_CHANGE_AT, answer->change);
	weft_put64(ret + ANSWER_REGIONS_AT, answer->regions);
	weft_put16(ret + ANSWER_MEMBERS_AT, answer->members);
	ret[ANSWER_INDEX_AT] = answer->of.index;
	ret[ANSWER_COUNT_AT] = answer->of.count;
	ret[ANSWER_MIN_AT] = answer->of.min;
	ret[ANSWER_FLAGS_AT] = (uint8_t)((answer->ended ? ENDED : 0) | (answer->mine ? MINE : 0) |
		(answer->used ? USED : 0) | (answer->foreign ? FOREIGN : 0));
}

bool weft_copies_answer_unpack(const uint8_t bytes[WEFT_COPIES_BYTES],
	struct weft_copies_answer *ret)
{
	const uint8_t flags = bytes[ANSWER_FLAGS_AT];
	const struct weft_copies_answer answer = {
		.of = {.set = weft_get64(bytes + ANSWER_SET_AT),
			.index = bytes[ANSWER_INDEX_AT],
			.count = bytes[ANSWER_COUNT_AT],
			.min = bytes[ANSWER_MIN_AT]},
		.claimed = weft_get64(bytes + ANSWER_CLAIMED_AT),
		.term = weft_get64(bytes + ANSWER_TERM_AT),
		.change = weft_get32(bytes + ANSWER_CHANGE_AT),
		.members = weft_get16(bytes + ANSWER_MEMBERS_AT),
		.regions = weft_get64(bytes + ANSWER_REGIONS_AT),
		.ended = flags & ENDED,
		.mine = flags & MINE,
		.used = flags & USED,
		.foreign = flags & FOREIGN,
	};

	if (answer.of.set ? !weft_copy_of_valid(&answer.of) ||
				!weft_copies_members_valid(&answer.of, answer.members) ||
				answer.term > answer.claimed ||
				!weft_copies_regions_valid(answer.of.count, answer.regions)
			  : answer.of.index || answer.of.count || answer.of.min || answer.term ||
				answer.change || answer.members || answer.regions || answer.ended)
		return false;
	*ret = answer;
	return true;
}
