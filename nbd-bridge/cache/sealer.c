/* SPDX-License-Identifier: MIT */
/*
 * A lane's part of a seal: runs of blocks, and their rows.  One thread's; allocates nothing once it
 * is made.
 */
#include <errno.h>
#include <stdlib.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-private.h"

struct sealer {
	struct seal *seal;
	struct seal_cipher **ciphers; /* under each salt */
	unsigned nr;
};

static void drop_keys(struct sealer *sealer)
{
	for (unsigned i = 0; i < sealer->nr; i++)
		seal_cipher_free(sealer->ciphers[i]);
	free(sealer->ciphers);
	sealer->ciphers = NULL;
	sealer->nr = 0;
}

int sealer_take_keys(struct sealer *sealer, struct weft_error *err)
{
	const struct seal *seal = sealer->seal;
	int r = 0;

	drop_keys(sealer);
	sealer->ciphers = calloc(seal->nr_salts, sizeof(sealer->ciphers[0]));
	if (!sealer->ciphers)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	for (; sealer->nr < seal->nr_salts && r == 0; sealer->nr++)
		r = seal_cipher_new(&seal->context, seal->keys[sealer->nr],
			&sealer->ciphers[sealer->nr]);
	return r < 0 ? weft_error_set(err, -r, "cannot seal: GnuTLS cannot begin %s",
			       seal_algorithm_name(seal->context.algorithm))
		     : 0;
}

int sealer_new(struct seal *seal, struct sealer **ret, struct weft_error *err)
{
	struct sealer *sealer = calloc(1, sizeof(*sealer));

	if (!sealer)
		return weft_error_set(err, ENOMEM, "cannot seal: out of memory");
	sealer->seal = seal;
	int r = sealer_take_keys(sealer, err);
	if (r < 0) {
		sealer_free(sealer);
		return r;
	}
	*ret = sealer;
	return 0;
}

void sealer_free(struct sealer *sealer)
{
	if (!sealer)
		return;
	drop_keys(sealer);
	free(sealer);
}

int sealer_seal(struct sealer *sealer, uint64_t first, const void *from, void *to, size_t len)
{
	struct seal *seal = sealer->seal;
	const uint64_t nr = (len + SEAL_BLOCK - 1) / SEAL_BLOCK;
	struct seal_place place = {.block = first, .salt = seal->own_salt};

	place.counter = atomic_fetch_add_explicit(&seal->counter, nr, memory_order_relaxed) + 1;
	for (size_t at = 0; at < len; at += SEAL_BLOCK, place.block++, place.counter++) {
		struct seal_row *row = &seal->rows[place.block];
		int r = seal_cipher_seal(sealer->ciphers[place.salt], &place,
			(const uint8_t *)from + at, to ? (uint8_t *)to + at : NULL,
			weft_min(SEAL_BLOCK, len - at), row->tag);

		if (r < 0)
			return r;
		atomic_store_explicit(&row->nonce,
			(uint64_t)place.salt << SEAL_COUNTER_BITS | place.counter,
			memory_order_relaxed);
	}
	return 0;
}

static int open_one(struct sealer *sealer, uint64_t block, void *bytes, size_t len)
{
	const struct seal_row *row = &sealer->seal->rows[block];
	const uint64_t nonce =
		atomic_load_explicit(&row->nonce, memory_order_relaxed) & ~SEAL_KNOWN_BAD;
	const struct seal_place place = {
		.block = block,
		.salt = (uint32_t)(nonce >> SEAL_COUNTER_BITS),
		.counter = nonce & ((UINT64_C(1) << SEAL_COUNTER_BITS) - 1),
	};

	return nonce && place.salt < sealer->nr
		? seal_cipher_open(sealer->ciphers[place.salt], &place, bytes, len, row->tag)
		: -EBADMSG;
}

int sealer_open(struct sealer *sealer, uint64_t first, void *bytes, size_t len,
	struct cache_map *ret_bad)
{
	int r = 0;

	*ret_bad = (struct cache_map){0};
	for (size_t at = 0; at < len; at += SEAL_BLOCK) {
		const unsigned i = (unsigned)(at / SEAL_BLOCK);

		if (open_one(sealer, first + i, (uint8_t *)bytes + at,
			    weft_min(SEAL_BLOCK, len - at)) == 0)
			continue;
		seal_note_bad(sealer->seal, first + i);
		cache_map_set(ret_bad, i, 1);
		r = -EIO;
	}
	return r;
}
