/* SPDX-License-Identifier: MIT */
/* Questions about marks, and their answers, as bytes; see marking.h. */
#include "fabric/marking.h"

#include <string.h>

#include "fabric/base/bytes.h"

enum { ACTION_AT = 0, NUMBER_AT = 8 }; /* in the place of a key; the rest is zeros */

void weft_marking_pack(enum weft_mark_action action, uint64_t number, struct weft_hashing *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->scheme = WEFT_MARK_SCHEME;
	ret->block_bytes = WEFT_HASH_BLOCK_MIN;
	ret->key[ACTION_AT] = (uint8_t)action;
	weft_put64(ret->key + NUMBER_AT, number);
}

void weft_marking_unpack(const struct weft_hashing *hashing, struct weft_marking *ret)
{
	ret->action = hashing->key[ACTION_AT];
	ret->number = weft_get64(hashing->key + NUMBER_AT);
}

void weft_marked_pack(const struct weft_marked *marked, uint8_t ret[WEFT_HASH_BYTES])
{
	weft_put64(ret, marked->number);
	weft_put64(ret + 8, marked->age_ms);
}

void weft_marked_unpack(const uint8_t answer[WEFT_HASH_BYTES], struct weft_marked *ret)
{
	ret->number = weft_get64(answer);
	ret->age_ms = weft_get64(answer + 8);
}
