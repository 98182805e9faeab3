/* SPDX-License-Identifier: MIT */
/* Hashes of the donor's blocks, as commands of a handle; see hashes.h. */
#include "nbd-bridge/library/hashes.h"

#include "nbd-bridge/library/weft-private.h"

bool library_can_hash(const struct weft *w, uint32_t block_bytes)
{
	return w->info.max_hash_blocks > 0 && !w->has_cache &&
		(w->nr_uris == 1 || w->stripe_bytes % block_bytes == 0);
}

int64_t library_aio_hash(struct weft *w, const struct weft_hashing *hashing, uint64_t off,
	uint64_t len, uint8_t *ret, const struct weft_completion *completion)
{
	return aio_start(w, TP_HASH, ret, off, len, hashing, completion);
}
