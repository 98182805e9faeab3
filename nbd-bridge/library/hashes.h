/* SPDX-License-Identifier: MIT */
/*
 * What weft's own programs ask of a libweft handle, and its API does not have: hashes of the
 * donor's blocks.  Threads: as weft.h says.
 */
#ifndef WEFT_NBD_BRIDGE_LIBRARY_HASHES_H
#define WEFT_NBD_BRIDGE_LIBRARY_HASHES_H

#include <stdbool.h>
#include <stdint.h>

struct weft;
struct weft_completion;
struct weft_hashing;

/*
 * Whether hashes of blocks of so many bytes can be asked for: every donor can make them, there is
 * no cache, and no block lies at two donors.
 */
bool library_can_hash(const struct weft *w, uint32_t block_bytes);

/*
 * Begins to ask for the hashes of len > 0 bytes at off, which go to ret, weft_hash_nr_blocks() of
 * them.  hashing is copied, and weft_hashing_valid() for a part of len.  With several donors off is
 * a multiple of a block.  As weft_aio_pread(); also -EOPNOTSUPP as a result.
 */
int64_t library_aio_hash(struct weft *w, const struct weft_hashing *hashing, uint64_t off,
	uint64_t len, uint8_t *ret, const struct weft_completion *completion);

/*
 * Calls fn, which begins commands of the handle: they are sent together when fn returns.  fn must
 * not block.  Not inside a completion.
 */
void library_batch(struct weft *w, void (*fn)(void *ctx), void *ctx);

#endif
