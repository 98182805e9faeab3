/* SPDX-License-Identifier: MIT */
/*
 * A lane's part of a seal: runs of blocks, and their rows.  One thread's; allocates nothing once it
 * is made.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/base/util.h"
#include "nbd-bridge/cache/seal-disk.h"

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

int sealer_seal(struct sealer *sealer, uint64_t first, const void *from, void *to, size_t len,
	struct seal_row *rows)
{
	struct seal *seal = sealer->seal;
	struct seal_row *row = rows ? rows : &seal->rows[first];
	const uint64_t nr = (len + SEAL_BLOCK - 1) / SEAL_BLOCK;
	struct seal_place place = {.block = first, .salt = seal->own_salt};

	place.counter = atomic_fetch_add_explicit(&seal->counter, nr, memory_order_relaxed) + 1;
	for (size_t at = 0; at < len; at += SEAL_BLOCK, place.block++, place.counter++, row++) {
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

static struct seal_place place_of(uint64_t block, uint64_t nonce)
{
	return (struct seal_place){
		.block = block,
		.salt = (uint32_t)(nonce >> SEAL_COUNTER_BITS),
		.counter = nonce & ((UINT64_C(1) << SEAL_COUNTER_BITS) - 1),
	};
}

static int open_as(struct sealer *sealer, uint64_t block, uint64_t nonce,
	const uint8_t tag[SEAL_TAG_BYTES], void *bytes, size_t len)
{
	const struct seal_place place = place_of(block, nonce);

	return nonce && place.salt < sealer->nr
		? seal_cipher_open(sealer->ciphers[place.salt], &place, bytes, len, tag)
		: -EBADMSG;
}

static int open_one(struct sealer *sealer, uint64_t block, void *bytes, size_t len)
{
	const struct seal_row *row = &sealer->seal->rows[block];
	const uint64_t nonce =
		atomic_load_explicit(&row->nonce, memory_order_relaxed) & ~SEAL_KNOWN_BAD;

	return open_as(sealer, block, nonce, row->tag, bytes, len);
}

/* From the newest on, as later bytes replace earlier ones; then the table's. */
int sealer_tell(struct sealer *sealer, uint64_t block, const void *bytes, size_t len)
{
	struct seal *seal = sealer->seal;
	const struct seal_entry *entry = seal_newest_doubt(seal, block);
	uint8_t copy[SEAL_BLOCK];

	for (; entry; entry = seal_older_doubt(seal, entry)) {
		memcpy(copy, bytes, len);
		if (open_as(sealer, block, entry->nonce, entry->tag, copy, len) == 0) {
			seal_take_doubt(seal, entry);
			return 0;
		}
	}
	if (seal_is_zero(seal, block))
		return 0;
	memcpy(copy, bytes, len);
	return open_one(sealer, block, copy, len);
}

static int seal_again(struct sealer *sealer, uint64_t block, uint64_t nonce,
	const uint8_t tag[SEAL_TAG_BYTES], const void *from, void *to, size_t len)
{
	const struct seal_place place = place_of(block, nonce);
	uint8_t made[SEAL_TAG_BYTES];

	if (place.salt >= sealer->nr ||
		seal_cipher_seal(sealer->ciphers[place.salt], &place, from, to, len, made) < 0)
		return -EBADMSG;
	return memcmp(made, tag, sizeof(made)) == 0 ? 0 : -EBADMSG;
}

/* What is sealed under a nonce for the second time is dropped, unless it is the same. */
int sealer_tell_again(struct sealer *sealer, uint64_t block, void *bytes, size_t len)
{
	struct seal *seal = sealer->seal;
	const struct seal_row *row = &seal->rows[block];
	const struct seal_entry *entry = seal_newest_doubt(seal, block);
	uint8_t made[SEAL_BLOCK + SEAL_TAG_BYTES];
	int r = -EBADMSG;

	for (; entry && r < 0; entry = seal_older_doubt(seal, entry)) {
		r = seal_again(sealer, block, entry->nonce, entry->tag, bytes, made, len);
		if (r == 0)
			seal_take_doubt(seal, entry);
	}
	if (r < 0)
		r = seal_again(sealer, block, row->nonce & ~SEAL_KNOWN_BAD, row->tag, bytes, made,
			len);
	if (r == 0 && seal->kind == SEAL_ENCRYPT)
		memcpy(bytes, made, len);
	explicit_bzero(made, sizeof(made));
	return r;
}

void sealer_give_up(struct sealer *sealer, uint64_t block)
{
	const struct seal_entry *newest = seal_newest_doubt(sealer->seal, block);

	if (newest)
		seal_take_doubt(sealer->seal, newest);
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
