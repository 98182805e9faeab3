/* SPDX-License-Identifier: MIT */
/*
 * The facts that are kept as long as the contents: the table of generations, which has an entry for
 * each attachment, and the other fields of a memory header.  Threads: under the donor's lock.
 */
#include <stdlib.h>
#include <string.h>

#include <gnutls/crypto.h>
#include <systemd/sd-id128.h>

#include "fabric/base/util.h"
#include "fabric/hello.h"
#include "fabric/region/region-private.h"

_Static_assert((int)WEFT_ID_KEY_BYTES == (int)REGION_KEY_BYTES, "a move carries either");

/* As sd_id128_get_boot_app_specific(3) does, under another key than the boot's id. */
static void hash_under(const uint8_t key[WEFT_ID_KEY_BYTES], const uint8_t id[16], uint8_t ret[16])
{
	uint8_t digest[32];

	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, WEFT_ID_KEY_BYTES, id, 16, digest) < 0)
		abort(); /* no SHA-256 in the library */
	memcpy(ret, digest, 16);
	ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x40); /* the form of a random UUID: RFC 9562, 5.4 */
	ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
}

void weft_region_get_id_key(const struct weft_region *region, uint8_t *ret)
{
	sd_id128_t boot;

	if (region->backing == WEFT_BACKING_FILE) {
		memcpy(ret, region->note->key, WEFT_ID_KEY_BYTES);
		return;
	}
	if (region->header->has_id_key) {
		memcpy(ret, region->header->id_key, WEFT_ID_KEY_BYTES);
		return;
	}
	if (sd_id128_get_boot(&boot) < 0)
		abort(); /* without /proc nothing of this works */
	memcpy(ret, boot.bytes, WEFT_ID_KEY_BYTES);
}

void weft_region_set_id_key(struct weft_region *region, const uint8_t *key)
{
	if (region->backing == WEFT_BACKING_FILE) {
		memcpy(region->note->key, key, WEFT_ID_KEY_BYTES);
		return;
	}
	memcpy(region->header->id_key, key, WEFT_ID_KEY_BYTES);
	__atomic_store_n(&region->header->has_id_key, 1, __ATOMIC_SEQ_CST);
}

void weft_region_id_hash(const struct weft_region *region, const uint8_t id[16], uint8_t ret[16])
{
	uint8_t digest[32];
	sd_id128_t in, out;

	if (region->backing == WEFT_BACKING_FILE) {
		/*
		 * The key is kept beside the file, so the hash is the same on any machine and after
		 * any reboot.
		 */
		if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, region->note->key, REGION_KEY_BYTES, id, 16,
			    digest) < 0)
			abort(); /* no SHA-256 in the library */
		memcpy(ret, digest, 16);
		return;
	}
	if (region->header && region->header->has_id_key) {
		hash_under(region->header->id_key, id, ret);
		return;
	}
	memcpy(in.bytes, id, sizeof(in.bytes));
	/* HMAC-SHA256 under the boot's id: a region of memory does not outlive the boot either. */
	if (sd_id128_get_boot_app_specific(in, &out) < 0)
		abort(); /* without /proc nothing of this works */
	memcpy(ret, out.bytes, sizeof(out.bytes));
}

void weft_region_note_tenure(struct weft_region *region, uint64_t tenure)
{
	region->tenure = tenure;
	region->tenure_owner = region->owner_tenure = 0;
	region->turn++;
	if (region->header)
		region->header->tenure = tenure;
}

void weft_region_note_owner(struct weft_region *region, uint64_t owner, uint64_t owner_tenure)
{
	struct weft_region_header *header = region->header;

	region->tenure_owner = owner;
	region->owner_tenure = owner_tenure;
	region->turn++;
	if (!header)
		return;
	/* If the daemon is killed in between, the header has no owner. */
	__atomic_store_n(&header->owned_tenure, 0, __ATOMIC_SEQ_CST);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	header->tenure_owner = owner;
	header->owner_tenure = owner_tenure;
	__atomic_store_n(&header->owned_tenure, region->tenure, __ATOMIC_SEQ_CST);
}

void weft_region_note_stripe(struct weft_region *region, const struct weft_stripe *stripe)
{
	region->stripe = *stripe;
	if (!region->header)
		return;
	/* If the daemon is killed in between, the header has no stripe. */
	__atomic_store_n(&region->header->stripe.count, 0, __ATOMIC_SEQ_CST);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	region->header->stripe.index = stripe->index;
	region->header->stripe.unit_bytes = stripe->unit_bytes;
	__atomic_store_n(&region->header->stripe.count, stripe->count, __ATOMIC_SEQ_CST);
}

void weft_region_note_copies(struct weft_region *region, const struct weft_copies *copies)
{
	struct weft_region_header *header = region->header;

	region->copies = *copies;
	if (!header)
		return;
	const uint64_t at = header->copies_at == 1 ? 2 : 1;
	memcpy(header->copies[at - 1], copies, WEFT_COPIES_KEPT);
	header->copies_regions[at - 1] = copies->regions;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&header->copies_at, at, __ATOMIC_SEQ_CST);
}

void weft_region_note_lease(struct weft_region *region, uint32_t lease_ms)
{
	if (region->header && region->header->promised_lease_ms < lease_ms)
		region->header->promised_lease_ms = lease_ms;
}

/* A shared reader keeps nobody out, and goes on with any contents: it needs no entry. */
static bool may_forget(const struct weft_generation *gen)
{
	return gen->generation == 0 || gen->held == 0 || gen->held == 1 + WEFT_MODE_SHARED;
}

/*
 * Free entries come first, then those that hold nothing, then shared readers; of the same kind the
 * one that was not used for longest.
 */
static bool is_better_victim(const struct weft_generation *a, const struct weft_generation *b)
{
	if ((a->generation == 0) != (b->generation == 0))
		return a->generation == 0;
	if ((a->held == 0) != (b->held == 0))
		return a->held == 0;
	return a->last_used < b->last_used;
}

struct weft_generation *weft_region_generation(struct weft_region *region,
	const uint8_t id_hash[16], bool add)
{
	struct weft_generation *victim = NULL;
	uint64_t now = 0;

	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++)
		now = weft_max(now, region->generations[i].last_used);
	now++;
	for (unsigned i = 0; i < WEFT_NR_GENERATIONS; i++) {
		struct weft_generation *gen = &region->generations[i];

		if (gen->generation != 0 &&
			memcmp(gen->id_hash, id_hash, sizeof(gen->id_hash)) == 0) {
			gen->last_used = now;
			return gen;
		}
		if (may_forget(gen) && (!victim || is_better_victim(gen, victim)))
			victim = gen;
	}
	if (!add || !victim)
		return NULL;
	/* A daemon that is killed in between leaves a free entry. */
	*(volatile uint64_t *)&victim->generation = 0;
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(victim->id_hash, id_hash, sizeof(victim->id_hash));
	memset(victim->name, 0, sizeof(victim->name));
	victim->last_used = now;
	victim->lapsed = WEFT_NOT_LAPSED;
	victim->held = victim->flags = 0;
	atomic_signal_fence(memory_order_seq_cst);
	*(volatile uint64_t *)&victim->generation = 1;
	return victim;
}
